"""The prior adjustment: a decision rule that trades accuracy for the recall of rare classes.

A classifier with maximum accuracy almost never predicts a class of one image in ten. Dividing each class's probability
by its share of the training images to the power of s moves the decision towards rare classes. With s = 0, the highest
probability decides. With s = 1, the classes are treated as equally frequent, which favours the mean recall (Menon et
al., 2021, "Long-tail learning via logit adjustment", post-hoc; Saerens et al., 2002, "Adjusting the Outputs of a
Classifier to New a Priori Probabilities").
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from hf_smile.evaluation.metrics import FloatArray, check_inputs, compute_metrics, weighted_metrics
from hf_smile.labels import SMILE_LABELS, LabelSet

STRENGTHS = tuple(round(0.1 * step, 1) for step in range(16))
"""Strengths to try, 0 to 1.5. Above this range, even the mean recall falls."""


def traded(labels: LabelSet) -> tuple[str, ...]:
    """The names of the metrics in `trade_off`."""
    return ("accuracy", "macro_f1", "balanced_accuracy", *(f"recall_{slug}" for slug in labels.slugs))


def class_shares(label_ids: ArrayLike, classes: int = len(SMILE_LABELS)) -> FloatArray:
    """Share of each class (K,) in the label ids (N,).

    >>> class_shares([2, 2, 0, 1])
    array([0.25, 0.25, 0.5 ])
    """
    ids = np.asarray(label_ids, dtype=np.int64)
    return np.bincount(ids, minlength=classes) / len(ids)


def prior_shift(shares: ArrayLike, strength: float) -> FloatArray:
    """The shift (K,) that the adjustment adds to the logits: `-strength * log(shares)`, with shares (K,).

    The shift of a class without training images is 0, because dividing by a share of 0 would always predict it.

    >>> prior_shift([0.1, 0.2, 0.7], 0.5).round(2)
    array([1.15, 0.8 , 0.18])
    """
    shares = np.asarray(shares, dtype=np.float64)
    return -strength * np.log(np.where(shares > 0, shares, 1.0))


def adjust_prior(probabilities: ArrayLike, shares: ArrayLike, strength: float) -> FloatArray:
    """Divide the probabilities by `shares ** strength` and normalize them to sum to one.

    Calibrated probabilities stay calibrated, but for another population: one in which class k is
    `shares[k] ** -strength` times as frequent as before, and the faces within a class are the same.

    Args:
        probabilities: (N, K), each row summing to one.
        shares: (K,) shares of the classes in train.
        strength: strength s of the adjustment; 0 changes nothing.

    Returns:
        (N, K) adjusted probabilities.

    >>> adjust_prior([[0.1, 0.2, 0.7]], [0.1, 0.2, 0.7], 1.0).round(3)
    array([[0.333, 0.333, 0.333]])
    """
    adjusted = np.asarray(probabilities, dtype=np.float64) * np.exp(prior_shift(shares, strength))
    return adjusted / adjusted.sum(axis=1, keepdims=True)


def trade_off(
    probabilities: ArrayLike,
    label_ids: ArrayLike,
    shares: ArrayLike,
    strengths: ArrayLike = STRENGTHS,
    labels: LabelSet = SMILE_LABELS,
) -> pd.DataFrame:
    """Metrics for every strength of the adjustment. Use validation images, never test images.

    Args:
        probabilities: (N, K), each row summing to one, not adjusted.
        label_ids: (N,) true label ids.
        shares: (K,) shares of the classes in train.
        strengths: (S,) strengths of the adjustment.
        labels: the K labels.

    Returns:
        One row per strength: `strength`, `accuracy`, `macro_f1`, `balanced_accuracy` and `recall_<class>`.

    Raises:
        SmileDataError: if the inputs are empty, differ in length, or are not probabilities and label ids.

    >>> trade_off([[0.3, 0.1, 0.6]], [0], [0.1, 0.2, 0.7], [0, 1])[["strength", "accuracy"]].values.tolist()
    [[0.0, 0.0], [1.0, 1.0]]
    """
    rows, ids = check_inputs(probabilities, label_ids, len(labels))
    strengths = np.asarray(strengths, dtype=np.float64)
    metrics = [compute_metrics(adjust_prior(rows, shares, strength), ids, labels) for strength in strengths]
    table = pd.DataFrame(metrics)[list(traded(labels))]
    table.insert(0, "strength", strengths)
    return table


def best_strength(table: pd.DataFrame, metric: str) -> float:
    """The strength with the highest `metric`, a column of `trade_off`. Of equally good ones, the smallest.

    >>> best_strength(trade_off([[0.3, 0.1, 0.6]], [0], [0.1, 0.2, 0.7]), "accuracy")
    0.4
    """
    return float(table["strength"][table[metric].argmax()])


def ece_where_it_is_meant(
    probabilities: ArrayLike,
    label_ids: ArrayLike,
    shares: ArrayLike,
    strength: float,
    labels: LabelSet = SMILE_LABELS,
) -> float:
    """Calibration error of adjusted probabilities in the population for which they are calibrated.

    Each image is weighted by `shares[label] ** -strength`, which reproduces the class frequencies of that population.

    Args:
        probabilities: (N, K), adjusted with `strength`.
        label_ids: (N,) true label ids.
        shares: (K,) shares of the classes in train.
        strength: strength s of the adjustment.
        labels: the K labels.
    """
    rows, ids = check_inputs(probabilities, label_ids, len(labels))
    weights = np.exp(prior_shift(shares, strength))[ids]
    return float(weighted_metrics(rows, ids, weights[:, None], labels)["ece"][0])
