"""Stream shuffled batches of encoded rows from shards to one of several processes, resumable at any position."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import islice
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hf_smile.errors import SmileDataError, first_line
from hf_smile.shards.folder import rows_of

Rows = list[dict[str, Any]]

_COLUMNS = ["image", "label", "image_id"]
_UNEVEN = 1.1  # if the processes' row counts would differ by a larger factor, they alternate by rows, not by shards


class ShardBatches:
    """A batch sampler for one process that yields encoded rows instead of indices. Each row is seen once per epoch.

    The shards are shuffled and divided among the processes, and rows are shuffled in blocks of `buffer_size`. Both
    depend only on seed and epoch. Rows are read in the main process, where the exact position is known, and decoded by
    any number of data loader workers. The batches of an epoch have equal sizes (within one row), without a small last
    batch, so that processes with different numbers of rows have the same number of batches.

    Rows are shuffled in blocks, unlike with the rolling buffer of `datasets`, which is lost in an interruption. The
    block number and the seed are enough to resume in the middle of a block.

    Args:
        files: shards, the same in all processes.
        batch_size: maximum number of rows per batch.
        rank: rank of this process, from 0.
        world_size: number of processes.
        seed: seed of the run.
        buffer_size: rows per shuffled block, which is held in memory.

    Attributes:
        total: number of rows of all processes.

    Raises:
        SmileDataError: if a shard is damaged, or there are too few rows for this number of processes.

    >>> batches = ShardBatches(shard_files("data/shards", "train"), batch_size=32)  # doctest: +SKIP
    >>> len(batches), len(next(iter(batches)))  # doctest: +SKIP
    (34, 31)
    """

    sampler = None  # accelerate reads this attribute of batch samplers

    def __init__(
        self,
        files: Sequence[Path],
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 42,
        buffer_size: int = 1000,
    ) -> None:
        self._rows = {path: rows for path in files if (rows := rows_of(path))}
        self.files = [*self._rows]
        self.batch_size, self.rank, self.world_size = batch_size, rank, world_size
        self.seed, self.buffer_size = seed, buffer_size
        self.total = sum(self._rows.values())
        sizes = sorted(self._rows.values())
        per_process = len(sizes) // world_size
        largest, smallest = sum(sizes[len(sizes) - per_process :]), sum(sizes[:per_process])
        self._by_shards = len(sizes) % world_size == 0 and 0 < largest <= _UNEVEN * smallest
        if not self._by_shards:
            largest, smallest = ceil(self.total / world_size), self.total // world_size
        self._steps = ceil(largest / batch_size)
        if smallest < max(1, self._steps):
            raise SmileDataError(
                f"{self.total} images in the shards are too few for {world_size} processes; use fewer processes"
            )
        self._resumed: dict[str, Any] = {}
        self.set_epoch(0)

    def __len__(self) -> int:
        return self._steps

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, from 0, and reshuffle."""
        self.epoch = epoch
        order = [self.files[index] for index in np.random.default_rng([self.seed, epoch]).permutation(len(self.files))]
        if self._by_shards:
            self._order = order[self.rank :: self.world_size]
            self._own_rows = sum(self._rows[path] for path in self._order)
        else:
            self._order = order
            self._own_rows = len(range(self.rank, self.total, self.world_size))

    def state_dict(self, batches: int) -> dict[str, Any]:
        """The position of this process after `batches` batches of the epoch, as a JSON object."""
        block = self._start_of(batches) // self.buffer_size
        return {"epoch": self.epoch, "block": block, "shards": self._fingerprint()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Start the epoch of the state at its block. Batches before the block are yielded empty.

        Raises:
            SmileDataError: if the state belongs to other shards.
        """
        if state["shards"] != self._fingerprint():
            raise SmileDataError("the shards are not those the run began with; start again with --overwrite")
        self._resumed = state

    def __iter__(self) -> Iterator[Rows]:
        resumed, self._resumed = self._resumed, {}
        block = resumed["block"] if resumed.get("epoch") == self.epoch else 0
        rows = self._shuffled(block)
        at = block * self.buffer_size
        for batch in range(self._steps):
            end = self._start_of(batch + 1)
            yield list(islice(rows, max(0, end - at)))
            at = max(at, end)

    def _start_of(self, batch: int) -> int:
        """The number of rows of this process before a batch."""
        return batch * self._own_rows // self._steps

    def _shuffled(self, block: int) -> Iterator[dict[str, Any]]:
        """The shuffled rows of this process, from the start of a block."""
        for number, table in enumerate(self._blocks(block * self.buffer_size), block):
            order = np.random.default_rng([self.seed, self.epoch, self.rank, number]).permutation(len(table))
            for index in order:
                yield table.slice(index, 1).to_pylist()[0]

    def _blocks(self, start: int) -> Iterator[pa.Table]:
        """Blocks of `buffer_size` rows of this process from row `start`. Holds at most a block and a row group."""
        held: list[pa.Table] = []
        for table in self._row_groups(start):
            held = [pa.concat_tables([*held, table])]
            while len(held[0]) >= self.buffer_size:
                yield held[0][: self.buffer_size]
                held = [held[0][self.buffer_size :]]
        if held and len(held[0]):
            yield held[0]

    def _row_groups(self, start: int) -> Iterator[pa.Table]:
        step, skipped = (1, start) if self._by_shards else (self.world_size, start * self.world_size + self.rank)
        for path in self._order:
            try:
                file = pq.ParquetFile(path)
                for group in range(file.num_row_groups):
                    rows = file.metadata.row_group(group).num_rows
                    if skipped < rows:
                        yield file.read_row_group(group, _COLUMNS)[skipped::step]
                    skipped += len(range(skipped, rows, step)) * step - rows
            except (pa.ArrowException, OSError) as error:
                raise SmileDataError(f"{path} can't be read to its end ({first_line(error)}); write it again") from None

    def _fingerprint(self) -> str:
        names = ",".join(f"{path.name}:{rows}" for path, rows in self._rows.items())
        return hashlib.blake2b(f"{self.world_size}/{self.buffer_size}/{names}".encode(), digest_size=8).hexdigest()
