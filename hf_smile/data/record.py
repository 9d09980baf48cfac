"""What a run was split into, kept in its folder, so that nothing is measured on what was trained on."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from datasets import DatasetDict

from hf_smile.data.arguments import DataArguments
from hf_smile.errors import SmileDataError

SPLITS_FILE = "splits.csv"
"""`image_id,split` of all images of a run. It carries the ids of people's pictures, and is not published."""


def write_splits(folder: str | Path, splits: DatasetDict) -> None:
    """Record the images of each split, or see that they are those of the record that is there.

    Args:
        folder: of the run.
        splits: with a column `image_id`.

    Raises:
        SmileDataError: the run began with other images.

    >>> write_splits("outputs/model", splits)  # doctest: +SKIP
    """
    path = Path(folder, SPLITS_FILE)
    if earlier := read_splits(folder):
        now = {image_id: split for split, dataset in splits.items() for image_id in dataset["image_id"]}
        if changed := sum(earlier.get(image_id) != now.get(image_id) for image_id in {*earlier, *now}):
            raise SmileDataError(
                f"{folder}: {changed:,} images are not where they were when the run began ({SPLITS_FILE}); "
                "name the data it began with, or start afresh with --overwrite"
            )
        return
    unfinished = path.with_name(f"{SPLITS_FILE}.part")
    with unfinished.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image_id", "split"])
        for split, dataset in splits.items():
            writer.writerows((image_id, split) for image_id in dataset["image_id"])
    unfinished.replace(path)


def read_splits(model: str | Path) -> dict[str, str]:
    """The split of each image of a run, by id; empty where there is no record.

    Raises:
        SmileDataError: the record is damaged.
    """
    path = Path(model, SPLITS_FILE)
    if not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        if header == ["image_id", "split"]:
            return dict(rows)  # type: ignore[arg-type]  # a row of another length is a ValueError
    except (OSError, ValueError, csv.Error):
        pass
    raise SmileDataError(f"{path}: damaged; train again with --overwrite, or name held-out data with --held_out")


def run_data(model: str | Path, given: dict[str, Any]) -> tuple[DataArguments, int]:
    """The data of a run, and the seed of its splits.

    Args:
        model: folder of the run; any other folder, or an id on the Hub, says nothing.
        given: settings that the user gave; they win.

    >>> run_data("outputs/model", {})  # doctest: +SKIP
    (DataArguments(data_dir='data/happy_images', ...), 42)
    """
    path = Path(model, "recipe.yaml")
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        raise SmileDataError(f"{path}: can't be read; name the data and their settings yourself") from None
    recipe = {**(recipe if isinstance(recipe, dict) else {}), **given}
    names = {setting.name for setting in fields(DataArguments)}
    return DataArguments(**{name: recipe[name] for name in names & recipe.keys()}), int(recipe.get("seed", 42))


def require_held_out(model: str | Path, split: str, image_ids: Iterable[str], vouched_for: bool = False) -> None:
    """See that a model was neither trained nor chosen on images that it is to be measured on.

    Args:
        model: folder of its run.
        split: `validation` or `test`; images of `train` are not held out, and not asked about.
        image_ids: of the images.
        vouched_for: the user says that images which the run does not know were held out.

    Raises:
        SmileDataError: it was, or that can't be told.

    >>> require_held_out("outputs/model", "test", ["a", "b"])  # doctest: +SKIP
    """
    if split == "train":
        return
    ids = list(image_ids)
    record = read_splits(model)
    counts = Counter(record.get(image_id, "unknown") for image_id in ids)
    where = f"{model}/{SPLITS_FILE}"
    if trained := counts["train"]:
        raise SmileDataError(f"{trained:,} of these {len(ids):,} images were trained on ({where}); name others")
    if split == "test" and counts["validation"]:
        raise SmileDataError(
            f"{counts['validation']:,} of these {len(ids):,} images chose the checkpoint ({where}); "
            "measure it on them with --split validation"
        )
    if counts["unknown"] and not vouched_for:
        unknown = f"{counts['unknown']:,} of these {len(ids):,} images are not in {where}"
        raise SmileDataError(
            f"{unknown if record else f'{model} has no record of what it was trained on ({SPLITS_FILE})'}, so it can't "
            "be told whether they were held out; if you know that they were, add --held_out"
        )
