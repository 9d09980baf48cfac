"""Batches for several processes: every image once an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

import numpy as np
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler, DataLoader, Sampler

from hf_smile.errors import SmileDataError


class EvenBatches(BatchSampler):
    """What a sampler draws, in batches for all processes in turn: equally many for each, equally full but for one draw.

    Args:
        sampler: the same in all processes.
        batch_size: at most so many draws a batch.
        processes: that take turns.

    Raises:
        SmileDataError: there are fewer draws than processes.

    >>> list(EvenBatches(range(7), batch_size=2, processes=2))
    [[0, 1], [2, 3], [4, 5], [6]]
    """

    def __init__(self, sampler: Sampler[int], batch_size: int, processes: int) -> None:
        draws = len(sampler)  # type: ignore[arg-type]
        if draws < processes:
            raise SmileDataError(f"{draws} images are too few for {processes} processes")
        self.sampler = sampler
        self._batches = min(ceil(draws / (batch_size * processes)), draws // processes) * processes

    def __len__(self) -> int:
        return self._batches

    def __iter__(self) -> Iterator[list[int]]:
        for batch in np.array_split(list(self.sampler), self._batches):
            yield batch.tolist()


def share_evenly(loader: DataLoader) -> None:
    """Make a loader that accelerate has prepared for several processes give each image to one of them, and once.

    Where the last batches are not full, accelerate fills them with images of the first. It leaves batches as they are
    that have no size.
    """
    share = loader.batch_sampler
    if isinstance(share, BatchSamplerShard) and not share.drop_last:
        batches = share.batch_sampler
        share.batch_sampler = EvenBatches(batches.sampler, batches.batch_size, share.num_processes)
        share.batch_size, share.even_batches = None, False
