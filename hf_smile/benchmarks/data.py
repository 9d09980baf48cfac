"""Benchmark of data loading: from encoded images to model inputs, without a model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import datasets
import torch

from hf_smile.benchmarks.measure import Row, alternate
from hf_smile.data.arguments import AugmentationArguments
from hf_smile.data.augmentation import TrainingTransform
from hf_smile.data.images import decode_image, encoded_bytes
from hf_smile.data.transforms import Batch, BatchTransform, collate, evaluation_transform


def benchmark_data(
    images: datasets.Dataset, image_size: int, batch_size: int = 32, rounds: int = 5
) -> tuple[dict[str, Row], dict[str, float]]:
    """Measure images per second on one core, and on all cores.

    Args:
        images: data set with the columns `image`, `label` and `image_id`.
        image_size: side of the model's input in pixels.
        batch_size: images per batch.
        rounds: number of rounds; results are medians over the rounds.

    Returns:
        Rows `decode`, `evaluation` and `training`, including decoding, and `training, all cores`; the ratio of the last
        two, and of `training` to `decode`, which is the share of the time that decoding takes.

    >>> rows, ratios = benchmark_data(splits["train"].select(range(512)), image_size=224)  # doctest: +SKIP
    >>> ratios["training/decode"]  # doctest: +SKIP
    0.11
    """
    encoded = images.cast_column("image", datasets.Image(decode=False))
    config = {"input_size": (3, image_size, image_size), "crop_pct": 1.0}
    training = BatchTransform(TrainingTransform(config, AugmentationArguments()), seed=0)
    cores = torch.get_num_threads()

    def run(transform: Callable[[Batch], Any], threads: int = 1) -> int:
        torch.set_num_threads(threads)
        try:
            for start in range(0, len(encoded), batch_size):
                transform(encoded[start : start + batch_size])
        finally:
            torch.set_num_threads(cores)
        return len(encoded)

    contenders: dict[str, Callable[[], int]] = {
        "decode": partial(run, lambda batch: [decode_image(encoded_bytes(image)) for image in batch["image"]]),
        "evaluation": partial(run, partial(_make_batch, BatchTransform(evaluation_transform(config)))),
        "training": partial(run, partial(_make_batch, training)),
        "training, all cores": partial(run, partial(_make_batch, training), threads=cores),
    }
    rows = alternate(contenders, rounds, "Data")
    return rows, {
        "training/decode": rows["training"].times_as_fast_as(rows["decode"]),
        "all_cores/one_core": rows["training, all cores"].times_as_fast_as(rows["training"]),
    }


def _make_batch(transform: BatchTransform, batch: Batch) -> Any:
    columns = transform(batch)
    return collate([dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)])
