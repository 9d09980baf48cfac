"""The report on a set of predictions: `report.md` with pictures for people, `metrics.json` for programs."""

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
    """Write `metrics.json`, `predictions.csv`, `report.md` and its pictures.

    Args:
        output_dir: made if it is not there; files of the same names are overwritten.
        predictions: what to report on, `predictions.further_columns` included.
        title: heading of the report.
        name: what the comparison calls this model.
        compare_with: predictions of another model for the same images.
        compare_name: what the comparison calls that one.
        group_by: one of `predictions.further_columns`, to report every group of images on its own.
        variants: (N, K) probabilities of the same model by another way of asking it, by the name of that way. Each is
            a row beside the single forward pass; the rest of the report is about `predictions` alone.
        notes: what a reader of the numbers must know, a sentence or two each.
        heat_maps: what can be said about the picture `heat_maps.png`, which is in the folder already.
        n_resamples: of the bootstrap intervals.
        seed: of everything that is drawn.

    Returns:
        What `metrics.json` holds: `n`, `resamples`, `confidence`, `seed`, and `metrics` with `value`, `low` and
        `high` by metric name; `variants` (such metrics by name), `comparison` and `groups` if asked for. An undefined
        number is NaN here and null there.

    Raises:
        SmileDataError: the predictions to compare with are not about the same images, there is no such column, or the
            folder cannot be made.

    >>> write_report("report", read_predictions("predictions.csv"), title="Test split")  # doctest: +SKIP
    """
    output_dir = Path(output_dir)
    probabilities, label_ids, labels = predictions.probabilities, predictions.label_ids, predictions.labels
    # What a user can get wrong comes first, so that no half a report is left behind.
    other = align(predictions, compare_with, name, compare_name) if compare_with is not None else None
    if group_by:
        check_group_column(group_by, predictions.further_columns)
    grouping = predictions.further_columns[group_by] if group_by else None
    check_no_model(output_dir)
    make_folder(output_dir)
    Path(output_dir, "report.md").unlink(missing_ok=True)  # written last: an old one would tell of other numbers
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
        f"{counted(len(predictions), 'image')}. The numbers in brackets, and in the columns beside a value, are its"
        f" {sections.share(CONFIDENCE, 0)} interval (Wilson's for accuracy, precision and recall; else"
        f" {n_resamples:,} bootstrap resamples, seed {seed}).",
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


def _values(metrics: Mapping[str, float], intervals: Mapping[str, tuple[float, float]]) -> sections.Values:
    return {key: {"value": metrics[key], "low": intervals[key][0], "high": intervals[key][1]} for key in metrics}


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
        return [*map(_nan_to_none, content)]
    return None if isinstance(content, float) and math.isnan(content) else content
