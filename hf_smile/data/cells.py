"""Read an annotation file (CSV, JSON Lines or Parquet) into column names and rows of cells with line numbers."""

from __future__ import annotations

import csv
import json
import logging
import re
from collections.abc import Iterator
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from hf_smile.data.columns import Columns, Reading
from hf_smile.errors import SmileDataError
from hf_smile.utils.csv_cells import unguarded

logger = logging.getLogger(__name__)

TOO_LARGE = "is this an annotation file? If so, convert it with hf-smile shard, and train on the shards"
_MAX_LINE_LENGTH = 1_000_000
_NO_TEXT = re.compile("[\x00\ud800-\udfff]")  # UTF-16 without a byte order mark, or bytes that are not UTF-8
_BEYOND_ASCII = re.compile("[\x80-\ud7ff\ue000-\ufefe\uff00-\U0010ffff]")
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}

Row = tuple[int, list[str]]
"""Line number and cells."""


def read_rows(path: Path, max_lines: int | None, reading: Reading) -> tuple[list[str], Iterator[Row]]:
    """Open an annotation file. Its rows are read lazily.

    Args:
        path: file with the suffix `.parquet` or `.jsonl`; any other is read as CSV in UTF-8, UTF-16 or cp1252, with
            commas, semicolons or tabs. Anything but commas and UTF-8 is logged.
        max_lines: maximum number of lines in a CSV file.
        reading: names that identify a header line.

    Returns:
        The column names (`image_id`, `label` without a header), and the rows.

    Raises:
        SmileDataError: if the file is empty or invalid. For an invalid line, raised when that line is reached.
        pyarrow.ArrowException: if a Parquet file is invalid.

    >>> names, rows = read_rows(Path("train.csv"), None, Reading())  # doctest: +SKIP
    """
    if path.suffix == ".parquet":
        return _parquet_rows(path)
    return _json_rows(path) if path.suffix == ".jsonl" else _csv_rows(path, max_lines, reading)


def _parquet_rows(path: Path) -> tuple[list[str], Iterator[Row]]:
    file = pq.ParquetFile(path)
    rows = chain.from_iterable(batch.to_pylist() for batch in file.iter_batches())
    return file.schema_arrow.names, ((at, list(map(_text, row.values()))) for at, row in enumerate(rows, 1))


def _json_rows(path: Path) -> tuple[list[str], Iterator[Row]]:
    """The first object defines the columns. Keys that other objects lack become empty cells."""

    def objects() -> Iterator[tuple[int, dict[str, Any]]]:
        number = 0
        try:
            with path.open(encoding="utf-8-sig") as file:
                for number, line in enumerate(file, 1):
                    found = json.loads(line) if line.strip() else {}
                    if not isinstance(found, dict):
                        raise ValueError("an array or a number")
                    if found:
                        yield number, found
        except UnicodeDecodeError:
            raise SmileDataError(f"{path.name}:{number + 1}: wrong encoding: not UTF-8; save it as UTF-8") from None
        except (ValueError, RecursionError):
            like = '{"file_name": ..., "label": ...}'
            raise SmileDataError(f"{path.name}:{number}: each line must be a JSON object, {like}") from None

    _, first = next(objects(), (0, {}))
    if not first:
        raise SmileDataError("empty file")
    names = [*first]
    return names, ((number, [_text(row.get(name)) for name in names]) for number, row in objects())


def _text(value: Any) -> str:
    return "" if value is None else str(value).encode("utf-8", "replace").decode()  # JSON may contain lone surrogates


