"""Plots of the audit, and contact sheets with images of the findings, in a folder that git ignores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from hf_smile.audit.run import Audit
from hf_smile.data.images import decode_image
from hf_smile.data.sources import Images
from hf_smile.errors import SmileDataError
from hf_smile.evaluation.plots import draw_matrix
from hf_smile.utils.figures import class_colors, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import XAxis
    from matplotlib.figure import Figure

SHEET_TILES = 48
"""Images per contact sheet."""
MAX_SHEETS = 5
"""Maximum number of sheets of each kind. The CSV lists are complete."""

_BLUE, _ORANGE, _INK = "#0072B2", "#D55E00", "#444444"
_TILE, _CAPTION, _COLUMNS = 128, 34, 8  # pixels, pixels, tiles


def plot_audit(audit: Audit, folder: Path) -> list[str]:
    """Draw the plots for which the audit has results into `folder`, and return their file names."""
    figures = {
        "pictures.png": _plot_pictures(audit),
        "similarity.png": _plot_similarity(audit),
        "clusters.png": _plot_clusters(audit),
        "accuracy_by_similarity.png": _plot_accuracy(audit),
        "label_noise.png": _plot_noise(audit),
    }
    drawn = {name: figure for name, figure in figures.items() if figure}
    for name, figure in drawn.items():
        save_figure(figure, folder / name)
    return list(drawn)


def _new_axes(title: str, xlabel: str, ylabel: str, *size: float) -> tuple[Figure, Axes]:
    figure = new_figure(*size)
    return figure, figure.add_subplot(title=title, xlabel=xlabel, ylabel=ylabel)


def _plot_pictures(audit: Audit) -> Figure:
    from matplotlib.ticker import MaxNLocator

    scan = audit.scan
    panels = {
        "shorter side (pixels)": scan[["width", "height"]].min(axis=1),
        "brightness (mean grey level, 0 to 255)": scan["brightness"],
        "contrast (standard deviation of grey levels)": scan["contrast"],
        "sharpness (variance of the Laplacian)": scan["sharpness"],
    }
    figure = new_figure(8.0, 5.4)
    for axes, (title, values) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
        positive = np.maximum(values.to_numpy(dtype=float), 1)
        low, high = np.quantile(positive, (0.001, 0.999))
        logarithmic = high > 10 * low and not title.startswith(("brightness", "contrast"))
        edges = np.geomspace(low, high, 31) if logarithmic else np.linspace(low, max(high, low + 1), 31)
        for label_id, (label, color) in enumerate(class_colors(audit.labels).items()):
            of_class = positive[(scan["label"] == label_id).to_numpy()].clip(edges[0], edges[-1])
            counts = np.histogram(of_class, edges)[0] / max(len(of_class), 1)
            axes.stairs(counts, edges, color=color, linewidth=1.6, label=label)
        if logarithmic:
            axes.set_xscale("log")
            _plain_numbers(axes.xaxis, edges)
        axes.set_xlabel(title, fontsize=9)
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter("{x:.0%}")
        axes.tick_params(labelsize=9)
    figure.supylabel("share of the class's images", fontsize=10)
    figure.suptitle("Image properties by class: where the curves differ, they give the class away", fontsize=11)
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 4), frameon=False)
    return figure


def _plot_similarity(audit: Audit) -> Figure | None:
    if audit.nearest_train is None:
        return None
    values = audit.nearest_train["similarity"].to_numpy()
    threshold = audit.summary["clusters"]["similarity"]
    figure, axes = _new_axes(
        "Similarity of the test images to the train images",
        "cosine similarity to the most similar train image",
        "test images",
    )
    edges = np.linspace(min(values.min(), threshold) - 0.01, 1, 41)
    axes.hist(values, edges.tolist(), color=_BLUE, edgecolor="white", linewidth=0.5)
    axes.margins(y=0.2)
    words = f"{(values >= threshold).mean():.1%} of the test images at {threshold:.2f} or above"
    axes.axvline(threshold, color=_ORANGE, linestyle="--", linewidth=1.8, label=words)
    one_picture = audit.summary["duplicates"]["similarity_threshold"]
    axes.axvline(one_picture, color=_ORANGE, linestyle=":", linewidth=1.8, label="duplicates")
    axes.legend(frameon=False, loc="upper left", fontsize=9)
    return figure


def _plot_clusters(audit: Audit) -> Figure | None:
    if audit.by_threshold is None:
        return None
    table = audit.by_threshold.set_index("threshold") / len(audit.scan)
    figure, axes = _new_axes(
        "Below the threshold, clusters merge into one",
        "minimum cosine similarity of linked images",
        "images in clusters (share of all)",
    )
    axes.plot(table["images"] - table["largest"], color=_BLUE, linewidth=2, label="all other clusters of at least two")
    axes.plot(table["largest"], color=_INK, linewidth=2, label="the largest cluster")
    threshold = audit.summary["clusters"]["similarity"]
    words = f"threshold {threshold:.2f}"
    axes.axvline(threshold, color=_ORANGE, linestyle="--", linewidth=1.8, label=words)
    axes.legend(frameon=False, loc="center right", fontsize=9)
    axes.yaxis.set_major_formatter("{x:.0%}")
    return figure


def _plot_accuracy(audit: Audit) -> Figure | None:
    if audit.accuracy is None:
        return None
    table = audit.accuracy
    figure, axes = _new_axes(
        "Is the model better on images similar to its training images?",
        f"similarity to the most similar train image (medians of {len(table)} equal parts)",
        "accuracy, with 95 % interval",
    )
    errors = [table["accuracy"] - table["low"], table["high"] - table["accuracy"]]
    axes.errorbar(table["similarity"], table["accuracy"], errors, fmt="o-", color=_BLUE, capsize=4, linewidth=1.8)
    overall = audit.summary["accuracy"]["all"]["accuracy"]
    axes.axhline(overall, color=_INK, linestyle=":", linewidth=1.2, label=f"all test images: {overall:.1%}")
    axes.legend(frameon=False, loc="best")
    axes.yaxis.set_major_formatter("{x:.0%}")
    return figure


def _plot_noise(audit: Audit) -> Figure | None:
    if audit.noise is None:
        return None
    joint = audit.noise.joint
    rows = joint / np.maximum(joint.sum(axis=1, keepdims=True), 1e-12)
    title = "Estimated label noise (including mistakes of the model)"
    figure, axes = _new_axes(title, "likely label", "given label", 6.8, 4.8)
    images = np.round(joint * len(audit.scan))
    draw_matrix(axes, rows, lambda cell: f"{rows[cell]:.1%}\n{images[cell]:,.0f} images", [*audit.labels])
    return figure


def _plain_numbers(axis: XAxis, edges: np.ndarray) -> None:
    """Ticks at 1, 2 and 5 times powers of ten, as plain numbers."""
    from matplotlib.ticker import LogLocator, NullFormatter

    few = edges[-1] > 100 * edges[0]
    axis.set_major_locator(LogLocator(subs=(1.0,) if few else (1.0, 2.0, 5.0)))
    axis.set_major_formatter("{x:,.0f}")
    axis.set_minor_formatter(NullFormatter())


def open_private_folder(folder: Path) -> Path:
    """Create a folder for images of people with a `.gitignore` for everything in it.

    Raises:
        SmileDataError: if the folder already contains something else, which git would then ignore too.
    """
    mark = folder / ".gitignore"
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not mark.is_file())):
        raise SmileDataError(f"{folder} exists and is not a folder of contact sheets; choose another --contact_sheets")
    if mark.is_file() and mark.read_text(encoding="utf-8").strip() != "*":
        raise SmileDataError(f"{mark} does not ignore the whole folder; choose another --contact_sheets")
    folder.mkdir(parents=True, exist_ok=True)
    mark.write_text("*\n", encoding="utf-8")
    return folder


def draw_contact_sheets(audit: Audit, images: Images, folder: Path) -> list[Path]:
    """Draw contact sheets of the duplicates and the most suspicious labels, and delete those of earlier audits.

    Args:
        audit: result of the audit.
        images: source of the images.
        folder: folder to write to. The sheets show private faces, so a `.gitignore` in it keeps them out of git.

    Returns:
        Paths of the sheets, `duplicates-1.png`, `suspicious-1.png` and so on.
    """
    open_private_folder(folder)
    for old in [*folder.glob("duplicates-*.png"), *folder.glob("suspicious-*.png")]:
        old.unlink()
    files, labels = audit.scan["file"].to_numpy(), audit.labels
    tiles = {
        "duplicates": [
            (
                files[row.row],
                f"group {row.group}, {row.split}\n{labels[row.label]}",
                _ORANGE if row.labels_differ or row.crosses_splits else _INK,
            )
            for row in audit.duplicates.head(MAX_SHEETS * SHEET_TILES).itertuples()
        ]
    }
    if audit.noise is not None:
        tiles["suspicious"] = [
            (files[row.row], f"{labels[row.label]}?\n{labels[row.likely_label]}", _ORANGE)
            for row in audit.noise.suspicious.head(MAX_SHEETS * SHEET_TILES).itertuples()
        ]
    drawn = []
    for kind, of_kind in tiles.items():
        for start in range(0, len(of_kind), SHEET_TILES):
            drawn.append(folder / f"{kind}-{start // SHEET_TILES + 1}.png")
            _draw_sheet(of_kind[start : start + SHEET_TILES], images).save(drawn[-1])
    return drawn


def _draw_sheet(tiles: Sequence[tuple[str, str, str]], images: Images) -> Image.Image:
    """Draw one contact sheet. Each tile is a file, a caption and the colour of its frame."""
    lines = -(-len(tiles) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * _TILE, lines * (_TILE + _CAPTION)), "white")
    pen = ImageDraw.Draw(sheet)
    for place, (file, caption, colour) in enumerate(tiles):
        x, y = place % _COLUMNS * _TILE, place // _COLUMNS * (_TILE + _CAPTION)
        try:
            picture = ImageOps.contain(decode_image(images.read(file)), (_TILE - 8, _TILE - 8))
        except SmileDataError:  # it changed after the scan
            picture = Image.new("RGB", (_TILE - 8, _TILE - 8), "grey")
        sheet.paste(picture, (x + (_TILE - picture.width) // 2, y + (_TILE - picture.height) // 2))
        pen.rectangle((x + 2, y + 2, x + _TILE - 3, y + _TILE - 3), outline=colour, width=2)
        pen.text((x + 5, y + _TILE), caption, fill="black")
    return sheet
