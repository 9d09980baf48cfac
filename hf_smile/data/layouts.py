"""Which of the common layouts a folder, a zip or a data set on the Hub has -> annotations, bound to their images."""

from __future__ import annotations

import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from hf_smile.console import is_main_process
from hf_smile.data.annotations import annotation_pieces, is_odd_path, read_annotations
from hf_smile.data.columns import PLAIN, Reading
from hf_smile.data.rows import is_ready_made, load_rows, row_pieces
from hf_smile.data.shards import SETTINGS
from hf_smile.data.sources import METADATA, Images, ImageSource, plain_path
from hf_smile.data.splits import SPLITS, split_of
from hf_smile.errors import Problems, SmileDataError
from hf_smile.hub_id import missing_folder
from hf_smile.labels import LABEL_NAMES, parse_label

EXPECTED_LAYOUT = """\
Point --data_dir at a folder, or a zip, that holds one of these:
  train.csv (and test.csv, validation.csv) and the images, in a folder, in a zip or beside them
  metadata.csv, .jsonl or .parquet beside the images
  one folder per class, by itself or in train/ (and test/, validation/)
  Parquet files with images, or a saved data set of the library datasets
or at the id of a data set on the Hugging Face Hub (owner/name). docs/data.md shows each of them.
No data at hand? Draw the sample: python scripts/prepare_data.py --draw_sample --data_dir data/sample"""

_IMAGE_PLACES = ("happy_images", "images", "happy_images.zip", "images.zip")

_PIECE = 10_000  # names that are in memory at a time

Pieces = Iterator[tuple[str, pd.DataFrame]]
"""Split and table: `image_id`, `file`, `label`, `where`, `problem` and the user's further columns."""


@dataclass(frozen=True)
class Layout:
    """What a data set says of its images, and the images."""

    pieces: Pieces
    images: Images
    """Reads what the column `file` names."""


def read_layout(data_dir: str | Path, problems: Problems, reading: Reading = PLAIN, piece: int = 0) -> Layout:
    """Find out how the data lie there; what is wrong with the annotations comes up as the pieces are read.

    Args:
        data_dir: folder or zip; the id of a data set on the Hub.
        problems: what is wrong with the annotations is appended here.
        reading: names of columns and labels.
        piece: rows a table, for files of any size; 0 for one table a file, of up to 50 MB.

    Raises:
        SmileDataError: there is none of the layouts.

    >>> layout = read_layout("data/sample", Problems())  # doctest: +SKIP
    """
    path = Path(data_dir)
    if not path.exists() and (message := missing_folder(str(data_dir))):
        raise SmileDataError(f"{message}.\n{EXPECTED_LAYOUT}")
    if is_ready_made(data_dir):
        rows = load_rows(data_dir, reading)
        return Layout(_without_doubles(row_pieces(rows, reading, problems), problems), rows)

    def read(file: Path) -> Iterator[pd.DataFrame]:
        if piece:
            return annotation_pieces(file, problems, piece, reading)
        return iter([read_annotations(file, problems, reading)])

    if path.is_dir() and (csvs := _csv_files(path)):
        images = _open_images(path, problems)
        return Layout(_without_doubles(_rows_of_csvs(csvs, images, read), problems), images)
    images = ImageSource(path)
    if not len(images) and len(images.inner_zips) == 1 and path.is_dir():
        images = ImageSource(path / images.inner_zips[0])
    if not len(images):
        why = images.why_empty if images.inner_zips else f"{path}: no data that can be read"
        raise SmileDataError(f"{why}.\n{EXPECTED_LAYOUT}")
    pieces = _rows_of_metadata(images, read) if images.metadata else _rows_of_folders(images, reading, problems)
    return Layout(_without_doubles(pieces, problems), images)


