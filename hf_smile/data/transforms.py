"""Encoded images -> `pixel_values`, for training and evaluation."""

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
    """PIL image -> `pixel_values (3, H, W) float32`, the same transform as the checkpoint's image processor.

    Args:
        pretrained_cfg: timm's data settings of the backbone (size, crop, interpolation, mean, std):
            `model.config.pretrained_cfg`.

    Raises:
        SmileModelError: if the settings are invalid or not supported; see `Preprocessor`.

    >>> evaluation_transform({"input_size": (3, 224, 224)})(Image.new("RGB", (167, 167))).shape
    torch.Size([3, 224, 224])
    """
    return v2.Compose([Preprocessor(pretrained_cfg), torch.from_numpy])


class BatchTransform:
    """Rows of a data set -> model inputs, for `Dataset.with_transform`.

    With a `seed`, every random draw depends only on seed, epoch and image id. The images are then the same for any
    number of processes and workers, and a resumed run sees the same images as an uninterrupted one. If an image occurs
    several times per epoch, a column `repeat` numbers its occurrences from 0, and each one is drawn separately.

    Args:
        transform: PIL image -> `pixel_values (3, H, W) float32`; with a seed, called with (PIL image, `random.Random`).
        seed: seed of a random transform; None for a deterministic one.

    Raises:
        SmileDataError: if an image can't be decoded; the message names the image.

    >>> dataset = dataset.cast_column("image", datasets.Image(decode=False))  # doctest: +SKIP
    >>> dataset.with_transform(BatchTransform(evaluation_transform(config)))[:2]["labels"]  # doctest: +SKIP
    [2, 0]
    """

    def __init__(self, transform: Callable[..., torch.Tensor], seed: int | None = None) -> None:
        self.transform = transform
        self.seed = seed
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()  # workers outlive an epoch

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, from 0, which is part of each image's seed."""
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
    """`map` with as many threads as torch uses: all cores in the main process, one in each data loader worker.

    Pillow and OpenCV, which do most of the work, release the GIL. Each thread gets one chunk of the rows: handing them
    out one by one would cost as much in waiting for the GIL as the threads gain.
    """
    rows = list(zip(*columns, strict=True))
    threads = min(torch.get_num_threads(), len(rows))
    if threads <= 1:
        return [*starmap(function, rows)]
    own, *others = [rows[n * len(rows) // threads : (n + 1) * len(rows) // threads] for n in range(threads)]
    with ThreadPoolExecutor(threads - 1) as pool:
        done = pool.map(lambda chunk: [*starmap(function, chunk)], others)  # starts immediately
        return [*starmap(function, own), *chain.from_iterable(done)]


def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows of a transformed data set -> `pixel_values (N, 3, H, W) float32`, `labels (N,) int64`, N `image_ids`.

    The memory format is `channels_last`, the one of decoded images and the fastest for convolutions.
    """
    # Copy with NumPy: torch's threads would keep spinning on the cores that prepare the next batch.
    pixel_values = [row["pixel_values"].permute(1, 2, 0).numpy() for row in rows]
    batch = np.stack(pixel_values, out=np.empty((len(rows), *pixel_values[0].shape), np.float32))
    return {
        "pixel_values": torch.from_numpy(batch).permute(0, 3, 1, 2),
        "labels": torch.tensor([row["labels"] for row in rows]),
        "image_ids": [row["image_ids"] for row in rows],
    }
