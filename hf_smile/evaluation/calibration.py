"""Is the model right as often as it says? Reliability bins, what chance alone would show, and the temperature."""

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
    """One entry a bin that holds at least one image, from low confidence to high."""

    confidence: FloatArray
    """(K,) mean of the highest probability."""
    accuracy: FloatArray
    """(K,) share of right predictions."""
    n_images: IntArray
    """(K,) number of images."""


def reliability_bins(probabilities: ArrayLike, label_ids: ArrayLike) -> ReliabilityBins:
    """Group the predictions by confidence in 15 bins of equal width, without the empty ones (Guo et al., 2017).

    Args:
        probabilities: (N, K), each row summing to one.
        label_ids: (N,) true label ids.

    Raises:
        SmileDataError: the inputs are empty, differ in length, or are not probabilities and label ids.

    >>> reliability_bins([[0.9, 0.1, 0.0], [0.9, 0.0, 0.1]], [0, 1])
    ReliabilityBins(confidence=array([0.9]), accuracy=array([0.5]), n_images=array([2]))
    """
    rows, labels = check_inputs(probabilities, label_ids)
    confidence = rows.max(axis=1)
    _, bins, count = np.unique(confidence_bin(confidence), return_inverse=True, return_counts=True)
    hits = rows.argmax(axis=1) == labels
    return ReliabilityBins(np.bincount(bins, confidence) / count, np.bincount(bins, hits) / count, count)


def ece_if_calibrated(probabilities: ArrayLike, n_draws: int = 1000, seed: int = 0) -> tuple[float, float]:
    """What `ece` a perfectly calibrated model with these confidences would show: the mean, and the 95 % quantile.

    It is never 0, because each bin's accuracy is counted on few images. An `ece` below the quantile gives no reason
    to think that the model is miscalibrated (Bröcker and Smith, 2007, "Increasing the Reliability of Reliability
    Diagrams").

    Args:
        probabilities: (N, K), each row summing to one.
        n_draws: how often right and wrong are drawn again, each image being right with its confidence.
        seed: makes the draws repeatable.

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
    """The temperature T that makes softmax(logits / T) most likely: temperature scaling (Guo et al., 2017).

    T > 1 makes an overconfident model humbler; no prediction changes. Fit it on validation images, never on test.
    Where every image is right, ever smaller T fit ever better and say nothing about other images: 1.0 then.

    Args:
        logits: (N, K) finite scores before softmax.
        label_ids: (N,) true label ids.

    Returns:
        T, from 0.05 to 20.

    Raises:
        SmileDataError: the inputs are empty, differ in length, or are not finite logits and label ids.

    >>> fit_temperature([[9.0, 0.0, 0.0]] * 3 + [[0.0, 9.0, 0.0]], [0, 0, 0, 0]) > 1
    True
    """
    scores = np.asarray(logits, dtype=np.float64)
    if not np.isfinite(scores).all():
        raise SmileDataError("logits must be finite; there is NaN or infinity among them. Did the training diverge?")
    _, labels = check_inputs(softmax(scores, axis=-1) if scores.size else scores, label_ids, classes)
    images = np.arange(len(labels))
    if (scores.argmax(axis=1) == labels).all():
        return 1.0

    def nll(log_temperature: float) -> float:
        return float(-log_softmax(scores / np.exp(log_temperature), axis=1)[images, labels].mean())

    return float(np.exp(minimize_scalar(nll, bounds=np.log(TEMPERATURE_RANGE), method="bounded").x))
