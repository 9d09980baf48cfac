"""Data that are too many for one file, and maybe for one disk: Parquet shards, and how they are laid out.

    <folder>/train/00000-of-00012.parquet    validation/...    test/...    shards.json    bad_images.csv

`datasets.load_dataset(folder, streaming=True)` and the Hub read this layout. The rows are `image` (encoded bytes),
`label`, `image_id` and the further columns of the annotations.
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
    """The shards of a split, in the order of their names; none where there is no such split."""
    return sorted(Path(folder, split).glob("*.parquet"))


def is_sharded(folder: str | Path) -> bool:
    """Whether a folder holds the shards that `hf-smile shard` writes, all of them.

    Raises:
        SmileDataError: some are missing, because the writing was interrupted; or `shards.json` is damaged.
    """
    path = Path(folder, SETTINGS)
    if not path.is_file():
        return False
    for split, promised in read_settings(path)["shards"].items():
        if (there := len(shard_files(folder, split))) < promised:
            raise SmileDataError(
                f"{folder}: {there} of {promised} shards of {split}; "
                "start hf-smile shard again with the same settings, and it resumes"
            )
    return True


def read_settings(path: Path) -> dict[str, Any]:
    """What `shards.json` says.

    Raises:
        SmileDataError: it is damaged.
    """
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        shards = settings["shards"]
        if all(split in SPLITS and isinstance(count, int) for split, count in shards.items()):
            return settings
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass
    raise SmileDataError(f"{path}: damaged; remove the folder, and write the shards again with hf-smile shard")


def rows_of(file: Path) -> int:
    """The number of rows of a Parquet file, read from its last bytes alone.

    Raises:
        SmileDataError: the file is damaged.
    """
    try:
        return pq.read_metadata(file).num_rows
    except (pa.ArrowException, OSError) as error:
        raise SmileDataError(f"{file}: not a readable Parquet file ({first_line(error)}); write it again") from None


def labels_in(files: Sequence[Path], labels: LabelSet) -> np.ndarray:
    """The label ids of all rows of shards, `(N,)`.

    Raises:
        SmileDataError: there are no shards, one is damaged, or they have other labels.
    """
    if not files:
        raise SmileDataError("there are no shards of train; write them with hf-smile shard")
    _check_columns(files, labels)
    return np.concatenate([pq.read_table(file, columns=["label"])["label"].to_numpy() for file in files])


def features_of(further: Sequence[str] = (), labels: LabelSet = SMILE_LABELS) -> Features:
    """The columns of a shard."""
    return Features(
        {"image": Image(), "label": ClassLabel(names=[*labels]), "image_id": Value("string")}
        | {name: Value("string") for name in further}
    )


def load_shards(
    folder: str | Path, *, train_images: bool = True, max_train_samples: int | None = None, seed: int = 42
) -> DatasetDict:
    """The splits of a folder of shards, in the cache of `datasets`.

    Args:
        folder: with `train/`, `test/` and maybe `validation/`.
        train_images: False leaves the train split `image_id` and `label` alone, for training that streams the rest.
        max_train_samples: keep so many images of train, stratified by class, and read no more shards than hold them
            (their rows are in random order); None keeps all.
        seed: of that choice.

    Raises:
        SmileDataError: a split or a column is missing, the labels have no names, or a file is damaged.

    >>> load_shards("data/shards", train_images=False)["train"].column_names  # doctest: +SKIP
    ['image_id', 'label']
    """
    splits = DatasetDict()
    for split in SPLITS:
        files = shard_files(folder, split)
        if not files and split != "validation":
            raise SmileDataError(f"{folder}: no shards of {split}")
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
    """The splits, which tell what corrections did to them before they became shards."""
    path = Path(folder, SETTINGS)
    facts = read_settings(path).get("corrections", {}) if path.is_file() else {}
    return DatasetDict({split: with_facts(rows, facts.get(split, {})) for split, rows in splits.items()})


def _check_columns(files: Sequence[Path], labels: LabelSet | None = None) -> None:
    for file in files:
        rows_of(file)  # names a damaged one
    features = Features.from_arrow_schema(pq.read_schema(files[0]))
    if missing := [name for name in ("image", "label", "image_id") if name not in features]:
        raise SmileDataError(f"{files[0]}: no column {missing[0]!r}; it has {', '.join(features)}")
    names = getattr(features["label"], "names", None)
    if not names:
        raise SmileDataError(f"{files[0]}: the labels have no names (ClassLabel); write it with shard_dataset.py")
    if labels is not None and names != [*labels]:
        raise SmileDataError(f"{files[0]}: the labels are {', '.join(names)}, and the model knows {labels}")