def refuse_data_folder(output_dir: str | Path, data_dir: str | Path) -> None:
    """See that what is written does not land among data: those that are read, or any others.

    Raises:
        SmileDataError: it would.

    >>> refuse_data_folder("outputs/model", "data/happy_images")
    """
    folder = Path(output_dir)
    marks = ["train.csv", "test.csv", *METADATA, "dataset_dict.json", "state.json", SETTINGS, *_IMAGE_PLACES]
    found = next((name for name in marks if (folder / name).exists()), None)
    for split in SPLITS if found is None and folder.is_dir() else ():
        classes = [str(spelling) for spelling in (*LABEL_NAMES, *range(len(LABEL_NAMES)))]
        found = found or next((f"{split}/{name}" for name in classes if (folder / split / name).exists()), None)
    if found or (folder.is_dir() and folder.resolve() == Path(data_dir).resolve()):
        raise SmileDataError(f"{folder} holds data{f' ({found})' if found else ''}; name another --output_dir")


def _csv_files(folder: Path) -> dict[str, Path]:
    """`train.csv` and its like by split; a single CSV by another name is train."""
    csvs = sorted(path for path in folder.glob("*.[cCtT][sS][vV]") if path.stem.lower() != "metadata")
    by_split = {split: path for path in reversed(csvs) if path.stem.isalpha() and (split := split_of(path.stem))}
    if by_split or len(csvs) != 1 or any(split_of(path.name) for path in folder.iterdir() if path.is_dir()):
        return {split: by_split[split] for split in SPLITS if split in by_split}
    return {"train": csvs[0]}


def _open_images(folder: Path, problems: Problems) -> ImageSource:
    place = find_images(folder)
    images = ImageSource(place)
    if not len(images):
        looked_for = f"pictures were looked for in {', '.join(_IMAGE_PLACES)}, in any other zip, and beside the CSVs"
        problems.append(images.why_empty + (f"; {looked_for}" if place == folder else ""))
    return images


def find_images(folder: Path) -> Path:
    """The folder or zip that holds the images of `train.csv` and its like; none of them is looked at.

    Raises:
        SmileDataError: there are several zips that could be it.

    >>> find_images(Path("data/sample"))  # doctest: +SKIP
    PosixPath('data/sample/happy_images.zip')
    """
    for name in _IMAGE_PLACES:
        if (folder / name).exists():
            return folder / name
    zips = sorted(folder.glob("*.[zZ][iI][pP]"))
    if len(zips) > 1:
        raise SmileDataError(
            f"{folder}: more than one zip file ({', '.join(z.name for z in zips)}); name the right one happy_images.zip"
        )
    return zips[0] if zips else folder


def _rows_of_csvs(csvs: dict[str, Path], images: ImageSource, read: Callable[[Path], Iterator[pd.DataFrame]]) -> Pieces:
    for split, path in csvs.items():
        for table in read(path):
            yield split, _bind(table, images.find)


def _rows_of_metadata(images: ImageSource, read: Callable[[Path], Iterator[pd.DataFrame]]) -> Pieces:
    """`file_name` is relative to the folder of `metadata.csv`; a folder named after a split says which one it is."""
    with tempfile.TemporaryDirectory() as unpacked:
        for name in images.metadata:
            folder = PurePosixPath(plain_path(name)).parent
            path = images.path / name
            if images.path.is_file():
                path = Path(unpacked, PurePosixPath(name).name)
                path.write_bytes(images.read(name))
            for table in read(path):
                table["where"] = f"{folder}/" * (str(folder) != ".") + table["where"]
                bound = _bind(table.assign(file=[str(folder / file) for file in table["file"]]), images.at)
                splits = [_first_split(str(folder / file)) or "train" for file in table["file"]]
                for split in dict.fromkeys(splits):
                    yield split, bound[[of_row == split for of_row in splits]]


def _rows_of_folders(images: ImageSource, reading: Reading, problems: Problems) -> Pieces:
    """`train/<class>/<image>`, or `<class>/<image>` where no folder is named after a split; others may lie between."""
    if not any("/" in plain_path(name) for name in images.names):
        raise SmileDataError(f"{images.path}: images, and nothing that says what they show.\n{EXPECTED_LAYOUT}")
    has_splits = any(map(_first_split, images.names))
    outside = 0
    names = images.names
    while block := list(islice(names, _PIECE)):
        rows: dict[str, list[dict[str, Any]]] = {}
        for name in block:
            path = plain_path(name)
            split = _first_split(path) if has_splits else "train"
            if split is None:
                outside += 1
                continue
            label = _label_of_folders(path, has_splits, reading, problems)
            if odd := is_odd_path(path):
                problems.append(f"{path!r} {odd}; rename the file")
            elif label is not None:
                row = {"image_id": path, "file": name, "label": label, "where": path, "problem": ""}
                rows.setdefault(split, []).append(row)
        for split, found in rows.items():
            yield split, pd.DataFrame(found)
    if outside and is_main_process():
        print(f"Note: {outside:,} images outside of train/, validation/ and test/ are not used", file=sys.stderr)


