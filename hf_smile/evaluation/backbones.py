"""Comparison of backbones as a CSV file, a Markdown table and a plot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from hf_smile.utils.csv_cells import guarded
from hf_smile.utils.figures import new_figure, save_figure

METRICS = {"accuracy": "accuracy", "macro_f1": "macro F1", "balanced_accuracy": "balanced accuracy"}
_STYLES = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "D"))


def write_comparison(output_dir: str | Path, backbones: pd.DataFrame, scores: pd.DataFrame, title: str) -> str:
    """Write `comparison.csv`, `comparison.md` and `comparison.png`.

    `comparison.csv` has the columns of `backbones`, `split`, `seeds` (their number), and `<metric>_mean` and
    `<metric>_std` (standard deviation over the seeds; empty for one seed).

    Args:
        output_dir: folder to write to, created if needed.
        backbones: one row per backbone: `backbone`, `parameters`, `image_size`, `images_per_second`.
        scores: one row per backbone, seed and split: `backbone`, `seed`, `split` and the metrics `accuracy`,
            `macro_f1` and `balanced_accuracy`.
        title: title of the table and the plot.

    Returns:
        The table of `comparison.md`.
    """
    output_dir = Path(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    grouped = scores.groupby(["backbone", "split"], sort=False)
    columns = {f"{name}_{kind}": grouped[name].agg(kind) for name in METRICS for kind in ("mean", "std")}
    summary = pd.DataFrame({"seeds": grouped.size(), **columns}).reset_index()
    table = backbones.merge(summary, on="backbone", how="left")
    table.map(guarded).to_csv(output_dir / "comparison.csv", index=False)
    text = _markdown(table, title)
    picture = "\n\n![Plot of this table](comparison.png)\n"
    (output_dir / "comparison.md").write_text(text + picture, encoding="utf-8")
    _plot(table, scores, title, output_dir / "comparison.png")
    return text


def _markdown(table: pd.DataFrame, title: str) -> str:
    lines = [f"# {title}", "", "Mean over the seeds ± standard deviation.", ""]
    lines.append(f"| backbone | parameters | pixels | images/s | split | seeds | {' | '.join(METRICS.values())} |")
    lines.append(f"| --- | ---: | ---: | ---: | --- | ---: |{' ---: |' * len(METRICS)}")
    for row in table.to_dict("records"):
        cells = [
            f"{100 * row[f'{name}_mean']:.1f}"
            + ("" if np.isnan(row[f"{name}_std"]) else f" ± {100 * row[f'{name}_std']:.1f}")
            + " %"
            for name in METRICS
        ]
        lines.append(
            f"| {row['backbone']} | {row['parameters'] / 1e6:.1f} M | {row['image_size']} |"
            f" {row['images_per_second']:.0f} | {row['split']} | {row['seeds']} | {' | '.join(cells)} |"
        )
    return "\n".join(lines)


def _plot(table: pd.DataFrame, scores: pd.DataFrame, title: str, path: Path) -> None:
    """Plot one line per backbone and split, with a small marker for each seed and a large one for their mean."""
    lines = list(zip(table["backbone"], table["split"], strict=True))
    figure = new_figure(8.0, 1.8 + 0.6 * len(lines))
    axes = figure.subplots()
    for offset, (name, label), (color, marker) in zip((-0.2, 0.0, 0.2), METRICS.items(), _STYLES, strict=True):
        for line, (backbone, split) in enumerate(lines):
            values = scores.loc[(scores["backbone"] == backbone) & (scores["split"] == split), name]
            axes.plot(values, [line + offset] * len(values), marker, color=color, markersize=4, alpha=0.5)
        means = table[f"{name}_mean"]
        axes.plot(means, np.arange(len(lines)) + offset, marker, color=color, markersize=9, linestyle="", label=label)
    labels = [
        f"{backbone}\n{split}, {n / 1e6:.1f} M" for (backbone, split), n in zip(lines, table["parameters"], strict=True)
    ]
    axes.set_yticks(range(len(lines)), labels)
    axes.invert_yaxis()
    axes.set_xlabel("large: mean over the seeds; small: each seed")
    axes.set_title(title)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
    save_figure(figure, path)
