"""Detect the layout of a folder, a zip or a data set on the Hub, and match its annotations to the images."""

from __future__ import annotations

import logging
import re
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from hf_smile.data.annotations import annotation_pieces
from hf_smile.data.arguments import EXPECTED_LAYOUT, require_data
from hf_smile.data.class_folders import base_folder, class_folders, rows_of_folders
from hf_smile.data.columns import PLAIN, Reading
from hf_smile.data.rows import is_ready_made, label_names, load_rows, parquet_files, row_pieces
from hf_smile.data.sources import METADATA, Images, ImageSource, plain_path
from hf_smile.data.splits import SPLITS, name_splits, split_of
from hf_smile.errors import Problems, SmileDataError
from hf_smile.labels import SMILE_LABELS, LabelSet
from hf_smile.shards.folder import SETTINGS
from hf_smile.utils.files import refuse_file

logger = logging.getLogger(__name__)

_NAMES_A_SPLIT = re.compile(r"^[a-z]+([-_ ](labels?|annotations?|data|set))?$", re.IGNORECASE)
_IMAGE_PLACES = ("happy_images", "images", "happy_images.zip", "images.zip")


Pieces = Iterator[tuple[str, pd.DataFrame]]
"""Pairs of split and table, with the columns `image_id`, `file`, `label`, `where`, `problem` and the user's own."""


@dataclass(frozen=True)
class Layout:
    """The annotations of a data set, the images that their column `file` refers to, and the labels."""

    pieces: Pieces
    images: Images
    labels: LabelSet = SMILE_LABELS


class Tables(dict[str, pd.DataFrame]):
    """Annotation tables by split, with the label set as an attribute."""

    labels: LabelSet = SMILE_LABELS


def read_layout(data_dir: str | Path, problems: Problems, reading: Reading = PLAIN, piece: int = 0) -> Layout:
    """Detect the layout. Problems in the annotations are reported while the pieces are read.

    Args:
        data_dir: folder or zip, or id of a data set on the Hub.
        problems: problems with the annotations are appended here.
        reading: column and label names.
        piece: rows per table, for files of any size; 0 reads each file, up to 50 MB, into one table.

    Raises:
        SmileDataError: if no layout fits.

    >>> layout = read_layout("data/sample", Problems())  # doctest: +SKIP
    """
    path = Path(data_dir)
    require_data(data_dir)

    def layout(pieces: Pieces, images: Images) -> Layout:
        labels = reading.labels or SMILE_LABELS
        return Layout(_refuse_duplicates(pieces, problems, labels), images, labels)

    if is_ready_made(data_dir):
        rows = load_rows(data_dir, reading)
        names = dict.fromkeys(name for dataset in rows.splits.values() for name in label_names(dataset))
        reading = reading.adopting(names, data_dir) if names else reading
        return layout(row_pieces(rows, reading, problems), rows)

    read = partial(annotation_pieces, problems=problems, reading=reading, piece=piece)
    if path.is_file() and path.suffix.lower() != ".zip":
        raise SmileDataError(f"{path} is a file; give the folder that contains it.\n{EXPECTED_LAYOUT}")
    if path.is_dir() and (csvs := _csv_files(path, reading)):
        tables = ((split, table) for split, file in csvs.items() for table in read(file))
        first = next(tables, None)
        images = _find_images(path, [] if first is None else first[1]["file"][:100], problems)
        bound = ((split, _bind(table, images.find)) for split, table in chain([first] if first else [], tables))
        return layout(bound, images)
    images = ImageSource(path)
    if not len(images) and len(images.inner_zips) == 1 and path.is_dir():
        images = ImageSource(path / images.inner_zips[0])
    if not len(images):
        why = images.why_empty if images.inner_zips else f"{path}: no data set found"
        raise SmileDataError(f"{why}.\n{EXPECTED_LAYOUT}")
    if images.metadata:
        return layout(_rows_of_metadata(images, read), images)
    folders = class_folders(images, reading)
    reading = folders.reading
    return layout(rows_of_folders(images, folders, problems), images)


def refuse_data_folder(output_dir: str | Path, data_dir: str | Path, replaces: str = "recipe.yaml") -> None:
    """Refuse an output folder that contains data, or lies inside the data folder.

    Args:
        output_dir: output folder, which need not exist.
        data_dir: folder, zip or Hub id of the data.
        replaces: file that marks an earlier output, which is accepted even if it contains what looks like data.

    Raises:
        SmileError: if the output folder is refused.

    >>> refuse_data_folder("outputs/model", "data/happy_images")
    """
    refuse_file(output_dir)
    folder, data = Path(output_dir), Path(data_dir)
    if data.is_dir() and folder.resolve().is_relative_to(data.resolve()):
        raise SmileDataError(f"{folder} lies in the data folder {data}; choose another --output_dir")
    if not folder.is_dir() or (folder / replaces).exists():
        return
    marks = ("train.csv", "test.csv", *METADATA, "dataset_dict.json", "state.json", SETTINGS, *_IMAGE_PLACES)
    below = [path for path in folder.glob("*/*") if split_of(path.parent.name)]
    classes = [path for path in (*folder.iterdir(), *below) if path.is_dir() and PLAIN.is_label(path.name)]
    found = [path for path in (*map(folder.joinpath, marks), *parquet_files(folder), *classes) if path.exists()]
    if found:
        raise SmileDataError(f"{folder} contains data ({found[0].relative_to(folder)}); choose another --output_dir")


