"""Where the network looked: a heat map over the crop, and its shares on the eyes and on the mouth.

A genuine smile shows in the eyes (AU6, *orbicularis oculi*) as well as in the mouth (AU12, *zygomatic major*).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.Image import Resampling

from hf_smile.inference.classifier import ImageInput, SmileClassifier, load_image
from hf_smile.inference.runtimes import TorchRuntime

if TYPE_CHECKING:
    from hf_smile.inference.hirescam import HiResCam

_GRID = 8  # places to cover in each direction
_LEAST_DROP = 0.001  # of a probability; the results of a runtime for the same image differ by less


@dataclass(frozen=True)
class Explanation:
    """A heat map with the class and the image it explains."""

    label: str
    """The class whose score the map explains."""
    heat: NDArray[np.float32]
    """(H, W), 0 to 1, over the network's input; all 0 if nothing supports the class."""
    image: Image.Image
    """The network's input as an image: the crop, resized to W x H."""
    pixel_values: NDArray[np.float32]
    """(3, H, W), the network's input."""
    drop: float | None
    """Probability that the class loses when the hottest place is covered; None if the method is HiResCAM."""

    @property
    def method(self) -> str:
        """How the map was computed: `HiResCAM` or `occlusion`."""
        return "HiResCAM" if self.drop is None else "occlusion"

    @property
    def upper_share(self) -> float:
        """Share of the heat on the upper half of the crop, where the eyes are; 0.5 if there is no heat."""
        total = float(self.heat.sum())
        rows = np.linspace(0, 1, 2 * len(self.heat) + 1)[1::2]  # an odd middle row is split between both halves
        weights = np.where(np.isclose(rows, 0.5), 0.5, rows < 0.5)
        return float((self.heat.sum(axis=1) * weights).sum()) / total if total else 0.5

    @property
    def lower_share(self) -> float:
        """Share of the heat on the lower half of the crop, where the mouth is."""
        return 1 - self.upper_share

    def overlay(self) -> Image.Image:
        """The crop with the heat map over it, W x H."""
        from matplotlib import colormaps

        colors = (255 * colormaps["inferno"](self.heat)[..., :3]).astype(np.uint8)
        return Image.blend(self.image, Image.fromarray(colors), 0.5)


class Explainer:
    """Heat maps by HiResCAM if the classifier runs on torch, otherwise by occlusion.

    HiResCAM needs one backward pass of the network (`hf_smile.inference.hirescam`). Occlusion needs nothing but
    predictions, 65 of them, and explains any network (`occlusion`). An explainer must not be shared between threads.

    Args:
        classifier: any classifier. On torch, its network must have feature maps, as all CNNs have.

    Raises:
        SmileModelError: the classifier runs on torch, and its network has no feature map.

    >>> explainer = Explainer(classifier)  # doctest: +SKIP
    >>> explainer("face.jpg").upper_share  # doctest: +SKIP
    0.61
    """

    def __init__(self, classifier: SmileClassifier) -> None:
        self.classifier = classifier
        self._hirescam: HiResCam | None = None
        if isinstance(classifier.runtime, TorchRuntime):
            from hf_smile.inference.hirescam import HiResCam  # imports torch

            self._hirescam = HiResCam(classifier.runtime, (classifier.preprocess.height, classifier.preprocess.width))

    def __call__(self, image: ImageInput, label: str | None = None) -> Explanation:
        """Explain one face crop.

        Args:
            image: as for `SmileClassifier.predict`.
            label: the class to explain; None for the predicted class.

        Raises:
            TypeError, ValueError: as for `SmileClassifier.predict`, or the label is unknown.
            SmileDataError: the image can't be read.
        """
        labels = self.classifier.labels
        if label is not None and label not in labels.names:
            raise ValueError(f"unknown label {label!r}; choose one of {labels}")
        pixel_values = self.classifier.preprocess(load_image(image))
        if label is None:
            label = labels[int(self.classifier.probabilities(pixel_values[None]).argmax())]
        label_id, drop = labels.names.index(label), None
        if self._hirescam:
            heat = self._hirescam(pixel_values, label_id)
        else:
            drops = occlusion(self.classifier, pixel_values, label_id)
            drops[drops < _LEAST_DROP] = 0
            drop = float(drops.max())
            height, width = pixel_values.shape[1:]
            heat = np.asarray(Image.fromarray(drops.astype(np.float32)).resize((width, height), Resampling.BILINEAR))
        largest = heat.max()
        heat = heat / largest if largest > 0 else heat
        return Explanation(label, heat, self.classifier.preprocess.visible(pixel_values), pixel_values, drop)


