"""Annotation file (CSV, JSON lines or Parquet) -> validated table, with every problem reported by file and line."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hf_smile.console import is_main_process
from hf_smile.csv_cells import unguarded
from hf_smile.data.images import IMAGE_SUFFIXES
from hf_smile.data.sources import plain_path
from hf_smile.errors import Problems, SmileDataError, first_line
from hf_smile.labels import parse_label

_ID_COLUMNS = ("image_id", "id")
_IMAGE_COLUMNS = ("file_name", "filename", "file", "path", "image_path", "image", "img")
_LABEL_COLUMNS = ("label", "labels", "class", "target")
OWN_COLUMNS = ("image_id", "file", "label", "where", "problem")
"""Columns of every table of annotations; the others are the user's."""
_RESERVED_COLUMNS = ("image", "digest", *OWN_COLUMNS)
_MAX_BYTES = 50_000_000
_MAX_LINES = 1_000_000
_MAX_LINE_LENGTH = 1_000_000
_MAX_PROBLEMS = 1_000  # a file with so many is another file
_MAX_NAME = 200  # bytes: file systems take 255, and a suffix comes on top
_TOO_LARGE = "is this an annotation file? If so, let scripts/shard_dataset.py read it, and train on what that writes"
_NO_TEXT = re.compile("[\x00\ud800-\udfff]")  # UTF-16 without its mark, or bytes that `surrogateescape` kept
_BEYOND_ASCII = re.compile("[\x80-\ud7ff\ue000-\ufefe\uff00-\U0010ffff]")
_NO_PATH = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}

Row = tuple[int, list[str]]
"""Line number and cells."""


@dataclass(frozen=True)
class Reading:
    """How annotations are to be read where the usual names of columns and labels do not fit.

    >>> Reading(label_column="emotion", label_map={"fake": 0}).columns_of(["File_Name", "emotion"])
    Columns(image_id=None, file=0, label=1)
    """

    image_column: str | None = None
    """Of the path, or of the image itself."""
    label_column: str | None = None
    id_column: str | None = None
    label_map: Mapping[str, int] = field(default_factory=dict)
    """As `hf_smile.labels.parse_label_map` returns it."""

    def columns_of(self, names: Iterable[str]) -> Columns:
        """Which of the columns are which, case aside; None for those that are not there.

        Raises:
            SmileDataError: a column that was asked for is not there.
        """
        names = [*names]
        lower = [name.strip().lower() for name in names]

        def find(wanted: str | None, option: str, usual: tuple[str, ...]) -> int | None:
            if wanted is not None and wanted.strip().lower() not in lower:
                raise SmileDataError(f"no column {wanted!r} ({option}); there is {', '.join(names)}")
            candidates = usual if wanted is None else (wanted.strip().lower(),)
            return next((lower.index(name) for name in candidates if name in lower), None)

        return Columns(
            find(self.id_column, "--id_column", _ID_COLUMNS),
            find(self.image_column, "--image_column", _IMAGE_COLUMNS),
            find(self.label_column, "--label_column", _LABEL_COLUMNS),
        )

    def is_label(self, text: str) -> bool:
        """Whether it is a spelling of a label."""
        try:
            parse_label(text, self.label_map)
        except ValueError:
            return False
        return True


PLAIN = Reading()
"""The usual names, and no further spellings."""


class Columns(NamedTuple):
    """Positions of the columns that matter."""

    image_id: int | None
    file: int | None
    label: int | None


def read_annotations(path: str | Path, problems: Problems, reading: Reading = PLAIN) -> pd.DataFrame:
    """Read one annotation file: CSV (`image_id,label`, with or without a header line), JSON lines or Parquet.

    A header names the columns, in any order and case, and further columns are kept as text. Commas, semicolons and
    tabs may separate the cells; the text is UTF-8, UTF-16 or Windows' cp1252. What is not the plain form is said.

    Args:
        path: file of up to 50 MB.
        problems: every problem found is appended here as `file:line: what is wrong`.
        reading: names of columns and labels.

    Returns:
        One row per valid line: `image_id` (str, as the file writes it), `file` (the cell that names the image), `label`
        (int, 0 to 2; -1 where it is unknown, which is a problem), `where` ("train.csv:7"), further columns.

    >>> problems = Problems()
    >>> table = read_annotations("data/happy_images/train.csv", problems)  # doctest: +SKIP
    """
    path = Path(path)
    if (size := path.stat().st_size) > _MAX_BYTES:
        problems.append(f"{path.name}: {size:,} bytes are over the limit of {_MAX_BYTES:,}; {_TOO_LARGE}")
        return pd.DataFrame(columns=["image_id", "file", "label", "where"])
    pieces = annotation_pieces(path, problems, _MAX_LINES + 1, reading, _MAX_LINES)
    return next(pieces, pd.DataFrame(columns=["image_id", "file", "label", "where"]))


