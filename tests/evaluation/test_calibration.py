import numpy as np
import pytest

from hf_smile.errors import SmileDataError
from hf_smile.evaluation.calibration import ece_if_calibrated, fit_temperature, reliability_bins
from hf_smile.evaluation.metrics import compute_metrics


def test_bins_add_up_to_the_ece(simulate):
    probabilities, label_ids = simulate(500, seed=0, overconfidence=2)
    bins = reliability_bins(probabilities, label_ids)
    ece = (np.abs(bins.confidence - bins.accuracy) * bins.n_images).sum() / 500
    assert ece == pytest.approx(compute_metrics(probabilities, label_ids)["ece"], abs=1e-12)
    assert bins.n_images.sum() == 500
    assert (bins.n_images > 0).all()
    assert (np.diff(bins.confidence) > 0).all()


@pytest.mark.parametrize("overconfidence", [0.5, 1.0, 3.0])
def test_temperature_undoes_overconfidence(simulate, overconfidence):
    probabilities, label_ids = simulate(20_000, seed=1, overconfidence=overconfidence)
    assert fit_temperature(np.log(probabilities), label_ids) == pytest.approx(overconfidence, rel=0.05)


def test_temperature_is_left_alone_where_nothing_is_wrong():
    assert fit_temperature([[3.0, 0.0, 0.0], [0.0, 3.0, 0.0]], [0, 1]) == 1.0
    assert fit_temperature([[3.0, 0.0, 0.0]], [0]) == 1.0


def test_temperature_stays_bounded_where_all_is_wrong():
    assert 1 < fit_temperature([[3.0, 0.0, 0.0]] * 4, [1] * 4) <= 20


@pytest.mark.parametrize(
    ("logits", "label_ids", "message"),
    [
        ([[np.nan, 0.0, 0.0]], [0], "logits must be finite.*Did the training diverge?"),
        ([[1.0, 0.0]], [0], r"must have the shape \(N, 3\)"),
        ([], [], "there are no predictions"),
        ([[1.0, 0.0, 0.0]], [7], "label ids must be 0, 1, 2; got 7"),
    ],
)
def test_bad_logits_are_told_in_words(logits, label_ids, message):
    with pytest.raises(SmileDataError, match=message):
        fit_temperature(logits, label_ids)


def test_ece_of_a_calibrated_model_is_what_was_foretold(simulate):
    cases = [simulate(200, seed) for seed in range(200)]
    found = [compute_metrics(*case)["ece"] for case in cases]
    foretold = [ece_if_calibrated(probabilities, n_draws=100) for probabilities, _ in cases]
    assert np.mean(found) == pytest.approx(np.mean([mean for mean, _ in foretold]), rel=0.05)
    below = np.mean([ece <= highest for ece, (_, highest) in zip(found, foretold, strict=True)])
    assert 0.9 <= below <= 0.99


def test_ece_of_an_overconfident_model_is_above_what_chance_shows(simulate):
    probabilities, label_ids = simulate(500, seed=2, overconfidence=2)
    assert compute_metrics(probabilities, label_ids)["ece"] > ece_if_calibrated(probabilities)[1]
