"""Samplers: which training images are drawn, in which order, and how several processes share them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import ceil
from typing import Any

import datasets
import numpy as np
import torch
from torch.utils.data import BatchSampler, Sampler, WeightedRandomSampler

from hf_smile.errors import SmileDataError
from hf_smile.modeling.losses import class_weights


class BalancedSampler(WeightedRandomSampler):
    """Draw N images per epoch with replacement, each class equally often on average.

    The draws depend only on seed and epoch: all processes make the same draws and take their share, and a resumed run
    makes the draws it would have made. The k-th draw of image i is the number `i + k * N`, for `RepeatedImages`.

    Args:
        label_ids: (N,) labels of the training images.
        seed: seed of the run.

    >>> sorted(draw % 3 for draw in BalancedSampler(np.array([0, 2, 2]), seed=1))
    [0, 1, 2]
    """

    def __init__(self, label_ids: np.ndarray, seed: int) -> None:
        weights = class_weights(np.bincount(label_ids))[label_ids]
        super().__init__(weights.tolist(), len(label_ids), generator=torch.Generator())
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Draw again for this epoch; epochs count from 0."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        assert self.generator is not None
        self.generator.manual_seed(int(np.random.SeedSequence([self.seed, self.epoch]).generate_state(1)[0]))
        drawn_before = [0] * self.num_samples
        for image in super().__iter__():
            yield image + drawn_before[image] * self.num_samples
            drawn_before[image] += 1


class RepeatedImages:
    """A data set whose row `i + k * N` is row i for the k-th time in an epoch, with its own augmentation.

    Args:
        dataset: N encoded images, from `load_smile_dataset`.
        transform: a `BatchTransform`.
    """

    def __init__(self, dataset: datasets.Dataset, transform: Callable[[dict[str, list[Any]]], Any]) -> None:
        self.dataset = dataset
        self.transform = transform

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, draws: list[int]) -> list[dict[str, Any]]:
        rows = self.dataset[[draw % len(self) for draw in draws]]
        batch = self.transform(rows | {"repeat": [draw // len(self) for draw in draws]})
        return [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]


class EpochBatches(BatchSampler):
    """The batches of one process in one epoch.

    All processes have the same number of batches, and batch sizes differ by at most one draw. Each draw goes to one
    process, once. (accelerate would fill the last batches with images of the first ones.)

    Args:
        sampler: must make the same draws in all processes.
        batch_size: maximum number of draws per batch.
        process: index of this process, from 0.
        processes: number of processes.
        drop_last: leave out draws that do not fill a batch in every process.

    Raises:
        SmileDataError: there are fewer draws than processes; with `drop_last`, too few for a full batch in each.

    >>> list(EpochBatches(range(7), batch_size=2, process=1, processes=2))
    [[2, 3], [6]]
    """

    def __init__(
        self, sampler: Sampler[int], batch_size: int, process: int = 0, processes: int = 1, drop_last: bool = False
    ) -> None:
        super().__init__(sampler, batch_size, drop_last)
        self.process, self.processes = process, processes
        together = batch_size * processes
        images = len(sampler)  # type: ignore[arg-type]
        self._draws = images - images % together if drop_last else images
        if self._draws < processes:
            where = f"{processes} process{'es' if processes > 1 else ''}"
            fix = f" with batches of {batch_size}; use smaller batches" if drop_last else "; use fewer processes"
            raise SmileDataError(f"{images} images are too few for {where}{fix}")
        self._batches = min(ceil(self._draws / together), self._draws // processes)

    def __len__(self) -> int:
        return self._batches if self.processes > 1 else super().__len__()

    def __iter__(self) -> Iterator[list[int]]:
        if self.processes == 1:
            yield from super().__iter__()
            return
        batches = np.array_split([*self.sampler][: self._draws], self._batches * self.processes)
        for batch in batches[self.process :: self.processes]:
            yield batch.tolist()

    def set_epoch(self, epoch: int) -> None:
        """Draw again for this epoch; epochs count from 0."""
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)
