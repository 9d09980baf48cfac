"""The output folder of a run: whether it is new, interrupted or finished, and the files of a finished run."""

from __future__ import annotations

import json
import logging
import platform
import shutil
from collections.abc import Sequence, Set
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from datasets import DatasetDict
from scipy.special import softmax

from hf_smile import __version__
from hf_smile.data.corrections import facts_of
from hf_smile.data.record import SPLITS_FILE
from hf_smile.data.rows import labels_of
from hf_smile.errors import SmileError
from hf_smile.evaluation.metrics import compute_metrics
from hf_smile.evaluation.plots import plot_confusion_matrix, plot_trade_off
from hf_smile.evaluation.predictions import images_digest, write_predictions
from hf_smile.evaluation.report import to_json
from hf_smile.training.after import Folded, describe
from hf_smile.training.checkpoints import UNFINISHED, checkpoints, last_whole_checkpoint
from hf_smile.training.reporting import RUNS
from hf_smile.utils.cores import own_cores
from hf_smile.utils.files import write_text

logger = logging.getLogger(__name__)

RECIPE = "recipe.yaml"
RESULT = "test_metrics.json"
LOOKS = "test_looks.json"
"""Every look at the test split from this folder. `--overwrite` keeps this file: results that were seen stay seen."""
BAD_IMAGES = "bad_images.csv"

_LEFT_BY_A_RUN = (
    *(RECIPE, RESULT, BAD_IMAGES, SPLITS_FILE, "versions.json", "training_history.csv"),
    *("config.json", "model.safetensors", "onnx/model.onnx", "onnx/model_quantized.onnx"),
    *("README.md", "accuracy.png", "loss.png", "confusion_matrix.png", "prior_adjustment.png"),
    *("test_predictions.csv", "validation_predictions.csv"),
)
_AFTER_TRAINING = ("temperature", "prior_adjustment")
_LENGTH = ("num_train_epochs", "max_steps")
_OF_THE_MACHINE = {
    *("use_cpu", "data_dir", "output_dir", "dataloader_num_workers", "dataloader_prefetch_factor"),
    *("corrections", "teachers"),  # their contents decide; the recipe has their SHA-256
    *("per_device_eval_batch_size", "save_total_limit", "save_every"),
}
# A run may continue for longer, with moved data, or on another machine, and what is folded into the model after
# training may change. Any other change makes it another run.
_MAY_CHANGE = {*_AFTER_TRAINING, *_OF_THE_MACHINE, *_LENGTH, "early_stopping_patience"}
_PACKAGES = ["torch", "torchvision", "timm", "transformers", "datasets", "accelerate", "evaluate"]
_PACKAGES += ["huggingface_hub", "safetensors", "numpy", "pandas", "scikit-learn", "pillow"]


def open_run(output_dir: str | Path, recipe: dict[str, Any], overwrite: bool = False) -> Path | None:
    """Check the output folder, and find the checkpoint to resume from.

    Args:
        output_dir: folder of the run; it need not exist.
        recipe: the settings of the run.
        overwrite: start again. `start_run` removes the earlier run, after everything else has been checked.

    Returns:
        The newest complete checkpoint of an interrupted run with the same settings; None to start from the beginning.

    Raises:
        SmileError: the folder contains a finished run, a run with other settings, or files with the same names that
            are not of a run.

    >>> open_run("outputs/model", recipe)  # doctest: +SKIP
    PosixPath('outputs/model/checkpoint-272')
    """
    folder = Path(output_dir)
    if not (folder / RECIPE).exists() and (foreign := [name for name in _LEFT_BY_A_RUN if (folder / name).exists()]):
        raise SmileError(f"{folder} contains a {foreign[0]} that is not from a run; name another --output_dir")
    _read_looks(folder)  # fail now, not at the end of the run
    if overwrite:
        return None
    checkpoint = last_whole_checkpoint(folder)
    if checkpoint is None and checkpoints(folder):
        raise SmileError(
            f"{folder} holds checkpoints, but the run can't resume from any of them.\n"
            "Name another --output_dir, or start again in this one with --overwrite."
        )
    earlier = _read_recipe(folder / RECIPE)
    if earlier is None and checkpoint is not None:
        raise SmileError(f"{folder} holds checkpoints without a readable {RECIPE}; start again with --overwrite")
    finished = (folder / RESULT).exists()
    if earlier is None or not (checkpoint or finished):
        return None
    changed = differences(earlier, recipe)
    if another := changed.keys() - _MAY_CHANGE:
        raise SmileError(
            f"{folder} holds a run with other settings ({_listed(changed, another)}).\n"
            "Name another --output_dir, or start again in this one with --overwrite."
        )
    if finished:
        _check_that_it_goes_on(folder, earlier, recipe, checkpoint)
        if (decides := changed.keys() - _OF_THE_MACHINE) and decides <= {*_AFTER_TRAINING}:
            listed = _listed(changed, decides)
            logger.warning("%s: no training, only the saved model changes: %s", folder, listed)
    # The learning rate depends on the share of the run that is done, which the new length changes.
    schedule = recipe.get("lr_scheduler_type", "cosine")
    if (length := changed.keys() & {*_LENGTH}) and not schedule.startswith("constant"):
        logger.warning(
            "%s: %s changes the learning rate schedule (%s): the steps so far followed the schedule of the earlier "
            "length, so the result differs from a run of the new length. For that, start again with --overwrite.",
            *(folder, _listed(changed, length), schedule),
        )
    return checkpoint


