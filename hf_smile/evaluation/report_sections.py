"""The Markdown sections of `report.md`, from metrics with their intervals."""

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
    """The main metrics of the single forward pass."""
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
    """A table of the single forward pass and other prediction methods of the same model."""
    rows = [
        [name, *(_share(values[key]) for key in ("accuracy", "balanced_accuracy", "macro_f1")), _number(values["ece"])]
        for name, values in {"Single forward pass (all other numbers)": metrics, **by_name}.items()
    ]
    table = markdown_table(["", "accuracy", "balanced accuracy", "macro F1", "ECE"], rows)
    return f"## Other prediction methods\n\n{table}"


def heat_maps(sanity: str) -> str:
    """The plot `heat_maps.png`, and whether it can be trusted."""
    return (
        "## Where the model looks\n\nHiResCAM of the score of each image's true label, averaged over up to 100 images"
        f" per class. {sanity}\n\n![Mean heat map of each class](heat_maps.png)"
    )


def two_questions(metrics: Values) -> list[str]:
    """Sentences on "is it a smile?" and "is the smile genuine?", as far as the labels can answer these questions."""
    asked = []
    for name, question in QUESTIONS.items():
        if name in metrics:
            auc = metrics[name]["value"]
            value = "" if math.isnan(auc) else f"AUC {_number(metrics[name])}. "
            asked.append(f"{question} {value}{auc_sentence(name, auc)}")
    return ["## Two questions" if len(asked) > 1 else "## One question", *asked] if asked else []


def per_class(metrics: Values, labels: LabelSet) -> str:
    """A table with one row per class, and the plots of the confusion matrix and of precision and recall."""
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
    """A table with one row per group, and a sentence on the largest gap between two groups."""
    genuine = ["genuine AUC"] if labels.tells_genuine else []
    rows = []
    for key, group in groups["groups"].items():
        metrics = group["metrics"]
        complete = all(metrics[f"support_{slug}"]["value"] for slug in labels.slugs)
        macro_f1 = _share(metrics["macro_f1"]) if complete else DASH  # a missing class would count as 0
        answers = [_number(metrics["genuine_auc"]) for _ in genuine]
        rows.append([_cell(key), f"{group['n']:,}", _share(metrics["accuracy"]), macro_f1, *answers])
    table = markdown_table(["group", "images", "accuracy", "macro F1", *genuine], rows)
    if gap is None:
        sentence = f"Fewer than two groups have at least {MIN_IMAGES} images, so they are not compared."
    else:
        verdict = "is larger than expected by chance" if gap.p_value < 1 - CONFIDENCE else "may be due to chance"
        sentence = (
            f"The largest gap in accuracy is {100 * gap.difference:.1f} points, between {_cell(gap.highest)} and"
            f" {_cell(gap.lowest)}. It {verdict} (permutation test, p {p_text(gap.p_value)}; groups with fewer than"
            f" {MIN_IMAGES} images are ignored)."
        )
    return f"## Groups by {_cell(groups['column'])}\n\n{table}\n\n{sentence}"


def calibration(metrics: Values, expected_ece: float, highest_ece: float) -> str:
    """The calibration error, and whether it may be due to chance."""
    ece = metrics["ece"]["value"]
    verdict = "may be due to chance" if ece <= highest_ece else "is larger than expected by chance"
    return (
        f"## Calibration\n\nThe model's confidence is off by {100 * ece:.1f} points on average (expected calibration"
        f" error). A perfectly calibrated model with the same confidences would have an error of"
        f" {100 * expected_ece:.1f} points on average, and of at most {100 * highest_ece:.1f} in 95 of 100 samples of"
        f" this size, so this error {verdict}.\n\nNegative log-likelihood {_number(metrics['nll'])} nats;"
        f" Brier score {_number(metrics['brier'])}, from 0 (best) to 2.\n\n![Reliability diagram](reliability.png)"
    )


def abstention(predictions: Predictions, threshold: float = 0.8) -> str:
    """The accuracy on the images with a confidence of at least `threshold`."""
    answered = predictions.probabilities.max(axis=1) >= threshold
    hits = (predictions.predicted_ids == predictions.label_ids)[answered]
    sentence = f"The confidence is at least {share(threshold, 0)} for {share(answered.mean())} of the images."
    sentence += f" On these, the accuracy is {share(hits.mean())}." if len(hits) else ""
    plot = "![Accuracy against the share of answered images](coverage.png)"
    return f"## If the model may abstain\n\n{sentence}\n\n{plot}"


def how_to_read(metrics: Values, n: int, labels: LabelSet) -> str:
    """What an interval covers and what it does not."""
    support = {name: int(metrics[f"support_{slug}"]["value"]) for name, slug in zip(labels, labels.slugs, strict=True)}
    smallest = min(support, key=lambda name: support[name])
    point = (
        f"one percentage point is {n / 100:.3g} faces" if n > 100 else f"one face is {100 / n:.3g} percentage points"
    )
    paragraphs = [
        "## How to read an interval",
        f"With {counted(n, 'image')}, {point}. An interval estimates how far a number may be from its value on"
        " infinitely many images like these. It does not cover the variation between training runs, nor images of"
        " another kind.",
    ]
    if support[smallest] < FEW_IMAGES:
        paragraphs.append(
            f'The class "{smallest}" has only {counted(support[smallest], "image")}. With fewer than {FEW_IMAGES}, the'
            " intervals of a class's metrics are too narrow, and so are those of averages over the classes."
        )
    return "\n\n".join(paragraphs)


def _number(metric: Mapping[str, float]) -> str:
    return with_interval(metric["value"], metric["low"], metric["high"])


def _share(metric: Mapping[str, float]) -> str:
    return with_interval(metric["value"], metric["low"], metric["high"], percent=True)


def _cell(text: str) -> str:
    """Escape text from the data, so that it can't break the table or be read as Markdown or HTML."""
    return re.sub(r"([\\`|<>\[\]])", r"\\\1", " ".join(text.split()))
