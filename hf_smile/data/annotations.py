"""Annotation CSV -> validated table, with every problem reported by file and line."""

from __future__ import annotations

import csv
import io
import unicodedata
from pathlib import Path, PurePosixPath

import pandas as pd

from hf_smile.data.images import IMAGE_SUFFIXES
from hf_smile.errors import Problems
from hf_smile.labels import LABEL_NAMES, parse_label

_ID_COLUMNS = ("image_id", "id", "image", "filename", "file_name")
_LABEL_COLUMNS = ("label", "class")
_RESERVED_COLUMNS = ("image", "where", "digest")


def read_annotations(path: str | Path, problems: Problems) -> pd.DataFrame:
    """Read one annotation file: `image_id,label`, with or without a header line.

    The id may carry an image suffix or a folder; labels are matched without regard to case and outer blanks. A header
    names the columns, in any order, and further columns are kept as text.

    Args:
        path: UTF-8 CSV file, with or without a byte order mark.
        problems: every problem found is appended here as `file:line: what is wrong`.

    Returns:
        One row per valid line: `image_id` (str), `label` (int, 0 to 2), `where` ("train.csv:7"), further columns.

    >>> problems = Problems()
    >>> table = read_annotations("data/happy_images/train.csv", problems)  # doctest: +SKIP
    """
    path = Path(path)
    rows = _read_rows(path, problems)
    if not rows:
        return pd.DataFrame({"image_id": [], "label": [], "where": []})
    if misread := _misread(rows):
        problems.append(f"{path.name}: {misread}")
        return pd.DataFrame({"image_id": [], "label": [], "where": []})
    columns = read_header(rows[0][1])
    if columns is None:
        columns = ["image_id", "label"]
    else:
        header_line, header = rows.pop(0)
        missing = [name for name in ("image_id", "label") if name not in columns]
        if missing:
            problems.append(f"{path.name}:{header_line}: no column {missing[0]!r}; the header has {', '.join(header)}")
            return pd.DataFrame({"image_id": [], "label": [], "where": []})
        if taken := [name for name in columns if columns.count(name) > 1 or name in _RESERVED_COLUMNS]:
            problems.append(f"{path.name}:{header_line}: column {taken[0]!r} is there twice, or its name is reserved")
            return pd.DataFrame({"image_id": [], "label": [], "where": []})
        if not rows:
            problems.append(f"{path.name}: empty file: it has a header and no rows")
    if _are_swapped(rows, columns):
        problems.append(
            f"{path.name}: the labels stand where the ids should; swap the two columns, "
            "or mend the header line (without one the columns are image_id,label)"
        )
        return pd.DataFrame({"image_id": [], "label": [], "where": []})

    records: list[dict[str, object]] = []
    seen: dict[str, tuple[int, int | None]] = {}
    for line, row in rows:
        where = f"{path.name}:{line}"
        if len(row) != len(columns):
            count = f"{len(row)} column" + "s" * (len(row) != 1)
            problems.append(f"{where}: {count} where {len(columns)} are expected ({','.join(columns)})")
            continue
        record: dict[str, object] = {**dict(zip(columns, row, strict=True)), "where": where}
        image_id = normalize_image_id(str(record["image_id"]))
        label: int | None = None
        try:
            label = parse_label(str(record["label"]))
            records.append(record | {"image_id": image_id, "label": label})
        except ValueError as error:
            problems.append(f"{where}: {error}")
        if not image_id:
            problems.append(f"{where}: empty id")
        elif image_id in seen:
            first_line, first_label = seen[image_id]
            contradicted = ""
            if first_label is not None and label not in (None, first_label):
                contradicted = f" with another label, {LABEL_NAMES[first_label]!r}"
            problems.append(f"{where}: id {image_id!r} is there twice, first in line {first_line}{contradicted}")
        seen.setdefault(image_id, (line, label))
    return pd.DataFrame.from_records(records, columns=[*columns, "where"])


def check_disjoint(train: pd.DataFrame, test: pd.DataFrame, problems: Problems) -> None:
    """Append a problem for every image that both splits hold."""
    first = train.drop_duplicates("image_id").set_index("image_id")["where"]
    for image_id, where in zip(test["image_id"], test["where"], strict=True):
        if image_id and image_id in first.index:
            problems.append(f"{where}: id {image_id!r} is in {first[image_id]} too; no image may be in train and test")


def normalize_image_id(text: str) -> str:
    """The id without outer blanks, folder and image suffix.

    >>> normalize_image_id(" happy_images/05684c70.JPG ")
    '05684c70'
    """
    name = PurePosixPath(unicodedata.normalize("NFC", text.strip()).replace("\\", "/")).name
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES else name


def _read_rows(path: Path, problems: Problems) -> list[tuple[int, list[str]]]:
    """The lines that are not blank, as (line number, cells)."""
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problems.append(f"{path.name}:{line}: wrong encoding: not UTF-8; save the file as UTF-8")
        return []
    reader = csv.reader(io.StringIO(text, newline=""))
    rows = []
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append((reader.line_num, row))
    except csv.Error as error:
        problems.append(f"{path.name}:{reader.line_num}: not a CSV line: {error}")
        return []
    if not rows:
        problems.append(f"{path.name}: empty file")
    return rows


def _misread(rows: list[tuple[int, list[str]]]) -> str | None:
    """What is wrong with a file whose lines all hold the separator that spreadsheets write instead of commas."""
    if len(rows[0][1]) == 1:
        for sign, name in ((";", "semicolons"), ("\t", "tabs")):
            if all(any(sign in cell for cell in row) for _, row in rows):
                return f"the cells are separated by {name}; save the file with commas (CSV, comma separated)"
    return None


def _are_swapped(rows: list[tuple[int, list[str]]], columns: list[str]) -> bool:
    """Whether no label is one, and most of the ids are. An id may well be 0, 1 or 2."""
    cells = [dict(zip(columns, row, strict=True)) for _, row in rows if len(row) == len(columns)]
    labels_as_ids = sum(_is_label(row["image_id"]) for row in cells)
    return 2 * labels_as_ids > len(cells) and not any(_is_label(row["label"]) for row in cells)


def _is_label(text: str) -> bool:
    try:
        parse_label(text)
    except ValueError:
        return False
    return True


def read_header(row: list[str]) -> list[str] | None:
    """Column names if `row` is a header. Only known names make one: a mistyped label must not pass for a header."""
    names = [cell.strip().lower() for cell in row]
    if not set(names) & {*_ID_COLUMNS, *_LABEL_COLUMNS}:
        return None
    for standard, accepted in (("image_id", _ID_COLUMNS), ("label", _LABEL_COLUMNS)):
        if standard not in names:
            names = [standard if name == next((a for a in accepted if a in names), None) else name for name in names]
    return names
