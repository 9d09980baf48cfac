"""Heat maps by HiResCAM, which needs the network in torch."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hf_smile.errors import SmileModelError
from hf_smile.inference.runtimes import TorchRuntime

_SMALLEST_MAP = 8


class HiResCam:
    """Evidence by HiResCAM: gradient times activation, summed over the channels of a feature map.

    Grad-CAM averages the gradients first, and can therefore highlight places that the network did not use. The network
    is copied, because captum adds hooks to it, and must not be shared between threads. Source: Draelos & Carin (2020),
    "Use HiResCAM instead of Grad-CAM for faithful explanations".

    Args:
        runtime: any timm network with feature maps.
        size: height and width of its input.

    Raises:
        SmileModelError: the network has no feature map.

    >>> HiResCam(classifier.runtime, (160, 160))(pixel_values, label_id=1).shape  # doctest: +SKIP
    (160, 160)
    """

    def __init__(self, runtime: TorchRuntime, size: tuple[int, int]) -> None:
        from captum.attr import LayerGradientXActivation

        self._device = runtime.device
        network = copy.deepcopy(runtime.model).eval().requires_grad_(False)
        layer, self._channel_axis = feature_layer(network.timm_model, size)
        self._attribution = LayerGradientXActivation(lambda inputs: network(pixel_values=inputs).logits, layer)

    def __call__(self, pixel_values: NDArray[np.float32], label_id: int) -> NDArray[np.float32]:
        """Evidence for a class in `pixel_values (3, H, W)`: (H, W), 0 or positive, on no particular scale."""
        inputs = torch.from_numpy(pixel_values)[None].to(self._device).requires_grad_(True)
        with torch.enable_grad():
            maps = self._attribution.attribute(inputs, label_id).detach()
        maps = maps.sum(dim=self._channel_axis)[:, None].clamp_min(0)
        maps = nn.functional.interpolate(maps, inputs.shape[2:], mode="bilinear", align_corners=False)
        return maps[0, 0].float().cpu().numpy()


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
        raise SmileModelError(
            f"{type(timm_model).__name__} has no feature map, which heat maps with torch need; export the model, and "
            "load it with runtime='onnx'"
        )
    fine = [one for one in found if one[0] >= _SMALLEST_MAP] or found[:1]
    return fine[-1][1:]
