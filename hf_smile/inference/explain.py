"""Where the network looked: a heat map over the crop, and how much of it lies on the eyes and on the mouth.

A genuine smile is told by the eyes (AU6, *orbicularis oculi*) as well as by the mouth (AU12, *zygomatic major*).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from captum.attr import LayerGradCam
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from hf_smile.errors import SmileModelError
from hf_smile.inference.classifier import ImageInput, SmileClassifier, load_image
from hf_smile.inference.runtimes import TorchRuntime
from hf_smile.labels import LABEL_NAMES

_SMALLEST_MAP = 4


@dataclass(frozen=True)
class Explanation:
    """A heat map, and what it is about."""

    label: str
    """The class whose score the map explains."""
    heat: NDArray[np.float32]
    """(H, W), 0 to 1, over the network's input; 0 everywhere where nothing speaks for the class."""
    image: Image.Image
    """What the network saw: the crop, resized to W x H."""

    @property
    def upper_share(self) -> float:
        """Share of the heat on the upper half of the crop, where the eyes are; 0.5 where there is no heat at all."""
        total = float(self.heat.sum())
        rows = np.linspace(0, 1, 2 * len(self.heat) + 1)[1::2]  # an odd middle row counts half to either side
        weights = np.where(np.isclose(rows, 0.5), 0.5, rows < 0.5)
        return float((self.heat.sum(axis=1) * weights).sum()) / total if total else 0.5

    @property
    def lower_share(self) -> float:
        """Share of the heat on the lower half of the crop, where the mouth is."""
        return 1 - self.upper_share

    def overlay(self) -> Image.Image:
        """The crop with the heat over it, W x H."""
        from matplotlib import colormaps

        colors = (255 * colormaps["inferno"](self.heat)[..., :3]).astype(np.uint8)
        return Image.blend(self.image, Image.fromarray(colors), 0.5)


def explain(classifier: SmileClassifier, image: ImageInput, label: str | None = None) -> Explanation:
    """Grad-CAM (Selvaraju et al., 2017) of a face crop at the last feature map of the network.

    Grad-CAM passes the sanity checks that guided backpropagation fails (Adebayo et al., 2018, "Sanity Checks for
    Saliency Maps"): it depends on the weights that were learned.

    Args:
        classifier: on the runtime `torch`; any timm CNN.
        image: a face crop, as for `predict`.
        label: the class to explain; None for the one that is predicted.

    Raises:
        SmileModelError: the classifier runs on ONNX, or its network has no feature map.
        SmileDataError: the image can't be read.

    >>> explain(classifier, "face.jpg").upper_share  # doctest: +SKIP
    0.61
    """
    if not isinstance(classifier.runtime, TorchRuntime):
        raise SmileModelError("explanations need gradients: load the model with runtime='torch'")
    if label is not None and label not in LABEL_NAMES:
        raise SmileModelError(f"unknown label {label!r}; choose one of {', '.join(LABEL_NAMES)}")
    pixel_values = classifier.preprocess(load_image(image))
    if label is None:
        label = LABEL_NAMES[int(classifier.probabilities(pixel_values[None]).argmax())]
    # A copy of the network, because captum hangs its hooks into it while other threads may be predicting.
    network = _Logits(copy.deepcopy(classifier.runtime.model)).eval().requires_grad_(False)
    inputs = torch.from_numpy(pixel_values)[None].to(classifier.runtime.device).requires_grad_(True)
    layer = last_feature_layer(network.model.timm_model, inputs.detach())
    with torch.enable_grad():
        maps = LayerGradCam(network, layer).attribute(inputs, LABEL_NAMES.index(label), relu_attributions=True)
    maps = nn.functional.interpolate(maps, inputs.shape[2:], mode="bilinear", align_corners=False)
    heat = maps[0, 0].detach().float().cpu().numpy()
    largest = heat.max()
    return Explanation(label, heat / largest if largest > 0 else heat, classifier.preprocess.visible(pixel_values))


def last_feature_layer(timm_model: nn.Module, inputs: torch.Tensor) -> nn.Module:
    """The last module, in the order of computation, that gives a map (N, C, h, w) of at least 4 x 4 pixels.

    Coarser maps, which small inputs leave at the end of the network, tell no eye from a mouth.

    Found by running the network once, because every timm architecture names its layers otherwise.

    Raises:
        SmileModelError: there is none: a vision transformer, for one.
    """
    last: list[nn.Module] = []

    def remember(module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, torch.Tensor) and output.ndim == 4 and min(output.shape[2:]) >= _SMALLEST_MAP:
            last[:] = [module]

    hooks = [module.register_forward_hook(remember) for module in timm_model.modules() if module is not timm_model]
    try:
        with torch.inference_mode():
            timm_model(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    if not last:
        raise SmileModelError(f"{type(timm_model).__name__} has no feature map to explain; heat maps are for CNNs")
    return last[0]


class _Logits(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values=pixel_values).logits


def deletion_curve(
    classifier: SmileClassifier, explanation: Explanation, pixels: NDArray[np.integer], steps: int = 10
) -> NDArray[np.float64]:
    """The probability of the explained class while pixels are taken away (Petsiuk et al., 2018, "RISE").

    Args:
        classifier: as for `explain`.
        explanation: of the image to delete from.
        pixels: (H * W,) indices in the order of deletion, the hottest first for one: `heat.ravel().argsort()[::-1]`.
        steps: how often to look, evenly over all pixels.

    Returns:
        (steps + 1,), from the whole image to none of it. Deleted pixels take the image's mean colour.

    >>> deletion_curve(classifier, explanation, explanation.heat.ravel().argsort()[::-1])[-1]  # doctest: +SKIP
    0.34
    """
    whole = np.asarray(explanation.image)
    shown = np.stack([classifier.preprocess(explanation.image)] * (steps + 1))
    empty = classifier.preprocess(Image.new("RGB", explanation.image.size, tuple(whole.mean(axis=(0, 1)).astype(int))))
    flat, filling = shown.reshape(steps + 1, 3, -1), empty.reshape(3, -1)
    for step in range(1, steps + 1):
        deleted = pixels[: round(len(pixels) * step / steps)]
        flat[step][:, deleted] = filling[:, deleted]
    return classifier.probabilities(shown)[:, LABEL_NAMES.index(explanation.label)]
