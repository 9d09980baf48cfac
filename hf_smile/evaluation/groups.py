"""Does the model work equally well for every group? Metrics by group, and a test of the largest gap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from hf_smile.errors import SmileDataError
from hf_smile.evaluation.intervals import N_RESAMPLES, chunk_sizes, confidence_intervals
from hf_smile.evaluation.metrics import check_inputs, compute_metrics, weighted_metrics
from hf_smile.labels import SMILE_LABELS, LabelSet
from hf_smile.utils.words import counted

MAX_GROUPS = 20
MIN_IMAGES = 20
NO_VALUE = "(empty)"


class Group(NamedTuple):
    """Number of images of a group, and its metrics and intervals by name."""

    n: int
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]


class Gap(NamedTuple):
    """The groups with the highest and the lowest value of a metric."""

    highest: str
    lowest: str
    difference: float
    p_value: float
    """How often a gap at least as large occurs if images are assigned to groups at random."""


def metrics_by_group(
    probabilities: ArrayLike,
    label_ids: ArrayLike,
    groups: Sequence[str],
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    labels: LabelSet = SMILE_LABELS,
) -> dict[str, Group]:
    """Every metric with its interval for each group, largest group first.

    Args:
        probabilities: (N, K), each row summing to one.
        label_ids: (N,) true label ids.
        groups: (N,) group of each image, for example an age band. Empty values form the group "(empty)".
        n_resamples: number of bootstrap resamples.
        seed: seed of the bootstrap.
        labels: the K labels.

    Raises:
        SmileDataError: if the inputs do not match, or there are more than 20 groups.

    >>> groups = metrics_by_group([[0.7, 0.2, 0.1]] * 3, [0, 0, 1], ["young", "young", "old"])
    >>> {name: (group.n, group.metrics["accuracy"]) for name, group in groups.items()}
    {'young': (2, 1.0), 'old': (1, 0.0)}
    """
    rows, ids = check_inputs(probabilities, label_ids, len(labels))
    names, codes, counts = _group_codes(groups, len(ids))
    result = {}
    for code in np.argsort(-counts, kind="stable"):
        part = rows[codes == code], ids[codes == code]
        intervals = confidence_intervals(*part, n_resamples, seed, labels)
        result[names[code]] = Group(int(counts[code]), compute_metrics(*part, labels), intervals)
    return result


def largest_gap(
    probabilities: ArrayLike,
    label_ids: ArrayLike,
    groups: Sequence[str],
    metric: str = "accuracy",
    min_images: int = MIN_IMAGES,
    n_permutations: int = N_RESAMPLES,
    seed: int = 0,
    labels: LabelSet = SMILE_LABELS,
) -> Gap | None:
    """The largest difference of a metric between two groups, with a permutation test.

    The more groups there are, the larger the gap that is expected by chance. The p-value accounts for this, unlike a
    comparison of only the two extreme groups (Good, 2005, "Permutation Tests").

    Args:
        probabilities: (N, K), each row summing to one.
        label_ids: (N,) true label ids.
        groups: (N,) group of each image.
        metric: name of a metric of `compute_metrics`.
        min_images: groups with fewer images are ignored.
        n_permutations: number of random assignments of images to groups.
        seed: seed of these assignments.
        labels: the K labels.

    Returns:
        The gap, or None if fewer than two groups have enough images.

    Raises:
        SmileDataError: if the inputs do not match, there are more than 20 groups, or the metric is unknown.

    >>> probabilities = [[0.7, 0.2, 0.1]] * 60
    >>> gap = largest_gap(probabilities, [0] * 30 + [1] * 30, ["young"] * 30 + ["old"] * 30)
    >>> gap.highest, gap.lowest, gap.difference, gap.p_value < 0.001
    ('young', 'old', 1.0, True)
    """
    rows, ids = check_inputs(probabilities, label_ids, len(labels))
    names, codes, counts = _group_codes(groups, len(ids))
    kept = np.flatnonzero(counts >= min_images)
    if len(kept) < 2:
        return None
    in_kept = np.isin(codes, kept)
    rows, ids, codes = rows[in_kept], ids[in_kept], codes[in_kept]

    def values(assigned: np.ndarray) -> np.ndarray:
        """The metric of each kept group (G, B) for B assignments (N, B) of images to groups."""
        found = [weighted_metrics(rows, ids, (assigned == code).astype(np.float64), labels) for code in kept]
        if metric not in found[0]:
            raise SmileDataError(f"unknown metric {metric!r}; choose one of {', '.join(found[0])}")
        return np.stack([by_name[metric] for by_name in found])

    def gaps(metrics: np.ndarray) -> np.ndarray:
        return np.fmax.reduce(metrics) - np.fmin.reduce(metrics)  # these ignore NaN

    observed = values(codes[:, None])
    if np.isnan(observed).all():
        return None
    generator = np.random.default_rng(seed)
    as_large = 0
    for size in chunk_sizes(len(ids), n_permutations):
        shuffled = generator.permuted(np.tile(codes[:, None], size), axis=0)
        as_large += int((gaps(values(shuffled)) >= gaps(observed) - 1e-12).sum())
    return Gap(
        highest=names[kept[np.nanargmax(observed)]],
        lowest=names[kept[np.nanargmin(observed)]],
        difference=float(gaps(observed)[0]),
        p_value=(1 + as_large) / (1 + n_permutations),
    )


def _group_codes(groups: Sequence[str], n_images: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The sorted group names, the index of each image's group (N,), and the number of images per group."""
    if len(groups) != n_images:
        raise SmileDataError(
            f"each image needs one group: got {counted(len(groups), 'group')} for {counted(n_images, 'image')}"
        )
    names, codes, counts = np.unique(
        [str(group) or NO_VALUE for group in groups], return_inverse=True, return_counts=True
    )
    if len(names) > MAX_GROUPS:
        raise SmileDataError(
            f"there are {len(names)} different groups ({names[0]}, {names[1]}, ...), but at most {MAX_GROUPS} can be"
            " compared; group by a column with fewer values, for example age bands instead of ages"
        )
    return names.tolist(), codes, counts
