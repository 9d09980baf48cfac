"""The report on a set of predictions: `report.md` with pictures for people, `metrics.json` for programs."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from hf_smile.errors import SmileDataError
from hf_smile.evaluation.calibration import ece_if_calibrated
from hf_smile.evaluation.comparison import compare, p_text
from hf_smile.evaluation.groups import MIN_IMAGES, Gap, largest_gap, metrics_by_group
from hf_smile.evaluation.intervals import CONFIDENCE, N_RESAMPLES, confidence_intervals
from hf_smile.evaluation.metrics import compute_metrics
from hf_smile.evaluation.plots import plot_confusion_matrix, plot_coverage, plot_precision_recall, plot_reliability
from hf_smile.evaluation.predictions import Predictions, align, write_predictions
from hf_smile.labels import LABEL_NAMES, label_slug

FEW_IMAGES = 50

Values = Mapping[str, Mapping[str, float]]
"""`{"value": ..., "low": ..., "high": ...}` by metric name."""


def write_report(
    output_dir: str | Path,
    predictions: Predictions,
    *,
    title: str = "Evaluation",
    name: str = "this model",
    compare_with: Predictions | None = None,
    compare_name: str = "the other model",
    group_by: str | None = None,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Write `metrics.json`, `predictions.csv`, `report.md` and its pictures.

    Args:
        output_dir: made if it is not there; files of the same names are overwritten.
        predictions: what to report on, `predictions.further_columns` included.
        title: heading of the report.
        name: what the comparison calls this model.
        compare_with: predictions of another model for the same images.
        compare_name: what the comparison calls that one.
        group_by: one of `predictions.further_columns`, to report every group of images on its own.
        n_resamples: of the bootstrap intervals.
        seed: of everything that is drawn.

    Returns:
        What `metrics.json` holds: `n`, `resamples`, `confidence`, `seed`, and `metrics` with `value`, `low` and
        `high` by metric name; `comparison` and `groups` if asked for. An undefined number is NaN here and null there.

    Raises:
        SmileDataError: the predictions to compare with are not about the same images, there is no such column, or the
            folder cannot be made.

    >>> write_report("report", read_predictions("predictions.csv"), title="Test split")  # doctest: +SKIP
    """
    output_dir = Path(output_dir)
    probabilities, label_ids = predictions.probabilities, predictions.label_ids
    # What a user can get wrong comes first, so that no half a report is left behind.
    other = align(predictions, compare_with, name, compare_name) if compare_with is not None else None
    if group_by:
        check_group_column(group_by, predictions.further_columns)
    grouping = predictions.further_columns[group_by] if group_by else None
    open_output(output_dir)
    Path(output_dir, "report.md").unlink(missing_ok=True)  # written last: an old one would tell of other numbers
    groups = metrics_by_group(probabilities, label_ids, grouping, n_resamples, seed=seed) if grouping else {}

    intervals = confidence_intervals(probabilities, label_ids, n_resamples, seed=seed)
    content: dict[str, Any] = {
        "title": title,
        "n": len(predictions),
        "resamples": n_resamples,
        "confidence": CONFIDENCE,
        "seed": seed,
        "metrics": _values(compute_metrics(probabilities, label_ids), intervals),
    }
    parts = [
        f"# {title}",
        f"{_count(len(predictions), 'image')}. The numbers in brackets, and in the columns beside a value, are its"
        f" {_share(CONFIDENCE, 0)} interval (Wilson's for accuracy, precision and recall; else"
        f" {n_resamples:,} bootstrap resamples, seed {seed}).",
        _headline(content["metrics"]),
        _two_questions(content["metrics"]),
        _per_class(content["metrics"]),
    ]
    if other is not None:
        result = compare(
            probabilities, other.probabilities, label_ids, name, compare_name, n_resamples=n_resamples, seed=seed
        )
        content["comparison"] = {
            "with": compare_name,
            "accuracy_difference": result.difference._asdict(),
            "mcnemar_p_value": result.p_value,
            "sentence": result.sentence,
        }
        parts.append(f"## Comparison with {compare_name}\n\n{result.sentence}")
    if grouping:
        gap = largest_gap(probabilities, label_ids, grouping, n_permutations=n_resamples, seed=seed)
        content["groups"] = {
            "column": group_by,
            "groups": {
                key: {"n": group.n, "metrics": _values(group.metrics, group.intervals)} for key, group in groups.items()
            },
            "largest_accuracy_gap": gap._asdict() if gap else None,
        }
        parts.append(_groups(content["groups"], gap))
    parts += [
        _calibration(content["metrics"], *ece_if_calibrated(probabilities, seed=seed)),
        _abstention(predictions),
        _how_to_read(content["metrics"], len(predictions)),
    ]

    write_predictions(
        output_dir / "predictions.csv", predictions.image_ids, label_ids, probabilities, predictions.further_columns
    )
    plot_confusion_matrix(label_ids, predictions.predicted_ids, output_dir / "confusion_matrix.png")
    plot_precision_recall(probabilities, label_ids, output_dir / "precision_recall.png")
    plot_reliability(probabilities, label_ids, output_dir / "reliability.png")
    plot_coverage(probabilities, label_ids, output_dir / "coverage.png")
    (output_dir / "metrics.json").write_text(to_json(content), encoding="utf-8")
    (output_dir / "report.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return content


def check_group_column(name: str, further_columns: Collection[str]) -> None:
    """Whether there is such a column to group by; ask before predicting anything.

    Raises:
        SmileDataError: there is none.
    """
    if name not in further_columns:
        there = ", ".join(further_columns) or "none"
        raise SmileDataError(
            f"there is no column {name!r} to group by; the further columns of the predictions are: {there}"
        )


def check_no_model(output_dir: str | Path) -> None:
    """Whether the folder is no model's, whose own pictures the report would write over.

    Raises:
        SmileDataError: it is one.
    """
    if Path(output_dir, "config.json").is_file():
        raise SmileDataError(
            f"{output_dir} is the folder of a model, whose own pictures the report would write over; "
            f"take {Path(output_dir, 'report')} or another folder"
        )


def open_output(output_dir: str | Path) -> None:
    """Make the folder of the report, and see that it can be written to; ask before predicting anything.

    Raises:
        SmileDataError: it cannot, or it is the folder of a model.
    """
    check_no_model(output_dir)
    try:
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=output_dir):
            pass
    except OSError as error:
        raise SmileDataError(f"the folder {output_dir} cannot be made or written to: {error.strerror}") from None


