"""Plots of a data set: its class distribution, and sample images as the model sees them."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
from datasets import Dataset, DatasetDict, Image

from hf_smile.data.arguments import AugmentationArguments
from hf_smile.data.images import decode_image, encoded_bytes
from hf_smile.data.rows import labels_of
from hf_smile.utils.figures import class_colors, new_figure, save_figure

_PER_CLASS = 8


def class_table(splits: DatasetDict) -> pd.DataFrame:
    """Number of images of each class in each split, and their share of the split.

    Returns:
        One row per label, with the columns `(<split>, "images")` and `(<split>, "share")`.
    """
    columns = {}
    labels = labels_of(next(iter(splits.values())))
    for split, dataset in splits.items():
        counts = np.bincount(dataset["label"], minlength=len(labels))
        columns[split, "images"] = counts
        columns[split, "share"] = counts / max(counts.sum(), 1)
    return pd.DataFrame(columns, index=[*labels])


def plot_class_distribution(splits: DatasetDict, path: str | Path) -> None:
    """Plot a bar for each class and split, with count and share."""
    table = class_table(splits)
    figure = new_figure()
    axes = figure.add_subplot()
    shares, counts = (table.xs(kind, axis=1, level=1) for kind in ("share", "images"))
    height = 0.78 / len(table)
    for row, (label, color) in enumerate(class_colors(table.index).items()):
        places = np.arange(len(splits)) + (row - (len(table) - 1) / 2) * height
        bars = axes.barh(places, shares.loc[label], height * 0.92, color=color, label=label)
        texts = [f"{n:,} ({share:.1%})" for n, share in zip(counts.loc[label], shares.loc[label], strict=True)]
        axes.bar_label(bars, texts, padding=3, fontsize=9)
    axes.set_yticks(range(len(splits)), list(splits))
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12 * max(shares.to_numpy().max(), 0.1))
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.set(xlabel="share of the split", title="Images per class")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=min(len(table), 4), frameon=False)
    save_figure(figure, path)


def plot_samples(dataset: Dataset, path: str | Path, image_size: int = 224, seed: int = 42) -> None:
    """Plot training images with the default augmentation, one row per class."""
    from hf_smile.data.augmentation import TrainingTransform
    from hf_smile.data.preprocessing import data_config

    config = data_config({"input_size": (3, image_size, image_size), "std": (1, 1, 1)})
    transform = TrainingTransform(config, AugmentationArguments())
    draw = np.random.default_rng(seed)
    dataset = dataset.cast_column("image", Image(decode=False))
    label_ids = np.asarray(dataset["label"])
    colors = class_colors(labels_of(dataset))
    figure = new_figure(1.25 * _PER_CLASS, 1.4 * len(colors))
    grid = figure.subplots(len(colors), _PER_CLASS, squeeze=False)
    for label_id, (label, color) in enumerate(colors.items()):
        rows = np.flatnonzero(label_ids == label_id)
        chosen = draw.choice(rows, size=min(_PER_CLASS, len(rows)), replace=False)
        for axes, row in zip(grid[label_id], [*chosen, *[None] * _PER_CLASS], strict=False):
            axes.axis("off")
            if row is not None:
                image = decode_image(encoded_bytes(dataset[int(row)]["image"]))
                pixels = transform.values(image, Random(f"{seed}/{row}"))
                axes.imshow((pixels + np.float32(config["mean"])).clip(0, 1))
        grid[label_id, 0].set_title(label, loc="left", fontsize=10, color=color, fontweight="bold")
    save_figure(figure, path)
