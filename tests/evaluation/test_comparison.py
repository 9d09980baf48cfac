import numpy as np
import pytest

from hf_smile.errors import SmileDataError
from hf_smile.evaluation.comparison import compare, mcnemar_exact

RIGHT, WRONG = [0.8, 0.1, 0.1], [0.1, 0.8, 0.1]  # for label id 0


def predictions(right, wrong):
    return [RIGHT] * right + [WRONG] * wrong


def test_mcnemar_agrees_with_statsmodels():
    contingency_tables = pytest.importorskip("statsmodels.stats.contingency_tables", reason="statsmodels is missing")
    generator = np.random.default_rng(0)
    for _ in range(50):
        a, b = generator.random((2, 80)) < generator.random((2, 1))
        table = [[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]]
        assert mcnemar_exact(a, b) == pytest.approx(contingency_tables.mcnemar(table, exact=True).pvalue, abs=1e-12)


def test_mcnemar_without_a_single_disagreement():
    assert mcnemar_exact([True, False], [True, False]) == 1.0


def test_mcnemar_needs_the_same_images():
    with pytest.raises(SmileDataError, match="for the same images; got 2 and 1"):
        mcnemar_exact([True, False], [True])


def test_the_better_one_is_named_whichever_comes_first():
    better, worse, label_ids = predictions(190, 10), predictions(150, 50), [0] * 200
    first = compare(better, worse, label_ids, "new", "old")
    second = compare(worse, better, label_ids, "old", "new")
    assert first.sentence.startswith("new is more accurate by 20.0 points (95 % interval 1")
    assert first.sentence.endswith("McNemar's exact test p < 0.001).")
    assert second.sentence == first.sentence
    assert second.difference.value == -first.difference.value == pytest.approx(-0.2)


def test_a_difference_that_chance_may_explain_is_not_called_better():
    sentence = compare(predictions(151, 49), predictions(150, 50), [0] * 200, "new", "old").sentence
    assert sentence.startswith("No significant difference in accuracy between new and old: new is 0.5 points ahead (")
    assert "p = 1.000" in sentence


def test_equal_classifiers():
    surer = np.asarray(predictions(5, 5)) * 0.97 + 0.01
    result = compare(predictions(5, 5), surer, [0] * 10)
    assert result.p_value == 1.0
    assert "both are correct equally often" in result.sentence


def test_a_single_image_proves_nothing():
    # The bootstrap interval of one image has zero width, but McNemar's test is not significant.
    assert "No significant difference" in compare([RIGHT], [WRONG], [0]).sentence


def test_a_file_compared_with_itself_is_told():
    probabilities = [[0.7, 0.2, 0.1], [0.2, 0.7, 0.1]]
    same = compare(probabilities, probabilities, [0, 0])
    assert same.sentence == "A and B give the same probabilities for every image."
    assert same.difference.value == 0 and same.p_value == 1