def _check_that_it_goes_on(
    folder: Path, earlier: dict[str, Any], recipe: dict[str, Any], checkpoint: Path | None
) -> None:
    """Check that a finished run is to be longer or to decide differently, and that it can be resumed."""
    longer = any((recipe.get(name) or 0) > (earlier.get(name) or 0) for name in _LENGTH)
    if not longer and all((recipe.get(name) or 0) == (earlier.get(name) or 0) for name in _AFTER_TRAINING):
        raise SmileError(
            f"{folder} holds a finished run; its results are in {folder / RESULT}.\n"
            "Name another --output_dir, start again with --overwrite, resume with more --num_train_epochs, or\n"
            "change its decisions without training, with another --prior_adjustment or --temperature."
        )
    if checkpoint is None:
        raise SmileError(
            f"{folder} holds a finished run without its checkpoints, so it can't be resumed; "
            "name another --output_dir, or start again with --overwrite"
        )


def is_finished(output_dir: str | Path, recipe: dict[str, Any]) -> bool:
    """Whether the folder has a finished run with these settings; the number of processes and data paths may differ."""
    folder = Path(output_dir)
    if not (folder / RESULT).is_file():
        return False
    changed = differences(_read_recipe(folder / RECIPE) or {}, recipe)
    return changed.keys() <= {"processes", *_OF_THE_MACHINE}


def start_run(output_dir: str | Path, recipe: dict[str, Any], overwrite: bool = False) -> None:
    """Write the settings (`recipe.yaml`) and the versions of everything used (`versions.json`).

    With `overwrite`, the files of an earlier run are removed first.
    """
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    if overwrite:
        clear_run(folder)
    (folder / RESULT).unlink(missing_ok=True)
    write_text(folder / RECIPE, yaml.safe_dump(recipe, sort_keys=False))
    versions = {
        "python": platform.python_version(),
        "hf_smile": __version__,  # on a hired machine the package need not be installed
        **{package: version(package) for package in _PACKAGES},
        "platform": platform.platform(),
        "cpu_cores": own_cores(),
        "accelerators": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }
    (folder / "versions.json").write_text(json.dumps(versions, indent=2) + "\n", encoding="utf-8")


