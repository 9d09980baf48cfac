import itertools
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from hf_smile.errors import SmileDataError
from hf_smile.evaluation.metrics import check_inputs, compute_metrics, weighted_metrics
from hf_smile.labels import LABEL_NAMES, label_slug

SLUGS = [label_slug(name) for name in LABEL_NAMES]


@st.composite
def predictions(draw):
    """Few images, coarse probabilities with many ties, and sometimes classes that are absent or never predicted."""
    n = draw(st.integers(1, 40))
    present = draw(st.sets(st.integers(0, 2), min_size=1))
    label_ids = draw(st.lists(st.sampled_from(sorted(present)), min_size=n, max_size=n))
    parts = st.tuples(*[st.integers(0, 4)] * 3).filter(any)
    counts = np.array(draw(st.lists(parts, min_size=n, max_size=n)), dtype=float)
    return counts / counts.sum(axis=1, keepdims=True), np.array(label_ids)


def auc_or_nan(positive, scores):
    return sklearn_metrics.roc_auc_score(positive, scores) if 0 < positive.sum() < len(positive) else math.nan


def by_scikit_learn(probabilities, label_ids):
    predicted = probabilities.argmax(axis=1)
    one_hot = np.eye(3)[label_ids]
    each = sklearn_metrics.precision_recall_fscore_support(label_ids, predicted, labels=[0, 1, 2], zero_division=0)
    macro = sklearn_metrics.precision_recall_fscore_support(
        label_ids, predicted, labels=[0, 1, 2], average="macro", zero_division=0
    )
    smile = label_ids != 2
    smile_score = probabilities[:, 0] + probabilities[:, 1]
    genuine_score = np.array([p1 / (p0 + p1) if p0 + p1 else 0.5 for p0, p1, _ in probabilities])
    expected = {
        "accuracy": sklearn_metrics.accuracy_score(label_ids, predicted),
        "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(label_ids, predicted),
        "macro_precision": macro[0],
        "macro_recall": macro[1],
        "macro_f1": macro[2],
        "smile_auc": auc_or_nan(smile, smile_score),
        "genuine_auc": auc_or_nan(label_ids[smile] == 1, genuine_score[smile]),
        "cohen_kappa": sklearn_metrics.cohen_kappa_score(label_ids, predicted, labels=[0, 1, 2]),
        "nll": sklearn_metrics.log_loss(label_ids, probabilities, labels=[0, 1, 2]),
        "brier": 3 * sklearn_metrics.mean_squared_error(one_hot, probabilities),
        "ece": ece_by_loop(probabilities, label_ids),
        "micro_precision_at_50": sklearn_metrics.precision_score(
            one_hot, probabilities > 0.5, average="micro", zero_division=0
        ),
        "micro_recall_at_50": sklearn_metrics.recall_score(one_hot, probabilities > 0.5, average="micro"),
    }
    for label_id, slug in enumerate(SLUGS):
        for name, values in zip(("precision", "recall", "f1", "support"), each, strict=True):
            expected[f"{name}_{slug}"] = values[label_id]
        expected[f"roc_auc_{slug}"] = auc_or_nan(label_ids == label_id, probabilities[:, label_id])
    return expected


def ece_by_loop(probabilities, label_ids):
    confidence, hits = probabilities.max(axis=1), probabilities.argmax(axis=1) == label_ids
    edges = np.linspace(0, 1, 16)
    total = 0.0
    for low, high in itertools.pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            total += inside.sum() * abs(confidence[inside].mean() - hits[inside].mean())
    return total / len(label_ids)


@settings(max_examples=100, deadline=None)
@given(predictions())
def test_metrics_agree_with_scikit_learn(case):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = by_scikit_learn(*case)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = compute_metrics(*case)
    assert found.keys() == expected.keys()
    for name in found:
        assert type(found[name]) is float
        assert found[name] == pytest.approx(expected[name], abs=1e-12, nan_ok=True), name


