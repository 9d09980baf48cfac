"""Read the settings and results of a finished run, for its publication."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import yaml

from hf_smile.data.corrections import Facts
from hf_smile.errors import SmileModelError
from hf_smile.hub.card_sections import corrections_section, looks_sentence


def read_recipe(folder: Path) -> dict[str, Any]:
    """Read the settings of a run, without local paths.

    Raises:
        SmileModelError: there is no readable `recipe.yaml`.
    """
    try:
        recipe = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        recipe = None
    if not isinstance(recipe, dict):
        raise SmileModelError(f"{folder} is not the folder of a run: there is no readable recipe.yaml")
    return {name: _without_folders(value) for name, value in recipe.items()}


def read_whole_recipe(folder: Path) -> dict[str, Any]:
    """Read the settings of a run like `read_recipe`; a run of `--soup` gets the settings of its shared head as well.

    Raises:
        SmileModelError: there is no readable `recipe.yaml`.
    """
    recipe, head = read_recipe(folder), folder.resolve().parent / "head"
    if Path(str(recipe.get("backbone"))).name != "head" or not (head / "recipe.yaml").is_file():
        return recipe
    first = read_recipe(head)
    if not first.get("freeze_backbone") or first.get("split_seed") != recipe.get("split_seed"):
        return recipe
    epochs = first["num_train_epochs"]
    return recipe | {
        "backbone": first["backbone"],
        "num_train_epochs": epochs + recipe["num_train_epochs"],
        "warmup_frozen_epochs": epochs,
        "head_learning_rate": first["learning_rate"],
    }


def read_metrics(folder: Path) -> dict[str, Any]:
    """Read the metrics of `hf_smile.training.run_folder.finish_run`. Undefined numbers, null in the file, become NaN.

    Raises:
        SmileModelError: there is no readable `test_metrics.json`, or it is from an older hf_smile.
    """
    try:
        metrics = json.loads((folder / "test_metrics.json").read_text(encoding="utf-8"), object_hook=_null_to_nan)
    except (OSError, ValueError):
        raise SmileModelError(
            f"{folder} is not the folder of a finished run: there is no readable test_metrics.json"
        ) from None
    if not isinstance(metrics, dict) or not {"calibration", "decision", "choice"} <= set(metrics):
        raise SmileModelError(
            f"{folder / 'test_metrics.json'} is from an older hf_smile, which did not record how the checkpoint was"
            " chosen; run hf-smile train again with its recipe.yaml and --overwrite"
        )
    return metrics


def read_looks(folder: Path, test_split: str | None = None) -> list[dict[str, Any]]:
    """Read the looks at one test split, oldest first: `date` and `changed` settings.

    Args:
        folder: folder of the run.
        test_split: `images_digest` of the test images; None for those of the last look. (The model may have been
            evaluated on other data since.)

    Returns:
        The looks; an empty list if none were recorded.

    Raises:
        SmileModelError: `test_looks.json` can't be read.
    """
    path = folder / "test_looks.json"
    if not path.is_file():
        return []
    try:
        looks = json.loads(path.read_text(encoding="utf-8"))
        return [
            {
                "date": look["date"],
                "changed": {name: [*map(_without_folders, pair)] for name, pair in look["changed"].items()},
            }
            for look in looks
            if look["test_split"] == (test_split or looks[-1]["test_split"])
        ]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise SmileModelError(f"{path} can't be read; restore it, or start again in another --output_dir") from None


def report_notes(model: str | Path, split: str, corrected: Facts | None = None) -> list[str]:
    """Notes on the run and the labels for the reader of an evaluation.

    Args:
        model: folder of the run, or anything else.
        split: the evaluated split.
        corrected: what corrections changed in this split.

    >>> report_notes("outputs/model", "train")[0]  # doctest: +SKIP
    '**The model was trained on these images**: the numbers show how well it fits them, not how well it generalizes.'
    """
    folder = Path(model)
    try:
        of_the_run = read_metrics(folder).get("corrections", {})
    except SmileModelError:  # not a run, or from an older hf_smile
        of_the_run = {}
    corrections = corrections_section({**of_the_run, split: corrected or {}})
    notes = [corrections] if corrections else []
    if not (folder / "recipe.yaml").is_file():
        return notes
    if split == "train":
        notes.append(
            "**The model was trained on these images**: the numbers show how well it fits them, not how well it"
            " generalizes."
        )
    if split == "test":
        notes.append(looks_sentence(read_looks(folder)).replace("\n", " "))
    if strength := read_recipe(folder).get("prior_adjustment"):
        notes.append(
            f"The model was saved with a prior adjustment of {strength:g}: its probabilities are intentionally for a"
            " more balanced population, which appears as a calibration error here. The model card"
            " has the error without it."
        )
    return notes


def _without_folders(value: Any) -> Any:
    if isinstance(value, list):
        return [*map(_without_folders, value)]
    is_path = isinstance(value, str) and (Path(value).is_absolute() or value.startswith(("~", "..")))
    return Path(value).name if is_path else value


def _null_to_nan(values: dict[str, Any]) -> dict[str, Any]:
    return {name: math.nan if value is None else value for name, value in values.items()}