def _label_of_folders(path: str, has_splits: bool, reading: Reading, problems: Problems) -> int | None:
    folders = [folder for folder in path.split("/")[:-1] if not (has_splits and split_of(folder))]
    labels = {parse_label(folder, reading.label_map) for folder in folders if reading.is_label(folder)}
    if len(labels) == 1:
        return labels.pop()
    if labels:
        problems.append(f"{path}: in the folders of two labels")
    elif folders:
        problems.append(f"{path}: unknown label {folders[-1]!r}")
        problems.unknown_labels.setdefault(folders[-1])
    else:
        problems.append(f"{path}: not in the folder of a class")
    return None


def _first_split(path: str) -> str | None:
    return next(filter(None, map(split_of, path.split("/")[:-1])), None)


def _bind(table: pd.DataFrame, find: Callable[[str], str]) -> pd.DataFrame:
    """Put the image itself in the place of the cell that names it, or say why that can't be done."""
    files, found_problems = [], []
    for cell in table["file"]:
        file, problem = cell, ""
        try:
            file = find(cell)
        except SmileDataError as error:
            problem = str(error)
        files.append(file)
        found_problems.append(problem)
    return table.assign(file=files, problem=found_problems)


def _without_doubles(pieces: Pieces, problems: Problems) -> Pieces:
    """The same, once it is known that no id and no image is named twice. The names are kept on disk."""
    seen = sqlite3.connect("")
    seen.execute("CREATE TABLE seen (name TEXT PRIMARY KEY, place TEXT, split TEXT, label INT) WITHOUT ROWID")

    def first(name: str, row: Any, split: str) -> tuple[str, str, int] | None:
        key = name.encode("utf-8", "surrogatepass")
        added = seen.execute("INSERT OR IGNORE INTO seen VALUES (?, ?, ?, ?)", (key, row.where, split, int(row.label)))
        if added.rowcount:
            return None
        return seen.execute("SELECT place, split, label FROM seen WHERE name = ?", (key,)).fetchone()

    for split, table in pieces:
        for row in table.itertuples():
            same_id = first(f"id {row.image_id}", row, split)
            same_file = None if row.problem else first(f"file {row.file}", row, split)
            if earlier := same_id or same_file:
                place, other_split, label = earlier
                what = f"id {row.image_id!r}" if same_id else f"the image of {row.image_id!r}"
                if other_split != split:
                    problems.append(
                        f"{row.where}: {what} is in {place} too; no image may be in {other_split} and {split}"
                    )
                    continue
                other = (
                    ""
                    if -1 in (label, row.label) or label == row.label
                    else f" with another label, {LABEL_NAMES[label]!r}"
                )
                problems.append(f"{row.where}: {what} is there twice, first in {place}{other}")
        yield split, table


def collect(layout: Layout, problems: Problems) -> dict[str, pd.DataFrame]:
    """The tables by split, each whole. Where no image at all is found, one problem says so."""
    parts: dict[str, list[pd.DataFrame]] = {}
    for split, table in layout.pieces:
        parts.setdefault(split, []).append(table)
    tables = {split: pd.concat(parts[split], ignore_index=True) for split in SPLITS if split in parts}
    rows = list(chain.from_iterable(zip(table["image_id"], table["problem"], strict=True) for table in tables.values()))
    if rows and isinstance(layout.images, ImageSource) and all(problem for _, problem in rows):
        if there := next(layout.images.names, None):
            problems.append(
                f"{layout.images.path}: none of the {len(rows):,} images of the annotations is in there; "
                f"they begin with {rows[0][0]!r}, and there is {there!r}"
            )
        return {split: table[:0] for split, table in tables.items()}
    return tables