@settings(max_examples=50, deadline=None)
@given(predictions(), st.data())
def test_a_weight_counts_an_image_that_many_times(case, data):
    probabilities, label_ids = check_inputs(*case)
    counts = st.lists(st.integers(0, 3), min_size=len(label_ids), max_size=len(label_ids)).filter(any)
    weights = np.array([data.draw(counts), data.draw(counts)])
    weighted = weighted_metrics(probabilities, label_ids, weights.T.astype(float))
    for column, repeats in enumerate(weights):
        repeated = compute_metrics(probabilities.repeat(repeats, axis=0), label_ids.repeat(repeats))
        for name, value in repeated.items():
            assert weighted[name][column] == pytest.approx(value, abs=1e-12, nan_ok=True), name


def test_absent_class_has_zero_recall_and_no_auc():
    metrics = compute_metrics([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.5, 0.4, 0.1]], [0, 1, 1])
    assert metrics["support_not_smile"] == metrics["recall_not_smile"] == metrics["f1_not_smile"] == 0
    assert math.isnan(metrics["roc_auc_not_smile"])
    assert math.isnan(metrics["smile_auc"])
    assert metrics["genuine_auc"] == 1.0
    assert metrics["balanced_accuracy"] == 0.75  # over the two classes that occur
    assert metrics["macro_recall"] == 0.5  # over all three


def test_one_image():
    metrics = compute_metrics([[0.1, 0.8, 0.1]], [1])
    assert metrics["accuracy"] == metrics["f1_positive_smile"] == 1.0
    assert metrics["nll"] == pytest.approx(-math.log(0.8))
    assert metrics["ece"] == pytest.approx(0.2)
    assert math.isnan(metrics["genuine_auc"])
    assert math.isnan(metrics["cohen_kappa"])


def test_all_predictions_alike():
    metrics = compute_metrics([[0.2, 0.2, 0.6]] * 4, [0, 1, 2, 2])
    assert metrics["accuracy"] == 0.5
    assert metrics["cohen_kappa"] == 0.0
    assert metrics["precision_negative_smile"] == metrics["precision_positive_smile"] == 0.0
    assert metrics["smile_auc"] == metrics["genuine_auc"] == 0.5


def test_certain_and_wrong_stays_finite():
    assert compute_metrics([[1.0, 0.0, 0.0]], [2])["nll"] == pytest.approx(36.04, abs=0.01)


def test_genuine_score_of_an_image_without_smile_probability_is_even():
    metrics = compute_metrics([[0.0, 0.0, 1.0], [0.4, 0.6, 0.0], [0.6, 0.4, 0.0]], [1, 1, 0])
    assert metrics["genuine_auc"] == 1.0


@pytest.mark.parametrize(
    ("probabilities", "label_ids", "message"),
    [
        ([], [], "there are no predictions to evaluate"),
        ([[0.5, 0.5]], [0], r"must have the shape \(N, 3\).* got \(1, 2\)"),
        ([[0.5, 0.5, 0.0], [1.0, 0.0]], [0, 1], "must be 3 numbers per image"),
        ([[0.5, 0.5, 0.0]], [0, 1], "got 1 row of probabilities and label ids of shape"),
        ([[0.5, 0.5, 0.0]] * 3, [0, 3, 3], r"label ids must be 0, 1, 2; got 3 in row 1 \(and 1 more\)"),
        ([[0.5, 0.5, 0.0]], [0.5], "got 0.5 in row 0"),
        ([[0.5, 0.5, math.nan]], [0], "row 0 has NaN or infinity"),
        ([[0.5, 0.7, -0.2]], [0], "in row 0. If these are logits, apply softmax first"),
        ([[0.5, 0.5, 0.0], [0.5, 0.4, 0.0]], [0, 1], "row 1 sums to 0.9. If these are logits"),
    ],
)
def test_input_that_is_no_prediction_is_told_in_words(probabilities, label_ids, message):
    with pytest.raises(SmileDataError, match=message):
        compute_metrics(probabilities, label_ids)


def test_rows_may_be_rounded():
    assert compute_metrics(np.float32([[0.3333, 0.3333, 0.3333]]), [0])["accuracy"] == 1.0
