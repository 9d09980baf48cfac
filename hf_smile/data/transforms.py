"""Encoded images -> `pixel_values`, for evaluation and for training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, starmap
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2

from hf_smile.data.images import decode_image, encoded_bytes
from hf_smile.data.preprocessing import Preprocessor
from hf_smile.errors import SmileDataError

Batch = dict[str, list[Any]]


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


class BatchTransform:
    """Rows of the data set -> model inputs, for `Dataset.with_transform`.

    With a `seed` every draw depends on seed, epoch and image id alone. The pictures are then the same however many
    processes and workers load them, and a run that is resumed sees the very ones that it would have seen.
    An image that comes several times an epoch says so in a column `repeat`, from 0, and is drawn again each time.

    Args:
        transform: PIL image -> `pixel_values (3, H, W) float32`; with a seed, (PIL image, `random.Random`) -> the same.
        seed: for one that draws.

    Raises:
        SmileDataError: an image will not decode; the message names it.

    >>> dataset = dataset.cast_column("image", datasets.Image(decode=False))  # doctest: +SKIP
    >>> dataset.with_transform(BatchTransform(evaluation_transform(config)))[:2]["labels"]  # doctest: +SKIP
    [2, 0]
    """

    def __init__(self, transform: Callable[..., torch.Tensor], seed: int | None = None) -> None:
        self.transform = transform
        self.seed = seed
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()  # data loader workers outlive an epoch

    def set_epoch(self, epoch: int) -> None:
        """Draw again: the epoch, from 0, is part of each image's seed."""
        self._epoch[0] = epoch

    def __call__(self, batch: Batch) -> Batch:
        image_ids = batch["image_id"]
        pixel_values = _map(self._prepare, batch["image"], image_ids, batch.get("repeat", [0] * len(image_ids)))
        return {"pixel_values": pixel_values, "labels": batch["label"], "image_ids": image_ids}

    def _prepare(self, image: dict[str, Any], image_id: str, repeat: int) -> torch.Tensor:
        picture = _decode(image, image_id)
        if self.seed is None:
            return self.transform(picture)
        return self.transform(picture, Random(f"{self.seed}/{int(self._epoch)}/{image_id}/{repeat}"))


def _decode(image: dict[str, Any], image_id: str) -> Image.Image:
    try:
        return decode_image(encoded_bytes(image))
    except SmileDataError as error:
        where = f" ({image['path']})" if image.get("path") else ""
        raise SmileDataError(f"image {image_id!r}{where}: {error}") from None


def _map(function: Callable[..., Any], *columns: Sequence[Any]) -> list[Any]:
    """`map` on the cores that torch uses: all in the process that trains, and one in each that loads data for it.

    Pillow and OpenCV, which do most of the work, let go of Python's lock. Each thread has a stretch of its own: handed
    out one by one, the images would cost as much in waiting for that lock as the threads gain.
    """
    rows = list(zip(*columns, strict=True))
    threads = min(torch.get_num_threads(), len(rows))
    if threads <= 1:
        return [*starmap(function, rows)]
    own, *others = [rows[n * len(rows) // threads : (n + 1) * len(rows) // threads] for n in range(threads)]
    with ThreadPoolExecutor(threads - 1) as pool:
        done = pool.map(lambda stretch: [*starmap(function, stretch)], others)  # they begin at once
        return [*starmap(function, own), *chain.from_iterable(done)]


def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows of a transformed data set -> `pixel_values (N, 3, H, W) float32`, `labels (N,) int64`, N `image_ids`.

    The memory format is `channels_last`, in which images come and convolutions are fastest.
    """
    # NumPy, for the threads with which torch would copy keep spinning, on cores that the next batch is prepared on.
    pixel_values = [row["pixel_values"].permute(1, 2, 0).numpy() for row in rows]
    batch = np.stack(pixel_values, out=np.empty((len(rows), *pixel_values[0].shape), np.float32))
    return {
        "pixel_values": torch.from_numpy(batch).permute(0, 3, 1, 2),
        "labels": torch.tensor([row["labels"] for row in rows]),
        "image_ids": [row["image_ids"] for row in rows],
    }
