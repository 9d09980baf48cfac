"""The evaluation report: `report.md` with plots for people, and `metrics.json` for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from hf_smile.errors import SmileDataError
from hf_smile.evaluation import report_sections as sections
from hf_smile.evaluation.calibration import ece_if_calibrated
from hf_smile.evaluation.comparison import compare
from hf_smile.evaluation.groups import largest_gap, metrics_by_group
from hf_smile.evaluation.intervals import CONFIDENCE, N_RESAMPLES, confidence_intervals
from hf_smile.evaluation.metrics import compute_metrics
from hf_smile.evaluation.plots import plot_confusion_matrix, plot_coverage, plot_precision_recall, plot_reliability
from hf_smile.evaluation.predictions import Predictions, align, write_predictions
from hf_smile.utils.files import make_folder
from hf_smile.utils.words import counted


def write_report(
    output_dir: str | Path,
    predictions: Predictions,
    *,
    title: str = "Evaluation",
    name: str = "this model",
    compare_with: Predictions | None = None,
    compare_name: str = "the other model",
    group_by: str | None = None,
    variants: Mapping[str, ArrayLike] | None = None,
    notes: Sequence[str] = (),
    heat_maps: str | None = None,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Write `metrics.json`, `predictions.csv`, `report.md` and its plots.

    Args:
        output_dir: folder to write to, created if needed. Files of the same names are overwritten.
        predictions: predictions to report on.
        title: title of the report.
        name: name of this model in the comparison.
        compare_with: predictions of another model for the same images.
        compare_name: name of the other model.
        group_by: one of `predictions.further_columns`, to report the metrics of every group of images.
        variants: (N, K) probabilities of the same model with other prediction methods, by name. Each one is a row in a
            table; the rest of the report is about `predictions` only.
        notes: notes for the reader of the report, one or two sentences each.
        heat_maps: text about the plot `heat_maps.png`, which must already be in the folder.
        n_resamples: number of bootstrap resamples.
        seed: seed of the bootstrap and the permutations.

    Returns:
        The contents of `metrics.json`: `n`, `resamples`, `confidence`, `seed`, and `metrics` with `value`, `low` and
        `high` by metric name; `variants` (such metrics by name), `comparison` and `groups` if requested. Undefined
        numbers are NaN here and null in the file.

    Raises:
        SmileDataError: if the predictions to compare are not for the same images, there is no such column, or the
            folder can't be created.

    >>> write_report("report", read_predictions("predictions.csv"), title="Test split")  # doctest: +SKIP
    """
    output_dir = Path(output_dir)
    probabilities, label_ids, labels = predictions.probabilities, predictions.label_ids, predictions.labels
    # Check the user's input first, so that no partial report is left behind.
    other = align(predictions, compare_with, name, compare_name) if compare_with is not None else None
    if group_by:
        check_group_column(group_by, predictions.further_columns)
    grouping = predictions.further_columns[group_by] if group_by else None
    check_no_model(output_dir)
    make_folder(output_dir)
    Path(output_dir, "report.md").unlink(missing_ok=True)  # it is written last, and must not describe old numbers
    how: dict[str, Any] = {"seed": seed, "labels": labels}
    groups = metrics_by_group(probabilities, label_ids, grouping, n_resamples, **how) if grouping else {}

    def numbers(rows: ArrayLike) -> sections.Values:
        intervals = confidence_intervals(rows, label_ids, n_resamples, **how)
        return _values(compute_metrics(rows, label_ids, labels), intervals)

    content: dict[str, Any] = {
        "title": title,
        "n": len(predictions),
        "resamples": n_resamples,
        "confidence": CONFIDENCE,
        "seed": seed,
        "metrics": numbers(probabilities),
    }
    parts = [
        f"# {title}",
        f"{counted(len(predictions), 'image')}. Intervals are {sections.share(CONFIDENCE, 0)} confidence intervals"
        f" (Wilson's for accuracy, precision and recall; for all others, {n_resamples:,} bootstrap resamples, seed"
        f" {seed}).",
        *notes,
        sections.headline(content["metrics"]),
    ]
    if variants:
        content["variants"] = {way: numbers(rows) for way, rows in variants.items()}
        parts.append(sections.variants(content["metrics"], content["variants"]))
    parts += [*sections.two_questions(content["metrics"]), sections.per_class(content["metrics"], labels)]
    if other is not None:
        result = compare(probabilities, other.probabilities, label_ids, name, compare_name, n_resamples, **how)
        content["comparison"] = {
            "with": compare_name,
            "accuracy_difference": result.difference._asdict(),
            "mcnemar_p_value": result.p_value,
            "sentence": result.sentence,
        }
        parts.append(f"## Comparison with {compare_name}\n\n{result.sentence}")
    if grouping:
        gap = largest_gap(probabilities, label_ids, grouping, n_permutations=n_resamples, **how)
        content["groups"] = {
            "column": group_by,
            "groups": {key: {"n": group.n, "metrics": _values(*group[1:])} for key, group in groups.items()},
            "largest_accuracy_gap": gap._asdict() if gap else None,
        }
        parts.append(sections.groups(content["groups"], gap, labels))
    parts.append(sections.calibration(content["metrics"], *ece_if_calibrated(probabilities, seed=seed)))
    parts.append(sections.abstention(predictions))
    if heat_maps:
        parts.append(sections.heat_maps(heat_maps))
    parts.append(sections.how_to_read(content["metrics"], len(predictions), labels))

    path, further = output_dir / "predictions.csv", predictions.further_columns
    write_predictions(path, predictions.image_ids, label_ids, probabilities, further, labels)
    plot_confusion_matrix(label_ids, predictions.predicted_ids, output_dir / "confusion_matrix.png", labels=labels)
    plot_precision_recall(probabilities, label_ids, output_dir / "precision_recall.png", labels=labels)
    plot_reliability(probabilities, label_ids, output_dir / "reliability.png")
    plot_coverage(probabilities, label_ids, output_dir / "coverage.png")
    (output_dir / "metrics.json").write_text(to_json(content), encoding="utf-8")
    (output_dir / "report.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return content


def check_group_column(name: str, further_columns: Collection[str]) -> None:
    """Check that the column to group by exists. Call it before predicting.

    Raises:
        SmileDataError: if there is no such column.
    """
    if name not in further_columns:
        there = ", ".join(further_columns) or "none"
        raise SmileDataError(
            f"there is no column {name!r} to group by; the additional columns of the predictions are: {there}"
        )


def check_no_model(output_dir: str | Path) -> None:
    """Check that the folder is not a model folder, whose plots the report would overwrite.

    Raises:
        SmileDataError: if it is a model folder.
    """
    if Path(output_dir, "config.json").is_file():
        raise SmileDataError(
            f"{output_dir} is a model folder, and the report would overwrite its plots; "
            f"choose {Path(output_dir, 'report')} or another folder"
        )


def _values(metrics: Mapping[str, float], intervals: Mapping[str, tuple[float, float]]) -> sections.Values:
    return {key: {"value": metrics[key], "low": intervals[key][0], "high": intervals[key][1]} for key in metrics}


def to_json(content: Any) -> str:
    """Serialize as JSON, with null for NaN.

    >>> to_json({"auc": math.nan})
    '{\\n  "auc": null\\n}\\n'
    """
    return json.dumps(_nan_to_none(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _nan_to_none(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _nan_to_none(value) for key, value in content.items()}
    if isinstance(content, list):
        return [*map(_nan_to_none, content)]
    return None if isinstance(content, float) and math.isnan(content) else content
