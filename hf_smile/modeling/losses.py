"""Training losses, and how they handle class imbalance."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from timm.data.mixup import Mixup
from torch.nn import functional as F

from hf_smile.evaluation.decision import prior_shift

Penalty = Callable[[torch.Tensor], torch.Tensor]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def soft_targets(
    pixel_values: torch.Tensor, label_ids: torch.Tensor, n_classes: int, mixup: Mixup | None = None
) -> torch.Tensor:
    """The share of each class in each image, (N, n_classes). `mixup` mixes the images in place, in pairs.

    If the number of images is odd, the last one is not mixed. timm draws from NumPy's generator, whose state is in the
    checkpoints. Sources: Zhang et al., "mixup", ICLR 2018 (https://arxiv.org/abs/1710.09412); Yun et al., "CutMix",
    ICCV 2019 (https://arxiv.org/abs/1905.04899).

    >>> soft_targets(torch.zeros(2, 3, 4, 4), torch.tensor([0, 2]), 3)
    tensor([[1., 0., 0.],
            [0., 0., 1.]])
    """
    one_hot = F.one_hot(label_ids, n_classes).float()
    if mixup is None:
        return one_hot
    even = len(label_ids) // 2 * 2
    _, mixed = mixup(pixel_values[:even], label_ids[:even])
    return torch.cat([mixed, one_hot[even:]])


def focal(log_p: torch.Tensor, gamma: float = 2.0) -> torch.Tensor:
    """`-(1 - p)^gamma log p`: less weight on easy examples. `gamma` 0 is cross-entropy; 2 is the authors' choice.

    Source: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017 (https://arxiv.org/abs/1708.02002).
    """
    return -((1 - log_p.exp()) ** gamma) * log_p


def generalized_cross_entropy(log_p: torch.Tensor, q: float = 0.7) -> torch.Tensor:
    """`(1 - p^q) / q`: bounded, which limits the effect of a wrong label. With `q` near 0 it is cross-entropy.

    Source: Zhang and Sabuncu, "Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy Labels",
    NeurIPS 2018 (https://arxiv.org/abs/1805.07836); 0.7 is the authors' choice.
    """
    return -torch.expm1(q * log_p) / q


def softmax_loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    *,
    penalty: Penalty = torch.neg,
    weights: torch.Tensor | None = None,
    shift: torch.Tensor | None = None,
    smoothing: float = 0.0,
) -> torch.Tensor:
    """Mean over the images of `sum_c weights_c targets_c penalty(log p_c)`, where `p = softmax(logits + shift)`.

    Args:
        logits: (N, C).
        targets: label ids (N,) int64, or the share of each class (N, C), as with mixup.
        penalty: function of the log-probabilities, applied to each element; cross-entropy by default.
        weights: (C,) factor of each class; 1 if None.
        shift: (C,) added to the logits; 0 if None.
        smoothing: share of each target that is spread evenly over the classes.

    >>> softmax_loss(torch.zeros(1, 3), torch.tensor([2])).exp()
    tensor(3.)
    """
    logits = logits.float()
    classes = logits.shape[1]
    if targets.ndim == 1:
        targets = F.one_hot(targets, classes)
    targets = (1 - smoothing) * targets.float() + smoothing / classes
    if weights is not None:
        targets = targets * weights.to(logits.device)
    if shift is not None:
        logits = logits + shift.to(logits.device)
    return (targets * penalty(logits.log_softmax(dim=1))).sum(dim=1).mean()


def class_weights(counts: np.ndarray) -> torch.Tensor:
    """Inverse class frequencies, scaled to mean 1 over the images.

    Source: King and Zeng, "Logistic Regression in Rare Events Data", 2001; scikit-learn's `class_weight="balanced"`.

    Args:
        counts: (C,) images of each class. An absent class has weight 0, so that label smoothing does not train it.

    >>> class_weights(np.array([10, 20, 70]))
    tensor([3.3333, 1.6667, 0.4762])
    """
    inverse = np.divide(1.0, counts, out=np.zeros(len(counts)), where=counts > 0)
    return torch.tensor(inverse * counts.sum() / (inverse * counts).sum(), dtype=torch.float32)


def training_loss(
    imbalance: str, counts: np.ndarray, *, loss: str = "cross_entropy", tau: float = 1.0, smoothing: float = 0.0
) -> Loss:
    """The training loss for given settings.

    Args:
        imbalance: `class_weights`; `focal`; `logit_adjustment`, which adds `tau` times the log prior to the logits
            in training, so that the model's own logits are those for classes of equal size (Menon et al.,
            "Long-tail learning via logit adjustment", ICLR 2021, https://arxiv.org/abs/2007.07314); `none` or
            `oversample`, which do not change the loss.
        counts: (C,) training images of each class.
        loss: `cross_entropy`, or `gce` for noisy labels. With `imbalance="focal"` it is ignored.
        tau: strength of `logit_adjustment`; 0 is off, 1 is the theoretical value.
        smoothing: share of each target that is spread evenly over the classes.

    Returns:
        A function that maps `logits (N, C)` and targets, `(N,)` or `(N, C)`, to their mean loss.

    >>> training_loss("focal", np.array([1, 1, 1]))(torch.zeros(1, 3), torch.tensor([0]))
    tensor(0.4883)
    """
    penalties: dict[str, Penalty] = {"cross_entropy": torch.neg, "gce": generalized_cross_entropy, "focal": focal}
    penalty = penalties["focal" if imbalance == "focal" else loss]
    weights = class_weights(counts) if imbalance == "class_weights" else None
    shift = None
    if imbalance == "logit_adjustment":
        shift = torch.tensor(prior_shift(counts / counts.sum(), -tau), dtype=torch.float32)
    return partial(softmax_loss, penalty=penalty, weights=weights, shift=shift, smoothing=smoothing)
