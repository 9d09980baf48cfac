"""Record the splits of a run in its folder, so that a model is never evaluated on images it was trained on."""

from __future__ import annotations

import csv
import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from datasets import Dataset, DatasetDict, Image
from tqdm.auto import tqdm

from hf_smile.data.arguments import DATA_SETTINGS, DataArguments
from hf_smile.data.images import encoded_bytes
from hf_smile.errors import SmileDataError
from hf_smile.utils.files import written_whole
from hf_smile.utils.model_files import read_config
from hf_smile.utils.words import counted

logger = logging.getLogger(__name__)

SPLITS_FILE = "splits.csv"
"""File with the images of a run. It contains image ids of people and is not published."""


class Record(NamedTuple):
    """A row of `splits.csv`.

    `digest` is that of the image bytes; it is empty if the images are streamed. `label` is a label id; it is empty in
    records of older versions of hf_smile.
    """

    image_id: str
    split: str
    digest: str
    label: str

    @property
    def image(self) -> str:
        return self.digest or self.image_id


def write_splits(folder: str | Path, splits: DatasetDict, *models: str | Path) -> None:
    """Record the images of each split. For a run that already has a record, use `check_splits`.

    Args:
        folder: folder of the run.
        splits: data with the column `image_id` and, unless the images are streamed, `image`.
        models: models that the run learns from, its backbone and teachers. If one is the result of an earlier run, the
            training images of that run are recorded as training images, too.

    >>> write_splits("outputs/model", splits)  # doctest: +SKIP
    """
    path = Path(folder, SPLITS_FILE)
    with written_whole(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Record._fields)
        writer.writerows(_records(splits, models))


def check_splits(folder: str | Path, splits: DatasetDict, *models: str | Path) -> None:
    """Check that images, splits and labels are the same as when the run began, if it has a record.

    Raises:
        SmileDataError: if they are not.

    >>> check_splits("outputs/new", splits)  # doctest: +SKIP
    """
    if not (earlier := _read_records(folder)):
        return
    records = earlier, _records(splits, models)
    before, now = ({(row.image, row.split, row.label) for row in rows} for rows in records)
    if not any(row.label for row in earlier):
        now = {(image, split, "") for image, split, _ in now}
    if changed := len({image for image, _, _ in before ^ now}):
        raise SmileDataError(
            f"{folder}: {counted(changed, 'image')} changed since the run began ({SPLITS_FILE}): new, missing, in "
            "another split, or with other bytes or another label; use the original data, or start again with "
            "--overwrite"
        )


def images_of(dataset: Dataset) -> Iterator[tuple[str, str]]:
    """Id of each image and digest of its bytes, which is empty if the images are streamed.

    >>> next(images_of(splits["test"]))  # doctest: +SKIP
    ('05684c70', '0f3b...')
    """
    if "image" not in dataset.column_names:
        yield from ((image_id, "") for image_id in dataset["image_id"])
        return
    rows = dataset.select_columns(["image_id", "image"]).cast_column("image", Image(decode=False))
    for row in tqdm(rows, desc="Recording the splits", unit=" images", delay=2):
        yield row["image_id"], hashlib.blake2b(encoded_bytes(row["image"]), digest_size=16).hexdigest()


def read_splits(model: str | Path) -> dict[str, set[str]]:
    """The splits of each image of a run, by the digest of its bytes (or by its id, if it was streamed).

    Empty if the run has no record.

    Raises:
        SmileDataError: if the record is damaged.
    """
    found: dict[str, set[str]] = {}
    for row in _read_records(model):
        found.setdefault(row.image, set()).add(row.split)
    return found


def _records(splits: DatasetDict, models: Iterable[str | Path]) -> Iterator[Record]:
    yield from dict.fromkeys(row for model in models for row in _read_records(model) if row.split == "train")
    for split, dataset in splits.items():
        for (image_id, digest), label in zip(images_of(dataset), dataset["label"], strict=True):
            yield Record(image_id, split, digest, str(label))


def _read_records(model: str | Path) -> list[Record]:
    path = _run_of(model) / SPLITS_FILE
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.reader(file)
            header = tuple(next(rows))
            if header not in (Record._fields, Record._fields[:3]):
                raise ValueError
            return [Record(*row, *[""] * (4 - len(header))) for row in rows]
    except (OSError, ValueError, TypeError, StopIteration, csv.Error):
        raise SmileDataError(
            f"{path} is damaged; train again with --overwrite, or use held-out data with --held_out"
        ) from None


def run_data(model: str | Path, given: dict[str, Any], others: bool = False) -> tuple[DataArguments, int]:
    """The data settings of a run, and the seed of its splits.

    Args:
        model: folder of the run. For any other folder, or a Hub id, the defaults are used.
        given: settings given by the user, which take precedence.
        others: whether the data are not those of the run, so that its corrections do not apply.

    >>> run_data("outputs/model", {})  # doctest: +SKIP
    (DataArguments(data_dir='data/happy_images', ...), 42)
    """
    path = _run_of(model) / "recipe.yaml"
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        raise SmileDataError(f"{path} can't be read; give --data_dir and the other data settings yourself") from None
    recipe = {**(recipe if isinstance(recipe, dict) else {}), **({"corrections": None} if others else {}), **given}
    seed = recipe["split_seed"] if recipe.get("split_seed") is not None else recipe.get("seed", 42)
    seed = given.get("seed", seed)
    try:
        data = DataArguments(**{name: recipe[name] for name in DATA_SETTINGS if name in recipe})
        if isinstance(seed, int) and isinstance(data.data_dir, str):
            return data, seed
    except TypeError:  # from a size that is not a number
        pass
    raise SmileDataError(f"{path}: the data settings are damaged; give --data_dir and the others yourself")


