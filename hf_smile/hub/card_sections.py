"""The sections of a model card that are made of numbers: results, calibration, decision rule and recipe."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from hf_smile.evaluation.calibration import ece_if_calibrated
from hf_smile.evaluation.decision import TRADED, best_strength
from hf_smile.evaluation.predictions import Predictions
from hf_smile.labels import LABEL_NAMES, label_slug

Intervals = dict[str, tuple[float, float]]

_REPORTED = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "balanced_accuracy": "balanced accuracy",
    "smile_auc": "AUC of smile or none",
    "genuine_auc": "AUC of genuine or posed smile",
    "ece": "calibration error (15 bins)",
    "nll": "NLL (nats)",
    "brier": "Brier score (0 to 2)",
}
_STAGES = {
    "as_trained": "as trained",
    "with_temperature": "with the temperature",
    "saved": "with the prior adjustment, as saved",
}
_RECIPE_SHOWN = (
    "backbone",
    "image_size",
    "head_hidden_size",
    "num_train_epochs",
    "per_device_train_batch_size",
    "learning_rate",
    "lr_scheduler_type",
    "weight_decay",
    "loss",
    "label_smoothing_factor",
    "imbalance",
    "ema_decay",
    "seed",
)


def results_section(metrics: dict[str, float], intervals: Intervals) -> str:
    """All classes together, the two questions in words, and each class."""
    overall = ["| | value | 95 % interval |", "| --- | --- | --- |"]
    overall += [
        f"| {text} | {_number(metrics[name], 4)} | {_range(name, intervals, 4) or '–'} |"
        for name, text in _REPORTED.items()
    ]
    questions = [
        "**Is it a smile?** " + _pairs(metrics["smile_auc"], "a smiling face and one that does not smile"),
        "**Is the smile genuine?** " + _pairs(metrics["genuine_auc"], "a genuine smile and a posed one"),
    ]
    classes = ["| class | precision | recall | F1 | images |", "| --- | --- | --- | --- | --- |"]
    for label in LABEL_NAMES:
        values = [
            _with_range(f"{name}_{label_slug(label)}", metrics, intervals) for name in ("precision", "recall", "f1")
        ]
        classes.append(f"| {label} | {' | '.join(values)} | {metrics[f'support_{label_slug(label)}']:.0f} |")
    parts = ["\n".join(overall), *questions, "\n".join(classes)]
    if intervals:
        parts.append(
            "In brackets and in the last column are 95 % intervals: Wilson's for accuracy, precision and recall,\n"
            "a bootstrap over the test images for all else. They say what other images would change, not what another\n"
            "training would."
        )
    return "\n\n".join(parts)


def calibration_section(calibration: dict[str, Any], ece: float, predictions: Predictions | None, picture: bool) -> str:
    """How far off the confidence is, what the temperature changed, and on request the pictures of both."""
    adjusted = calibration["test"]["saved"] != calibration["test"]["with_temperature"]
    parts = []
    if predictions:
        expected, highest = ece_if_calibrated(predictions.probabilities)
        on_purpose = "\nThe prior adjustment moves it on purpose: the table has it without, the next section says why."
        parts.append(
            f"The model's confidence is off by {100 * ece:.1f} points on average (expected calibration error). A\n"
            f"perfectly calibrated model would show {100 * expected:.1f} points on these {len(predictions):,} images,"
            f" and up to {100 * highest:.1f} in 95 of 100 draws.{on_purpose * adjusted}"
        )
    if picture:
        parts.append("![Reliability diagram](reliability.png) ![Accuracy if it may abstain](coverage.png)")
    parts.append(
        f"Temperature scaling (Guo et al., 2017): {calibration['temperature']:.3f}, {calibration['temperature_is']}.\n"
        "The logits are divided by it in the weights of the last layer, so whatever loads the model profits; no\n"
        "prediction changes."
    )
    splits = [split for split in ("validation", "test") if split in calibration]
    names = [f"{split} {text}" for split in splits for text in ("calibration error", "NLL")]
    lines = [f"| | {' | '.join(names)} |", "| --- |" + " --- |" * len(names)]
    for stage, text in list(_STAGES.items())[: 2 + adjusted]:
        values = [calibration[split][stage][name] for split in splits for name in ("ece", "nll")]
        lines.append(f"| {text} | {' | '.join(map(_number, values))} |")
    return "\n\n".join([*parts, "\n".join(lines)])


def decision_section(decision: dict[str, Any], calibration: dict[str, Any]) -> str:
    """The prior adjustment, and what other strengths of it would give."""
    strength, shares = decision["prior_adjustment"], decision["class_shares"]
    parts = ["The highest probability decides."]
    if strength:
        meant = [share ** (1 - strength) if share else 0.0 for share in shares]
        ece = calibration["test"]["ece_where_it_is_meant"]
        parts = [
            "The highest probability decides, after each was divided by its class's share of train to the power of"
            f" {strength:g}\n(`--prior_adjustment {strength:g}`), so that rare classes are named more readily. **The"
            " probabilities are therefore those of a\nmore balanced population, not calibrated for one like train**:"
            f" they are meant for\n{_mixture([value / sum(meant) for value in meant])},\nwhere train has"
            f" {_mixture(shares)}.\nTest images counted so that their classes are as frequent as there give a"
            f" calibration error of {_number(ece)}."
        ]
    if not decision["trade_off"]:
        return parts[0]
    table = pd.DataFrame(decision["trade_off"])
    accuracy, macro_f1 = (best_strength(table, metric) for metric in ("accuracy", "macro_f1"))
    parts.append(
        "What other strengths would give, on the validation split (never choose by the test split): accuracy is highest"
        f" at\n{accuracy:g}, macro F1 at {macro_f1:g}. The training command with another `--prior_adjustment` changes"
        " the saved model without training\nanew; every such change is one more look at the test split."
    )
    lines = [f"| strength | {' | '.join(name.replace('_', ' ') for name in TRADED)} |"]
    lines.append("| --- |" + " --- |" * len(TRADED))
    for row in decision["trade_off"]:
        mark = "**" if math.isclose(row["strength"], strength, abs_tol=1e-9) else ""
        lines.append(f"| {mark}{row['strength']:g}{mark} | {' | '.join(_number(row[name]) for name in TRADED)} |")
    parts += ["\n".join(lines), "![Accuracy against macro F1 along the prior adjustment](prior_adjustment.png)"]
    return "\n\n".join(parts)


def recipe_section(recipe: dict[str, Any]) -> str:
    """The settings that are asked for most; empty without a recipe."""
    lines = [f"| {name} | {recipe[name]} |" for name in _RECIPE_SHOWN if name in recipe]
    return "\n".join(["| setting | value |", "| --- | --- |", *lines]) if lines else ""


def metric_name(metric: str, intervals: Intervals) -> str:
    """The schema of `model-index` has no field for an interval, but the Hub shows the name beside the value."""
    interval = _range(metric, intervals, 4)
    return metric.replace("_", " ") + (f" (95 % interval {interval})" if interval else "")


def _pairs(auc: float, pair: str) -> str:
    if math.isnan(auc):
        return f"Cannot be told: the split does not hold both {pair}."
    return f"Of {pair}, drawn at random, it tells which is which {100 * auc:.0f} times in 100; guessing does 50 times."


def _mixture(shares: list[float]) -> str:
    return ", ".join(f"{100 * share:.0f} % {name}" for share, name in zip(shares, LABEL_NAMES, strict=True))


def _number(value: float, decimals: int = 3) -> str:
    return "–" if math.isnan(value) else f"{value:.{decimals}f}"


def _with_range(metric: str, metrics: dict[str, float], intervals: Intervals) -> str:
    interval = "" if math.isnan(metrics[metric]) else _range(metric, intervals)
    return _number(metrics[metric]) + (f" ({interval})" if interval else "")


def _range(metric: str, intervals: Intervals, decimals: int = 3) -> str:
    """The interval in words; empty where there is none."""
    low, high = intervals.get(metric, (math.nan, math.nan))
    return "" if math.isnan(low) else f"{low:.{decimals}f} to {high:.{decimals}f}"
