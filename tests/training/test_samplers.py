"""Draws that balance the classes, and their distribution over processes."""

import datasets
import numpy as np
import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler

from hf_smile.training.samplers import BalancedSampler, RepeatedImages

COUNTS = np.array([10, 20, 70])
LABELS = np.repeat([0, 1, 2], COUNTS)


def draws(sampler: BalancedSampler, epoch: int = 0) -> list[int]:
    sampler.set_epoch(epoch)
    return list(sampler)


def test_oversampling_draws_the_classes_equally_often():
    sampler = BalancedSampler(np.repeat(LABELS, 30), seed=1)
    drawn = np.array(draws(sampler))
    assert len(drawn) == len(sampler) == 3000
    shares = np.bincount(np.repeat(LABELS, 30)[drawn % 3000]) / 3000
    assert shares == pytest.approx([1 / 3] * 3, abs=0.04)  # 4.6 standard deviations
    assert len(set(drawn)) == 3000, "each draw of an image is a separate row"


def test_draws_depend_on_seed_and_epoch_alone():
    expected = draws(BalancedSampler(LABELS, seed=1), epoch=3)
    torch.manual_seed(5)
    sampler = BalancedSampler(LABELS, seed=1)
    assert draws(sampler, epoch=2) != expected
    assert draws(sampler, epoch=3) == expected == list(sampler)
    assert draws(BalancedSampler(LABELS, seed=7), epoch=3) != expected


def test_two_processes_share_the_draws_of_one():
    alone = draws(BalancedSampler(LABELS, seed=1))
    shards = [
        [
            draw
            for batch in BatchSamplerShard(BatchSampler(BalancedSampler(LABELS, seed=1), 10, False), 2, rank)
            for draw in batch
        ]
        for rank in range(2)
    ]
    assert len(shards[0]) == len(shards[1]) == 50
    assert sorted(shards[0] + shards[1]) == sorted(alone)


def test_an_image_drawn_again_is_told_so():
    dataset = datasets.Dataset.from_dict({"image_id": ["a", "b", "c"], "label": [0, 1, 2]})
    repeated = RepeatedImages(dataset, lambda batch: {"seen": [*zip(batch["image_id"], batch["repeat"], strict=True)]})
    assert len(repeated) == 3
    assert [row["seen"] for row in repeated.__getitems__([1, 4, 0, 7])] == [("b", 0), ("b", 1), ("a", 0), ("b", 2)]
