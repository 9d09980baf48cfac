"""The history of a run: a table with one row per epoch, and two plots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from transformers import TrainingArguments

from hf_smile.evaluation.intervals import wilson_interval
from hf_smile.utils.figures import new_figure, save_figure

_OF_TRAINING = ("epoch", "step", "learning_rate", "train_loss", "train_accuracy")
_OF_VALIDATION = ("validation_loss", "validation_accuracy", "validation_macro_f1")
_NOT_HISTORY = ("runtime", "samples_per_second", "steps_per_second")


def history_table(log_history: list[dict[str, Any]]) -> pd.DataFrame:
    """Convert the Trainer's log to one row per epoch, without timings, so that equal runs have equal histories.

    Returns:
        Columns `epoch`, `step`, `learning_rate`, `train_loss` and `train_accuracy`; with a validation split also
        `validation_loss` and `validation_<metric>` for every metric.
    """
    rows: dict[int, dict[str, Any]] = {}
    for entry in log_history:
        row = rows.setdefault(entry["step"], {"epoch": entry["epoch"], "step": entry["step"]})
        if "loss" in entry:
            row["learning_rate"] = entry["learning_rate"]
            row |= {"train_loss": entry["loss"], "train_accuracy": entry["accuracy"]}
        row |= {
            f"validation_{name.removeprefix('eval_')}": value
            for name, value in entry.items()
            if name.startswith("eval_") and not name.endswith(_NOT_HISTORY)
        }
    validated = any("validation_loss" in row for row in rows.values())
    whole = [row for row in rows.values() if "train_loss" in row and ("validation_loss" in row or not validated)]
    # A log from a checkpoint has sorted keys; always sorting them keeps equal histories equal.
    metrics = sorted({name for row in whole for name in row} - {*_OF_TRAINING, *_OF_VALIDATION})
    return pd.DataFrame(whole, columns=[*_OF_TRAINING, *(_OF_VALIDATION if validated else ()), *metrics])


def best_epoch(table: pd.DataFrame, args: TrainingArguments) -> int:
    """Index of the row with the best `metric_for_best_model`, whose checkpoint is chosen.

    A small validation split has many ties. The lower validation loss breaks them, then the earlier epoch.

    >>> table = pd.DataFrame({"validation_accuracy": [0.8, 0.8], "validation_loss": [0.6, 0.5]})
    >>> best_epoch(table, TrainingArguments(metric_for_best_model="accuracy"))  # doctest: +SKIP
    1
    """
    values = table[f"validation_{args.metric_for_best_model}"]
    costs = (-values if args.greater_is_better else values).fillna(float("inf"))  # NaN where a class is absent
    return int(np.lexsort((table["validation_loss"], costs))[0])


def describe_choice(table: pd.DataFrame, args: TrainingArguments, n_images: int) -> dict[str, Any]:
    """The chosen epoch, and how it was chosen.

    Args:
        table: as returned by `history_table`.
        args: the settings of the run.
        n_images: number of validation images.

    Returns:
        `epoch`, the number of `epochs`, and the `metric`, or `last`. If a metric chose the epoch, also the number of
        `images`, and `margin`: half the width of Wilson's 95 % interval of the validation accuracy, from 0 to 1.
    """
    metric = args.metric_for_best_model
    row = table.iloc[-1 if metric is None else best_epoch(table, args)]
    choice = {"epoch": float(row["epoch"]), "epochs": len(table), "metric": metric or "last"}
    if metric is None:
        return choice
    low, high = wilson_interval(row["validation_accuracy"], n_images)
    return choice | {"images": n_images, "margin": float(high - low) / 2}


def write_history(table: pd.DataFrame, output_dir: Path) -> None:
    """Write `training_history.csv`, `accuracy.png` and `loss.png` to `output_dir`."""
    output_dir.mkdir(parents=True, exist_ok=True)
    table.to_csv(output_dir / "training_history.csv", index=False)
    for name in ("accuracy", "loss"):
        figure = new_figure()
        axes = figure.add_subplot()
        for split, color, marker in (("train", "#E69F00", "o"), ("validation", "#0072B2", "s")):
            if f"{split}_{name}" in table:
                axes.plot(table["epoch"], table[f"{split}_{name}"], color=color, marker=marker, label=split)
        axes.set(xlabel="epoch", ylabel=name.capitalize(), title=f"{name.capitalize()} over the training")
        axes.locator_params(axis="x", integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
        save_figure(figure, output_dir / f"{name}.png")
