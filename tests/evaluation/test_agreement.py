"""Agreement of two sets of labels: the numbers match scikit-learn and the definition."""

import math

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from hf_smile.errors import SmileDataError
from hf_smile.evaluation.agreement import measure_agreement
from hf_smile.evaluation.intervals import percentile_interval, resampling_weights
from hf_smile.labels import LabelSet


def opinions(n=300, differ=60, seed=0):
    """Two sets of labels that differ on a known number of images."""
    draw = np.random.default_rng(seed)
    first = draw.integers(0, 3, n)
    second = first.copy()
    second[:differ] = (first[:differ] + 1) % 3
    return first, second


def test_known_disagreement_gives_the_kappa_of_scikit_learn():
    first, second = opinions()
    found = measure_agreement(first, second)
    assert found.images == 300 and found.agreement[0] == 0.8
    assert found.kappa[0] == cohen_kappa_score(first, second)
    assert found.kappa[1] < found.kappa[0] < found.kappa[2]
    assert found.confusion.to_numpy().sum() == 300 and np.trace(found.confusion) == 240
    assert found.confusion.loc["negative smile", "positive smile"] == ((first == 0) & (second == 1)).sum() > 0


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    population = opinions(100_000, 20_000)
    truth, draw = cohen_kappa_score(*population), np.random.default_rng(1)
    held = 0
    for _ in range(40):
        rows = draw.integers(100_000, size=150)
        _, low, high = measure_agreement(population[0][rows], population[1][rows], n_resamples=200).kappa
        held += low <= truth <= high
    assert 33 <= held <= 40


def test_each_resample_has_the_kappa_of_scikit_learn():
    first, second = opinions(60, 12)
    (weights,) = resampling_weights(60, 32, seed=0)
    expected = [cohen_kappa_score(first, second, sample_weight=column) for column in weights.T]
    interval = percentile_interval(np.array(expected))
    assert measure_agreement(first, second, n_resamples=32).kappa[1:] == pytest.approx(interval)


def test_where_nobody_could_differ_kappa_is_undefined_and_a_dash():
    found = measure_agreement([1, 1, 1], [1, 1, 1])
    assert found.agreement[0] == 1 and math.isnan(found.kappa[0])
    assert "kappa –" in found.describe("ann", "ben")


def test_it_is_told_in_words_with_a_table_of_all_labels():
    labels = LabelSet(("smile", "NOT smile"))
    text = measure_agreement([0, 0, 1, 0], [0, 1, 1, 0], labels).describe("ann", "ben")
    assert text.startswith("4 images: agreement 75.0 % (30.1 to 95.4 %), Cohen's kappa 0.500 (")
    assert "| ann \\ ben | smile | NOT smile |" in text and "| smile | 2 | 1 |\n| NOT smile | 0 | 1 |" in text


def test_opinions_on_no_images_or_on_others_are_refused():
    with pytest.raises(SmileDataError, match="no image was labelled by both"):
        measure_agreement([], [])
    with pytest.raises(ValueError, match="2 and 1 labels"):
        measure_agreement([0, 1], [0])
