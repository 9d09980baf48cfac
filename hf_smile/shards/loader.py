"""Training on shards that are read as they are needed: the data loader, and its place in a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import DataLoaderShard
from transformers import TrainingArguments

from hf_smile.data.transforms import BatchTransform, collate
from hf_smile.shards.stream import Rows, ShardBatches


class StreamedImages:
    """A data set whose index is the encoded row itself: `ShardBatches` reads it, a worker decodes and augments it.

    Args:
        batches: of this process.
        transform: a `BatchTransform`.
    """

    def __init__(self, batches: ShardBatches, transform: BatchTransform) -> None:
        self.batches = batches
        self.transform = transform

    def __len__(self) -> int:
        """Images in the shards of all processes."""
        return self.batches.total

    def __getitems__(self, rows: Rows) -> list[dict[str, Any]]:
        batch = self.transform({name: [row[name] for row in rows] for name in rows[0]})
        return [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]

    def __getstate__(self) -> dict[str, Any]:
        return {"batches": None, "transform": self.transform}  # a worker needs no reader


def stream_loader(
    images: StreamedImages,
    args: TrainingArguments,
    device: torch.device,
    worker_init_fn: Callable[[int], None] | None = None,
) -> DataLoaderShard:
    """A data loader that accelerate splits no further: each process has its own rows already."""
    workers = args.dataloader_num_workers
    return DataLoaderShard(
        images,
        device=device,
        batch_sampler=images.batches,
        collate_fn=collate,
        num_workers=workers,
        pin_memory=args.dataloader_pin_memory,
        persistent_workers=args.dataloader_persistent_workers,
        prefetch_factor=args.dataloader_prefetch_factor,
        _non_blocking=args.accelerator_config.non_blocking,
        # Else it draws from the generator of the training, at other times in a run that goes on.
        generator=torch.Generator(),
        worker_init_fn=worker_init_fn,
    )


def save_position(images: StreamedImages, folder: str | Path, batches: int, rank: int) -> None:
    """Write where this process is, when it has trained on so many batches of the epoch."""
    path = Path(folder, f"stream_{rank}.json")
    path.write_text(json.dumps(images.batches.state_dict(batches)), encoding="utf-8")


def load_position(images: StreamedImages, folder: str | Path, rank: int) -> None:
    """Go on from there. Without the file, the rows of the epoch up to there are read again, and passed over.

    Raises:
        SmileDataError: the shards are others than those of the checkpoint.
    """
    path = Path(folder, f"stream_{rank}.json")
    if path.is_file():
        images.batches.load_state_dict(json.loads(path.read_text(encoding="utf-8")))
