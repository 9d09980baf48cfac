import numpy as np
import pytest
from matplotlib.ticker import PercentFormatter
from PIL import Image

from hf_smile.evaluation import plots
from hf_smile.evaluation.decision import (
    adjust_prior,
    best_strength,
    class_shares,
    ece_where_it_is_meant,
    prior_shift,
    trade_off,
)
from hf_smile.evaluation.metrics import compute_metrics
from hf_smile.evaluation.plots import plot_trade_off
from hf_smile.utils.figures import save_figure

SHARES = np.array([0.1, 0.2, 0.7])


def test_strength_0_leaves_everything_as_it_is(simulate):
    probabilities, _ = simulate(50, seed=0)
    assert np.allclose(adjust_prior(probabilities, SHARES, 0.0), probabilities, atol=1e-15)


def test_strength_1_takes_the_prior_away():
    assert np.allclose(adjust_prior([SHARES], SHARES, 1.0), 1 / 3)


def test_a_great_strength_names_the_rarest_class_wherever_it_is_possible(simulate):
    probabilities, _ = simulate(50, seed=1)
    assert (adjust_prior(probabilities, SHARES, 50.0).argmax(axis=1) == 0).all()


def test_a_class_that_train_lacks_is_not_pushed():
    assert prior_shift([0.0, 0.5, 0.5], 1.0)[0] == 0
    assert adjust_prior([[0.0, 0.4, 0.6]], [0.0, 0.5, 0.5], 1.0).argmax() == 2


def test_the_logits_are_shifted_as_the_probabilities_are_adjusted(simulate):
    probabilities, _ = simulate(50, seed=2)
    shifted = np.exp(np.log(probabilities) + prior_shift(SHARES, 0.7))
    expected = shifted / shifted.sum(axis=1, keepdims=True)
    assert np.allclose(adjust_prior(probabilities, SHARES, 0.7), expected)


def test_along_the_strength_the_rarest_class_gains_recall_and_the_largest_loses(simulate):
    probabilities, label_ids = simulate(3000, seed=3, separation=0.8, prior=SHARES)
    table = trade_off(probabilities, label_ids, class_shares(label_ids))
    assert (np.diff(table["recall_negative_smile"]) >= 0).all()
    assert (np.diff(table["recall_not_smile"]) <= 0).all()
    first = compute_metrics(probabilities, label_ids)
    assert table.iloc[0]["accuracy"] == first["accuracy"] and table.iloc[0]["macro_f1"] == first["macro_f1"]
    # For a calibrated model, no adjustment has the best accuracy, and strength 1 the best balanced accuracy.
    assert best_strength(table, "accuracy") < 0.25 < 0.75 < best_strength(table, "balanced_accuracy") < 1.25


def test_of_equally_good_strengths_the_smallest_is_taken():
    table = trade_off([[0.1, 0.1, 0.8]], [2], [1 / 3] * 3)
    assert table["accuracy"].nunique() == 1 and best_strength(table, "accuracy") == 0.0


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_adjusted_probabilities_are_calibrated_for_the_population_they_are_meant_for(simulate, strength):
    probabilities, label_ids = simulate(50_000, seed=4, separation=0.8, prior=SHARES)
    adjusted = adjust_prior(probabilities, SHARES, strength)
    assert adjusted[:, 0].mean() > 1.3 * (label_ids == 0).mean(), "no longer for the population it was drawn from"
    assert ece_where_it_is_meant(adjusted, label_ids, SHARES, strength) < 0.02


def test_in_the_picture_every_value_stands_above_its_own_strength(simulate, monkeypatch, tmp_path):
    probabilities, label_ids = simulate(300, seed=5, prior=SHARES)
    table = trade_off(probabilities, label_ids, SHARES)
    assert not table["macro_f1"].is_monotonic_increasing, "the curve turns, so that points come close to each other"
    figures = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: figures.append(figure) or save_figure(figure, path))
    plot_trade_off(table, 0.5, tmp_path / "trade_off.png")
    assert Image.open(tmp_path / "trade_off.png").width > 1000
    drawn = {
        line.get_label(): line for axes in figures[0].axes for line in axes.lines if line.get_label() != "this model"
    }
    columns = ["accuracy", "macro_f1", "recall_negative_smile", "recall_positive_smile", "recall_not_smile"]
    for column, line in zip(columns, drawn.values(), strict=True):
        assert line.get_xdata().tolist() == table["strength"].tolist()
        assert line.get_ydata().tolist() == table[column].tolist()
    assert not [text for axes in figures[0].axes for text in axes.texts]


def test_no_axis_of_a_share_goes_beyond_100_percent(simulate, monkeypatch, tmp_path):
    probabilities, label_ids = simulate(300, seed=6)
    figures = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: figures.append(figure))
    plot_trade_off(trade_off(probabilities, label_ids, SHARES), 0.5, tmp_path)
    for plot in (plots.plot_reliability, plots.plot_precision_recall, plots.plot_coverage):
        plot(probabilities, label_ids, tmp_path)
    axes = [axes for figure in figures for axes in figure.axes]
    shares = [
        axis
        for one in axes
        for axis in (one.xaxis, one.yaxis)
        if isinstance(axis.get_major_formatter(), PercentFormatter)
    ]
    assert len(shares) == 9
    assert all(0 <= low < high <= 1 for low, high in (axis.get_view_interval() for axis in shares))
