"""Agreement of two people, or a person and the annotations, on labels: the ceiling for a model trained on them."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import cohen_kappa_score, confusion_matrix

from hf_smile.errors import SmileDataError
from hf_smile.evaluation.intervals import N_RESAMPLES, percentile_interval, resampling_weights, wilson_interval
from hf_smile.evaluation.metrics import FloatArray
from hf_smile.evaluation.numbers import with_interval
from hf_smile.labels import SMILE_LABELS, LabelSet
from hf_smile.utils.words import counted

Estimate = tuple[float, float, float]
"""Value, and the lower and upper ends of its 95 % interval."""


class Agreement(NamedTuple):
    """The result of `measure_agreement`."""

    images: int
    agreement: Estimate
    """Share of images with the same label, with Wilson's interval."""
    kappa: Estimate
    """Cohen's kappa, with the percentile bootstrap interval; NaN if both always gave the same single label."""
    confusion: pd.DataFrame
    """(K, K) number of images, by the first label (rows) and the second label (columns)."""

    def describe(self, first: str, second: str) -> str:
        """A sentence with the numbers, and the confusion matrix as a Markdown table."""
        names = [*self.confusion]
        rows = [f"| {first} \\ {second} | {' | '.join(names)} |", "| --- |" + " ---: |" * len(names)]
        rows += [f"| {name} | {' | '.join(f'{n:,}' for n in self.confusion.loc[name])} |" for name in names]
        return (
            f"{counted(self.images, 'image')}: agreement {with_interval(*self.agreement, percent=True)}, "
            f"Cohen's kappa {with_interval(*self.kappa)}\n\n" + "\n".join(rows)
        )


def measure_agreement(
    first: ArrayLike,
    second: ArrayLike,
    labels: LabelSet = SMILE_LABELS,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> Agreement:
    """Agreement, Cohen's kappa (Cohen, 1960) and confusion matrix of two sets of labels for the same images.

    Args:
        first: (N,) label ids.
        second: (N,) label ids of the same images.
        labels: the K labels.
        n_resamples: number of bootstrap resamples for the interval of kappa.
        seed: seed of the bootstrap.

    Raises:
        SmileDataError: if there are no images.
        ValueError: if the numbers of labels differ.

    >>> measure_agreement([0, 1, 2, 2], [0, 1, 2, 1]).agreement[0]
    0.75
    """
    first, second = np.asarray(first), np.asarray(second)
    if first.shape != second.shape:
        raise ValueError(f"got {len(first)} and {len(second)} labels; both must label the same images")
    if not len(first):
        raise SmileDataError("no image was labelled by both; use files about the same images")
    ids = range(len(labels))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)  # NaN is the right value
        kappa = float(cohen_kappa_score(first, second, labels=ids))
    drawn = [_kappas(first, second, weights) for weights in resampling_weights(len(first), n_resamples, seed)]
    share = float((first == second).mean())
    interval = percentile_interval(np.concatenate(drawn))
    low, high = wilson_interval(share, len(first))
    table = pd.DataFrame(confusion_matrix(first, second, labels=ids), [*labels], [*labels])
    return Agreement(len(first), (share, float(low), float(high)), (kappa, *interval), table)


def _kappas(first: np.ndarray, second: np.ndarray, weights: FloatArray) -> FloatArray:
    """Cohen's kappa of each resample: (b,), from weights (N, b). scikit-learn would compute them slowly, one by one."""
    n = weights.sum(axis=0)
    observed = weights[first == second].sum(axis=0) / n
    shares = [[weights[opinion == label].sum(axis=0) / n for label in np.unique(first)] for opinion in (first, second)]
    expected = np.multiply(*map(np.array, shares)).sum(axis=0)
    with np.errstate(invalid="ignore"):
        return (observed - expected) / (1 - expected)
