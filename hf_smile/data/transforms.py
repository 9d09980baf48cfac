"""Encoded images -> `pixel_values`, for evaluation and for training."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import resolve_data_config
from torchvision.transforms import InterpolationMode, v2

from hf_smile.data.images import decode_image, encoded_bytes
from hf_smile.data.preprocessing import Preprocessor
from hf_smile.errors import SmileDataError

Batch = dict[str, list[Any]]
Plan = list[tuple[v2.Transform, dict[str, Any]]]
"""Steps of torchvision, and what was drawn for each."""

_AT_TIMES = (v2.RandomHorizontalFlip, v2.RandomVerticalFlip, v2.RandomErasing)  # else a step is always done


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


class TrainingTransform:
    """PIL image -> augmented `pixel_values (3, H, W) float32`.

    Drawing, from torch's default random generator, and doing what was drawn are apart, so that threads may share the
    latter. The result is that of the same steps in a `v2.Compose`, to the last digit.

    Args:
        steps: of torchvision, for PIL images; the last leaves it at the size of the model.
        config: `input_size`, `mean` and `std`.
        random_erasing: probability of a rectangle that is blank in the end.
    """

    def __init__(self, steps: Sequence[v2.Transform], config: dict[str, Any], random_erasing: float = 0.0) -> None:
        self.steps = list(steps)
        self._erase = v2.RandomErasing(random_erasing) if random_erasing else None
        self._size = config["input_size"]
        self._mean, self._std = (np.array(config[name], dtype=np.float32)[:, None, None] for name in ("mean", "std"))

    def draw(self, image: Image.Image) -> Plan:
        """What is to be done with an image of this size, step by step."""
        plan = [(step, step.make_params([image])) for step in self.steps if _happens(step)]
        if self._erase is not None and _happens(self._erase):
            plan.append((self._erase, self._erase.make_params([torch.empty(self._size, device="meta")])))
        return plan

    def apply(self, image: Image.Image, plan: Plan) -> torch.Tensor:
        """Do what was drawn for this very image."""
        erasing = [plan[-1]] if plan and plan[-1][0] is self._erase else []
        for step, parameters in plan[: len(plan) - len(erasing)]:
            image = step.transform(image, parameters)
        pixels = np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
        # In NumPy, because torch would start threads of its own in each of ours.
        values = np.multiply(pixels, np.float32(1 / 255), dtype=np.float32)
        values -= self._mean
        values /= self._std
        pixel_values = torch.from_numpy(values)
        for step, parameters in erasing:
            pixel_values = step.transform(pixel_values, parameters)
        return pixel_values

    def __call__(self, image: Image.Image) -> torch.Tensor:
        return self.apply(image, self.draw(image))


def _happens(step: v2.Transform) -> bool:
    return not isinstance(step, _AT_TIMES) or bool(torch.rand(1) < step.p)


def training_transform(pretrained_cfg: dict[str, Any], augmentation: AugmentationArguments) -> TrainingTransform:
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
    steps: list[v2.Transform] = []
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
    return TrainingTransform(steps, config, augmentation.random_erasing)


class BatchTransform:
    """Rows of the data set -> model inputs, for `Dataset.with_transform`.

    With a `seed` every draw depends on seed, epoch and image id alone. The pictures are then the same however many
    processes and workers load them, and a run that was interrupted goes on with the very ones it would have seen.
    An image that comes several times an epoch says so in a column `repeat`, from 0, and is drawn anew each time.

    Args:
        transform: PIL image -> `pixel_values (3, H, W) float32`; one that draws is a `TrainingTransform`.
        seed: for one that draws.

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
        pictures = _map(_decode, batch["image"], batch["image_id"])
        transform = self.transform
        if isinstance(transform, TrainingTransform):
            pixel_values = _map(transform.apply, pictures, self._draw(transform, pictures, batch))
        else:
            pixel_values = _map(transform, pictures)
        return {"pixel_values": pixel_values, "labels": batch["label"], "image_ids": batch["image_id"]}

    def _draw(self, transform: TrainingTransform, pictures: list[Image.Image], batch: Batch) -> list[Plan]:
        plans = []
        with torch.random.fork_rng(devices=[]):
            repeats = batch.get("repeat", [0] * len(pictures))
            for picture, image_id, repeat in zip(pictures, batch["image_id"], repeats, strict=True):
                again = f"/{repeat}" if repeat else ""
                key = f"{self.seed}/{int(self._epoch)}/{image_id}{again}".encode()
                torch.default_generator.manual_seed(int.from_bytes(hashlib.blake2b(key, digest_size=7).digest(), "big"))
                plans.append(transform.draw(picture))
        return plans


def _decode(image: dict[str, Any], image_id: str) -> Image.Image:
    try:
        return decode_image(encoded_bytes(image))
    except SmileDataError as error:
        where = f" ({image['path']})" if image.get("path") else ""
        raise SmileDataError(f"image {image_id!r}{where}: {error}") from None


def _map(function: Callable[..., Any], *columns: Sequence[Any]) -> list[Any]:
    """`map` on the cores that torch uses: all in the process that trains, and one in each that loads data for it.

    Pillow and NumPy, which do the work, let go of Python's lock.
    """
    threads = min(torch.get_num_threads(), len(columns[0]))
    if threads <= 1:
        return list(map(function, *columns))
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, *columns))


def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows of a transformed data set -> `pixel_values (N, 3, H, W) float32`, `labels (N,) int64`, N `image_ids`."""
    return {
        "pixel_values": torch.stack([row["pixel_values"] for row in rows]),
        "labels": torch.tensor([row["labels"] for row in rows]),
        "image_ids": [row["image_ids"] for row in rows],
    }
