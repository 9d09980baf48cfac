"""How far two people, or a person and the annotations, agree on labels: the ceiling for whoever learns from them."""

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
"""Value, and the lower and upper end of its 95 % interval."""


class Agreement(NamedTuple):
    """What `measure_agreement` found."""

    images: int
    agreement: Estimate
    """Share of the images with the same label, with Wilson's interval."""
    kappa: Estimate
    """Cohen's kappa, with the percentile bootstrap interval; NaN where both gave one and the same label throughout."""
    confusion: pd.DataFrame
    """(K, K) images: labels of the first by row, of the second by column."""

    def describe(self, first: str, second: str) -> str:
        """In words, with the confusion as a Markdown table."""
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
    """Agreement, Cohen's kappa (Cohen, 1960) and confusion of two opinions on the same images.

    Args:
        first: (N,) label ids.
        second: (N,) label ids of the same images.
        labels: the K labels.
        n_resamples: sets of N images that are drawn for the interval of kappa, with replacement.
        seed: of what is drawn.

    Raises:
        SmileDataError: there are no images.
        ValueError: the opinions are not on the same number of images.

    >>> measure_agreement([0, 1, 2, 2], [0, 1, 2, 1]).agreement[0]
    0.75
    """
    first, second = np.asarray(first), np.asarray(second)
    if first.shape != second.shape:
        raise ValueError(f"{len(first)} and {len(second)} labels; the opinions must be on the same images")
    if not len(first):
        raise SmileDataError("no image was labelled by both; give files about the same images")
    ids = range(len(labels))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)  # NaN says it
        kappa = float(cohen_kappa_score(first, second, labels=ids))
    drawn = [_kappas(first, second, weights) for weights in resampling_weights(len(first), n_resamples, seed)]
    share = float((first == second).mean())
    interval = percentile_interval(np.concatenate(drawn))
    low, high = wilson_interval(share, len(first))
    table = pd.DataFrame(confusion_matrix(first, second, labels=ids), [*labels], [*labels])
    return Agreement(len(first), (share, float(low), float(high)), (kappa, *interval), table)


def _kappas(first: np.ndarray, second: np.ndarray, weights: FloatArray) -> FloatArray:
    """Cohen's kappa of each resample: (b,), from weights (N, b). scikit-learn computes one at a time, which is slow."""
    n = weights.sum(axis=0)
    observed = weights[first == second].sum(axis=0) / n
    shares = [[weights[opinion == label].sum(axis=0) / n for label in np.unique(first)] for opinion in (first, second)]
    expected = np.multiply(*map(np.array, shares)).sum(axis=0)
    with np.errstate(invalid="ignore"):
        return (observed - expected) / (1 - expected)
