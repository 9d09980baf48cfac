"""Which training images are drawn, in which order, and how several processes share them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import ceil
from typing import Any

import datasets
import numpy as np
import torch
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler, DataLoader, Sampler, WeightedRandomSampler

from hf_smile.errors import SmileDataError
from hf_smile.modeling.losses import class_weights


class BalancedSampler(WeightedRandomSampler):
    """As many draws an epoch as there are images, with replacement, every class equally often on average.

    The draws depend on seed and epoch alone: each process of a run makes the same ones and takes its share of them,
    and a run that goes on draws what it would have drawn. The k-th draw of image i is the number `i + k * N`, for
    `RepeatedImages`.

    Args:
        label_ids: (N,) of the training images.
        seed: of the run.

    >>> sorted(draw % 3 for draw in BalancedSampler(np.array([0, 2, 2]), seed=1))
    [0, 0, 1]
    """

    def __init__(self, label_ids: np.ndarray, seed: int) -> None:
        weights = class_weights(np.bincount(label_ids))[label_ids]
        super().__init__(weights.tolist(), len(label_ids), generator=torch.Generator())
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Draw anew. The Trainer, and accelerate's data loader, tell the epoch, from 0."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        assert self.generator is not None
        self.generator.manual_seed(int(np.random.SeedSequence([self.seed, self.epoch]).generate_state(1)[0]))
        drawn_before = [0] * self.num_samples
        for image in super().__iter__():
            yield image + drawn_before[image] * self.num_samples
            drawn_before[image] += 1


class RepeatedImages:
    """A data set whose row `i + k * N` is row i for the k-th time in an epoch, with an augmentation of its own.

    Args:
        dataset: N encoded images, as `load_smile_dataset` gives them.
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
