"""Plots of the audit, and contact sheets: the images of the findings, for a folder that git ignores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageOps

from hf_smile.audit.run import Audit
from hf_smile.data.images import decode_image
from hf_smile.data.sources import Images
from hf_smile.errors import SmileDataError
from hf_smile.labels import LabelSet
from hf_smile.utils.figures import class_colors, new_figure, save_figure

SHEET_TILES = 48
"""Images on a contact sheet."""
MAX_SHEETS = 5
"""Of each kind; the CSV lists go on."""

_BLUE, _ORANGE, _INK = "#0072B2", "#D55E00", "#444444"
_TILE, _CAPTION, _COLUMNS = 128, 34, 8  # pixels, pixels, tiles


def plot_audit(audit: Audit, folder: Path) -> list[str]:
    """Draw what there is to draw into `folder`; the names of the files."""
    plots = {
        "pictures.png": True,
        "similarity.png": audit.nearest_train is not None,
        "clusters.png": audit.by_threshold is not None,
        "accuracy_by_similarity.png": audit.accuracy is not None,
        "label_noise.png": audit.noise is not None,
    }
    draw = {
        "pictures.png": _plot_pictures,
        "similarity.png": _plot_similarity,
        "clusters.png": _plot_clusters,
        "accuracy_by_similarity.png": _plot_accuracy,
        "label_noise.png": _plot_noise,
    }
    drawn = [name for name, wanted in plots.items() if wanted]
    for name in drawn:
        draw[name](audit, folder / name)
    return drawn


def _plot_pictures(audit: Audit, path: Path) -> None:
    from matplotlib.ticker import MaxNLocator

    scan = audit.scan
    side = np.minimum(scan["width"], scan["height"])
    panels = {
        "shorter side (pixels)": side,
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
    figure.suptitle(
        "Pictures of each class: where the curves differ, the picture alone gives the class away", fontsize=11
    )
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 4), frameon=False)
    save_figure(figure, path)


def _plot_similarity(audit: Audit, path: Path) -> None:
    assert audit.nearest_train is not None
    values = audit.nearest_train["similarity"].to_numpy()
    threshold = audit.summary["clusters"]["similarity"]
    figure = new_figure()
    axes = figure.add_subplot()
    edges = np.linspace(min(values.min(), threshold) - 0.01, 1, 41)
    axes.hist(values, edges.tolist(), color=_BLUE, edgecolor="white", linewidth=0.5)
    axes.margins(y=0.2)
    lines = (
        (threshold, "--", f"{(values >= threshold).mean():.1%} of the test images at {threshold:.2f} or above"),
        (audit.summary["duplicates"]["similarity_threshold"], ":", "one picture"),
    )
    for position, style, words in lines:
        axes.axvline(position, color=_ORANGE, linestyle=style, linewidth=1.8, label=words)
    axes.legend(frameon=False, loc="upper left", fontsize=9)
    axes.set(
        xlabel="cosine similarity to the most similar train image",
        ylabel="test images",
        title="How much like a train image are the test images?",
    )
    save_figure(figure, path)


def _plot_clusters(audit: Audit, path: Path) -> None:
    assert audit.by_threshold is not None
    threshold = audit.summary["clusters"]["similarity"]
    table, count = audit.by_threshold, len(audit.scan)
    figure = new_figure()
    axes = figure.add_subplot()
    largest, others = table["largest"], table["images"] - table["largest"]
    for images, color, words in ((others, _BLUE, "the other clusters of several"), (largest, _INK, "the largest")):
        axes.plot(table["threshold"], images / count, color=color, linewidth=2, label=words)
    words = f"kept together from {threshold:.2f} on"
    axes.axvline(threshold, color=_ORANGE, linestyle="--", linewidth=1.8, label=words)
    axes.legend(frameon=False, loc="center right", fontsize=9)
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.set(
        xlabel="cosine similarity from which two images are linked",
        ylabel="images in clusters (share of all)",
        title="Below the threshold the clusters chain into one",
    )
    save_figure(figure, path)


def _plot_accuracy(audit: Audit, path: Path) -> None:
    assert audit.accuracy is not None
    table = audit.accuracy
    figure = new_figure()
    axes = figure.add_subplot()
    errors = [table["accuracy"] - table["low"], table["high"] - table["accuracy"]]
    axes.errorbar(table["similarity"], table["accuracy"], errors, fmt="o-", color=_BLUE, capsize=4, linewidth=1.8)
    overall = audit.summary["accuracy"]["all"]["accuracy"]
    axes.axhline(overall, color=_INK, linestyle=":", linewidth=1.2, label=f"all test images: {overall:.1%}")
    axes.legend(frameon=False, loc="best")
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.set(
        xlabel=f"similarity to the nearest train image (medians of {len(table)} equal parts)",
        ylabel="accuracy, with 95 % interval",
        title="Is the model better on what it has nearly seen?",
    )
    save_figure(figure, path)


def _plot_noise(audit: Audit, path: Path) -> None:
    assert audit.noise is not None
    joint = audit.noise.joint
    rows = joint / np.maximum(joint.sum(axis=1, keepdims=True), 1e-12)
    figure = new_figure(6.8, 4.8)
    axes = figure.add_subplot()
    axes.imshow(rows, cmap="Blues", vmin=0, vmax=1)
    for i, j in np.ndindex(rows.shape):
        color = "white" if rows[i, j] > 0.5 else "black"
        images = round(float(joint[i, j]) * len(audit.scan))
        axes.text(j, i, f"{rows[i, j]:.1%}\n{images:,} images", ha="center", va="center", color=color, fontsize=10)
    axes.set_xticks(range(len(rows)), [*audit.labels])
    axes.set_yticks(range(len(rows)), [*audit.labels])
    axes.set(
        xlabel="likely label", ylabel="given label", title="Estimated label noise (the probe's own mistakes included)"
    )
    save_figure(figure, path)


def _plain_numbers(axis, edges: np.ndarray) -> None:  # type: ignore[no-untyped-def]
    """Ticks 1, 2 and 5 times the powers of ten, as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    few = edges[-1] > 100 * edges[0]
    axis.set_major_locator(LogLocator(subs=(1.0,) if few else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.set_minor_formatter(NullFormatter())


def open_private_folder(folder: Path) -> Path:
    """Make a folder for pictures of people, and have git ignore all of it.

    Raises:
        SmileDataError: the folder holds something else already, which git would then ignore as well.
    """
    mark = folder / ".gitignore"
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not mark.is_file())):
        raise SmileDataError(
            f"{folder} is there already, and not a folder of contact sheets; name another --contact_sheets"
        )
    if mark.is_file() and mark.read_text(encoding="utf-8").strip() != "*":
        raise SmileDataError(f"{folder} is not ignored by git as a whole; name another --contact_sheets")
    folder.mkdir(parents=True, exist_ok=True)
    mark.write_text("*\n", encoding="utf-8")
    return folder


