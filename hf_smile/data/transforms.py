"""Encoded images -> `pixel_values`, for evaluation and for training."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from timm.data import resolve_data_config
from torchvision.transforms import InterpolationMode, v2

from hf_smile.data.images import decode_image, encoded_bytes
from hf_smile.data.preprocessing import Preprocessor
from hf_smile.errors import SmileDataError

Batch = dict[str, list[Any]]


@dataclass
class AugmentationArguments:
    """Random changes of the training images. The original work used `--rotation` and `--horizontal_flip` alone."""

    horizontal_flip: float = field(default=0.5, metadata={"help": "probability of a left-right flip, 0 to 1"})
    vertical_flip: float = field(default=0.0, metadata={"help": "probability of an upside-down flip, 0 to 1"})
    rotation: float = field(default=15.0, metadata={"help": "rotate by up to this many degrees, either way"})
    shear: float = field(default=0.0, metadata={"help": "shear by up to this many degrees, either way"})
    crop_scale: float = field(
        default=0.7, metadata={"help": "crop at least this share of the area, 0 to 1; 1 crops nothing"}
    )
    brightness: float = field(default=0.2, metadata={"help": "change brightness by up to this share"})
    contrast: float = field(default=0.2, metadata={"help": "change contrast by up to this share"})
    random_erasing: float = field(default=0.0, metadata={"help": "probability of a blank rectangle, 0 to 1"})

    def __post_init__(self) -> None:
        for name in ("horizontal_flip", "vertical_flip", "brightness", "contrast", "random_erasing"):
            if not 0 <= getattr(self, name) <= 1:
                raise SmileDataError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1")
        if not 0 < self.crop_scale <= 1:
            raise SmileDataError(f"crop_scale is {self.crop_scale}; it must be above 0 and at most 1")
        for name, limit in (("rotation", 180), ("shear", 60)):
            if not 0 <= getattr(self, name) <= limit:
                raise SmileDataError(f"{name} is {getattr(self, name)} degrees; it must lie between 0 and {limit}")


def evaluation_transform(pretrained_cfg: dict[str, Any]) -> Callable[[Image.Image], torch.Tensor]:
    """PIL image -> `pixel_values (3, H, W) float32`: the very transform of the checkpoint's own image processor.

    Args:
        pretrained_cfg: timm's data settings of the backbone (size, crop, interpolation, mean, std), as
            `model.config.pretrained_cfg` holds them.

    Raises:
        SmileModelError: the settings are such as `Preprocessor` refuses.

    >>> evaluation_transform({"input_size": (3, 224, 224)})(Image.new("RGB", (167, 167))).shape
    torch.Size([3, 224, 224])
    """
    return v2.Compose([Preprocessor(pretrained_cfg), torch.from_numpy])


def training_transform(pretrained_cfg: dict[str, Any], augmentation: AugmentationArguments) -> v2.Compose:
    """PIL image -> augmented `pixel_values (3, H, W) float32`. Draws from torch's default random generator.

    Corners that a rotation or shear leaves empty take the backbone's mean colour, which is zero after normalisation;
    so does a rectangle that random erasing blanks (Zhong et al., AAAI 2020, https://arxiv.org/abs/1708.04896).

    >>> transform = training_transform({"input_size": (3, 160, 160)}, AugmentationArguments(rotation=30))
    >>> transform(Image.new("RGB", (167, 167))).shape
    torch.Size([3, 160, 160])
    """
    config = resolve_data_config(pretrained_cfg)
    size = config["input_size"][1:]
    interpolation = InterpolationMode(config["interpolation"])
    mean_color = [round(255 * mean) for mean in config["mean"]]
    steps: list[Callable[[Any], Any]] = []
    if augmentation.rotation or augmentation.shear:
        steps.append(
            v2.RandomAffine(
                augmentation.rotation,
                shear=augmentation.shear or None,
                interpolation=InterpolationMode.BILINEAR,
                fill=mean_color,
            )
        )
    if augmentation.crop_scale < 1:
        scale = (augmentation.crop_scale, 1.0)
        steps.append(v2.RandomResizedCrop(size, scale, ratio=(0.9, 1.1), interpolation=interpolation))
    else:
        steps += [v2.Resize(size[0], interpolation), v2.CenterCrop(size)]
    if augmentation.horizontal_flip:
        steps.append(v2.RandomHorizontalFlip(augmentation.horizontal_flip))
    if augmentation.vertical_flip:
        steps.append(v2.RandomVerticalFlip(augmentation.vertical_flip))
    if augmentation.brightness or augmentation.contrast:
        steps.append(v2.ColorJitter(brightness=augmentation.brightness, contrast=augmentation.contrast))
    steps += [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(config["mean"], config["std"])]
    if augmentation.random_erasing:
        steps.append(v2.RandomErasing(augmentation.random_erasing))
    return v2.Compose(steps)


class BatchTransform:
    """Rows of the data set -> model inputs, for `Dataset.with_transform`.

    With a `seed` every draw depends on seed, epoch and image id alone. The pictures are then the same however many
    processes and workers load them, and a run that was interrupted goes on with the very ones it would have seen.
    An image that comes several times an epoch says so in a column `repeat`, from 0, and is drawn anew each time.

    Args:
        transform: PIL image -> `pixel_values (3, H, W) float32`.
        seed: for random transforms; None for evaluation.

    Raises:
        SmileDataError: an image will not decode; the message names it.

    >>> dataset = dataset.cast_column("image", datasets.Image(decode=False))  # doctest: +SKIP
    >>> dataset.with_transform(BatchTransform(evaluation_transform(config)))[:2]["labels"]  # doctest: +SKIP
    [2, 0]
    """

    def __init__(self, transform: Callable[[Image.Image], torch.Tensor], seed: int | None = None) -> None:
        self.transform = transform
        self.seed = seed
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()  # data loader workers outlive an epoch

    def set_epoch(self, epoch: int) -> None:
        """Draw anew: the epoch, from 0, is part of each image's seed."""
        self._epoch[0] = epoch

    def __call__(self, batch: Batch) -> Batch:
        repeats = batch.get("repeat", [0] * len(batch["image"]))
        rows = zip(batch["image"], batch["image_id"], repeats, strict=True)
        pixel_values = [self._transform_one(*row) for row in rows]
        return {"pixel_values": pixel_values, "labels": batch["label"], "image_ids": batch["image_id"]}

    def _transform_one(self, image: dict[str, Any], image_id: str, repeat: int) -> torch.Tensor:
        try:
            picture = decode_image(encoded_bytes(image))
        except SmileDataError as error:
            where = f" ({image['path']})" if image.get("path") else ""
            raise SmileDataError(f"image {image_id!r}{where}: {error}") from None
        if self.seed is None:
            return self.transform(picture)
        again = f"/{repeat}" if repeat else ""
        key = f"{self.seed}/{int(self._epoch)}/{image_id}{again}".encode()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int.from_bytes(hashlib.blake2b(key, digest_size=7).digest(), "big"))
            return self.transform(picture)


def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows of a transformed data set -> `pixel_values (N, 3, H, W) float32`, `labels (N,) int64`, N `image_ids`."""
    return {
        "pixel_values": torch.stack([row["pixel_values"] for row in rows]),
        "labels": torch.tensor([row["labels"] for row in rows]),
        "image_ids": [row["image_ids"] for row in rows],
    }
