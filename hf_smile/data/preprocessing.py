"""PIL image -> `pixel_values` for evaluation and prediction, with Pillow and NumPy only, without torch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hf_smile.data.images import MAX_PIXELS
from hf_smile.errors import SmileDataError, SmileModelError

# timm's defaults for settings that `pretrained_cfg` lacks (timm.data.resolve_data_config).
_DEFAULTS: dict[str, Any] = {
    "input_size": (3, 224, 224),
    "interpolation": "bicubic",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "crop_pct": 0.875,
    "crop_mode": "center",
}
_INTERPOLATIONS = tuple(Image.Resampling.__members__)

MAX_SIDE = 2048
"""Largest input size in pixels. The largest default of timm's models is 1024; one batch of far larger images would fill
the memory."""


class Preprocessor:
    """The transform of a backbone's image processor, bit for bit: resize, centre crop, scale, normalise.

    Equals `timm.data.create_transform(..., is_training=False)`, including the order of the float32 normalisation, which
    is torchvision's: (value / 255 - mean) / std. Thread-safe.

    Args:
        pretrained_cfg: timm's data settings of the backbone (size, crop, interpolation, mean, std), as in the
            `config.json` of a saved model.

    Raises:
        SmileModelError: if the settings are invalid, or only supported by timm's own transform.

    >>> Preprocessor({"input_size": [3, 160, 160], "crop_pct": 1.0})(Image.new("RGB", (167, 167))).shape
    (3, 160, 160)
    """

    def __init__(self, pretrained_cfg: dict[str, Any]) -> None:
        config = data_config(pretrained_cfg)
        _, height, width = config["input_size"]
        self._interpolation = Image.Resampling[config["interpolation"].upper()]
        self._squash = config["crop_mode"] == "squash"
        self.height, self.width = height, width
        self._scale_size = math.floor(height / config["crop_pct"]), math.floor(width / config["crop_pct"])
        self._mean, self._std = (np.array(config[name], dtype=np.float32)[:, None, None] for name in ("mean", "std"))

    def __call__(self, image: Image.Image) -> NDArray[np.float32]:
        """`pixel_values (3, H, W) float32` of an RGB image.

        Raises:
            SmileDataError: if the image is so long and thin that it would exceed `MAX_PIXELS` pixels before the crop.
        """
        size = self._size_before_crop(*image.size)
        if size[0] * size[1] > MAX_PIXELS:  # scaling up the shorter side scales up the longer one too
            raise SmileDataError(
                f"{image.width} x {image.height} pixels are too long and thin: resized for the model they would be "
                f"{size[0]} x {size[1]}, more than the limit of {MAX_PIXELS:,}; crop the image"
            )
        if size != image.size:
            image = image.resize(size, self._interpolation)
        left, top = round((size[0] - self.width) / 2), round((size[1] - self.height) / 2)
        pixels = np.asarray(image)[top : top + self.height, left : left + self.width]
        values = np.divide(np.ascontiguousarray(pixels.transpose(2, 0, 1)), np.float32(255), dtype=np.float32)
        values -= self._mean
        values /= self._std
        return values

    def visible(self, pixel_values: NDArray[np.float32]) -> Image.Image:
        """Convert `pixel_values (3, H, W)` back to the resized and cropped RGB image, W x H."""
        values = pixel_values * self._std + self._mean
        return Image.fromarray((255 * values).round().clip(0, 255).astype(np.uint8).transpose(1, 2, 0))

    def _size_before_crop(self, width: int, height: int) -> tuple[int, int]:
        target_height, target_width = self._scale_size
        if self._squash:
            return target_width, target_height
        if target_height == target_width:
            # torchvision's Resize: the shorter side gets the target size, the longer one is rounded down.
            if width <= height:
                return target_width, int(target_width * height / width)
            return int(target_height * width / height), target_height
        ratio = min(height / target_height, width / target_width)  # timm's ResizeKeepRatio
        return round(width / ratio), round(height / ratio)


def data_config(pretrained_cfg: dict[str, Any]) -> dict[str, Any]:
    """The preprocessing settings, with timm's defaults for those that `pretrained_cfg` lacks.

    Raises:
        SmileModelError: if a setting is invalid.

    >>> data_config({"input_size": (3, 160, 160)})["mean"]
    (0.485, 0.456, 0.406)
    """
    config = _DEFAULTS | {name: pretrained_cfg[name] for name in _DEFAULTS if pretrained_cfg.get(name)}
    _check(config)
    return config


def _check(config: dict[str, Any]) -> None:
    """Raise SmileModelError if a setting is invalid. The settings may come from an untrusted source."""
    size, crop_pct, interpolation = config["input_size"], config["crop_pct"], config["interpolation"]
    sized = _is_list_of(size, int, 3) and size[0] == 3 and all(1 <= side <= MAX_SIDE for side in size[1:])
    known = isinstance(interpolation, str) and interpolation.upper() in _INTERPOLATIONS
    for name, is_right, needed in (
        ("input_size", sized, f"3 channels, height and width, each of them 1 to {MAX_SIDE} pixels"),
        ("crop_mode", config["crop_mode"] in ("center", "squash"), "'center' or 'squash'"),
        ("crop_pct", _is_list_of([crop_pct], float, 1) and 0.1 <= crop_pct <= 1, "a number from 0.1 to 1"),
        ("interpolation", known, f"one of {', '.join(_INTERPOLATIONS).lower()}"),
        ("mean", _is_list_of(config["mean"], float, 3), "three numbers"),
        ("std", _is_list_of(config["std"], float, 3) and min(config["std"]) > 0, "three numbers above 0"),
    ):
        if not is_right:
            raise SmileModelError(f"{name} in pretrained_cfg is {config[name]!r:.100}; it must be {needed}")


def _is_list_of(values: Any, kind: type[int] | type[float], length: int) -> bool:
    """Whether `values` is a list of `length` finite numbers. Integers are accepted as floats."""
    return (
        isinstance(values, (list, tuple))
        and len(values) == length
        and all(isinstance(value, (int, kind)) and math.isfinite(value) for value in values)
    )
