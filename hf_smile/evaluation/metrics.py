"""All metrics of a classifier, computed from probabilities and label ids.

Each metric is a function of image weights. With weight 1 for every image, it is the value (`compute_metrics`); with the
counts of bootstrap resamples, it gives the interval (`intervals.py`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_smile.errors import SmileDataError
from hf_smile.labels import POSITIVE_SMILE, SMILE_LABELS, LabelSet
from hf_smile.utils.words import counted

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

CALIBRATION_BINS = 15
SUM_TOLERANCE = 1e-3


def compute_metrics(
    probabilities: ArrayLike, label_ids: ArrayLike, labels: LabelSet = SMILE_LABELS
) -> dict[str, float]:
    """All metrics of a set of predictions. The predicted class has the highest probability, the first one in a tie.

    - `accuracy`.
    - `balanced_accuracy`: mean recall over the classes that occur in `label_ids`.
    - `macro_precision`, `macro_recall`, `macro_f1`: means over all classes.
    - `precision_<class>`, `recall_<class>`, `f1_<class>`, `support_<class>` (number of images), with the class named as
      by `label_slug`. 0.0 if the denominator is 0, like scikit-learn's `zero_division=0`.
    - `roc_auc_<class>`: one class against the rest, ties counting half (the Mann-Whitney statistic).
    - `smile_auc`: smiles against no smile, scored by the summed probability of the smiles. Omitted if the labels do not
      define which of them are smiles.
    - `genuine_auc`: positive against negative smiles among the true smiles, scored by p(positive) / (p(negative) +
      p(positive)), or 0.5 if both are 0; for the default labels only. All AUCs are NaN if one of the two sides has no
      image.
    - `cohen_kappa`: agreement beyond chance; NaN if all labels and all predictions are the same class.
    - `nll`: mean negative log-likelihood in nats, with probabilities clipped at 2.2e-16, as in scikit-learn.
    - `brier`: squared error summed over the classes, averaged over the images, 0 to 2 (Brier, 1950).
    - `ece`: expected calibration error of the highest probability, 15 bins of equal width (Guo et al., 2017,
      "On Calibration of Modern Neural Networks").
    - `micro_precision_at_50`, `micro_recall_at_50`: as reported by Keras's `Precision()` and `Recall()` on one-hot
      targets: every probability above 0.5 is a positive prediction, pooled over the classes. 0.0 if there are none.

    Args:
        probabilities: (N, K), each row summing to one.
        label_ids: (N,) true label ids.
        labels: the K labels.

    Raises:
        SmileDataError: if the inputs are empty, differ in length, or are not probabilities and label ids.

    >>> metrics = compute_metrics([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.6, 0.1, 0.3]], [0, 1, 2])
    >>> round(metrics["accuracy"], 3), metrics["roc_auc_negative_smile"]
    (0.667, 1.0)
    """
    probabilities, label_ids = check_inputs(probabilities, label_ids, len(labels))
    values = weighted_metrics(probabilities, label_ids, np.ones((len(label_ids), 1)), labels)
    return {name: float(value[0]) for name, value in values.items()}


def check_inputs(
    probabilities: ArrayLike, label_ids: ArrayLike, classes: int | None = None
) -> tuple[FloatArray, IntArray]:
    """Validate `probabilities` as float64 (N, K) and `label_ids` as int64 (N,). K must be `classes` if given.

    Raises:
        SmileDataError: if the inputs are empty, differ in length, or are not probabilities and label ids.
    """
    try:
        rows = np.asarray(probabilities, dtype=np.float64)
        labels = np.asarray(label_ids, dtype=np.float64)
    except (TypeError, ValueError):
        raise SmileDataError(
            f"probabilities must be {classes or 'K'} numbers per image, and label ids one number per image"
        ) from None
    if rows.size == 0 or labels.size == 0:
        raise SmileDataError("there are no predictions to evaluate; pass at least one image")
    if rows.ndim != 2 or rows.shape[1] != (classes or rows.shape[1]):
        raise SmileDataError(
            f"probabilities must have the shape (N, {classes or 'K'}), one column per label; got {rows.shape}"
        )
    classes = rows.shape[1]
    if labels.shape != (len(rows),):
        raise SmileDataError(
            f"each row of probabilities needs one label id: got {counted(len(rows), 'row')} of probabilities"
            f" and label ids of shape {labels.shape}"
        )
    unknown = ~np.isin(labels, range(classes))
    if unknown.any():
        raise SmileDataError(
            f"label ids must be {', '.join(map(str, range(classes)))}; got {labels[unknown.argmax()]:g}"
            f" in {_rows(unknown)}"
        )
    not_finite = ~np.isfinite(rows).all(axis=1)
    if not_finite.any():
        raise SmileDataError(f"probabilities must be finite; {_rows(not_finite)} has NaN or infinity")
    negative = (rows < 0).any(axis=1)
    if negative.any():
        raise SmileDataError(
            f"probabilities must not be negative, as in {_rows(negative)}. If these are logits, apply softmax first"
        )
    sums = rows.sum(axis=1)
    off = np.abs(sums - 1) > SUM_TOLERANCE
    if off.any():
        raise SmileDataError(
            f"the probabilities of an image must sum to 1; {_rows(off)} sums to {sums[off.argmax()]:.4g}."
            " If these are logits, apply softmax first"
        )
    return rows, labels.astype(np.int64)


def weighted_metrics(
    probabilities: FloatArray, label_ids: IntArray, weights: FloatArray, labels: LabelSet = SMILE_LABELS
) -> dict[str, FloatArray]:
    """Each metric of `compute_metrics` for B sets of image weights. The inputs must have passed `check_inputs`.

    Args:
        probabilities: (N, K), each row summing to one.
        label_ids: (N,) true label ids.
        weights: (N, B) image weights; no column may sum to 0.
        labels: the K labels.

    Returns:
        Arrays (B,) by metric name, NaN where a metric is undefined.
    """
    total = weights.sum(axis=0)
    predicted = probabilities.argmax(axis=1)
    classes, slugs = len(labels), labels.slugs
    targets = np.eye(classes)[label_ids]

    cell = np.eye(classes**2)[label_ids * classes + predicted]
    confusion = (cell.T @ weights).reshape(classes, classes, -1)  # true label, predicted label, weighting
    hits = np.einsum("iib->ib", confusion)
    support, claims = confusion.sum(axis=1), confusion.sum(axis=0)
    precision = _ratio(hits, claims, undefined=0.0)
    recall = _ratio(hits, support, undefined=0.0)
    f1 = _ratio(2 * hits, support + claims, undefined=0.0)

    result = {
        "accuracy": hits.sum(axis=0) / total,
        "balanced_accuracy": recall.sum(axis=0) / (support > 0).sum(axis=0),
        "macro_precision": precision.mean(axis=0),
        "macro_recall": recall.mean(axis=0),
        "macro_f1": f1.mean(axis=0),
    }
    for name, rows in {"precision": precision, "recall": recall, "f1": f1, "support": support}.items():
        result |= {f"{name}_{slug}": row for slug, row in zip(slugs, rows, strict=True)}

    for label_id, slug in enumerate(slugs):
        result[f"roc_auc_{slug}"] = _auc(probabilities[:, label_id], label_ids == label_id, weights)
    if smile_ids := list(labels.smile_ids):
        smile, smile_score = np.isin(label_ids, smile_ids), probabilities[:, smile_ids].sum(axis=1)
        result["smile_auc"] = _auc(smile_score, smile, weights)
    if labels.tells_genuine:
        genuine_score = _ratio(probabilities[:, POSITIVE_SMILE], smile_score, undefined=0.5)
        result["genuine_auc"] = _auc(genuine_score[smile], label_ids[smile] == POSITIVE_SMILE, weights[smile])

    # Computed from counts, so that a single class in labels and predictions gives exactly 0, without rounding errors.
    disagreement = total * (total - hits.sum(axis=0))
    disagreement_by_chance = total**2 - (support * claims).sum(axis=0)
    result["cohen_kappa"] = 1 - _ratio(disagreement, disagreement_by_chance, undefined=np.nan)

    true_probability = probabilities[np.arange(len(label_ids)), label_ids]
    result["nll"] = -np.log(np.maximum(true_probability, np.finfo(np.float64).eps)) @ weights / total
    result["brier"] = ((probabilities - targets) ** 2).sum(axis=1) @ weights / total
    confidence = probabilities.max(axis=1)
    in_bin = np.eye(CALIBRATION_BINS)[confidence_bin(confidence)]
    overconfidence = (confidence - (predicted == label_ids))[:, None] * in_bin
    result["ece"] = np.abs(overconfidence.T @ weights).sum(axis=0) / total

    claimed = (probabilities > 0.5).astype(np.float64)
    claimed_hits = (claimed * targets).sum(axis=1) @ weights
    result["micro_precision_at_50"] = _ratio(claimed_hits, claimed.sum(axis=1) @ weights, undefined=0.0)
    result["micro_recall_at_50"] = claimed_hits / total
    return result


def confidence_bin(confidence: FloatArray) -> IntArray:
    """Index of the bin (low, high], of 15 with equal width, for each confidence in [0, 1]."""
    return np.digitize(confidence, np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1], right=True)


def _auc(scores: FloatArray, positive: NDArray[np.bool_], weights: FloatArray) -> FloatArray:
    """Share of (positive, negative) pairs in which the positive scores higher, ties counting half."""
    negative_scores, negative_weights = _sorted(scores[~positive], weights[~positive])
    positive_scores, positive_weights = _sorted(scores[positive], weights[positive])
    # Row k is the total weight of the k lowest negatives. Two look-ups give the weight below and the weight below or
    # tied for each positive; in their sum, a win counts twice and a tie once.
    lowest = np.pad(negative_weights.cumsum(axis=0), ((1, 0), (0, 0)))
    below = lowest[np.searchsorted(negative_scores, positive_scores, side="left")]
    below += lowest[np.searchsorted(negative_scores, positive_scores, side="right")]
    wins = np.einsum("nb,nb->b", positive_weights, below) / 2
    return _ratio(wins, positive_weights.sum(axis=0) * negative_weights.sum(axis=0), undefined=np.nan)


def _sorted(scores: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    order = np.argsort(scores)
    return scores[order], weights[order]


def _ratio(numerator: FloatArray, denominator: FloatArray, undefined: float) -> FloatArray:
    """`numerator / denominator`, or `undefined` where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full(denominator.shape, undefined), where=denominator > 0)


def _rows(bad: NDArray[np.bool_] | np.bool_) -> str:
    """`"row 4"` or `"row 4 (and 2 more)"`: the first row, from 0, where the mask is true."""
    more = int(bad.sum()) - 1
    return f"row {bad.argmax()}" + (f" (and {more} more)" if more else "")