def read_as_labelled_by(model: str | Path, data: DataArguments) -> DataArguments:
    """The same data settings with the labels of the model, so that data with other labels are refused.

    Raises:
        SmileDataError: if `data` asks for other labels.

    >>> read_as_labelled_by("outputs/model", DataArguments()).labels  # doctest: +SKIP
    ['negative smile', 'positive smile', 'NOT smile']
    """
    labels = read_config(model)["label_names"]
    if data.labels not in (None, labels):
        raise SmileDataError(f"--labels {', '.join(data.labels or ())}: {model} has the labels {', '.join(labels)}")
    return replace(data, labels=labels)


def require_held_out(model: str | Path, split: str, dataset: Dataset, vouched_for: bool = False) -> None:
    """Refuse images that the model was, or may have been, trained or selected on.

    An image that occurs in two splits of the run is accepted for both; use the audit to find such images.

    Args:
        model: folder of the run.
        split: `validation` or `test`. With `train`, nothing is checked.
        dataset: images to evaluate on.
        vouched_for: whether the user confirms that images unknown to the run were held out.

    Raises:
        SmileDataError: if the model was trained or selected on some of the images, or the record does not list them.

    >>> require_held_out("outputs/model", "test", splits["test"])  # doctest: +SKIP
    """
    if split == "train":
        return
    run = _run_of(model)
    if split == "test" and run != Path(model):
        raise SmileDataError(
            f"{model} is a checkpoint of {run}; compare checkpoints with --split validation, and test {run} itself"
        )
    record = read_splits(model)
    labels = {(row.image, row.label) for row in _read_records(model) if row.label}
    counts: Counter[str] = Counter()
    relabelled = 0
    for (image_id, digest), label in zip(images_of(dataset), dataset["label"], strict=True):
        known = record.get(digest) or record.get(image_id) or {"unknown"}
        image = digest if digest in record else image_id
        relabelled += bool(labels) and image in record and (image, str(label)) not in labels
        counts[split if split in known else min(known, key=("train", "validation", "test", "unknown").index)] += 1
    where, total = f"{run}/{SPLITS_FILE}", f"{len(dataset):,} images"
    if relabelled:
        logger.warning("%s: %s of these %s got another label since the run began", where, f"{relabelled:,}", total)
    if trained := counts["train"]:
        raise SmileDataError(f"{trained:,} of these {total} were used for training ({where}); use other images")
    if split == "test" and counts["validation"]:
        raise SmileDataError(
            f"{counts['validation']:,} of these {total} were used to choose the checkpoint ({where}); "
            "evaluate on them with --split validation"
        )
    if counts["unknown"] and not vouched_for:
        unknown = f"{counts['unknown']:,} of these {total} are not in {where}"
        raise SmileDataError(
            f"{unknown if record else f'{model} has no record of its training images ({SPLITS_FILE})'}, so hf_smile "
            "can't tell whether they were held out; if you know that they were, add --held_out"
        )


def refuse_trained_on(
    model: str | Path, images: Iterable[tuple[str, str]], role: str = "backbone", for_test: bool = False
) -> None:
    """Refuse to evaluate on images that a backbone or teacher, itself the result of a run, was trained on.

    Args:
        model: folder or Hub id. If it has no record of its splits, nothing is checked.
        images: images to evaluate on, as returned by `images_of`.
        role: what the model is used as, for the message.
        for_test: whether the images are a test split: images that the model was selected on are refused, too.

    Raises:
        SmileDataError: if the model was trained (or selected) on some of the images.

    >>> refuse_trained_on("outputs/model", images_of(splits["validation"]))  # doctest: +SKIP
    """
    if not (record := read_splits(model)):
        return
    refused, how = ({"train", "validation"}, "trained or selected") if for_test else ({"train"}, "trained")
    known = (record.get(digest) or record.get(image_id) or {"unknown"} for image_id, digest in images)
    # An image in both train and another split is a problem of the data, which the audit reports.
    if seen := sum(splits <= refused for splits in known):
        or_else = ", or use the backbone that its run started from" if role == "backbone" else ""
        raise SmileDataError(
            f"the {role} {model} was {how} on {seen:,} of the {'test images' if for_test else 'images to evaluate on'} "
            f"({SPLITS_FILE}); split the data as in its run{_seed_of(model)}{or_else}"
        )


def _seed_of(backbone: str | Path) -> str:
    """The option that splits the data as a run did; empty if its `recipe.yaml` can't be read."""
    try:
        recipe = yaml.safe_load((_run_of(backbone) / "recipe.yaml").read_text(encoding="utf-8"))
        seed = recipe["seed"] if recipe.get("split_seed") is None else recipe["split_seed"]
    except (OSError, ValueError, yaml.YAMLError, KeyError, AttributeError):
        return ""
    return f" (--split_seed {seed})"


def _run_of(model: str | Path) -> Path:
    """The folder of the run. For a checkpoint, the parent folder."""
    folder = Path(model)
    of_a_run = folder.resolve().name.startswith("checkpoint-") and (folder.resolve().parent / SPLITS_FILE).is_file()
    return folder.parent if of_a_run and not (folder / SPLITS_FILE).is_file() else folder
