"""The sections of `report.md`, in Markdown, from metrics with their intervals."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from hf_smile.evaluation.comparison import p_text
from hf_smile.evaluation.groups import MIN_IMAGES, Gap
from hf_smile.evaluation.intervals import CONFIDENCE
from hf_smile.evaluation.numbers import (
    DASH,
    QUESTIONS,
    auc_sentence,
    interval,
    markdown_table,
    number,
    share,
    share_interval,
    with_interval,
)
from hf_smile.evaluation.predictions import Predictions
from hf_smile.labels import LabelSet
from hf_smile.utils.words import counted

FEW_IMAGES = 50

Values = Mapping[str, Mapping[str, float]]
"""`{"value": ..., "low": ..., "high": ...}` by metric name."""


def headline(metrics: Values) -> str:
    """What one plain forward pass gives."""
    shares = {
        "Accuracy": "accuracy",
        "Balanced accuracy": "balanced_accuracy",
        "Macro F1": "macro_f1",
        "Micro precision at threshold 0.5 (Keras's `Precision`)": "micro_precision_at_50",
        "Micro recall at threshold 0.5 (Keras's `Recall`)": "micro_recall_at_50",
    }
    others = {"Cohen's kappa": "cohen_kappa", "Expected calibration error (ECE)": "ece"}
    rows = []
    for names, write, write_ends in ((shares, share, share_interval), (others, number, interval)):
        for text, name in names.items():
            metric = metrics[name]
            rows.append([text, write(metric["value"]), write_ends(metric["low"], metric["high"])])
    return markdown_table(["", "value", "interval"], rows)


def variants(metrics: Values, by_name: Mapping[str, Values]) -> str:
    """One forward pass and other ways of asking the same model, row by row."""
    rows = [
        [name, *(_share(values[key]) for key in ("accuracy", "balanced_accuracy", "macro_f1")), _number(values["ece"])]
        for name, values in {"One forward pass: all other numbers here": metrics, **by_name}.items()
    ]
    table = markdown_table(["", "accuracy", "balanced accuracy", "macro F1", "ECE"], rows)
    return f"## Other ways of asking the model\n\n{table}"


def heat_maps(sanity: str) -> str:
    """The picture `heat_maps.png`, and whether it can be trusted."""
    return (
        "## Where it looks\n\nHiResCAM of the score of each image's own label, averaged over up to 100 images a class."
        f" {sanity}\n\n![Mean heat map of each class](heat_maps.png)"
    )


def two_questions(metrics: Values) -> list[str]:
    """Is it a smile, and is the smile genuine? Two AUCs in words, of which labels may answer one or none."""
    asked = []
    for name, question in QUESTIONS.items():
        if name in metrics:
            auc = metrics[name]["value"]
            value = "" if math.isnan(auc) else f"AUC {_number(metrics[name])}. "
            asked.append(f"{question} {value}{auc_sentence(name, auc)}")
    return ["## Two questions" if len(asked) > 1 else "## One question", *asked] if asked else []


def per_class(metrics: Values, labels: LabelSet) -> str:
    """A row a class, and the pictures of the confusion matrix and of precision and recall."""
    rows = []
    for class_name, slug in zip(labels, labels.slugs, strict=True):
        n = metrics[f"support_{slug}"]["value"]
        cells = [_share(metrics[f"{key}_{slug}"]) if n else DASH for key in ("precision", "recall", "f1")]
        rows.append([class_name, f"{n:,.0f}", *cells, _number(metrics[f"roc_auc_{slug}"])])
    table = markdown_table(["class", "images", "precision", "recall", "F1", "AUC against the rest"], rows)
    return (
        f"## Classes\n\n{table}\n\n![Confusion matrix](confusion_matrix.png)\n\n"
        "![Precision-recall curves](precision_recall.png)"
    )


def groups(groups: Mapping[str, Any], gap: Gap | None, labels: LabelSet) -> str:
    """A row a group, and the largest gap between two of them in words."""
    genuine = ["genuine AUC"] if labels.tells_genuine else []
    rows = []
    for key, group in groups["groups"].items():
        metrics = group["metrics"]
        complete = all(metrics[f"support_{slug}"]["value"] for slug in labels.slugs)
        macro_f1 = _share(metrics["macro_f1"]) if complete else DASH  # a class that is not there counts as 0 in it
        answers = [_number(metrics["genuine_auc"]) for _ in genuine]
        rows.append([_cell(key), f"{group['n']:,}", _share(metrics["accuracy"]), macro_f1, *answers])
    table = markdown_table(["group", "images", "accuracy", "macro F1", *genuine], rows)
    if gap is None:
        sentence = f"Fewer than two groups have {MIN_IMAGES} images or more: too few to compare."
    else:
        verdict = "more than chance opens" if gap.p_value < 1 - CONFIDENCE else "no more than chance may open"
        sentence = (
            f"The largest gap in accuracy is {100 * gap.difference:.1f} points, from {_cell(gap.highest)} down to"
            f" {_cell(gap.lowest)}: {verdict} between groups of these sizes (permutation test, p"
            f" {p_text(gap.p_value)}; groups under {MIN_IMAGES} images left out)."
        )
    return f"## Groups by {_cell(groups['column'])}\n\n{table}\n\n{sentence}"


def calibration(metrics: Values, expected_ece: float, highest_ece: float) -> str:
    """How far the confidence is off, and whether chance alone would do that."""
    ece = metrics["ece"]["value"]
    verdict = "so chance alone may explain this one" if ece <= highest_ece else "so this one is more than chance"
    return (
        f"## Is it as right as sure?\n\nThe model's confidence is off by {100 * ece:.1f} points on average (expected"
        f" calibration error). A perfectly calibrated model with the same confidences would show"
        f" {100 * expected_ece:.1f} points, and up to {100 * highest_ece:.1f} in 95 of 100 draws of as many images,"
        f" {verdict}.\n\nNegative log-likelihood {_number(metrics['nll'])} nats;"
        f" Brier score {_number(metrics['brier'])}, from 0 (best) to 2.\n\n![Reliability diagram](reliability.png)"
    )


def abstention(predictions: Predictions, threshold: float = 0.8) -> str:
    """What is gained where the model answers only when it is sure."""
    answered = predictions.probabilities.max(axis=1) >= threshold
    hits = (predictions.predicted_ids == predictions.label_ids)[answered]
    sentence = f"Where its confidence is {share(threshold, 0)} or more, as for {share(answered.mean())} of the images,"
    sentence += f" it is right in {share(hits.mean())} of the cases." if len(hits) else " no case can be counted."
    return f"## If it may abstain\n\n{sentence}\n\n![Accuracy against the share of answered images](coverage.png)"


def how_to_read(metrics: Values, n: int, labels: LabelSet) -> str:
    """What an interval says and what it does not, for so many images."""
    support = {name: int(metrics[f"support_{slug}"]["value"]) for name, slug in zip(labels, labels.slugs, strict=True)}
    smallest = min(support, key=lambda name: support[name])
    point = (
        f"one percentage point is {n / 100:.3g} faces" if n > 100 else f"one face is {100 / n:.3g} percentage points"
    )
    paragraphs = [
        "## How to read an interval",
        f"On {counted(n, 'image')} {point}. The interval says how far a number may lie from what the model would reach"
        " on endlessly many images like these. It does not say what another training run would reach, nor how the"
        " model does on images of another kind.",
    ]
    if support[smallest] < FEW_IMAGES:
        paragraphs.append(
            f'The class "{smallest}" has only {counted(support[smallest], "image")}. Below {FEW_IMAGES} the intervals'
            " of the numbers about a class are too narrow, and so are those of the averages that it enters."
        )
    return "\n\n".join(paragraphs)


def _number(metric: Mapping[str, float]) -> str:
    return with_interval(metric["value"], metric["low"], metric["high"])


def _share(metric: Mapping[str, float]) -> str:
    return with_interval(metric["value"], metric["low"], metric["high"], percent=True)


def _cell(text: str) -> str:
    """Text of the data, so that no character of it breaks the table, and none of it is taken for Markdown or HTML."""
    return re.sub(r"([\\`|<>\[\]])", r"\\\1", " ".join(text.split()))
