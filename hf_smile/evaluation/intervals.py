"""Confidence intervals of metrics for the choice of test images: Wilson's interval and the bootstrap (Efron, 1979)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm

from hf_smile.errors import SmileDataError
from hf_smile.evaluation.metrics import FloatArray, IntArray, check_inputs, compute_metrics, weighted_metrics
from hf_smile.evaluation.numbers import NO_INTERVAL
from hf_smile.labels import SMILE_LABELS, LabelSet

N_RESAMPLES = 2000
CONFIDENCE = 0.95
_CHUNK_CELLS = 500_000  # 4 MB of float64, so that a chunk's working set fits into the CPU cache


class Difference(NamedTuple):
    """A metric of A minus the same metric of B, and the ends of its interval, in the unit of the metric."""

    value: float
    low: float
    high: float


def confidence_intervals(
    probabilities: ArrayLike,
    label_ids: ArrayLike,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    labels: LabelSet = SMILE_LABELS,
) -> dict[str, tuple[float, float]]:
    """A 95 % interval of every metric of `compute_metrics`.

    `accuracy`, `recall_<class>` and `precision_<class>` are proportions: of all images, of the images of the class, and
    of the images predicted as the class. They get Wilson's interval (`wilson_interval`), which is also valid for few
    images and at 0 and 100 %. All others get the percentile bootstrap interval (Efron and Tibshirani, 1993, chapter
    13). Resamples in which a metric is undefined are ignored; if it is undefined in all, both ends are NaN. They are
    also NaN if all resamples agree, for example because all predictions are correct: the bootstrap can't tell then.

    An interval covers the choice of test images, not the variation between training runs. On simulated data with at
    least 75 images per class, 95 % intervals covered the true value in 92 to 96 % of the cases. The bootstrap interval
    is too narrow if a class has few images (with 15 of 300, 76 % coverage for its AUC of 0.99). `ece` is biased
    upwards, and resampling adds the same bias again, so its interval is mirrored at the value (the "basic" interval;
    Davison and Hinkley, 1997, chapter 5). It covers the true value in about 92 % of the cases, but only in 56 % for a
    calibrated model; use `calibration.ece_if_calibrated` for that case.

    Args:
        probabilities: (N, K), each row summing to one.
        label_ids: (N,) true label ids.
        n_resamples: number of bootstrap resamples.
        seed: seed of the bootstrap.
        labels: the K labels.

    Returns:
        (low, high) by metric name.

    Raises:
        SmileDataError: if the inputs are empty, differ in length, or are not probabilities and label ids.

    >>> low, high = confidence_intervals([[0.7, 0.2, 0.1]] * 90 + [[0.1, 0.2, 0.7]] * 10, [0] * 100)["accuracy"]
    >>> low < 0.9 < high
    True
    """
    probabilities, label_ids = check_inputs(probabilities, label_ids, len(labels))
    samples = bootstrap_samples(probabilities, label_ids, n_resamples, seed, labels)
    ece = compute_metrics(probabilities, label_ids, labels)["ece"]
    samples["ece"] = np.maximum(2 * ece - samples["ece"], 0)
    found = {name: percentile_interval(values) for name, values in samples.items()}
    found = {name: (low, high) if low < high else NO_INTERVAL for name, (low, high) in found.items()}

    predicted = probabilities.argmax(axis=1)
    hits = predicted == label_ids
    shares = {"accuracy": np.ones(len(hits), dtype=bool)}
    for label_id, slug in enumerate(labels.slugs):
        shares |= {f"recall_{slug}": label_ids == label_id, f"precision_{slug}": predicted == label_id}
    for name, among in shares.items():
        low, high = wilson_interval(hits[among].mean() if among.any() else 0.0, among.sum())
        found[name] = float(low), float(high)
    return found


def wilson_interval(share: ArrayLike, n_images: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """95 % interval of a proportion (Wilson, 1927). Without images, the interval is 0 to 1.

    Args:
        share: (...) proportion, 0 to 1.
        n_images: (...) number of images that it refers to.

    Returns:
        Lower and upper ends, each (...).

    >>> low, high = wilson_interval(1.0, 20)
    >>> round(float(low), 3), float(high)
    (0.839, 1.0)
    """
    share, n = np.asarray(share, dtype=np.float64), np.asarray(n_images, dtype=np.float64)
    z2 = norm.ppf((1 + CONFIDENCE) / 2) ** 2
    center, half = n * share + z2 / 2, np.sqrt(z2 * (n * share * (1 - share) + z2 / 4))
    return ((center - half) / (n + z2)).clip(0, 1), ((center + half) / (n + z2)).clip(0, 1)


def paired_bootstrap_difference(
    probabilities_a: ArrayLike,
    probabilities_b: ArrayLike,
    label_ids: ArrayLike,
    metric: str = "accuracy",
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    labels: LabelSet = SMILE_LABELS,
) -> Difference:
    """A metric of A minus that of B on the same images, with its 95 % percentile bootstrap interval.

    Both are resampled together, so images that are hard for both cancel out. There may be a difference even if the
    separate intervals of `confidence_intervals` overlap.

    Args:
        probabilities_a: (N, K) probabilities of classifier A.
        probabilities_b: (N, K) probabilities of classifier B for the same images, row by row.
        label_ids: (N,) true label ids.
        metric: name of a metric of `compute_metrics`.
        n_resamples: number of bootstrap resamples.
        seed: seed of the bootstrap.
        labels: the K labels.

    Raises:
        SmileDataError: if the inputs do not match, or the metric is unknown.

    >>> a, b = [[0.7, 0.2, 0.1]] * 4, [[0.2, 0.7, 0.1]] * 4
    >>> paired_bootstrap_difference(a, b, [0, 0, 0, 0])
    Difference(value=1.0, low=1.0, high=1.0)
    """
    a, label_ids = check_inputs(probabilities_a, label_ids, len(labels))
    b, label_ids = check_inputs(probabilities_b, label_ids, len(labels))
    value_a, value_b = (compute_metrics(rows, label_ids, labels) for rows in (a, b))
    if metric not in value_a:
        raise SmileDataError(f"unknown metric {metric!r}; choose one of {', '.join(value_a)}")
    of_a, of_b = (bootstrap_samples(rows, label_ids, n_resamples, seed, labels)[metric] for rows in (a, b))
    return Difference(value_a[metric] - value_b[metric], *percentile_interval(of_a - of_b))


def bootstrap_samples(
    probabilities: FloatArray,
    label_ids: IntArray,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    labels: LabelSet = SMILE_LABELS,
) -> dict[str, FloatArray]:
    """Each metric on each resample: (n_resamples,) by name. The inputs must have passed `check_inputs`.

    The same seed draws the same images for any probabilities.
    """
    chunks = [
        weighted_metrics(probabilities, label_ids, weights, labels)
        for weights in resampling_weights(len(label_ids), n_resamples, seed)
    ]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def percentile_interval(samples: FloatArray) -> tuple[float, float]:
    """The central 95 % of the samples, ignoring NaN; (NaN, NaN) if all are NaN."""
    defined = samples[~np.isnan(samples)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def chunk_sizes(n_images: int, total: int) -> Iterator[int]:
    """Split `total` resamples into chunks whose weights (n_images, size) are small."""
    per_chunk = max(32, _CHUNK_CELLS // n_images)  # with fewer, sorting would take longer than counting
    for start in range(0, total, per_chunk):
        yield min(per_chunk, total - start)


def resampling_weights(n_images: int, n_resamples: int, seed: int) -> Iterator[FloatArray]:
    """Chunks (n_images, b) of `n_resamples` resamples, as the number of times each resample drew each image."""
    generator = np.random.default_rng(seed)
    for size in chunk_sizes(n_images, n_resamples):
        drawn = generator.integers(n_images, size=(n_images, size)) * size + np.arange(size)
        counts = np.bincount(drawn.ravel(), minlength=n_images * size)
        yield counts.reshape(n_images, size).astype(np.float64)