def annotation_pieces(
    path: str | Path, problems: Problems, piece: int, reading: Reading = PLAIN, max_lines: int | None = None
) -> Iterator[pd.DataFrame]:
    """The same of a file of any size, in tables of so many rows, one of which is in memory at a time.

    Args:
        path: as for `read_annotations`, but for the size.
        problems: as there.
        piece: rows a table.
        reading: as there.
        max_lines: of a CSV file; a longer one is a problem.

    >>> rows = sum(map(len, annotation_pieces("data/shards/train.csv", problems, 5000)))  # doctest: +SKIP
    """
    path = Path(path)
    try:
        if path.suffix == ".parquet":
            names, rows = _parquet_rows(path)
        elif path.suffix == ".jsonl":
            names, rows = _json_rows(path)
        else:
            names, rows = _csv_rows(path, max_lines, reading, problems)
        if not names:
            return
        columns = reading.columns_of(names)
        if columns.label is None or columns.image_id is None is columns.file:
            missing = "label" if columns.label is None else "image_id"
            raise SmileDataError(f"no column {missing!r}; the header has {', '.join(names)}")
        further = _further(columns, names)
        if taken := [name for name in further if further.count(name) > 1 or name in _RESERVED_COLUMNS]:
            raise SmileDataError(f"column {taken[0]!r} is there twice, or its name is reserved")
        while block := list(islice(rows, piece)):
            yield _table(path.name, columns, names, block, reading, problems)
            if len(problems) > _MAX_PROBLEMS:
                return
    except SmileDataError as error:
        place = "" if str(error).startswith(f"{path.name}:") else f"{path.name}: "
        problems.append(f"{place}{error}")


def _table(
    file: str, columns: Columns, names: list[str], rows: list[Row], reading: Reading, problems: Problems
) -> pd.DataFrame:
    further = _further(columns, names)
    id_at = columns.file if columns.image_id is None else columns.image_id
    file_at = columns.image_id if columns.file is None else columns.file
    assert id_at is not None and file_at is not None and columns.label is not None
    records: list[dict[str, object]] = []
    for line, row in rows:
        if len(problems) > _MAX_PROBLEMS:
            problems.append(f"{file}: not read beyond line {line}, after so many problems")
            break
        where = f"{file}:{line}"
        if len(row) != len(names):
            count = f"{len(row)} column" + "s" * (len(row) != 1)
            problems.append(f"{where}: {count} where {len(names)} are expected ({','.join(names)})")
            continue
        image_id, image_file, text = plain_path(row[id_at]), plain_path(row[file_at]), row[columns.label]
        if not image_id or not image_file:
            problems.append(f"{where}: empty id" if not image_id else f"{where}: empty name of the image")
            continue
        if odd := next(filter(None, map(is_odd_path, (image_id, image_file))), None):
            problems.append(f"{where}: {image_id!r} {odd}")
            continue
        label = -1
        try:
            label = parse_label(text, reading.label_map)
        except ValueError as error:
            problems.append(f"{where}: {error}")
            problems.unknown_labels.setdefault(text.strip())
        cells = (cell for at, cell in enumerate(row) if at not in columns)
        records.append(
            {"image_id": image_id, "file": image_file, "label": label, "where": where}
            | dict(zip(further, cells, strict=True))
        )
    return pd.DataFrame.from_records(records, columns=["image_id", "file", "label", "where", *further])


def _further(columns: Columns, names: list[str]) -> list[str]:
    return [name.strip().lower() for at, name in enumerate(names) if at not in columns]