def draw_contact_sheets(audit: Audit, images: Images, folder: Path) -> list[Path]:
    """Contact sheets of the duplicate groups and of the most suspicious labels, for a person to look through.

    Args:
        folder: it shows private faces; `.gitignore` in it keeps it out of git.

    Returns:
        The files, `duplicates-1.png`, `suspicious-1.png` and so on; sheets of an earlier audit are removed.
    """
    open_private_folder(folder)
    for old in [*folder.glob("duplicates-*.png"), *folder.glob("suspicious-*.png")]:
        old.unlink()
    tiles = {"duplicates": _duplicate_tiles(audit.scan, audit.duplicates, audit.labels)}
    if audit.noise is not None:
        tiles["suspicious"] = _suspicious_tiles(audit.scan, audit.noise.suspicious, audit.labels)
    drawn = []
    for kind, of_kind in tiles.items():
        for number in range(1, MAX_SHEETS + 1):
            if not (sheet := list(islice(of_kind, SHEET_TILES))):
                break
            drawn.append(folder / f"{kind}-{number}.png")
            _draw_sheet(sheet, images).save(drawn[-1])
    return drawn


_Tile = tuple[str, str, str]  # file, caption, colour of the frame


def _duplicate_tiles(scan: pd.DataFrame, groups: pd.DataFrame, labels: LabelSet) -> Iterator[_Tile]:
    files = scan["file"].to_numpy()
    for row in groups.itertuples():
        colour = _ORANGE if row.labels_differ or row.crosses_splits else _INK
        yield files[row.row], f"group {row.group}, {row.split}\n{labels[row.label]}", colour


def _suspicious_tiles(scan: pd.DataFrame, suspicious: pd.DataFrame, labels: LabelSet) -> Iterator[_Tile]:
    files = scan["file"].to_numpy()
    for row in suspicious.itertuples():
        yield files[row.row], f"{labels[row.label]}?\n{labels[row.likely_label]}", _ORANGE


def _draw_sheet(tiles: Sequence[_Tile], images: Images) -> Image.Image:
    lines = -(-len(tiles) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * _TILE, lines * (_TILE + _CAPTION)), "white")
    pen = ImageDraw.Draw(sheet)
    for place, (file, caption, colour) in enumerate(tiles):
        x, y = place % _COLUMNS * _TILE, place // _COLUMNS * (_TILE + _CAPTION)
        try:
            picture = ImageOps.contain(decode_image(images.read(file)), (_TILE - 8, _TILE - 8))
        except SmileDataError:  # it was there when it was scanned
            picture = Image.new("RGB", (_TILE - 8, _TILE - 8), "grey")
        sheet.paste(picture, (x + (_TILE - picture.width) // 2, y + (_TILE - picture.height) // 2))
        pen.rectangle((x + 2, y + 2, x + _TILE - 3, y + _TILE - 3), outline=colour, width=2)
        pen.text((x + 5, y + _TILE), caption, fill="black")
    return sheet