def _values(metrics: Mapping[str, float], intervals: Mapping[str, tuple[float, float]]) -> dict[str, dict[str, float]]:
    return {key: {"value": metrics[key], "low": intervals[key][0], "high": intervals[key][1]} for key in metrics}


def _headline(metrics: Values) -> str:
    rows = [("Accuracy", "accuracy"), ("Balanced accuracy", "balanced_accuracy"), ("Macro F1", "macro_f1")]
    rows += [
        ("Micro precision at threshold 0.5 (Keras's `Precision`)", "micro_precision_at_50"),
        ("Micro recall at threshold 0.5 (Keras's `Recall`)", "micro_recall_at_50"),
    ]
    lines = [f"| {text} | {_share(metrics[key]['value'])} | {_range(metrics[key])} |" for text, key in rows]
    kappa = metrics["cohen_kappa"]
    lines.append(f"| Cohen's kappa | {_number(kappa['value'])} | {_range(kappa, _number)} |")
    return "\n".join(["| | value | interval |", "| --- | ---: | ---: |", *lines])


def _two_questions(metrics: Values) -> str:
    return "\n\n".join(
        [
            "## Two questions",
            "**Is it a smile?** " + _auc_sentence(metrics["smile_auc"], "a smiling face", "one that does not smile"),
            "**Is the smile genuine?** "
            + _auc_sentence(metrics["genuine_auc"], "a face with a genuine smile", "one with a posed smile"),
        ]
    )


def _auc_sentence(auc: Mapping[str, float], one: str, other: str) -> str:
    if math.isnan(auc["value"]):
        return f"Cannot be told: the images do not hold both {one} and {other}."
    return (
        f"AUC {_number(auc['value'])} ({_range(auc, _number)}): of {one} and {other}, drawn at random, the model"
        f" tells which is which {100 * auc['value']:.0f} times in 100; guessing does so 50 times."
    )


def _per_class(metrics: Values) -> str:
    lines = ["## Classes", "", "| class | images | precision | recall | F1 | AUC against the rest |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: |")
    for class_name in LABEL_NAMES:
        slug = label_slug(class_name)
        n = metrics[f"support_{slug}"]["value"]
        cells = [_with_range(metrics[f"{key}_{slug}"]) if n else "–" for key in ("precision", "recall", "f1")]
        auc = metrics[f"roc_auc_{slug}"]
        lines.append(f"| {class_name} | {n:,.0f} | {' | '.join(cells)} | {_with_range(auc, _number)} |")
    pictures = ["![Confusion matrix](confusion_matrix.png)", "![Precision-recall curves](precision_recall.png)"]
    return "\n\n".join(["\n".join(lines), *pictures])


