"""Data that the library `datasets` reads: saved data sets, Parquet files with images, and data sets on the Hub."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
from datasets import ClassLabel, Dataset, DatasetDict, Image, Value

from hf_smile.data.annotations import OWN_COLUMNS, path_problem
from hf_smile.data.columns import PLAIN, Reading
from hf_smile.data.images import encoded_bytes
from hf_smile.data.sources import stamp_of
from hf_smile.data.splits import SPLITS, name_splits, split_of
from hf_smile.errors import Problems, SmileDataError, first_line
from hf_smile.labels import SMILE_LABELS, LabelSet
from hf_smile.shards.folder import is_sharded, rows_of, with_corrections

logger = logging.getLogger(__name__)

_PIECE = 10_000


class RowSource:
    """The images of a loaded `DatasetDict`. A `file` is `<split>/<row>`.

    Args:
        splits: data with a column `image` that is not decoded.
        where: name of the data in messages.
    """

    def __init__(self, splits: DatasetDict, where: str | Path) -> None:
        self.path = Path(where)
        self.splits = splits
        self._stamps = {split: _stamp_of_files(dataset.cache_files) for split, dataset in splits.items()}

    def read(self, file: str) -> bytes:
        """The encoded bytes of an image.

        Raises:
            SmileDataError: if the row has no image, or refers to a file that can't be read.
        """
        split, row = file.rsplit("/", 1)
        image = self.splits[split][int(row)]["image"]
        if image is None or (image["bytes"] is None and not image["path"]):
            raise SmileDataError("the row has no image; remove it")
        if image["bytes"] is None and not Path(image["path"]).is_absolute():
            # It would be resolved against the current working directory.
            raise SmileDataError(f"its path {image['path']!r} is relative; save the data set with embedded images")
        return encoded_bytes(image)

    def stamp(self, file: str) -> str | None:
        """Names, sizes and modification times of the Arrow files that hold the split."""
        return self._stamps[file.rsplit("/", 1)[0]]


def is_ready_made(data_dir: str | Path) -> bool:
    """Whether `load_rows` can read it: a saved data set, Parquet files or a Hub id, instead of image files."""
    folder = Path(data_dir)
    return not folder.exists() or _is_saved(folder) or bool(parquet_files(folder))


def parquet_files(folder: Path) -> list[Path]:
    """The Parquet files in a folder and its direct subfolders that may contain images."""
    files = [*folder.glob("*.parquet"), *folder.glob("*/*.parquet")] if folder.is_dir() else []
    return sorted(file for file in files if file.name != "metadata.parquet")


def _is_saved(folder: Path) -> bool:
    return any((folder / mark).is_file() for mark in ("dataset_dict.json", "state.json"))


def load_rows(data_dir: str | Path, reading: Reading = PLAIN) -> RowSource:
    """Load a data set and rename its splits, and its columns to `image`, `label` and `image_id`.

    Args:
        data_dir: folder of a saved `DatasetDict` or `Dataset`, folder of Parquet files, or Hub id.
        reading: column names.

    Raises:
        SmileDataError: if it can't be loaded, or has no column of images or of labels.

    >>> load_rows("data/prepared").splits["train"].column_names  # doctest: +SKIP
    ['image', 'label', 'image_id']
    """
    folder = Path(data_dir)
    if not folder.exists():
        loaded = _load_from_hub(str(data_dir))
    elif _is_saved(folder):
        loaded = _load_saved(folder)
    else:
        loaded = _load_parquet(folder)
    splits = {"train": loaded} if isinstance(loaded, Dataset) else {str(name): rows for name, rows in loaded.items()}
    if len(splits) == 1 and not any(map(split_of, splits)):
        splits = dict(zip(["train"], splits.values(), strict=True))
    splits = {name: rows for name, rows in splits.items() if len(rows)}
    split_names = name_splits(splits)
    if foreign := [name for name in splits if name not in split_names]:
        logger.warning(f"Note: only train, validation and test of {data_dir} are used, not {', '.join(foreign)}")
    named = {split: splits[name] for name, split in split_names.items()}
    standard = {split: standardize(named[split], split, data_dir, reading) for split in SPLITS if split in named}
    if not standard:
        raise SmileDataError(f"{data_dir}: the data set is empty")
    return RowSource(DatasetDict(standard), data_dir)


def row_pieces(rows: RowSource, reading: Reading, problems: Problems) -> Iterator[tuple[str, pd.DataFrame]]:
    """The rows as annotation tables: `image_id`, `file`, `label`, `where`, `problem`, and other columns as text."""
    for split, dataset in rows.splits.items():
        names = label_names(dataset)
        further = [
            name
            for name, feature in dataset.features.items()
            if isinstance(feature, (Value, ClassLabel)) and name not in OWN_COLUMNS
        ]
        for start in range(0, len(dataset), _PIECE):
            piece = dataset.select_columns(["image_id", "label", *further])[start : start + _PIECE]
            rows_of_piece = []
            for row, (raw_id, raw_label) in enumerate(zip(piece["image_id"], piece["label"], strict=True), start):
                image_id, place = str(raw_id), f"{split}, row {row}"
                if odd := path_problem(image_id):
                    problems.append(f"{place}: image_id {image_id!r} {odd}")
                label = _label_id(raw_label, names, reading, place, problems)
                rows_of_piece.append((image_id, f"{split}/{row}", label, place, ""))
            table = pd.DataFrame(rows_of_piece, columns=OWN_COLUMNS)
            yield split, table.assign(**{name: [str(value).strip() for value in piece[name]] for name in further})


def label_names(dataset: Dataset) -> list[str]:
    """The label names in the order of their ids; empty if the column `label` is not a `ClassLabel`."""
    return list(getattr(dataset.features["label"], "names", []))


def labels_of(dataset: Dataset) -> LabelSet:
    """The label set of a split; the default labels if the column `label` is not a `ClassLabel`.

    >>> labels_of(splits["train"])  # doctest: +SKIP
    LabelSet(names=('smile', 'NOT smile'))
    """
    return LabelSet.of(label_names(dataset) or SMILE_LABELS)


def _label_id(raw: Any, names: list[str], reading: Reading, place: str, problems: Problems) -> int:
    if raw is None or (names and not 0 <= raw < len(names)):
        problems.append(f"{place}: an image without a label; remove it from the data set")
        return -1
    return reading.label_id(str(names[raw] if names else raw), place, problems)


def standardize(dataset: Dataset, split: str, where: str | Path, reading: Reading = PLAIN) -> Dataset:
    """Rename the columns to `image` (undecoded), `label` and `image_id`. Missing ids are generated.

    Raises:
        SmileDataError: if there is no column of images or of labels.
    """
    names = dataset.column_names
    pictures = [name for name, feature in dataset.features.items() if isinstance(feature, Image)]
    if reading.image_column is None and len(pictures) == 1:
        reading = replace(reading, image_column=pictures[0])
    try:
        columns = reading.columns_of(names)
    except SmileDataError as error:
        raise SmileDataError(f"{where}: {error}") from None
    chosen = {"image": columns.file, "label": columns.label, "image_id": columns.image_id}
    if missing := [name for name in ("image", "label") if chosen[name] is None]:
        raise SmileDataError(
            f"{where}: no column {missing[0]!r} in split {split}; the columns are {', '.join(names)}; "
            f"rename one, or name it with --{missing[0]}_column"
        )
    ours = {names[at]: name for name, at in chosen.items() if at is not None}
    dataset = dataset.remove_columns([name for name in chosen if name in names and name not in ours])
    dataset = dataset.rename_columns({theirs: name for theirs, name in ours.items() if theirs != name})
    if "image_id" not in dataset.column_names:
        dataset = dataset.add_column("image_id", [f"{split}-{row:07d}" for row in range(len(dataset))])
    feature = dataset.features["image"]
    if isinstance(feature, Value) and feature.dtype not in ("binary", "large_binary"):
        raise SmileDataError(
            f"{where}: column {names[chosen['image'] or 0]!r} of split {split} contains {feature.dtype}, not images; "
            "if these are file names, put them into metadata.parquet beside the images"
        )
    return dataset.cast_column("image", Image(decode=False))


def _load_saved(folder: Path) -> DatasetDict | Dataset:
    if (folder / "train.csv").is_file():
        raise SmileDataError(f"{folder} contains train.csv and a saved data set; move one of them to another folder")
    try:
        return datasets.load_from_disk(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SmileDataError(f"{folder}: the saved data set is damaged ({first_line(error)}); save it again") from None
    except IndexError:  # raised by `datasets`
        raise SmileDataError(f"{folder}: a split of the saved data set is empty; save it without that split") from None


def _load_parquet(folder: Path) -> DatasetDict:
    is_sharded(folder)  # raises if shards are missing
    files: dict[str, list[str]] = {}
    words: set[str] = set()
    for file in parquet_files(folder):
        rows_of(file)  # raises if the file is damaged, and names it
        name = file.name if split_of(file.name) else file.relative_to(folder).parts[0]
        words.add(name)
        files.setdefault(split_of(name) or "train", []).append(str(file))
    name_splits(words)
    try:
        return with_corrections(datasets.load_dataset("parquet", data_files=files), folder)
    except Exception as error:  # pyarrow and the builder each raise errors of their own
        cause = error.__cause__ or error
        raise SmileDataError(f"{folder}: the Parquet files can't be read together: {first_line(cause)}") from None


def _load_from_hub(data_dir: str) -> DatasetDict:
    try:
        return datasets.load_dataset(data_dir)
    except Exception as error:  # the Hub client, fsspec and the builders each raise errors of their own
        reason = first_line(error)
        raise SmileDataError(f"{data_dir}: no such folder, and it could not be loaded from the Hub: {reason}") from None


def build_rows(rows: RowSource, tables: Mapping[str, pd.DataFrame], labels: LabelSet) -> DatasetDict:
    """Select the rows of the tables from the splits, and set the labels of the tables."""
    splits = DatasetDict()
    for split, table in tables.items():
        dataset = rows.splits[split]
        if len(table) < len(dataset):
            dataset = dataset.select([int(file.rsplit("/", 1)[1]) for file in table["file"]])
        splits[split] = labelled(dataset, table["label"].tolist(), labels).cast_column("image", Image())
    return splits


def labelled(dataset: Dataset, label_ids: list[int], labels: LabelSet) -> Dataset:
    """Set the labels as a `ClassLabel`, and convert the ids to text."""
    if label_names(dataset) != [*labels] or list(dataset["label"]) != label_ids:  # label_map can change any
        dataset = dataset.remove_columns("label").add_column("label", label_ids)
        dataset = dataset.cast_column("label", ClassLabel(names=[*labels]))
    has_text = dataset.features["image_id"].dtype == "string"
    return dataset if has_text else dataset.cast_column("image_id", Value("string"))


def _stamp_of_files(files: list[dict[str, str]]) -> str | None:
    try:
        stamps = [(file["filename"], stamp_of(Path(file["filename"]).stat())) for file in files]
    except OSError:
        return None
    return hashlib.blake2b(repr(stamps).encode(), digest_size=8).hexdigest() if stamps else None
