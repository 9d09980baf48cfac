import math

import numpy as np
import pytest
from scipy.stats import binomtest

from hf_smile.errors import SmileDataError
from hf_smile.evaluation import intervals
from hf_smile.evaluation.intervals import (
    bootstrap_samples,
    confidence_intervals,
    paired_bootstrap_difference,
    wilson_interval,
)
from hf_smile.evaluation.metrics import compute_metrics


def test_intervals_hold_the_true_value_in_95_of_100_cases(simulate):
    true = compute_metrics(*simulate(500_000, seed=10_000))
    held = {"accuracy": 0, "macro_f1": 0}
    n_sets = 400
    for seed in range(n_sets):
        found = confidence_intervals(*simulate(300, seed), n_resamples=400, seed=seed)
        for name in held:
            held[name] += found[name][0] <= true[name] <= found[name][1]
    assert 0.93 <= held["accuracy"] / n_sets <= 0.97
    assert 0.93 <= held["macro_f1"] / n_sets <= 0.97


def test_every_metric_has_an_interval_around_its_value(simulate):
    probabilities, label_ids = simulate(400, seed=1, overconfidence=1.7)
    metrics, found = compute_metrics(probabilities, label_ids), confidence_intervals(probabilities, label_ids)
    assert found.keys() == metrics.keys()
    for name, (low, high) in found.items():
        assert low < metrics[name] < high, name


def test_the_interval_of_the_ece_makes_up_for_its_bias(simulate):
    # A resample of a calibrated model looks miscalibrated, but the interval must not lie above the value.
    for seed in range(20):
        probabilities, label_ids = simulate(300, seed)
        low, high = confidence_intervals(probabilities, label_ids, n_resamples=200)["ece"]
        assert 0 <= low < high < 2 * compute_metrics(probabilities, label_ids)["ece"]


def test_the_seed_decides(simulate):
    case = simulate(100, seed=2)
    assert confidence_intervals(*case, n_resamples=100, seed=1) == confidence_intervals(*case, n_resamples=100, seed=1)
    assert confidence_intervals(*case, n_resamples=100, seed=1) != confidence_intervals(*case, n_resamples=100, seed=2)


def test_chunks_add_up_to_all_resamples(simulate, monkeypatch):
    monkeypatch.setattr(intervals, "_CHUNK_CELLS", 700)
    samples = bootstrap_samples(*simulate(100, seed=3), n_resamples=50)
    assert {len(values) for values in samples.values()} == {50}
    support = sum(values for name, values in samples.items() if name.startswith("support"))
    assert (support == 100).all()


def test_resamples_without_a_class_are_left_out():
    probabilities = [[0.1, 0.1, 0.8]] * 30 + [[0.3, 0.6, 0.1], [0.6, 0.3, 0.1], [0.7, 0.2, 0.1]]
    low, high = confidence_intervals(probabilities, [2] * 30 + [1, 0, 1], n_resamples=300)["genuine_auc"]
    assert 0 <= low <= high <= 1


def test_a_metric_that_is_never_defined_has_no_interval():
    found = confidence_intervals([[0.1, 0.1, 0.8]] * 5, [2] * 5, n_resamples=50)
    assert all(math.isnan(end) for end in found["genuine_auc"])


def test_where_all_resamples_agree_there_is_no_interval():
    found = confidence_intervals([[0.9, 0.05, 0.05], [0.05, 0.05, 0.9]] * 20, [0, 2] * 20, n_resamples=50)
    assert all(math.isnan(end) for name in ("macro_f1", "smile_auc") for end in found[name])
    assert found["accuracy"] == pytest.approx((0.9124, 1.0), abs=1e-4)


def test_five_right_of_five_do_not_prove_it_always_right():
    found = confidence_intervals([[0.1, 0.1, 0.8]] * 5, [2] * 5, n_resamples=50)
    assert found["accuracy"] == found["recall_not_smile"] == pytest.approx((0.5655, 1.0), abs=1e-4)
    assert found["precision_negative_smile"] == (0.0, 1.0), "no such answer, so nothing is known"


@pytest.mark.parametrize(("hits", "n"), [(0, 12), (3, 7), (40, 40), (1, 1), (900, 1611)])
def test_shares_get_wilson_s_interval(hits, n):
    low, high = wilson_interval(hits / n, n)
    expected = binomtest(hits, n).proportion_ci(0.95, "wilson")
    assert (low, high) == (pytest.approx(expected.low), pytest.approx(expected.high))


@pytest.mark.parametrize(("share", "n"), [(0.9, 15), (0.98, 40), (0.5, 15)])
def test_wilson_s_interval_holds_a_rare_class_s_true_recall(share, n):
    low, high = wilson_interval(np.random.default_rng(0).binomial(n, share, 20_000) / n, np.full(20_000, n))
    assert 0.93 <= ((low <= share) & (share <= high)).mean() <= 0.99


def test_pairing_narrows_the_interval_of_a_difference(simulate):
    a, label_ids = simulate(300, seed=4)
    b = a.copy()
    right = np.flatnonzero(a.argmax(axis=1) == label_ids)[:6]
    b[right] = np.roll(a[right], 1, axis=1)  # B is A, but wrong on six more images
    difference = paired_bootstrap_difference(a, b, label_ids)
    assert difference.value == pytest.approx(6 / 300)
    assert 0 < difference.low < difference.value < difference.high
    low, high = confidence_intervals(a, label_ids)["accuracy"]
    assert difference.high - difference.low < (high - low) / 2
    assert paired_bootstrap_difference(a, a, label_ids, "macro_f1") == (0.0, 0.0, 0.0)


def test_unknown_metric_is_named(simulate):
    probabilities, label_ids = simulate(10, seed=5)
    with pytest.raises(SmileDataError, match="unknown metric 'acuracy'; choose one of accuracy, balanced_accuracy"):
        paired_bootstrap_difference(probabilities, probabilities, label_ids, "acuracy")


def test_paired_predictions_must_be_as_many(simulate):
    probabilities, label_ids = simulate(10, seed=6)
    with pytest.raises(SmileDataError, match="got 9 rows of probabilities"):
        paired_bootstrap_difference(probabilities, probabilities[:9], label_ids)
