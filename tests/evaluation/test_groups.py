import numpy as np
import pytest

from hf_smile.errors import SmileDataError
from hf_smile.evaluation.groups import largest_gap, metrics_by_group
from hf_smile.evaluation.metrics import compute_metrics


def test_each_group_is_measured_on_its_own(simulate):
    probabilities, label_ids = simulate(90, seed=0)
    names = ["old"] * 30 + ["young"] * 50 + [""] * 10
    groups = metrics_by_group(probabilities, label_ids, names, n_resamples=100)
    assert [(name, group.n) for name, group in groups.items()] == [("young", 50), ("old", 30), ("(empty)", 10)]
    assert groups["old"].metrics == pytest.approx(compute_metrics(probabilities[:30], label_ids[:30]), nan_ok=True)
    low, high = groups["old"].intervals["accuracy"]
    assert low <= groups["old"].metrics["accuracy"] <= high


def test_a_true_gap_is_told_from_chance(simulate):
    good, label_ids_good = simulate(300, seed=1, separation=2.5)
    poor, label_ids_poor = simulate(200, seed=2, separation=0.8)
    probabilities, label_ids = np.concatenate([good, poor]), np.concatenate([label_ids_good, label_ids_poor])
    gap = largest_gap(probabilities, label_ids, ["seen"] * 300 + ["unseen"] * 200, n_permutations=200)
    assert (gap.highest, gap.lowest) == ("seen", "unseen")
    assert gap.difference > 0.2
    assert 0 < gap.p_value < 0.01  # never 0: the true assignment is one of the possible random ones


def test_groups_dealt_out_at_random_seldom_look_different(simulate):
    found = []
    for seed in range(60):
        probabilities, label_ids = simulate(150, seed)
        names = np.random.default_rng(seed).choice(["a", "b", "c", "d"], 150)
        found.append(largest_gap(probabilities, label_ids, names, n_permutations=99, min_images=5).p_value)
    assert np.mean(np.array(found) < 0.05) <= 0.12
    assert 0.35 < np.mean(found) < 0.65


def test_small_groups_are_left_out_of_the_gap(simulate):
    probabilities, label_ids = simulate(50, seed=3)
    assert largest_gap(probabilities, label_ids, ["many"] * 49 + ["one"]) is None


def test_a_metric_no_group_defines_has_no_gap():
    assert largest_gap([[0.1, 0.1, 0.8]] * 60, [2] * 60, ["a"] * 30 + ["b"] * 30, metric="genuine_auc") is None


def test_bad_groups_are_told_in_words(simulate):
    probabilities, label_ids = simulate(50, seed=4)
    with pytest.raises(SmileDataError, match=r"there are 50 different groups .* group by a column with fewer values"):
        metrics_by_group(probabilities, label_ids, [str(age) for age in range(50)])
    with pytest.raises(SmileDataError, match="got 2 groups for 50 images"):
        metrics_by_group(probabilities, label_ids, ["a", "b"])
    with pytest.raises(SmileDataError, match="unknown metric 'speed'"):
        largest_gap(probabilities, label_ids, ["a", "b"] * 25, metric="speed")
