"""Training on streamed shards: the data set, and saving its position in a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hf_smile.data.transforms import BatchTransform
from hf_smile.shards.stream import Rows, ShardBatches


class StreamedImages:
    """A data set indexed by encoded rows: `ShardBatches` reads a row, and a data loader worker decodes and augments it.

    Args:
        batches: batches of this process.
        transform: transform of the images.
    """

    def __init__(self, batches: ShardBatches, transform: BatchTransform) -> None:
        self.batches = batches
        self.transform = transform

    def __len__(self) -> int:
        """Number of images in the shards of all processes."""
        return self.batches.total

    def __getitems__(self, rows: Rows) -> list[dict[str, Any]]:
        batch = self.transform({name: [row[name] for row in rows] for name in rows[0]})
        return [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]

    def __getstate__(self) -> dict[str, Any]:
        return {"batches": None, "transform": self.transform}  # a worker needs no reader


def save_position(images: StreamedImages, folder: str | Path, batches: int, rank: int) -> None:
    """Save the position of this process after it has trained on `batches` batches of the epoch."""
    path = Path(folder, f"stream_{rank}.json")
    path.write_text(json.dumps(images.batches.state_dict(batches)), encoding="utf-8")


def load_position(images: StreamedImages, folder: str | Path, rank: int) -> None:
    """Resume from a saved position. Without the file, earlier rows of the epoch are read again and skipped.

    Raises:
        SmileDataError: if the shards are not those of the checkpoint.
    """
    path = Path(folder, f"stream_{rank}.json")
    if path.is_file():
        images.batches.load_state_dict(json.loads(path.read_text(encoding="utf-8")))