def _csv_files(folder: Path, reading: Reading) -> dict[str, Path]:
    """CSV files by split. A single CSV file with any other name is train, unless there are class or split folders."""
    csvs = sorted(path for path in folder.glob("*.[cCtT][sS][vV]") if path.stem.lower() != "metadata")
    named = name_splits(path.stem for path in csvs if _NAMES_A_SPLIT.search(path.stem))
    by_split = {named[path.stem]: path for path in reversed(csvs) if path.stem in named}
    folders = [path.name for path in folder.iterdir() if path.is_dir()]
    if by_split or len(csvs) != 1 or any(split_of(name) or reading.is_label(name) for name in folders):
        return {split: by_split[split] for split in SPLITS if split in by_split}
    return {"train": csvs[0]}


def _find_images(folder: Path, cells: Iterable[str], problems: Problems) -> ImageSource:
    """Locate the images of CSV files: the first of the usual places that has them, or the only other place."""

    def holds(source: ImageSource) -> bool:
        return any(_bind(pd.DataFrame({"file": list(cells)}), source.find)["problem"] == "")

    usual = [ImageSource(folder / name) for name in _IMAGE_PLACES if (folder / name).exists()]
    if found := [source for source in usual if holds(source)]:
        if len(found) > 1:
            logger.warning(f"Note: the images are read from {found[0].path}, not from {found[1].path}")
        return found[0]
    zips = [path for path in sorted(folder.glob("*.[zZ][iI][pP]")) if path.name not in _IMAGE_PLACES]
    others = [ImageSource(path) for path in (*zips, folder)]
    fitting = [source for source in others if holds(source)]
    if len(fitting) > 1:
        names = " and in ".join(str(source.path) for source in fitting)
        raise SmileDataError(f"the images are in {names}; remove all but one, or rename one to happy_images")
    if fitting:
        return fitting[0]
    chosen = next((source for source in (*usual, *others) if len(source)), (*usual, *others)[0])
    if not len(chosen):
        looked_for = f"images are searched for in {', '.join(_IMAGE_PLACES)}, any other zip, and beside the CSV files"
        problems.append(f"{chosen.why_empty}; {looked_for}")
    return chosen


def _rows_of_metadata(images: ImageSource, read: Callable[..., Iterator[pd.DataFrame]]) -> Pieces:
    """Read metadata files. `file_name` is relative to the metadata file, and the top folder may name the split."""
    base = base_folder(images, PLAIN)
    with tempfile.TemporaryDirectory() as unpacked:
        for name in images.metadata:
            folder = PurePosixPath(plain_path(name)).parent
            path = images.path / name
            if images.path.is_file():
                path = Path(unpacked, PurePosixPath(name).name)
                path.write_bytes(images.read(name))
            for table in read(path, name=plain_path(name)):
                paths = [str(folder / file) for file in table["file"]]
                without_id = table["image_id"] == table["file"]
                bound = _bind(table.assign(file=paths), images.exact)
                bound["image_id"] = table["image_id"].where(~without_id, pd.Series(paths, table.index))
                tops = [path.removeprefix(base).split("/")[0] for path in paths]
                named = name_splits(tops)
                splits = [named.get(top, "train") for top in tops]
                for split in dict.fromkeys(splits):
                    yield split, bound[[of_row == split for of_row in splits]]


def _bind(table: pd.DataFrame, find: Callable[[str], str]) -> pd.DataFrame:
    """Replace each cell that names an image by the path of that image, or note why it can't be found."""

    def found(cell: str) -> tuple[str, str]:
        try:
            return find(cell), ""
        except SmileDataError as error:
            return cell, str(error)

    results = [found(cell) for cell in table["file"]]
    return table.assign(file=[file for file, _ in results], problem=[problem for _, problem in results])


def _refuse_duplicates(pieces: Pieces, problems: Problems, labels: LabelSet) -> Pieces:
    """Pass the tables through and report ids and images that occur twice. Those seen so far are kept on disk."""
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
                    both = f"no image may be in both {other_split} and {split}"
                    problems.append(f"{row.where}: {what} is also in {place}; {both}")
                    continue
                other = "" if label == -1 or row.label in (-1, label) else f" with another label, {labels[label]!r}"
                problems.append(f"{row.where}: {what} appears twice, first in {place}{other}")
        yield split, table


def collect(layout: Layout, problems: Problems) -> Tables:
    """Concatenate the tables of each split. If no image at all is found, a single problem says so."""
    parts: dict[str, list[pd.DataFrame]] = {}
    for split, table in layout.pieces:
        parts.setdefault(split, []).append(table)
    tables = Tables({split: pd.concat(parts[split], ignore_index=True) for split in SPLITS if split in parts})
    tables.labels = layout.labels
    rows = pd.concat(tables.values()) if tables else pd.DataFrame()
    if len(rows) and isinstance(layout.images, ImageSource) and all(rows["problem"]):
        if there := next(layout.images.names, None):
            problems.append(
                f"{layout.images.path}: none of the {len(rows):,} annotated images is there; for example, the "
                f"annotations have {rows['image_id'].iloc[0]!r} and the images are named like {there!r}"
            )
        tables |= {split: table[:0] for split, table in tables.items()}
    return tables
