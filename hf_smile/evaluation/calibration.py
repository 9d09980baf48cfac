"""Calibration: reliability bins, the expected error of a calibrated model, and temperature scaling."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from hf_smile.errors import SmileDataError
from hf_smile.evaluation.metrics import FloatArray, IntArray, check_inputs, confidence_bin
from hf_smile.labels import SMILE_LABELS

TEMPERATURE_RANGE = (0.05, 20.0)


class ReliabilityBins(NamedTuple):
    """One entry per bin that is not empty, by increasing confidence."""

    confidence: FloatArray
    """(K,) mean of the highest probability."""
    accuracy: FloatArray
    """(K,) share of correct predictions."""
    n_images: IntArray
    """(K,) number of images."""


def reliability_bins(probabilities: ArrayLike, label_ids: ArrayLike) -> ReliabilityBins:
    """Group the predictions by confidence in 15 bins of equal width, without empty ones (Guo et al., 2017).

    Args:
        probabilities: (N, K), each row summing to one.
        label_ids: (N,) true label ids.

    Raises:
        SmileDataError: if the inputs are empty, differ in length, or are not probabilities and label ids.

    >>> reliability_bins([[0.9, 0.1, 0.0], [0.9, 0.0, 0.1]], [0, 1])
    ReliabilityBins(confidence=array([0.9]), accuracy=array([0.5]), n_images=array([2]))
    """
    rows, labels = check_inputs(probabilities, label_ids)
    confidence = rows.max(axis=1)
    _, bins, count = np.unique(confidence_bin(confidence), return_inverse=True, return_counts=True)
    hits = rows.argmax(axis=1) == labels
    return ReliabilityBins(np.bincount(bins, confidence) / count, np.bincount(bins, hits) / count, count)


def ece_if_calibrated(probabilities: ArrayLike, n_draws: int = 1000, seed: int = 0) -> tuple[float, float]:
    """The `ece` of a perfectly calibrated model with these confidences: its mean and its 95 % quantile.

    It is never 0, because the accuracy of each bin is estimated from few images. An `ece` below the quantile is no
    evidence of miscalibration (Bröcker and Smith, 2007, "Increasing the Reliability of Reliability Diagrams").

    Args:
        probabilities: (N, K), each row summing to one.
        n_draws: number of simulations. In each, every prediction is correct with a probability equal to its confidence.
        seed: random seed.

    >>> ece_if_calibrated([[1.0, 0.0, 0.0]] * 5)
    (0.0, 0.0)
    """
    confidence = np.asarray(probabilities, dtype=np.float64).max(axis=1)
    bins = confidence_bin(confidence)
    generator = np.random.default_rng(seed)
    draws = [
        np.abs(np.bincount(bins, confidence - (generator.random(len(bins)) < confidence))).sum() / len(bins)
        for _ in range(n_draws)
    ]
    return float(np.mean(draws)), float(np.quantile(draws, 0.95))


def fit_temperature(logits: ArrayLike, label_ids: ArrayLike, classes: int = len(SMILE_LABELS)) -> float:
    """Fit the temperature T that maximizes the likelihood of softmax(logits / T) (Guo et al., 2017).

    T > 1 makes an overconfident model less confident; predictions do not change. Fit it on validation images, never on
    test images. If all predictions are correct, the likelihood has no maximum, and 1.0 is returned.

    Args:
        logits: (N, K) finite scores before softmax.
        label_ids: (N,) true label ids.
        classes: number of classes K.

    Returns:
        T, from 0.05 to 20.

    Raises:
        SmileDataError: if the inputs are empty, differ in length, or are not finite logits and label ids.

    >>> fit_temperature([[9.0, 0.0, 0.0]] * 3 + [[0.0, 9.0, 0.0]], [0, 0, 0, 0]) > 1
    True
    """
    scores = np.asarray(logits, dtype=np.float64)
    if not np.isfinite(scores).all():
        raise SmileDataError("logits must be finite, but they contain NaN or infinity. Did the training diverge?")
    _, labels = check_inputs(softmax(scores, axis=-1) if scores.size else scores, label_ids, classes)
    images = np.arange(len(labels))
    if (scores.argmax(axis=1) == labels).all():
        return 1.0

    def nll(log_temperature: float) -> float:
        return float(-log_softmax(scores / np.exp(log_temperature), axis=1)[images, labels].mean())

    return float(np.exp(minimize_scalar(nll, bounds=np.log(TEMPERATURE_RANGE), method="bounded").x))
