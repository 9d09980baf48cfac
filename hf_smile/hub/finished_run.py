"""What a finished run says of itself, read back for its publication."""

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
    """The settings of a run, without the paths of the machine that it ran on.

    Raises:
        SmileModelError: there is no readable `recipe.yaml`.
    """
    try:
        recipe = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        recipe = None
    if not isinstance(recipe, dict):
        raise SmileModelError(f"{folder} is no folder of a run: there is no readable recipe.yaml")
    return {name: _without_folders(value) for name, value in recipe.items()}


def read_metrics(folder: Path) -> dict[str, Any]:
    """What `finish_run` of `hf_smile.training.run_folder` gave: what is undefined is null in the file, and NaN here.

    Raises:
        SmileModelError: there is no readable `test_metrics.json`, or one of an older hf_smile.
    """
    try:
        metrics = json.loads((folder / "test_metrics.json").read_text(encoding="utf-8"), object_hook=_null_to_nan)
    except (OSError, ValueError):
        raise SmileModelError(f"{folder} holds no finished run: there is no readable test_metrics.json") from None
    if not isinstance(metrics, dict) or not {"calibration", "decision", "choice"} <= set(metrics):
        raise SmileModelError(
            f"{folder / 'test_metrics.json'} does not say how the checkpoint was chosen, as that of an older hf_smile;"
            " run hf-smile train again with its recipe.yaml and --overwrite"
        )
    return metrics


def read_looks(folder: Path, test_split: str | None = None) -> list[dict[str, Any]]:
    """The looks at one test split, the first one first: `date`, and `changed` settings.

    Args:
        folder: of the run.
        test_split: the `images_digest` of its images; of the last look if None. (The model may have been evaluated on
            other data since.)

    Returns:
        An empty list where none were recorded.

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
    """What a reader of an evaluation must know about the run of a model and the labels; empty where there is nothing.

    Args:
        model: folder of the run, or anything else.
        split: that was evaluated.
        corrected: what corrections did to it.

    >>> report_notes("outputs/model", "train")[0]  # doctest: +SKIP
    '**The model was trained on these images**: the numbers say how well it fits them, not how well it does on others.'
    """
    folder = Path(model)
    try:
        of_the_run = read_metrics(folder).get("corrections", {})
    except SmileModelError:  # none, or of an older hf_smile
        of_the_run = {}
    corrections = corrections_section({**of_the_run, split: corrected or {}})
    notes = [corrections] if corrections else []
    if not (folder / "recipe.yaml").is_file():
        return notes
    if split == "train":
        notes.append(
            "**The model was trained on these images**: the numbers say how well it fits them, not how well it does on"
            " others."
        )
    if split == "test":
        notes.append(looks_sentence(read_looks(folder)).replace("\n", " "))
    if strength := read_recipe(folder).get("prior_adjustment"):
        notes.append(
            f"The model was saved with a prior adjustment of {strength:g}: its probabilities are those of a more"
            " balanced population on purpose, which shows as a calibration error here. The model card"
            " has the error without it."
        )
    return notes


def _without_folders(value: Any) -> Any:
    is_path = isinstance(value, str) and (Path(value).is_absolute() or value.startswith(("~", "..")))
    return Path(value).name if is_path else value


def _null_to_nan(values: dict[str, Any]) -> dict[str, Any]:
    return {name: math.nan if value is None else value for name, value in values.items()}