def _csv_rows(path: Path, max_lines: int | None, reading: Reading) -> tuple[list[str], Iterator[Row]]:
    """The column names, and the rows after the header, if any."""
    encoding = _encoding_of(path)
    delimiter = _delimiter_of(path, encoding, reading)
    plain = encoding == "utf-8" and delimiter == ","
    if not plain:
        text = "UTF-8" if encoding == "utf-8" else encoding
        logger.warning(f"Note: {path.name} is read as {text} text with {_DELIMITERS[delimiter]}")
    rows = _cells(path, encoding, delimiter, max_lines)
    head = list(islice(rows, 1000))
    if head and head[0][1][0].lower() == "sep=":
        del head[0]
    if not head:
        raise SmileDataError("empty file")
    names = ["image_id", "label"]
    if reading.needs_header or reading.is_header(head[0][1]):
        _, names = head.pop(0)
        names = [name.strip() for name in names]
        if not head:
            raise SmileDataError("empty file: it has a header and no rows")
    if _are_swapped(head, reading.columns_of(names), reading):
        raise SmileDataError(
            "the labels are in the column of the ids; swap the two columns, "
            "or fix the header line (without one the columns are image_id,label)"
        )

    return names, chain(head, rows)


def _encoding_of(path: Path) -> str:
    """`utf-8`, `utf-16` or `cp1252`. If the file is none of them, reading it raises at the first wrong line."""
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
    """The delimiter with which most of the first rows contain a label or a column name."""
    try:
        with path.open(encoding=encoding, errors="surrogateescape", newline="") as file:
            lines = file.read(65_536).splitlines()[:20]
    except UnicodeError:  # reported with its line number when the rows are read
        return ","

    if lines and (said := re.fullmatch(r'"?sep=(.)"?', lines[0].strip())) and said[1] in _DELIMITERS:
        return said[1]  # Excel's first line may name the delimiter

    def score(delimiter: str) -> tuple[int, int]:
        rows = [*csv.reader(lines, delimiter=delimiter)]
        return sum(reading.is_header(row) or any(map(reading.is_label, row)) for row in rows), sum(map(len, rows))

    scores = {delimiter: score(delimiter) for delimiter in _DELIMITERS}
    if any(with_label for with_label, _ in scores.values()):
        return max(scores, key=lambda delimiter: scores[delimiter])
    return next((delimiter for delimiter, (_, cells) in scores.items() if cells > len(lines)), ",")


def _cells(path: Path, encoding: str, delimiter: str, max_lines: int | None) -> Iterator[Row]:
    """The lines that are not blank, as (line number, cells).

    Raises:
        SmileDataError: if a line is not valid CSV.
    """
    # Strict, because otherwise an unclosed quotation mark would silently swallow the lines after it.
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
        reason = "a quotation mark opens here and is never closed" if unclosed else error
        raise SmileDataError(f"{path.name}:{first_line_of_row}: not a CSV line: {reason}") from None


def _lines(path: Path, encoding: str, max_lines: int | None) -> Iterator[str]:
    wrong = "wrong encoding: neither UTF-8 nor cp1252; save the file as UTF-8"
    with path.open(encoding=encoding, errors="surrogateescape", newline="") as file:
        number = 0
        try:
            for number, line in enumerate(iter(partial(file.readline, _MAX_LINE_LENGTH + 1), ""), 1):
                if max_lines is not None and number > max_lines:
                    raise csv.Error(f"the file has more than {max_lines:,} lines; {TOO_LARGE}")
                if len(line) > _MAX_LINE_LENGTH:
                    raise csv.Error(f"it has more than {_MAX_LINE_LENGTH:,} characters; is this an annotation file?")
                if "\0" in line or not line.isascii():
                    if _NO_TEXT.search(line):
                        raise SmileDataError(f"{path.name}:{number}: {wrong}")
                    line = line.replace("\ufeff", "")  # concatenated files have byte order marks in the middle
                yield line
        except UnicodeError:  # from UTF-16, which `surrogateescape` does not cover
            raise SmileDataError(f"{path.name}:{number + 1}: {wrong}") from None


def _are_swapped(rows: list[Row], columns: Columns, reading: Reading) -> bool:
    """Whether none of the labels is valid, but most of the ids are. An id alone may well be 0, 1 or 2."""
    id_at, label_at = (columns.file if columns.image_id is None else columns.image_id), columns.label
    if id_at is None or label_at is None:
        return False
    whole = [row for _, row in rows if len(row) > max(id_at, label_at)]
    if any(reading.is_label(row[label_at]) for row in whole):
        return False
    return 2 * sum(reading.is_label(row[id_at]) for row in whole) > len(whole)