def explain(classifier: SmileClassifier, image: ImageInput, label: str | None = None) -> Explanation:
    """Heat map of one face crop: `Explainer(classifier)(image, label)`.

    >>> explain(classifier, "face.jpg").overlay().save("heat.png")  # doctest: +SKIP
    """
    return Explainer(classifier)(image, label)


def occlusion(classifier: SmileClassifier, pixel_values: NDArray[np.float32], label_id: int) -> NDArray[np.float64]:
    """Probability that a class loses when a part of the image is covered.

    A patch of the image's mean colour, a quarter as wide and as high as the image, covers 8 x 8 overlapping places, one
    at a time. Source: Zeiler & Fergus (2014), "Visualizing and Understanding Convolutional Networks".

    Args:
        classifier: any classifier.
        pixel_values: (3, H, W), input of the network.
        label_id: the class.

    Returns:
        (8, 8) differences of probabilities by place, row by row; negative where covering it speaks for the class.

    >>> occlusion(classifier, classifier.preprocess(face), label_id=1).argmax()  # doctest: +SKIP
    52
    """
    mean = pixel_values.mean(axis=(1, 2), keepdims=True)
    rows, columns = (_overlapping(side) for side in pixel_values.shape[1:])
    remaining = []
    for row in rows:  # batches of 8 images limit the memory
        covered = np.stack([pixel_values] * len(columns))
        for image, column in zip(covered, columns, strict=True):
            image[:, row, column] = mean
        remaining.append(classifier.probabilities(covered)[:, label_id])
    return classifier.probabilities(pixel_values[None])[0, label_id] - np.array(remaining)


def _overlapping(side: int) -> list[slice]:
    """Divide a side into `_GRID` cells, and extend each by half a cell at both ends, as far as the image reaches."""
    edges = np.linspace(0, side, 2 * _GRID + 1).round().astype(int).tolist()
    return [slice(edges[max(start - 1, 0)], edges[min(start + 3, 2 * _GRID)]) for start in range(0, 2 * _GRID, 2)]


def deletion_curve(
    classifier: SmileClassifier, explanation: Explanation, pixels: NDArray[np.integer], steps: int = 10
) -> NDArray[np.float64]:
    """Probability of the explained class while pixels are deleted (Petsiuk et al., 2018, "RISE").

    Args:
        classifier: as for `explain`.
        explanation: explanation of the image to delete from.
        pixels: (H * W,) indices in the order of deletion, for example the hottest first:
            `heat.ravel().argsort()[::-1]`.
        steps: number of deletion steps of equal size.

    Returns:
        (steps + 1,) probabilities, from the complete image to none of it. Deleted pixels get the image's mean colour.

    >>> deletion_curve(classifier, explanation, explanation.heat.ravel().argsort()[::-1])[-1]  # doctest: +SKIP
    0.34
    """
    shown = np.stack([explanation.pixel_values] * (steps + 1))
    flat = shown.reshape(steps + 1, 3, -1)
    mean = flat[0].mean(axis=1, keepdims=True)
    for step in range(1, steps + 1):
        flat[step][:, pixels[: round(len(pixels) * step / steps)]] = mean
    return classifier.probabilities(shown)[:, classifier.labels.names.index(explanation.label)]
