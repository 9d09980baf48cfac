"""Where the network looked: a heat map over the crop, and its shares on the eyes and on the mouth.

A genuine smile shows in the eyes (AU6, *orbicularis oculi*) as well as in the mouth (AU12, *zygomatic major*).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from hf_smile.errors import SmileModelError
from hf_smile.inference.classifier import ImageInput, SmileClassifier, load_image
from hf_smile.inference.runtimes import TorchRuntime

_SMALLEST_MAP = 8


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
    """Heat maps by HiResCAM.

    HiResCAM is gradient times activation, summed over the channels of a feature map. Grad-CAM averages the gradients
    first, and can therefore highlight places that the network did not use. An explainer copies the network, because
    captum adds hooks to it, and must not be shared between threads. Source: Draelos & Carin (2020), "Use HiResCAM
    instead of Grad-CAM for faithful explanations".

    Args:
        classifier: a classifier with the runtime `torch`; any timm network with feature maps.

    Raises:
        SmileModelError: the classifier runs on ONNX, or its network has no feature map.

    >>> explainer = Explainer(classifier)  # doctest: +SKIP
    >>> explainer("face.jpg").upper_share  # doctest: +SKIP
    0.61
    """

    def __init__(self, classifier: SmileClassifier) -> None:
        from captum.attr import LayerGradientXActivation

        if not isinstance(classifier.runtime, TorchRuntime):
            raise SmileModelError("explanations need gradients: load the model with runtime='torch'")
        self.classifier = classifier
        self.device = classifier.runtime.device
        network = copy.deepcopy(classifier.runtime.model).eval().requires_grad_(False)
        size = (classifier.preprocess.height, classifier.preprocess.width)
        layer, self._channel_axis = feature_layer(network.timm_model, size)
        self._attribution = LayerGradientXActivation(lambda inputs: network(pixel_values=inputs).logits, layer)

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
        inputs = torch.from_numpy(pixel_values)[None].to(self.device).requires_grad_(True)
        with torch.enable_grad():
            maps = self._attribution.attribute(inputs, labels.names.index(label)).detach()
        maps = maps.sum(dim=self._channel_axis)[:, None].clamp_min(0)
        maps = nn.functional.interpolate(maps, inputs.shape[2:], mode="bilinear", align_corners=False)
        heat = maps[0, 0].float().cpu().numpy()
        largest = heat.max()
        heat = heat / largest if largest > 0 else heat
        return Explanation(label, heat, self.classifier.preprocess.visible(pixel_values), pixel_values)


def explain(classifier: SmileClassifier, image: ImageInput, label: str | None = None) -> Explanation:
    """Heat map of one face crop: `Explainer(classifier)(image, label)`.

    >>> explain(classifier, "face.jpg").overlay().save("heat.png")  # doctest: +SKIP
    """
    return Explainer(classifier)(image, label)


def feature_layer(timm_model: Any, size: tuple[int, int]) -> tuple[nn.Module, int]:
    """The last stage of timm's `feature_info` whose map has at least 8 x 8 pixels, and its channel axis.

    Everything the network computes passes through the end of a stage, while a layer inside a stage would miss the
    shortcut. Coarser maps, as at the end of most networks, can't distinguish the eyes from the mouth.

    Raises:
        SmileModelError: no stage outputs a map, as in a vision transformer.
    """
    stages = {
        timm_model.get_submodule(one["module"]): one["num_chs"] for one in getattr(timm_model, "feature_info", ())
    }
    found: list[tuple[int, nn.Module, int]] = []

    def remember(stage: nn.Module, _: object, output: object) -> None:
        channels = stages[stage]
        if isinstance(output, torch.Tensor) and output.ndim == 4 and channels in (output.shape[1], output.shape[3]):
            axis = 1 if output.shape[1] == channels else 3
            found.append((min(output.shape[2:] if axis == 1 else output.shape[1:3]), stage, axis))

    hooks = [stage.register_forward_hook(remember) for stage in stages]
    try:
        with torch.inference_mode():
            timm_model(next(timm_model.parameters()).new_zeros(1, 3, *size))
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise SmileModelError(f"{type(timm_model).__name__} has no feature map to explain; heat maps are for CNNs")
    fine = [one for one in found if one[0] >= _SMALLEST_MAP] or found[:1]
    return fine[-1][1:]


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