def is_odd_path(path: str) -> str | None:
    """Why it can't be the path of an image, in words; None for one that can.

    >>> is_odd_path("person0/000.jpg"), is_odd_path("a\\0b")
    (None, "can't be the name of a file")
    """
    odd = _NO_PATH.search(path) or any(len(part.encode()) > _MAX_NAME for part in path.split("/"))
    stem = path.rpartition("/")[2]
    return "can't be the name of a file" if odd or stem in ("", ".", "..") or stem.lower() in IMAGE_SUFFIXES else None


def _parquet_rows(path: Path) -> tuple[list[str], Iterator[Row]]:
    try:
        file = pq.ParquetFile(path)
        batches = (batch.to_pylist() for batch in file.iter_batches())
        rows = enumerate((row for batch in batches for row in batch), 1)
        names = file.schema_arrow.names
    except (pa.ArrowException, OSError) as error:
        raise SmileDataError(f"not a readable Parquet file ({first_line(error)}); make it again") from None
    return names, ((number, [_text(row[name]) for name in names]) for number, row in rows)


def _json_rows(path: Path) -> tuple[list[str], Iterator[Row]]:
    """The first object names the columns; what others lack is empty."""

    def objects() -> Iterator[tuple[int, dict[str, Any]]]:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                try:
                    found = json.loads(line) if line.strip() else {}
                except (ValueError, RecursionError):
                    found = None
                if not isinstance(found, dict):
                    raise SmileDataError(
                        f'{path.name}:{number}: not a JSON object ({{"file_name": ..., "label": ...}})'
                    )
                if found:
                    yield number, found

    try:
        _, first = next(objects(), (0, {}))
        if not first:
            raise SmileDataError("empty file")
        names = [*first]
        return names, ((number, [_text(row.get(name)) for name in names]) for number, row in objects())
    except UnicodeDecodeError:
        raise SmileDataError("wrong encoding: not UTF-8; save the file as UTF-8") from None


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _csv_rows(
    path: Path, max_lines: int | None, reading: Reading, problems: Problems
) -> tuple[list[str] | None, Iterator[Row]]:
    """Names of the columns, and the rows behind the header, if there is one."""
    encoding = _encoding_of(path)
    delimiter = _delimiter_of(path, encoding, reading)
    plain = encoding == "utf-8" and delimiter == ","
    if not plain and is_main_process():
        text = "UTF-8" if encoding == "utf-8" else encoding
        print(f"Note: {path.name} is read as {text} text with {_DELIMITERS[delimiter]}", file=sys.stderr)
    rows = _cells(path, encoding, delimiter, max_lines)
    head = list(islice(rows, 1000))
    if not head:
        raise SmileDataError("empty file")
    names = ["image_id", "label"]
    if _is_header(head[0][1], reading):
        line, names = head.pop(0)
        names = [name.strip() for name in names]
        if twice := [name for name, count in Counter(map(str.lower, names)).items() if count > 1]:
            raise SmileDataError(f"{path.name}:{line}: column {twice[0]!r} is there twice, or its name is reserved")
        columns = reading.columns_of(names)
        missing = "label" if columns.label is None else "image_id"
        if columns.label is None or columns.image_id is None is columns.file:
            raise SmileDataError(f"{path.name}:{line}: no column {missing!r}; the header has {', '.join(names)}")
        if not head:
            raise SmileDataError("empty file: it has a header and no rows")
    if _are_swapped(head, reading.columns_of(names), reading):
        raise SmileDataError(
            "the labels stand where the ids should; swap the two columns, "
            "or fix the header line (without one the columns are image_id,label)"
        )

    def all_rows() -> Iterator[Row]:
        yield from head
        yield from rows

    return names, all_rows()


def _is_header(row: list[str], reading: Reading) -> bool:
    """Only known names make a header: a mistyped label must not pass for one."""
    named = {reading.image_column, reading.label_column, reading.id_column} - {None}
    known = {*_ID_COLUMNS, *_IMAGE_COLUMNS, *_LABEL_COLUMNS, *(name.strip().lower() for name in named if name)}
    return bool(known & {cell.strip().lower() for cell in row})


