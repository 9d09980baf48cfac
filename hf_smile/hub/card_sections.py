"""The sections of a model card with numbers: results, calibration, decision rule and recipe."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from hf_smile.data.corrections import Facts, corrections_sentence
from hf_smile.evaluation.calibration import ece_if_calibrated
from hf_smile.evaluation.decision import best_strength, traded
from hf_smile.evaluation.numbers import (
    NO_INTERVAL,
    QUESTIONS,
    auc_sentence,
    interval,
    markdown_table,
    number,
    with_interval,
)
from hf_smile.evaluation.predictions import Predictions
from hf_smile.labels import LabelSet
from hf_smile.utils.words import counted

Intervals = dict[str, tuple[float, float]]

REPORTED = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "balanced_accuracy": "balanced accuracy",
    "smile_auc": "AUC of smile or none",
    "genuine_auc": "AUC of genuine or posed smile",
    "ece": "calibration error (15 bins)",
    "nll": "NLL (nats)",
    "brier": "Brier score (0 to 2)",
}
_METRICS = REPORTED | {"nll": "NLL"}
_STAGES = {
    "as_trained": "as trained",
    "with_temperature": "with the temperature",
    "saved": "with the prior adjustment, as saved",
}
_RECIPE_SHOWN = (
    "backbone",
    "image_size",
    "head_hidden_size",
    "freeze_stages",
    "num_train_epochs",
    "warmup_frozen_epochs",
    "head_learning_rate",
    "max_hours",
    "max_train_samples",
    "per_device_train_batch_size",
    "processes",
    "learning_rate",
    "warmup_steps",
    "lr_scheduler_type",
    "weight_decay",
    "loss",
    "teachers",
    "teacher_weight",
    "label_smoothing_factor",
    "imbalance",
    "ema_decay",
    "seed",
    "soup_of",
)
_FEW = 5


def headline(metrics: dict[str, float], intervals: Intervals, labels: LabelSet) -> str:
    """The result in short: accuracy and macro F1, and with few classes the recall of each.

    >>> metrics = {"accuracy": 0.8, "macro_f1": 0.7, "recall_a": 0.9, "support_a": 8.0, "support_b": 0.0}
    >>> print(headline(metrics, {}, LabelSet(("a", "b"))))
    **On 8 test images**: accuracy 0.800, macro F1 0.700. Recall: a 0.900, b –.
    """
    images = sum(int(metrics[f"support_{slug}"]) for slug in labels.slugs)
    (low, high), of_f1 = (intervals.get(name, NO_INTERVAL) for name in ("accuracy", "macro_f1"))
    note = f" (95 % interval {interval(low, high)})" * bool(intervals)
    text = (
        f"**On {counted(images, 'test image')}**: accuracy {number(metrics['accuracy'])}{note}, macro F1"
        f" {with_interval(metrics['macro_f1'], *of_f1)}."
    )
    if len(labels) > _FEW:
        return text
    recalls = {
        label: metrics[f"recall_{slug}"] if metrics[f"support_{slug}"] else math.nan
        for label, slug in zip(labels, labels.slugs, strict=True)
    }
    return f"{text} Recall: {', '.join(f'{label} {number(recall)}' for label, recall in recalls.items())}."


def results_section(metrics: dict[str, float], intervals: Intervals, labels: LabelSet) -> str:
    """Tables of the overall metrics and of each class, with the AUCs as sentences."""
    overall = [
        [text, number(metrics[name], 4), interval(*intervals.get(name, NO_INTERVAL), 4)]
        for name, text in REPORTED.items()
        if name in metrics
    ]
    questions = [f"{text} {auc_sentence(name, metrics[name])}" for name, text in QUESTIONS.items() if name in metrics]
    classes = []
    for label, slug in zip(labels, labels.slugs, strict=True):
        names = [f"{name}_{slug}" for name in ("precision", "recall", "f1")]
        values = [with_interval(metrics[name], *intervals.get(name, NO_INTERVAL)) for name in names]
        classes.append([label, *values, f"{metrics[f'support_{slug}']:.0f}"])
    parts = [
        markdown_table(["", "value", "95 % interval"], overall),
        *questions,
        markdown_table(["class", "precision", "recall", "F1", "images"], classes),
    ]
    if intervals:
        parts.append(
            "The last column of the first table and the brackets in the second are 95 % intervals: Wilson's for\n"
            "accuracy, precision and recall, and a bootstrap over the test images for the other metrics. They cover\n"
            "the variation between samples of images, not between training runs."
        )
    return "\n\n".join(parts)


def calibration_section(calibration: dict[str, Any], ece: float, predictions: Predictions | None, picture: bool) -> str:
    """The calibration error, the effect of the temperature, and optionally plots."""
    adjusted = calibration["test"]["saved"] != calibration["test"]["with_temperature"]
    parts = []
    if predictions:
        expected, highest = ece_if_calibrated(predictions.probabilities)
        on_purpose = "\nThis includes the intended shift by the prior adjustment; the table has the error without it."
        parts.append(
            f"The expected calibration error is {100 * ece:.1f} points: the mean gap between confidence and accuracy.\n"
            f"A perfectly calibrated model would have {100 * expected:.1f} points on these {len(predictions):,} images"
            f" on average, and at most {100 * highest:.1f} in 95 of 100 samples.{on_purpose * adjusted}"
        )
    if picture:
        parts.append("![Reliability diagram](reliability.png) ![Accuracy with abstention](coverage.png)")
    parts.append(
        f"Temperature scaling (Guo et al., 2017): {calibration['temperature']:.3f}, {calibration['temperature_is']}.\n"
        "The temperature is folded into the weights of the last layer, so that it applies in every loader. It changes\n"
        "no prediction."
    )
    splits = [split for split in ("validation", "test") if split in calibration]
    names = [f"{split} {text}" for split in splits for text in ("calibration error", "NLL")]
    stages = {
        text: [calibration[split][stage][name] for split in splits for name in ("ece", "nll")]
        for stage, text in _STAGES.items()
    }
    rows = [[text, *map(number, values)] for text, values in _that_differ(stages).items()]
    parts.append(markdown_table(["", *names], rows))
    before, after = (round(calibration["test"][stage]["ece"], 3) for stage in ("as_trained", "with_temperature"))
    if after > before:
        parts.append(
            "On the test split, the calibration error is higher with the temperature than without it. It is kept,\n"
            "because the test split must not decide about it."
        )
    return "\n\n".join(parts)


def calibration_sentence(calibration: dict[str, Any]) -> str:
    """One line with the calibration error on the test split before and after folding."""
    stages = calibration["test"]
    errors = _that_differ({text: stages[stage]["ece"] for stage, text in _STAGES.items()})
    return "calibration error " + ", ".join(f"{number(ece)} {text}" for text, ece in errors.items())


def choice_sentence(choice: dict[str, Any]) -> str:
    """The chosen epoch, the number of validation images, and the difference that may be chance.

    >>> choice_sentence({"epoch": 4.0, "epochs": 6, "metric": "accuracy", "images": 90, "margin": 0.08})
    'Epoch 4 of 6 was chosen by accuracy on 90 validation images: ... of less than 8 points may be chance.'
    """
    if "soup" in choice:
        *others, last = map(str, choice["soup"])
        return (
            f"The weights are the mean of those of seeds {', '.join(others)} and {last} (Wortsman et al., 2022),"
            f" which was better by {_METRICS[choice['metric']]} on {choice['images']:,} validation images than each"
            " seed alone."
        )
    if choice["metric"] == "last" or choice["epochs"] == 1:
        return f"The weights are those of the last epoch, epoch {choice['epoch']:g}; no checkpoint was chosen."
    return (
        f"Epoch {choice['epoch']:g} of {choice['epochs']} was chosen by {_METRICS[choice['metric']]} on"
        f" {choice['images']:,} validation images: a difference in accuracy of less than {100 * choice['margin']:.0f}"
        " points may be chance."
    )


def corrections_section(by_split: dict[str, Facts]) -> str:
    """The number of corrected labels by split, and whether the test split was corrected; empty if none were."""
    if not (sentence := corrections_sentence(by_split)):
        return ""
    of_test = by_split.get("test", {}).values()
    if any(facts["changed"] or facts["left_out"] for facts in of_test):
        return f"{sentence} **The test split was corrected too**: its numbers are not for the original annotations."
    return f"{sentence} The test split was not corrected."


def looks_sentence(looks: list[dict[str, Any]]) -> str:
    """The number of looks at the test split, their dates, and the settings that changed before each.

    >>> looks_sentence([{"date": "2026-11-25", "changed": {}}])
    'The test split was looked at once, on 2026-11-25.'
    """
    if not looks:
        return "The number of looks at the test split was not recorded."
    if len(looks) == 1:
        return f"The test split was looked at once, on {looks[0]['date']}."
    told = [
        f"{look['date']} ("
        + (", ".join(f"{name} {before} -> {now}" for name, (before, now) in look["changed"].items()) or "first result")
        + ")"
        for look in looks
    ]
    bent = any({"num_train_epochs", "max_steps"} & look["changed"].keys() for look in looks)
    return (
        f"The test split was looked at {len(looks)} times: {', '.join(told)}.\nSettings that changed after a look may"
        " have been chosen by it, so these numbers may be optimistic."
        + "\nThe run was extended after it had ended, so its learning rate fell and rose again, and its settings alone"
        " do not reproduce it." * bent
    )


def reach_section(recipe: dict[str, Any], budget: dict[str, float] | None) -> str:
    """Notes on a run that was limited to some of the images, or by a time budget; empty for other runs.

    >>> reach_section({"max_train_samples": 200}, None)[:40]
    '**A first try**: the model was trained o'
    """
    parts = []
    if count := recipe.get("max_train_samples"):
        parts.append(
            f"**A first try**: the model was trained on at most {count:,} images of train (`--max_train_samples`), so"
            " these numbers say little\nabout what its settings can achieve."
        )
    if budget:
        parts.append(
            f"**Time budget** of {budget['max_hours']:g} hours (`--max_hours`): there was time for {budget['steps']:,}"
            f" steps ({budget['epochs']:.1f} epochs);\nthe run took {budget['hours']:.2g} hours, including evaluation."
        )
    return "\n\n".join(parts)


def decision_section(decision: dict[str, Any], calibration: dict[str, Any], labels: LabelSet) -> str:
    """The prior adjustment, and the results with other strengths."""
    strength, shares = decision["prior_adjustment"], decision["class_shares"]
    parts = ["The highest probability decides."]
    if strength:
        meant = [share ** (1 - strength) if share else 0.0 for share in shares]
        ece = calibration["test"]["ece_where_it_is_meant"]
        parts = [
            "The highest probability decides, after dividing each by the class share in train to the power of"
            f" {strength:g}\n(`--prior_adjustment {strength:g}`), so that rare classes are predicted more often. **The"
            " probabilities are therefore for a\nmore balanced population, and not calibrated for one like train**:"
            f" they are meant for\n{_mixture([value / sum(meant) for value in meant], labels)},\nwhile train has"
            f" {_mixture(shares, labels)}.\nWith the test images weighted to these class shares, the calibration error"
            f" is {number(ece)}."
        ]
    if not decision["trade_off"]:
        return parts[0]
    table = pd.DataFrame(decision["trade_off"])
    accuracy, macro_f1 = (best_strength(table, metric) for metric in ("accuracy", "macro_f1"))
    columns = traded(labels)
    if (table[list(columns)].nunique() <= 1).all():
        highest = table["strength"].max()
        parts.append(f"On the validation split, no prior adjustment up to {highest:g} changes a prediction.")
        return "\n\n".join(parts)
    shown = max(0.5, accuracy, macro_f1, strength)
    parts.append(
        f"The table shows strengths up to {shown:g} on the validation split (never choose by the test split), the plot"
        f"\nshows all. Accuracy is highest at {accuracy:g}, macro F1 at {macro_f1:g}. The training command with another"
        "\n`--prior_adjustment` changes the saved model without training again; every such change is one more look at"
        "\nthe test split. Strengths with the same results as the row above are left out."
    )
    rows: list[list[str]] = []
    above: list[str] = []
    for row in decision["trade_off"]:
        if row["strength"] > shown:
            break
        is_saved = math.isclose(row["strength"], strength, abs_tol=1e-9)
        cells = [number(row[name]) for name in columns]
        if is_saved or cells != above:
            rows.append([f"**{row['strength']:g}**" if is_saved else f"{row['strength']:g}", *cells])
        above = cells
    parts.append(markdown_table(["strength", *(name.replace("_", " ") for name in columns)], rows))
    parts.append("![Accuracy against macro F1 along the prior adjustment](prior_adjustment.png)")
    return "\n\n".join(parts)


def recipe_section(recipe: dict[str, Any]) -> str:
    """Table of the main settings; empty without a recipe."""
    without = {"num_train_epochs"} if recipe.get("max_hours") else set()  # ignored with a time budget
    if not recipe.get("warmup_frozen_epochs"):
        without |= {"warmup_frozen_epochs", "head_learning_rate"}
    shown = {name: recipe[name] for name in _RECIPE_SHOWN if name not in without and recipe.get(name) is not None}
    rows = [
        [name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)] for name, value in shown.items()
    ]
    return markdown_table(["setting", "value"], rows) if rows else ""


def _that_differ(stages: dict[str, Any]) -> dict[str, Any]:
    """The stages that differ from the one before."""
    kept: dict[str, Any] = {}
    for name, stage in stages.items():
        if stage not in [*kept.values()][-1:]:
            kept[name] = stage
    return kept if len(kept) > 1 else {f"{name}, and as saved": stage for name, stage in kept.items()}


def _mixture(shares: list[float], labels: LabelSet) -> str:
    return ", ".join(f"{100 * share:.0f} % {name}" for share, name in zip(shares, labels, strict=True))
