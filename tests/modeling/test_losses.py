"""Losses compared with manual computation and their limiting cases."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hf_smile.modeling.losses import (
    class_weights,
    focal,
    generalized_cross_entropy,
    softmax_loss,
    training_loss,
)
from hf_smile.training.settings import IMBALANCE, LOSSES

COUNTS = np.array([10, 20, 70])
LABELS = np.repeat([0, 1, 2], COUNTS)


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(16, 3, generator=generator), torch.randint(3, (16,), generator=generator)


def of_one(p: float, **options) -> float:
    """The loss of one image whose class 0 has probability `p`."""
    logits = torch.tensor([[p, (1 - p) / 2, (1 - p) / 2]]).log()
    return softmax_loss(logits, torch.tensor([0]), **options).item()


def test_each_penalty_by_hand():
    assert of_one(0.25) == pytest.approx(math.log(4))
    assert of_one(0.25, penalty=focal) == pytest.approx(0.75**2 * math.log(4))
    assert of_one(0.25, penalty=generalized_cross_entropy) == pytest.approx((1 - 0.25**0.7) / 0.7)
    smoothed = -(0.7 + 0.1) * math.log(0.5) - 2 * 0.1 * math.log(0.25)
    assert of_one(0.5, smoothing=0.3) == pytest.approx(smoothed, rel=1e-5)


def test_weights_by_hand():
    # A class share of 0.1 among three classes should weigh 1 / (3 x 0.1).
    assert class_weights(COUNTS).tolist() == pytest.approx([10 / 3, 5 / 3, 10 / 21])
    assert class_weights(COUNTS)[LABELS].mean().item() == pytest.approx(1)
    zeros, rare = torch.zeros(1, 3), torch.tensor([0])
    assert training_loss("class_weights", COUNTS)(zeros, rare).item() == pytest.approx(10 / 3 * math.log(3), rel=1e-5)
    # With the prior added, logits of zero mean "as frequent as in train".
    assert training_loss("logit_adjustment", COUNTS)(zeros, rare).item() == pytest.approx(math.log(10), rel=1e-5)
    half = 0.1**0.5 / (0.1**0.5 + 0.2**0.5 + 0.7**0.5)
    found = training_loss("logit_adjustment", COUNTS, tau=0.5)(zeros, rare).item()
    assert found == pytest.approx(-math.log(half), rel=1e-5)


def test_in_its_limit_each_loss_is_cross_entropy(batch):
    logits, labels = batch
    expected = F.cross_entropy(logits, labels, label_smoothing=0.1).item()
    equal = np.array([5, 5, 5])
    for limit in (
        softmax_loss(logits, labels, smoothing=0.1),
        softmax_loss(logits, labels, smoothing=0.1, penalty=lambda log_p: focal(log_p, gamma=0)),
        softmax_loss(logits, labels, smoothing=0.1, penalty=lambda log_p: generalized_cross_entropy(log_p, q=1e-4)),
        training_loss("class_weights", equal, smoothing=0.1)(logits, labels),
        training_loss("logit_adjustment", equal, smoothing=0.1)(logits, labels),
        training_loss("logit_adjustment", COUNTS, smoothing=0.1, tau=0)(logits, labels),
        training_loss("oversample", COUNTS, smoothing=0.1)(logits, labels),
    ):
        assert limit.item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("imbalance", "loss"), [(imbalance, loss) for imbalance in IMBALANCE for loss in LOSSES if loss != imbalance]
)
def test_every_loss_takes_soft_targets_and_has_finite_gradients(imbalance, loss, batch):
    logits, labels = batch
    logits[0] = torch.tensor([300.0, 0.0, -300.0])  # certain, and sometimes wrong
    logits.requires_grad_()
    loss_of = training_loss(imbalance, COUNTS, loss=loss, smoothing=0.1)
    hard, soft = loss_of(logits, labels), loss_of(logits, F.one_hot(labels, 3).float())
    assert torch.equal(hard, soft)
    mixed = 0.3 * F.one_hot(labels, 3) + 0.7 * F.one_hot(labels.flip(0), 3)
    expected = 0.3 * hard.item() + 0.7 * loss_of(logits, labels.flip(0)).item()
    assert loss_of(logits, mixed).item() == pytest.approx(expected, rel=1e-5)
    hard.backward()
    assert logits.grad.isfinite().all() and logits.grad.abs().sum() > 0


@pytest.mark.parametrize("imbalance", IMBALANCE)
def test_an_absent_class_is_not_answered(imbalance):
    """The same logits for all images, as of a network that ignores its input."""
    loss = training_loss(imbalance, np.array([0, 20, 70]), smoothing=0.1)
    labels = torch.tensor([1] * 20 + [2] * 70)
    logits = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        loss(logits.expand(90, 3), labels).backward()
        optimizer.step()
    assert logits.detach().softmax(0)[0] < 0.15