def _groups(groups: Mapping[str, Any], gap: Gap | None) -> str:
    lines = [f"## Groups by {_cell(groups['column'])}", "", "| group | images | accuracy | macro F1 | genuine AUC |"]
    lines.append("| --- | ---: | ---: | ---: | ---: |")
    for key, group in groups["groups"].items():
        metrics = group["metrics"]
        complete = all(metrics[f"support_{label_slug(name)}"]["value"] for name in LABEL_NAMES)
        cells = [
            _with_range(metrics["accuracy"]),
            _with_range(metrics["macro_f1"]) if complete else "–",  # a class that is not there counts as 0 in it
            _with_range(metrics["genuine_auc"], _number),
        ]
        lines.append(f"| {_cell(key)} | {group['n']:,} | {' | '.join(cells)} |")
    if gap is None:
        sentence = f"Fewer than two groups have {MIN_IMAGES} images or more: too few to compare."
    else:
        verdict = "more than chance opens" if gap.p_value < 1 - CONFIDENCE else "no more than chance may open"
        sentence = (
            f"The largest gap in accuracy is {100 * gap.difference:.1f} points, from {_cell(gap.highest)} down to"
            f" {_cell(gap.lowest)}: {verdict} between groups of these sizes (permutation test, p"
            f" {p_text(gap.p_value)}; groups under {MIN_IMAGES} images left out)."
        )
    return "\n".join(lines) + "\n\n" + sentence


def _calibration(metrics: Values, expected_ece: float, highest_ece: float) -> str:
    ece = metrics["ece"]["value"]
    verdict = "so chance alone may explain this one" if ece <= highest_ece else "so this one is more than chance"
    return "\n\n".join(
        [
            "## Is it as right as sure?",
            f"The model's confidence is off by {100 * ece:.1f} points on average (expected calibration error). A"
            f" perfectly calibrated model with the same confidences would show {100 * expected_ece:.1f} points, and"
            f" up to {100 * highest_ece:.1f} in 95 of 100 draws of as many images, {verdict}.",
            f"Negative log-likelihood {_with_range(metrics['nll'], _number)} nats;"
            f" Brier score {_with_range(metrics['brier'], _number)}, from 0 (best) to 2.",
            "![Reliability diagram](reliability.png)",
        ]
    )


def _abstention(predictions: Predictions, threshold: float = 0.8) -> str:
    answered = predictions.probabilities.max(axis=1) >= threshold
    hits = (predictions.predicted_ids == predictions.label_ids)[answered]
    sentence = (
        f"Where its confidence is {_share(threshold, 0)} or more, as for {_share(answered.mean())} of the images,"
    )
    sentence += f" it is right in {_share(hits.mean())} of the cases." if len(hits) else " no case can be counted."
    return f"## If it may abstain\n\n{sentence}\n\n![Accuracy against the share of answered images](coverage.png)"


def _how_to_read(metrics: Values, n: int) -> str:
    support = {name: int(metrics[f"support_{label_slug(name)}"]["value"]) for name in LABEL_NAMES}
    smallest = min(support, key=lambda name: support[name])
    point = (
        f"one percentage point is {n / 100:.3g} faces" if n > 100 else f"one face is {100 / n:.3g} percentage points"
    )
    paragraphs = [
        "## How to read an interval",
        f"On {_count(n, 'image')} {point}. The interval says how far a number may lie from what the model would reach"
        " on endlessly many images like these. It does not say what another training run would reach, nor how the"
        " model does on images of another kind.",
    ]
    if support[smallest] < FEW_IMAGES:
        paragraphs.append(
            f'The class "{smallest}" has only {_count(support[smallest], "image")}. Below {FEW_IMAGES} the intervals of'
            " the numbers about a class are too narrow, and so are those of the averages that it enters."
        )
    return "\n\n".join(paragraphs)


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def _share(value: float, decimals: int = 1) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.{decimals}f} %"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _range(metric: Mapping[str, float], number: Any = None) -> str:
    """`73.7 to 78.0 %`, or by `number` `0.892 to 0.921`."""
    if math.isnan(metric["low"]):
        return "–"
    if number:
        return f"{number(metric['low'])} to {number(metric['high'])}"
    return f"{100 * metric['low']:.1f} to {_share(metric['high'])}"


def _with_range(metric: Mapping[str, float], number: Any = None) -> str:
    value = (number or _share)(metric["value"])
    return value if math.isnan(metric["value"]) else f"{value} ({_range(metric, number)})"


def _cell(text: str) -> str:
    """Text of the data, so that no character of it breaks the table, and none of it is taken for Markdown or HTML."""
    return re.sub(r"([\\`|<>\[\]])", r"\\\1", " ".join(text.split()))


def to_json(content: Any) -> str:
    """The text of a JSON file; NaN, which JSON does not know, becomes null.

    >>> to_json({"auc": math.nan})
    '{\\n  "auc": null\\n}\\n'
    """
    return json.dumps(_nan_to_none(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _nan_to_none(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _nan_to_none(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_nan_to_none(value) for value in content]
    return None if isinstance(content, float) and math.isnan(content) else content