def finish_run(
    output_dir: str | Path, splits: DatasetDict, logits: np.ndarray, folded: Folded, choice: dict[str, Any]
) -> dict[str, Any]:
    """Write the results on validation and test: predictions of both, `confusion_matrix.png`, `prior_adjustment.png`.

    This look at the test split is counted in `test_looks.json`.

    Args:
        output_dir: folder of the run.
        splits: as returned by `load_smile_dataset`.
        logits: (N, K) logits of the saved model on the test split.
        folded: as returned by `fold_after_training`.
        choice: as returned by `SmileTrainer.describe_choice`.

    Returns:
        The metrics of `hf_smile.evaluation.metrics.compute_metrics` on the test split, `choice`, the results of
        `hf_smile.training.after.describe`, and `corrections` by split if labels were corrected.
    """
    folder, labels = Path(output_dir), labels_of(splits["test"])
    record_look(folder, splits["test"]["image_id"])
    predicted = {"test": softmax(logits.astype(np.float64), axis=1)}
    if folded.validation_logits is not None:
        predicted["validation"] = folded.stages(folded.validation_logits)["saved"]
    for split, probabilities in predicted.items():
        ids, label_ids = splits[split]["image_id"], splits[split]["label"]
        write_predictions(folder / f"{split}_predictions.csv", ids, label_ids, probabilities, labels=labels)
    label_ids, predicted_ids = splits["test"]["label"], predicted["test"].argmax(axis=1)
    plot_confusion_matrix(label_ids, predicted_ids, folder / "confusion_matrix.png", "Test split", labels)
    after = describe(folded, splits, logits)
    if table := after["decision"]["trade_off"]:
        path = folder / "prior_adjustment.png"
        plot_trade_off(pd.DataFrame(table), folded.prior_adjustment, path, labels=labels)
    corrections = {split: facts for split, rows in splits.items() if (facts := facts_of(rows))}
    after |= {"corrections": corrections} if corrections else {}
    return {**compute_metrics(predicted["test"], label_ids, labels), **after, "choice": choice}


def record_look(output_dir: str | Path, image_ids: Sequence[str]) -> None:
    """Add a look at the test split to `test_looks.json`: the date, and the settings that changed since the last look.

    Another look with the same settings and images is not counted, so a run that is killed and restarted counts once.

    Args:
        output_dir: folder of the run, with its `recipe.yaml`.
        image_ids: ids of the test images.
    """
    folder = Path(output_dir)
    looks = _read_looks(folder)
    recipe = _read_recipe(folder / RECIPE) or {}
    settings = {name: value for name, value in recipe.items() if name not in _OF_THE_MACHINE}
    test_split = images_digest(image_ids)
    earlier = next((look["settings"] for look in reversed(looks) if look["test_split"] == test_split), None)
    if settings == earlier:
        return
    changed = differences(earlier, settings) if earlier is not None else {}
    today = datetime.now(UTC).date().isoformat()
    looks.append({"date": today, "changed": changed, "test_split": test_split, "settings": settings})
    write_text(folder / LOOKS, json.dumps(looks, indent=2) + "\n")


def _read_looks(folder: Path) -> list[dict[str, Any]]:
    path = folder / LOOKS
    try:
        looks = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
        if all({"settings", "test_split"} <= {*look} for look in looks):
            return list(looks)
    except (OSError, ValueError, TypeError, RecursionError):
        pass
    raise SmileError(f"{path}: damaged, so looks at test would be lost; restore it, or name another --output_dir")


def differences(earlier: dict[str, Any], recipe: dict[str, Any]) -> dict[str, list[Any]]:
    """The settings that differ between two runs, with both values.

    >>> differences({"seed": 1, "mixup": 0.2}, {"seed": 2, "mixup": 0.2})
    {'seed': [1, 2]}
    """
    pairs = {name: [earlier.get(name), recipe.get(name)] for name in sorted({*earlier, *recipe})}
    return {name: [before, now] for name, (before, now) in pairs.items() if before != now}


def _listed(changed: dict[str, list[Any]], names: Set[str]) -> str:
    """The named `differences`, as text."""
    return ", ".join(f"{name} {before} -> {now}" for name, (before, now) in changed.items() if name in names)


def mark_finished(output_dir: str | Path, metrics: dict[str, Any]) -> None:
    """Write `test_metrics.json`, which marks the run as finished and so comes last. Undefined numbers are null."""
    write_text(Path(output_dir) / RESULT, to_json(metrics))


def clear_run(folder: Path) -> None:
    """Remove only the files of a run, except the list of bad images, which the new run has already written."""
    for path in checkpoints(folder):
        shutil.rmtree(path)
    shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
    for path in (folder / RUNS).glob("*/events.out.tfevents.*"):
        path.unlink()
    for name in _LEFT_BY_A_RUN:
        (folder / f"{name}.part").unlink(missing_ok=True)  # of a killed run
        if name != BAD_IMAGES:
            (folder / name).unlink(missing_ok=True)


def _read_recipe(path: Path) -> dict[str, Any] | None:
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise SmileError(f"{path}: can't be read ({error}); start again with --overwrite") from None
    return recipe if isinstance(recipe, dict) else None