def _encoding_of(path: Path) -> str:
    """`utf-8`, `utf-16` or `cp1252`. Of a file that is neither, the line of the first wrong byte is found later."""
    with path.open("rb") as file:
        if file.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            return "utf-16"
    letters = wrong = False
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as text:
        while chunk := text.read(1 << 20):
            if not chunk.isascii():
                letters = letters or _BEYOND_ASCII.search(chunk) is not None
                wrong = wrong or _NO_TEXT.search(chunk) is not None
    return "cp1252" if wrong and not letters else "utf-8"


def _delimiter_of(path: Path, encoding: str, reading: Reading) -> str:
    """The sign between the cells: the one by which most of the first rows show a label or the name of a column."""
    try:
        with path.open(encoding=encoding, errors="surrogateescape", newline="") as file:
            lines = file.read(65_536).splitlines()[:20]
    except UnicodeError:  # told with its line when the rows are read
        return ","

    def score(delimiter: str) -> tuple[int, int]:
        with_label = cells = 0
        try:
            for row in csv.reader(lines, delimiter=delimiter):
                with_label += _is_header(row, reading) or any(map(reading.is_label, row))
                cells += len(row)
        except csv.Error:  # told with its line when the rows are read
            pass
        return with_label, cells

    scores = {delimiter: score(delimiter) for delimiter in _DELIMITERS}
    if any(with_label for with_label, _ in scores.values()):
        return max(scores, key=lambda delimiter: scores[delimiter])
    return next((delimiter for delimiter, (_, cells) in scores.items() if cells > len(lines)), ",")


def _cells(path: Path, encoding: str, delimiter: str, max_lines: int | None) -> Iterator[Row]:
    """The lines that are not blank, as (line number, cells).

    Raises:
        SmileDataError: from here on it is not a CSV file.
    """
    # Strict: else a quotation mark that never closes would swallow the lines behind it without a word.
    reader = csv.reader(_lines(path, encoding, max_lines), strict=True, delimiter=delimiter)
    first_line_of_row = 1
    try:
        for row in reader:
            text = "".join(row)
            if text.strip():
                yield reader.line_num, list(map(unguarded, row)) if "'" in text else row
            first_line_of_row = reader.line_num + 1
    except csv.Error as error:
        unclosed = reader.line_num > first_line_of_row or "unexpected end" in str(error)
        reason = "a quotation mark opens here and never closes" if unclosed else error
        raise SmileDataError(f"{path.name}:{first_line_of_row}: not a CSV line: {reason}") from None


def _lines(path: Path, encoding: str, max_lines: int | None) -> Iterator[str]:
    wrong = "wrong encoding: neither UTF-8 nor cp1252; save the file as UTF-8"
    with path.open(encoding=encoding, errors="surrogateescape", newline="") as file:
        number = 0
        try:
            for number, line in enumerate(iter(partial(file.readline, _MAX_LINE_LENGTH + 1), ""), 1):
                if max_lines is not None and number > max_lines:
                    raise csv.Error(f"the file has more than {max_lines:,} lines; {_TOO_LARGE}")
                if len(line) > _MAX_LINE_LENGTH:
                    raise csv.Error(f"it has more than {_MAX_LINE_LENGTH:,} characters; is this an annotation file?")
                if "\0" in line or not line.isascii():
                    if _NO_TEXT.search(line):
                        raise SmileDataError(f"{path.name}:{number}: {wrong}")
                    line = line.replace("\ufeff", "")  # files that were put together have marks in the middle
                yield line
        except UnicodeError:  # of UTF-16, where nothing can be escaped
            raise SmileDataError(f"{path.name}:{number + 1}: {wrong}") from None


def _are_swapped(rows: list[Row], columns: Columns, reading: Reading) -> bool:
    """Whether no label is one, and most of the ids are. An id may well be 0, 1 or 2."""
    id_at, label_at = (columns.file if columns.image_id is None else columns.image_id), columns.label
    assert id_at is not None and label_at is not None
    whole = [row for _, row in rows if len(row) > max(id_at, label_at)]
    if any(reading.is_label(row[label_at]) for row in whole):
        return False
    return 2 * sum(reading.is_label(row[id_at]) for row in whole) > len(whole)
