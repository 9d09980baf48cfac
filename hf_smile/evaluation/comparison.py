"""Is A better than B? Compare two classifiers on the same images, in one sentence."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest

from hf_smile.errors import SmileDataError
from hf_smile.evaluation.intervals import CONFIDENCE, N_RESAMPLES, Difference, paired_bootstrap_difference
from hf_smile.evaluation.metrics import check_inputs
from hf_smile.evaluation.numbers import share
from hf_smile.labels import SMILE_LABELS, LabelSet


class Comparison(NamedTuple):
    """The result of `compare`."""

    difference: Difference
    """Accuracy of A minus accuracy of B, as a share."""
    p_value: float
    """McNemar's exact test, two-sided."""
    sentence: str


def mcnemar_exact(correct_a: ArrayLike, correct_b: ArrayLike, alternative: str = "two-sided") -> float:
    """The p-value of McNemar's exact test (McNemar, 1947) that A and B are correct equally often.

    Only images that exactly one of them gets right count. If A and B are equally good, each of the two is equally
    likely to be the one that is right. 1.0 if there are no such images.

    Args:
        correct_a: (N,) whether A is correct.
        correct_b: (N,) whether B is correct on the same image.
        alternative: `two-sided`, or `greater` to test whether A is correct more often.

    Raises:
        SmileDataError: if the lengths differ.

    >>> mcnemar_exact([True] * 6, [False] * 6)
    0.03125
    """
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if a.shape != b.shape:
        raise SmileDataError(f"A and B must be predictions for the same images; got {a.size} and {b.size}")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return float(binomtest(only_a, only_a + only_b, alternative=alternative).pvalue) if only_a + only_b else 1.0


def compare(
    probabilities_a: ArrayLike,
    probabilities_b: ArrayLike,
    label_ids: ArrayLike,
    name_a: str = "A",
    name_b: str = "B",
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    labels: LabelSet = SMILE_LABELS,
) -> Comparison:
    """The difference in accuracy with its paired bootstrap interval and McNemar's exact test, and a sentence about it.

    The sentence only calls one of them more accurate if the interval excludes 0 and the test is significant.

    Args:
        probabilities_a: (N, K) probabilities of classifier A.
        probabilities_b: (N, K) probabilities of classifier B for the same images, row by row.
        label_ids: (N,) true label ids.
        name_a: name of A in the sentence.
        name_b: name of B in the sentence.
        n_resamples: number of bootstrap resamples.
        seed: seed of the bootstrap.
        labels: the K labels.

    Raises:
        SmileDataError: if the inputs do not match.

    >>> compare([[0.7, 0.2, 0.1]] * 8, [[0.2, 0.7, 0.1]] * 8, [0] * 8).sentence
    "A is more accurate by 100.0 points (95 % interval 100.0 to 100.0; McNemar's exact test p = 0.008)."
    """
    a, ids = check_inputs(probabilities_a, label_ids, len(labels))
    b, ids = check_inputs(probabilities_b, label_ids, len(labels))
    if np.array_equal(a, b):
        same = Difference(0.0, 0.0, 0.0)
        return Comparison(same, 1.0, f"{name_a} and {name_b} give the same probabilities for every image.")
    difference = paired_bootstrap_difference(a, b, ids, "accuracy", n_resamples, seed, labels)
    p_value = mcnemar_exact(a.argmax(axis=1) == ids, b.argmax(axis=1) == ids)
    better, shown = name_a, difference
    if difference.value < 0:
        better, shown = name_b, Difference(-difference.value, -difference.high, -difference.low)
    points = f"{100 * shown.value:.1f} points"
    evidence = (
        f"({share(CONFIDENCE, 0)} interval {100 * shown.low:.1f} to {100 * shown.high:.1f};"
        f" McNemar's exact test p {p_text(p_value)})"
    )
    if shown.low > 0 and p_value < 1 - CONFIDENCE:
        sentence = f"{better} is more accurate by {points} {evidence}."
    else:
        lead = f"{better} is {points} ahead" if shown.value else "both are correct equally often"
        sentence = f"No significant difference in accuracy between {name_a} and {name_b}: {lead} {evidence}."
    return Comparison(difference, p_value, sentence)


def p_text(p_value: float) -> str:
    """`"= 0.012"`, or `"< 0.001"`."""
    return "< 0.001" if p_value < 0.001 else f"= {p_value:.3f}"
