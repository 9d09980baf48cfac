"""What a finished run says of itself, read back for its publication."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import yaml

from hf_smile.errors import SmileModelError


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
    return {name: Path(value).name if _is_path(value) else value for name, value in recipe.items()}


def read_metrics(folder: Path) -> dict[str, Any]:
    """What `finish_run` of `hf_smile.training.run_folder` gave: what is undefined is null in the file, and NaN here.

    Raises:
        SmileModelError: there is no readable `test_metrics.json`, or one of an older hf_smile.
    """
    try:
        metrics = json.loads((folder / "test_metrics.json").read_text(encoding="utf-8"), object_hook=_null_to_nan)
    except (OSError, ValueError):
        raise SmileModelError(f"{folder} holds no finished run: there is no readable test_metrics.json") from None
    if not isinstance(metrics, dict) or not {"calibration", "decision"} <= set(metrics):
        raise SmileModelError(
            f"{folder / 'test_metrics.json'} says nothing of calibration and decision, as that of an older hf_smile;"
            " run scripts/train.py anew with its recipe.yaml and --overwrite"
        )
    return metrics


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and (Path(value).is_absolute() or value.startswith(("~", "..")))


def _null_to_nan(values: dict[str, Any]) -> dict[str, Any]:
    return {name: math.nan if value is None else value for name, value in values.items()}
