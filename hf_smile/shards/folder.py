"""The layout of Parquet shards, for data that are too large for one file.

    <folder>/train/00000-of-00012.parquet    validation/...    test/...    shards.json    bad_images.csv

`datasets.load_dataset(folder, streaming=True)` and the Hub can read this layout. The columns are `image` (encoded
bytes), `label`, `image_id` and any additional columns of the annotations.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, DatasetDict, Features, Image, Value

from hf_smile.data.corrections import with_facts
from hf_smile.data.splits import SPLITS, some_of
from hf_smile.errors import SmileDataError, first_line
from hf_smile.labels import SMILE_LABELS, LabelSet

SETTINGS = "shards.json"


def shard_files(folder: str | Path, split: str) -> list[Path]:
    """The shards of a split, sorted by name; empty if there is no such split."""
    return sorted(Path(folder, split).glob("*.parquet"))


def is_sharded(folder: str | Path) -> bool:
    """Whether a folder contains a complete set of shards written by `hf-smile shard`.

    Raises:
        SmileDataError: if some shards are missing because writing was interrupted, or `shards.json` is damaged.
    """
    path = Path(folder, SETTINGS)
    if not path.is_file():
        return False
    for split, promised in read_settings(path)["shards"].items():
        if (there := len(shard_files(folder, split))) < promised:
            raise SmileDataError(
                f"{folder} has only {there} of {promised} shards of {split}; "
                "run hf-smile shard again with the same settings to resume"
            )
    return True


def read_settings(path: Path) -> dict[str, Any]:
    """Read `shards.json`.

    Raises:
        SmileDataError: if the file is damaged.
    """
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        shards = settings["shards"]
        if all(split in SPLITS and isinstance(count, int) for split, count in shards.items()):
            return settings
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass
    raise SmileDataError(f"{path} is damaged; remove the folder, and write the shards again with hf-smile shard")


def rows_of(file: Path) -> int:
    """The number of rows of a Parquet file, read from its footer.

    Raises:
        SmileDataError: if the file is damaged.
    """
    try:
        return pq.read_metadata(file).num_rows
    except (pa.ArrowException, OSError) as error:
        raise SmileDataError(f"{file}: not a readable Parquet file ({first_line(error)}); write it again") from None


def labels_in(files: Sequence[Path], labels: LabelSet) -> np.ndarray:
    """The label ids of all rows in the shards, `(N,)`.

    Raises:
        SmileDataError: if there are no shards, one is damaged, or they have other labels.
    """
    if not files:
        raise SmileDataError("no train shards found; write them with hf-smile shard")
    _check_columns(files, labels)
    return np.concatenate([pq.read_table(file, columns=["label"])["label"].to_numpy() for file in files])


def features_of(further: Sequence[str] = (), labels: LabelSet = SMILE_LABELS) -> Features:
    """The features of a shard."""
    return Features(
        {"image": Image(), "label": ClassLabel(names=[*labels]), "image_id": Value("string")}
        | {name: Value("string") for name in further}
    )


def load_shards(
    folder: str | Path, *, train_images: bool = True, max_train_samples: int | None = None, seed: int = 42
) -> DatasetDict:
    """Load the splits of a folder of shards. The data are stored in the cache of `datasets`.

    Args:
        folder: folder with `train/`, `test/` and optionally `validation/`.
        train_images: False loads only `image_id` and `label` of the train split, for training that streams the images.
        max_train_samples: maximum number of training images, stratified by class. Only as many shards are read as
            needed, because their rows are in random order. None keeps all.
        seed: seed for drawing these images.

    Raises:
        SmileDataError: if a split or a column is missing, the labels have no names, or a file is damaged.

    >>> load_shards("data/shards", train_images=False)["train"].column_names  # doctest: +SKIP
    ['image_id', 'label']
    """
    splits = DatasetDict()
    for split in SPLITS:
        files = shard_files(folder, split)
        if not files and split != "validation":
            raise SmileDataError(f"{folder} has no {split} shards; write them with hf-smile shard")
        if files:
            _check_columns(files)
            if split == "train" and max_train_samples is not None:
                rows_before = np.cumsum([0, *map(rows_of, files[:-1])])
                files = [file for file, before in zip(files, rows_before, strict=True) if before <= max_train_samples]
            columns = ["image_id", "label"] if split == "train" and not train_images else None
            paths = {split: [*map(str, files)]}
            splits[split] = datasets.load_dataset("parquet", data_files=paths, columns=columns, split=split)
    if max_train_samples is not None:
        splits["train"] = some_of(splits["train"], max_train_samples, seed)
    return with_corrections(splits, folder)


def with_corrections(splits: DatasetDict, folder: str | Path) -> DatasetDict:
    """Attach the effect of corrections, as recorded in `shards.json`, to the splits."""
    path = Path(folder, SETTINGS)
    facts = read_settings(path).get("corrections", {}) if path.is_file() else {}
    return DatasetDict({split: with_facts(rows, facts.get(split, {})) for split, rows in splits.items()})


def _check_columns(files: Sequence[Path], labels: LabelSet | None = None) -> None:
    for file in files:
        rows_of(file)  # raises if the file is damaged, and names it
    features = Features.from_arrow_schema(pq.read_schema(files[0]))
    if missing := [name for name in ("image", "label", "image_id") if name not in features]:
        raise SmileDataError(f"{files[0]}: no column {missing[0]!r}; the columns are {', '.join(features)}")
    names = getattr(features["label"], "names", None)
    if not names:
        raise SmileDataError(f"{files[0]}: the labels have no names (ClassLabel); write it with hf-smile shard")
    if labels is not None and names != [*labels]:
        raise SmileDataError(f"{files[0]}: the labels are {', '.join(names)}, but the model has {labels}")
