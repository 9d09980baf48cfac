"""Plots of a classifier's predictions. Each function writes one PNG."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from hf_smile.evaluation.calibration import reliability_bins
from hf_smile.evaluation.intervals import wilson_interval
from hf_smile.evaluation.metrics import CALIBRATION_BINS, check_inputs
from hf_smile.evaluation.numbers import share
from hf_smile.labels import SMILE_LABELS, LabelSet
from hf_smile.utils.figures import class_colors, new_figure, save_figure
from hf_smile.utils.words import counted

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

_BLUE, _INK, _GREY = "#0072B2", "#222222", "#767676"


def _styles(labels: LabelSet) -> Iterator[tuple[str, str, str, str]]:
    """Name, colour, line and marker of each label, distinguishable in black and white too."""
    names, colors = zip(*class_colors(labels).items(), strict=True)
    return zip(names, colors, cycle(("-", "--", "-.")), cycle("osD"), strict=False)


def plot_confusion_matrix(
    label_ids: ArrayLike,
    predictions: ArrayLike,
    path: str | Path,
    title: str = "Confusion matrix",
    labels: LabelSet = SMILE_LABELS,
) -> None:
    """Plot the confusion matrix, true labels by row. Each cell shows its count and its share of the row.

    Args:
        label_ids: (N,) true label ids.
        predictions: (N,) predicted label ids.
        path: PNG file to write.
        title: title of the plot, for example "Confusion matrix, test split".
        labels: the K labels.
    """
    counts = np.zeros((len(labels), len(labels)), dtype=int)
    np.add.at(counts, (np.asarray(label_ids), np.asarray(predictions)), 1)
    support = counts.sum(axis=1)
    shares = counts / np.where(support, support, np.nan)[:, None]

    more = max(0, len(labels) - 3)
    figure = new_figure(5.6 + more, 4.8 + 0.8 * more)
    axes = figure.subplots()
    rows = [f"{name}\n({counted(n, 'image')})" for name, n in zip(labels, support, strict=True)]
    draw_matrix(axes, np.nan_to_num(shares), lambda cell: f"{counts[cell]:,}\n{share(shares[cell])}", [*labels], rows)
    axes.set(xlabel="predicted label\n(each cell: images and share of the row)", ylabel="true label", title=title)
    save_figure(figure, path)


def draw_matrix(
    axes: Axes,
    shares: np.ndarray,
    text: Callable[[tuple[int, ...]], str],
    columns: list[str],
    rows: list[str] | None = None,
) -> None:
    """Draw shares (K, K) from white (0) to blue (1), with text in each cell. `rows` defaults to `columns`."""
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for cell in np.ndindex(shares.shape):
        color = "white" if shares[cell] > 0.5 else "black"
        axes.text(cell[1], cell[0], text(cell), ha="center", va="center", color=color)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(columns)), rows or columns)


def plot_reliability(probabilities: ArrayLike, label_ids: ArrayLike, path: str | Path) -> None:
    """Plot accuracy against confidence in 15 bins, and the number of images in each bin.

    The error bars are 95 % intervals. If a bar crosses the diagonal, the bin may be calibrated.

    Args:
        probabilities: (N, K), each row summing to one.
        label_ids: (N,) true label ids.
        path: PNG file to write.
    """
    bins = reliability_bins(probabilities, label_ids)
    low, high = wilson_interval(bins.accuracy, bins.n_images)

    figure = new_figure(6.0, 5.6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], color=_GREY, linestyle="--", label="perfect calibration (below: overconfident)")
    errors = np.stack([bins.accuracy - low, high - bins.accuracy]).clip(min=0)
    label = "the model, with 95 % intervals"
    upper.errorbar(bins.confidence, bins.accuracy, errors, fmt="o-", color=_BLUE, capsize=3, clip_on=False, label=label)
    upper.set(ylim=(0, 1), ylabel="correct predictions", title="Reliability diagram")
    upper.legend(loc="lower right")
    confidence = np.max(np.asarray(probabilities), axis=1)
    lower.hist(confidence, np.linspace(0, 1, CALIBRATION_BINS + 1), color=_BLUE, edgecolor="white")
    lowest = 1 / np.shape(probabilities)[1]
    lower.set(xlim=(lowest, 1), xlabel="confidence (highest probability)", ylabel="images")
    _save(figure, path, upper.yaxis, lower.xaxis)


def plot_precision_recall(
    probabilities: ArrayLike, label_ids: ArrayLike, path: str | Path, labels: LabelSet = SMILE_LABELS
) -> None:
    """Plot the precision-recall curve of each class. A class without images has no curve.

    Args:
        probabilities: (N, K), each row summing to one.
        label_ids: (N,) true label ids.
        path: PNG file to write.
        labels: the K labels.
    """
    from sklearn.metrics import precision_recall_curve

    rows, ids = check_inputs(probabilities, label_ids, len(labels))
    predicted = rows.argmax(axis=1)

    figure = new_figure(6.6, 4.6)
    axes = figure.subplots()
    for label_id, (name, color, line, marker) in enumerate(_styles(labels)):
        positive, claimed = ids == label_id, predicted == label_id
        if not positive.any():
            continue
        precision, recall, _ = precision_recall_curve(positive, rows[:, label_id])
        # scikit-learn adds a last point that is not measured, without positive predictions.
        axes.plot(recall[:-1], precision[:-1], line, color=color, label=name, clip_on=False)
        if claimed.any():
            point = positive[claimed].sum() / positive.sum(), positive[claimed].mean()
            axes.plot(*point, marker, color=color, markersize=9, markeredgecolor="white", zorder=3, clip_on=False)
    words = "decision by the highest probability"
    axes.plot([], [], "o", color=_INK, label=words, markersize=8, markeredgecolor="white")
    axes.set(
        xlim=(0, 1),
        ylim=(0, 1),
        xlabel="recall (share of the class that is found)",
        ylabel="precision (share of the predictions that are correct)",
        title="Precision and recall of each class",
    )
    axes.legend(loc="lower left", frameon=False)
    _save(figure, path, axes.xaxis, axes.yaxis)


def plot_coverage(probabilities: ArrayLike, label_ids: ArrayLike, path: str | Path) -> None:
    """Plot accuracy against coverage: the share of images answered, if the model abstains below a confidence.

    The band is the 95 % interval. Dots mark confidence thresholds (El-Yaniv and Wiener, 2010, "On the Foundations of
    Noise-free Selective Classification").

    Args:
        probabilities: (N, K), each row summing to one.
        label_ids: (N,) true label ids.
        path: PNG file to write.
    """
    rows, labels = check_inputs(probabilities, label_ids)
    confidence = rows.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    confidence = confidence[order]
    hits = (rows.argmax(axis=1) == labels)[order].cumsum()
    # Images with the same confidence are answered together or not at all.
    answered = np.flatnonzero(np.append(confidence[1:] != confidence[:-1], True)) + 1
    accuracy = hits[answered - 1] / answered
    coverage = answered / len(labels)
    low, high = wilson_interval(accuracy, answered)

    figure = new_figure(6.6, 4.4)
    axes = figure.subplots()
    axes.fill_between(coverage, low, high, color=_BLUE, alpha=0.2, linewidth=0, label="95 % interval")
    axes.plot(coverage, accuracy, color=_BLUE, clip_on=False, label="accuracy on the answered images")
    labelled_at = 2.0
    for threshold in (0.5, 0.6, 0.7, 0.8, 0.9):
        n = int((confidence >= threshold).sum())
        if not n:
            continue
        point = n / len(labels), hits[n - 1] / n
        axes.plot(*point, "o", color=_INK, markersize=5, clip_on=False)
        if labelled_at - point[0] > 0.07:  # closer labels would overlap
            labelled_at = point[0]
            text = f"≥ {100 * threshold:.0f} %"
            axes.annotate(text, point, (0, -16), textcoords="offset points", ha="center", color=_INK, fontsize=9)
    axes.plot([], [], "o", color=_INK, markersize=5, label="images with at least this confidence")
    lowest = max(0, min(low[-1], accuracy.min()) - 0.2)
    axes.set(xlim=(0, 1), ylim=(lowest, 1), xlabel="answered images, most confident first", ylabel="accuracy on them")
    axes.set_title("Accuracy if the model may abstain")
    axes.legend(loc="lower left", frameon=False)
    _save(figure, path, axes.xaxis, axes.yaxis)


def plot_trade_off(table: pd.DataFrame, chosen: float, path: str | Path, labels: LabelSet = SMILE_LABELS) -> None:
    """Plot accuracy, macro F1 and the recall of each class against the strength of the prior adjustment.

    Args:
        table: result of `hf_smile.evaluation.decision.trade_off` on validation images.
        chosen: strength used by the model, marked by a dotted line.
        path: PNG file to write.
        labels: the K labels.
    """
    figure = new_figure(10.0, 4.4)
    left, right = figure.subplots(1, 2)
    left.plot(table["strength"], table["accuracy"], "o-", color=_INK, markersize=4, label="accuracy")
    left.plot(table["strength"], table["macro_f1"], "s--", color=_BLUE, markersize=4, label="macro F1")
    left.set_title("Cost and gain of a more balanced decision")
    for slug, (name, color, line, _) in zip(labels.slugs, _styles(labels), strict=True):
        right.plot(table["strength"], table[f"recall_{slug}"], line, color=color, clip_on=False, label=name)
    right.set(ylim=(0, 1), ylabel="recall (share of the class that is found)")
    right.set_title("Gain and loss of each class")
    for axes in (left, right):
        axes.axvline(chosen, color=_GREY, linestyle=":", label="this model")
        axes.set_xlabel("strength of the prior adjustment")
        axes.legend(frameon=False)
    _save(figure, path, left.yaxis, right.yaxis)


def _save(figure: Figure, path: str | Path, *shares: Axis) -> None:
    """Save a figure with a grid, and with the axes in `shares` in percent."""
    from matplotlib.ticker import PercentFormatter

    for axis in shares:
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    for axes in figure.axes:
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
    save_figure(figure, path)
