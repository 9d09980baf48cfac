"""Annotation CSV -> validated table, with every problem reported by file and line."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import pandas as pd

from hf_smile.csv_cells import unguarded
from hf_smile.data.images import IMAGE_SUFFIXES
from hf_smile.errors import Problems, SmileDataError
from hf_smile.labels import LABEL_NAMES, parse_label

_ID_COLUMNS = ("image_id", "id", "image", "filename", "file_name")
_LABEL_COLUMNS = ("label", "class")
_RESERVED_COLUMNS = ("image", "where", "digest")
_MAX_BYTES = 50_000_000
_MAX_LINES = 1_000_000
_MAX_LINE_LENGTH = 1_000_000
_MAX_PROBLEMS = 1_000  # a file with so many is another file
_TOO_LARGE = "is this an annotation file? If so, let scripts/shard_dataset.py read it, and train on what that writes"
_NO_TEXT = re.compile("[\x00\ud800-\udfff]")  # UTF-16 without its mark, or bytes that `surrogateescape` kept
_NO_FILE_NAME = re.compile("[\x00-\x1f\x7f/\\\\\ud800-\udfff]")


def read_annotations(path: str | Path, problems: Problems) -> pd.DataFrame:
    """Read one annotation file: `image_id,label`, with or without a header line.

    The id may carry an image suffix or a folder; labels are matched without regard to case and outer blanks. A header
    names the columns, in any order, and further columns are kept as text.

    Args:
        path: UTF-8 CSV file of up to 50 MB, with or without a byte order mark.
        problems: every problem found is appended here as `file:line: what is wrong`.

    Returns:
        One row per valid line: `image_id` (str), `label` (int, 0 to 2), `where` ("train.csv:7"), further columns.

    >>> problems = Problems()
    >>> table = read_annotations("data/happy_images/train.csv", problems)  # doctest: +SKIP
    """
    path, nothing = Path(path), pd.DataFrame({"image_id": [], "label": [], "where": []})
    if (size := path.stat().st_size) > _MAX_BYTES:
        problems.append(f"{path.name}: {size:,} bytes are over the limit of {_MAX_BYTES:,}; {_TOO_LARGE}")
        return nothing
    return next(annotation_pieces(path, problems, _MAX_LINES + 1, _MAX_LINES), nothing)


def annotation_pieces(
    path: str | Path, problems: Problems, piece: int, max_lines: int | None = None
) -> Iterator[pd.DataFrame]:
    """The same of a file of any size, in tables of so many rows, one of which is in memory at a time.

    An id that comes again in a later piece is for the caller to find.

    Args:
        path: as for `read_annotations`, but for the size.
        problems: as there.
        piece: rows a table.
        max_lines: of the file; a longer one is a problem.

    >>> rows = sum(map(len, annotation_pieces("data/shards/train.csv", problems, 5000)))  # doctest: +SKIP
    """
    path = Path(path)
    columns: list[str] | None = None
    rows = _rows(path, max_lines)
    try:
        while block := list(islice(rows, piece)):
            if columns is None and not (columns := _columns_of(path.name, block, problems)):
                return
            yield _table(path.name, columns, block, problems)
            if len(problems) > _MAX_PROBLEMS:
                return
    except SmileDataError as error:
        problems.append(str(error))
    else:
        if columns is None:
            problems.append(f"{path.name}: empty file")


def _columns_of(file: str, rows: list[tuple[int, list[str]]], problems: Problems) -> list[str] | None:
    """The names of the columns; a header is taken off the rows. None where they are not the two that are needed."""
    if misread := _misread(rows):
        problems.append(f"{file}: {misread}")
        return None
    columns = _read_header(rows[0][1])
    if columns is None:
        columns = ["image_id", "label"]
    else:
        header_line, header = rows.pop(0)
        missing = [name for name in ("image_id", "label") if name not in columns]
        if missing:
            problems.append(f"{file}:{header_line}: no column {missing[0]!r}; the header has {', '.join(header)}")
            return None
        count_of = Counter(columns)
        if taken := [name for name in columns if count_of[name] > 1 or name in _RESERVED_COLUMNS]:
            problems.append(f"{file}:{header_line}: column {taken[0]!r} is there twice, or its name is reserved")
            return None
        if not rows:
            problems.append(f"{file}: empty file: it has a header and no rows")
    if _are_swapped(rows, columns):
        problems.append(
            f"{file}: the labels stand where the ids should; swap the two columns, "
            "or mend the header line (without one the columns are image_id,label)"
        )
        return None
    return columns


def _table(file: str, columns: list[str], rows: list[tuple[int, list[str]]], problems: Problems) -> pd.DataFrame:
    records: list[dict[str, object]] = []
    seen: dict[str, tuple[int, int | None]] = {}
    for line, row in rows:
        if len(problems) > _MAX_PROBLEMS:
            problems.append(f"{file}: not read beyond line {line}, after so many problems")
            break
        where = f"{file}:{line}"
        if len(row) != len(columns):
            count = f"{len(row)} column" + "s" * (len(row) != 1)
            problems.append(f"{where}: {count} where {len(columns)} are expected ({','.join(columns)})")
            continue
        record: dict[str, object] = {**dict(zip(columns, row, strict=True)), "where": where}
        image_id = normalize_image_id(str(record["image_id"]))
        label: int | None = None
        try:
            label = parse_label(str(record["label"]))
        except ValueError as error:
            problems.append(f"{where}: {error}")
        if not image_id:
            problems.append(f"{where}: empty id")
        elif not is_file_name(image_id):
            problems.append(f"{where}: id {image_id!r} can't be the name of a file")
        elif image_id in seen:
            first_line, first_label = seen[image_id]
            contradicted = ""
            if first_label is not None and label not in (None, first_label):
                contradicted = f" with another label, {LABEL_NAMES[first_label]!r}"
            problems.append(f"{where}: id {image_id!r} is there twice, first in line {first_line}{contradicted}")
        if image_id not in seen and label is not None:
            records.append(record | {"image_id": image_id, "label": label})
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
    name = unicodedata.normalize("NFC", text.strip()).replace("\\", "/").rstrip("/").rpartition("/")[2]
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES else name


def is_file_name(image_id: str) -> bool:
    """Whether an image can be written under its id: no folder, no control character, no more than 200 bytes.

    >>> is_file_name("05684c70"), is_file_name(".."), is_file_name("a\\0b")
    (True, False, False)
    """
    return (
        image_id not in ("", ".", "..")
        and not _NO_FILE_NAME.search(image_id)
        and len(image_id.encode()) <= 200  # file systems take 255, and a suffix comes on top
    )


def _rows(path: Path, max_lines: int | None) -> Iterator[tuple[int, list[str]]]:
    """The lines that are not blank, as (line number, cells).

    Raises:
        SmileDataError: from here on it is no CSV file.
    """
    # Strict: else a quotation mark that never closes would swallow the lines behind it without a word.
    reader = csv.reader(_lines(path, max_lines), strict=True)
    first_line = 1
    try:
        for row in reader:
            text = "".join(row)
            if text.strip():
                yield reader.line_num, list(map(unguarded, row)) if "'" in text else row
            first_line = reader.line_num + 1
    except csv.Error as error:
        unclosed = reader.line_num > first_line or "unexpected end" in str(error)
        reason = "a quotation mark opens here and never closes" if unclosed else error
        raise SmileDataError(f"{path.name}:{first_line}: not a CSV line: {reason}") from None


def _lines(path: Path, max_lines: int | None) -> Iterator[str]:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        for number, line in enumerate(iter(partial(file.readline, _MAX_LINE_LENGTH + 1), ""), 1):
            if max_lines is not None and number > max_lines:
                raise csv.Error(f"the file has more than {max_lines:,} lines; {_TOO_LARGE}")
            if len(line) > _MAX_LINE_LENGTH:
                raise csv.Error(f"it has more than {_MAX_LINE_LENGTH:,} characters; is this an annotation file?")
            if "\0" in line or not line.isascii():
                if _NO_TEXT.search(line):
                    raise SmileDataError(f"{path.name}:{number}: wrong encoding: not UTF-8; save the file as UTF-8")
                line = line.replace("\ufeff", "")  # files that were put together have byte order marks in the middle
            yield line


def _misread(rows: list[tuple[int, list[str]]]) -> str | None:
    """What is wrong with a file whose lines all hold the separator that spreadsheets write instead of commas."""
    if len(rows[0][1]) == 1:
        for sign, name in ((";", "semicolons"), ("\t", "tabs")):
            if all(any(sign in cell for cell in row) for _, row in rows):
                return f"the cells are separated by {name}; save the file with commas (CSV, comma separated)"
    return None


def _are_swapped(rows: list[tuple[int, list[str]]], columns: list[str]) -> bool:
    """Whether no label is one, and most of the ids are. An id may well be 0, 1 or 2."""
    id_column, label_column = columns.index("image_id"), columns.index("label")
    whole = [row for _, row in rows if len(row) == len(columns)]
    if any(_is_label(row[label_column]) for row in whole):
        return False
    return 2 * sum(_is_label(row[id_column]) for row in whole) > len(whole)


def _is_label(text: str) -> bool:
    try:
        parse_label(text)
    except ValueError:
        return False
    return True


def _read_header(row: list[str]) -> list[str] | None:
    """Column names if `row` is a header. Only known names make one: a mistyped label must not pass for a header."""
    names = [cell.strip().lower() for cell in row]
    if not set(names) & {*_ID_COLUMNS, *_LABEL_COLUMNS}:
        return None
    for standard, accepted in (("image_id", _ID_COLUMNS), ("label", _LABEL_COLUMNS)):
        if standard not in names:
            used = next((name for name in accepted if name in names), None)
            names = [standard if name == used else name for name in names]
    return names
