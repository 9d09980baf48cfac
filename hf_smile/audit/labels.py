"""Suspicious labels: confident learning on out-of-fold predictions of a linear probe or of other models."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from hf_smile.errors import SmileDataError
from hf_smile.labels import SMILE_LABELS, LabelSet

FOLDS = 5
REGULARIZATION = 0.2
"""Weight of the L2 penalty of the probe, relative to its mean loss. Of 0.02, 0.2 and 2, it had the best log loss on
1,280 features of 6,442 faces."""
PLANTED = 0.02
"""Share of labels that `share_of_planted_found` changes."""


class LabelNoise(NamedTuple):
    """The result of confident learning."""

    joint: np.ndarray
    """(K, K) joint distribution of given label (rows) and estimated true label (columns); it sums to 1."""
    by_class: dict[str, float]
    """Estimated share of wrong labels, by given label."""
    suspicious: pd.DataFrame
    """`row`, `label`, `likely_label`, `quality` of the given label (0 to 1), `p_<label id>`; most suspicious first."""


def out_of_fold_probabilities(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int = 0, classes: int = len(SMILE_LABELS)
) -> np.ndarray:
    """Class probabilities of every image from a linear probe that was trained on neither it nor its group.

    Args:
        features: (N, F) features.
        labels: (N,) label ids.
        groups: (N,) group numbers. A group is never divided between folds.
        seed: seed for shuffling the groups.
        classes: number of classes K.

    Returns:
        (N, K) float64, each row summing to one.

    Raises:
        SmileDataError: if there are too few images or groups for two folds.
    """
    from tqdm.auto import tqdm

    from hf_smile.modeling.probe import linear_probes

    probabilities = np.zeros((len(labels), classes))
    divided = divide(labels, groups, FOLDS, seed, classes)
    for train, held_out in tqdm(divided, desc="Linear probe", unit=" folds", delay=1):
        ((probabilities[held_out],),) = linear_probes(
            features[train], labels[train], features[held_out], classes=classes, penalties=[REGULARIZATION]
        )
    return probabilities


def divide(
    labels: np.ndarray, groups: np.ndarray, folds: int, seed: int, classes: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Divide the rows into stratified folds: a pair of training rows and held-out rows for each fold.

    Args:
        labels: (N,) label ids.
        groups: (N,) group numbers. A group is never divided between folds.
        folds: number of folds, reduced if a class has fewer images or there are fewer groups.
        seed: seed for shuffling the groups.
        classes: number of classes.

    Raises:
        SmileDataError: if there are too few images or groups for two folds.

    >>> [held_out.tolist() for _, held_out in divide(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), 2, 0, 2)]
    [[1, 3], [0, 2]]
    """
    from sklearn.model_selection import StratifiedGroupKFold

    counts = np.bincount(labels, minlength=classes)
    folds = min(folds, int(counts.min()), len(np.unique(groups)))
    if folds < 2:
        raise SmileDataError(
            f"estimating label noise needs at least 2 images of each class; there are {counts.tolist()}"
        )
    return list(StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(labels, labels, groups))


def estimate_label_noise(labels: np.ndarray, probabilities: np.ndarray, names: LabelSet = SMILE_LABELS) -> LabelNoise:
    """Estimate which labels are wrong, and how many, by confident learning.

    A label is counted as wrong if the model is more confident of another class than it is on average for images with
    that class as their label (Northcutt, Jiang & Chuang, 2021, "Confident Learning: Estimating Uncertainty in Dataset
    Labels", JAIR 70).

    Args:
        labels: (N,) given label ids.
        probabilities: (N, K) out-of-fold probabilities.
        names: the K labels.

    >>> noise = estimate_label_noise(labels, out_of_fold_probabilities(features, labels, groups))  # doctest: +SKIP
    >>> noise.suspicious.head()  # doctest: +SKIP
    """
    from cleanlab.count import estimate_joint
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    joint = estimate_joint(labels, probabilities)
    # Of cleanlab's filters, this one finds most planted errors (4.3 times as many as guessing, on 6,442 faces).
    # One process, because more would copy the arrays for a few milliseconds of work.
    rows = find_label_issues(
        labels, probabilities, filter_by="low_self_confidence", return_indices_ranked_by="self_confidence", n_jobs=1
    )
    quality = get_label_quality_scores(labels, probabilities, method="self_confidence")
    others = probabilities[rows].copy()
    others[np.arange(len(rows)), labels[rows]] = -1
    columns = {"row": rows, "label": labels[rows], "likely_label": others.argmax(axis=1), "quality": quality[rows]}
    suspicious = pd.DataFrame(columns).join(pd.DataFrame(probabilities[rows]).add_prefix("p_"))
    given = joint.sum(axis=1)
    wrong = 1 - joint.diagonal() / np.maximum(given, 1e-12)
    return LabelNoise(joint, dict(zip(names, wrong.tolist(), strict=True)), suspicious)


def share_of_planted_found(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int = 0, names: LabelSet = SMILE_LABELS
) -> float:
    """The recall of the list of suspicious labels, estimated by changing labels on purpose.

    2 % of the labels are changed to another class at random, and the estimate is repeated. Compare the result with the
    share of all labels on the list, which is the recall of random guessing.
    """
    draw = np.random.default_rng(seed)
    changed = draw.choice(len(labels), max(1, round(PLANTED * len(labels))), replace=False)
    with_errors = labels.copy()
    classes = len(names)
    with_errors[changed] = (labels[changed] + draw.integers(1, classes, len(changed))) % classes
    probabilities = out_of_fold_probabilities(features, with_errors, groups, seed=seed, classes=classes)
    noise = estimate_label_noise(with_errors, probabilities, names)
    return float(np.isin(changed, noise.suspicious["row"]).mean())
