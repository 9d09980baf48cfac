"""Augmentation of the training images: one affine warp and one lookup table."""

from __future__ import annotations

import math
from random import Random
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hf_smile.data.arguments import AugmentationArguments
from hf_smile.data.preprocessing import data_config

if TYPE_CHECKING:
    import torch

_CROP_RATIOS = 0.9, 1.1
_ERASED_AREAS, _ERASED_RATIOS = (0.02, 0.33), (0.3, 3.3)
_BLUR_FROM = 1.25  # source pixels per output pixel; below this, point sampling is as good as averaging
_LONGEST = 32_000  # the longest side in pixels that OpenCV's warp accepts


class TrainingTransform:
    """PIL image -> augmented `pixel_values (3, H, W) float32`, in the memory format `channels_last`.

    Rotation, shear, crop, resizing and flips are combined into one affine map, so the image is sampled once.
    Brightness, contrast and normalisation are combined into one lookup table of 256 values per channel. Corners that a
    rotation or shear leaves empty get the backbone's mean colour, and so does the rectangle of random erasing (Zhong et
    al., AAAI 2020, https://arxiv.org/abs/1708.04896). Crops are drawn as in torchvision's `RandomResizedCrop`. The
    transform is thread-safe.

    Args:
        pretrained_cfg: timm's data settings of the backbone (size, mean, std): `model.config.pretrained_cfg`.
        augmentation: augmentations and their strengths.

    >>> transform = TrainingTransform({"input_size": (3, 160, 160)}, AugmentationArguments(rotation=30))
    >>> transform(Image.new("RGB", (167, 167)), Random(1)).shape
    torch.Size([3, 160, 160])
    """

    def __init__(self, pretrained_cfg: dict[str, Any], augmentation: AugmentationArguments) -> None:
        cv2.setNumThreads(0)  # the caller is parallel already, and OpenCV's threads do not survive a fork
        config = data_config(pretrained_cfg)
        self.augmentation = augmentation
        _, self.height, self.width = config["input_size"]
        self._mean, self._std = (np.array(config[name], dtype=np.float32) for name in ("mean", "std"))
        self._mean_color = tuple(round(255 * mean) for mean in config["mean"])

    def __call__(self, image: Image.Image, draw: Random) -> torch.Tensor:
        import torch  # not at the top: it takes most of a gigabyte, and plots of the data do not need it

        return torch.from_numpy(self.values(image, draw)).permute(2, 0, 1)

    def values(self, image: Image.Image, draw: Random) -> NDArray[np.float32]:
        """The same as an array `(H, W, 3) float32`."""
        pixels: Any = np.asarray(image)
        size = self.width, self.height
        to_source = self._to_source(image.size, draw)
        scale = math.sqrt(abs(np.linalg.det(to_source[:, :2])))
        if scale >= 2 or max(image.size) > _LONGEST:
            pixels = _cut(pixels, to_source, size)
            pixels, factor = _shrink(pixels, int(scale))
            to_source /= factor
            scale /= factor
        if scale > _BLUR_FROM:  # without a blur, point sampling would alias
            # The same variance as the mean over `scale` pixels.
            pixels = cv2.GaussianBlur(pixels, (3, 3), math.sqrt((scale**2 - 1) / 12))
        # Without a border, the outer half of the outermost pixels would fade to the colour of the corners.
        pixels = cv2.copyMakeBorder(pixels, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
        # OpenCV's coordinates refer to pixel centres, not to pixel edges.
        to_source[:, 2] += to_source[:, :2] @ (0.5, 0.5) + 0.5
        how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        pixels = cv2.warpAffine(pixels, to_source, size, flags=how, borderValue=self._mean_color)
        values: Any = cv2.LUT(pixels, self._table(pixels, draw))
        if draw.random() < self.augmentation.random_erasing:
            _erase(values, draw)
        return values

    def _to_source(self, size: tuple[int, int], draw: Random) -> NDArray[np.float64]:
        """Affine map `(2, 3)` from a point of the result to the image (x, y, from its top left corner)."""
        how = self.augmentation
        width, height = size
        angle = math.radians(draw.uniform(-how.rotation, how.rotation))
        lean = math.tan(math.radians(draw.uniform(-how.shear, how.shear)))
        cos, sin = math.cos(angle), math.sin(angle)
        cos_leaning, sin_leaning = sin * lean + cos, cos * lean - sin
        left, top, crop_width, crop_height = self._crop(width, height, draw)
        x, y = crop_width / self.width, crop_height / self.height
        if draw.random() < how.horizontal_flip:
            left, x = left + crop_width, -x
        if draw.random() < how.vertical_flip:
            top, y = top + crop_height, -y
        right, down = left - width / 2, top - height / 2  # relative to the centre of rotation
        return np.array(
            [
                [cos * x, sin_leaning * y, cos * right + sin_leaning * down + width / 2],
                [sin * x, cos_leaning * y, sin * right + cos_leaning * down + height / 2],
            ]
        )

    def _crop(self, width: int, height: int, draw: Random) -> tuple[float, float, float, float]:
        """Left, top, width and height of the crop."""
        for _ in range(10 if self.augmentation.crop_scale < 1 else 0):
            area = width * height * draw.uniform(self.augmentation.crop_scale, 1)
            ratio = self.width / self.height * math.exp(draw.uniform(*map(math.log, _CROP_RATIOS)))
            crop_width, crop_height = math.sqrt(area * ratio), math.sqrt(area / ratio)
            if crop_width <= width and crop_height <= height:
                left, top = draw.uniform(0, width - crop_width), draw.uniform(0, height - crop_height)
                return left, top, crop_width, crop_height
        scale = min(width / self.width, height / self.height)  # the largest centre crop of the right aspect ratio
        crop_width, crop_height = scale * self.width, scale * self.height
        return (width - crop_width) / 2, (height - crop_height) / 2, crop_width, crop_height

    def _table(self, pixels: NDArray[np.uint8], draw: Random) -> NDArray[np.float32]:
        """Lookup table of the values 0 to 255 of each channel, `(1, 256, 3)`."""
        values = np.arange(256, dtype=np.float32)
        changes = [("brightness", self.augmentation.brightness), ("contrast", self.augmentation.contrast)]
        draw.shuffle(changes)
        for change, most in changes:
            if most:
                factor = draw.uniform(1 - most, 1 + most)
                fixed = 0 if change == "brightness" else values[_mean_grey(pixels)]
                values = (fixed + np.float32(factor) * (values - fixed)).clip(0, 255)
        return (values[None, :, None] / np.float32(255) - self._mean) / self._std


def _cut(pixels: NDArray[np.uint8], to_source: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Cut out the part of the image that is used. `to_source` is changed in place, relative to its corner."""
    corners = to_source @ [[0, size[0], 0, size[0]], [0, 0, size[1], size[1]], [1, 1, 1, 1]]
    height, width = pixels.shape[:2]
    left, top = np.clip(np.floor(corners.min(axis=1)) - 1, 0, [width - 1, height - 1]).astype(int)
    right, bottom = np.ceil(corners.max(axis=1)).astype(int) + 1
    to_source[:, 2] -= left, top
    return pixels[top : max(top + 1, bottom), left : max(left + 1, right)]


def _shrink(pixels: NDArray[np.uint8], factor: int) -> tuple[NDArray[np.uint8], int]:
    """Average blocks of `factor` x `factor` pixels. Returns the factor too, which is smaller for a tiny image."""
    height, width = pixels.shape[:2]
    factor = max(1, min(factor, height, width))
    width, height = width // factor, height // factor
    whole = pixels[: height * factor, : width * factor]
    shrunk: Any = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)
    return shrunk, factor


def _mean_grey(pixels: NDArray[np.uint8]) -> int:
    return round(cv2.mean(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))[0])


def _erase(values: NDArray[np.float32], draw: Random) -> None:
    """Blank a rectangle in place, with a size drawn as in torchvision's `RandomErasing`."""
    height, width = values.shape[:2]
    for _ in range(10):
        area = height * width * draw.uniform(*_ERASED_AREAS)
        ratio = math.exp(draw.uniform(*map(math.log, _ERASED_RATIOS)))
        tall, wide = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if tall < height and wide < width:
            top, left = draw.randint(0, height - tall), draw.randint(0, width - wide)
            values[top : top + tall, left : left + wide] = 0
            return
