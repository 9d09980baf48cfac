"""Read an annotation file (CSV, JSON Lines or Parquet) into a validated table. Problems name the file and line."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pandas as pd
import pyarrow as pa

from hf_smile.data.cells import TOO_LARGE, Row, read_rows
from hf_smile.data.columns import PLAIN, Columns, Reading
from hf_smile.data.images import IMAGE_SUFFIXES
from hf_smile.data.sources import plain_path
from hf_smile.errors import Problems, SmileDataError, first_line

logger = logging.getLogger(__name__)

OWN_COLUMNS = ("image_id", "file", "label", "where", "problem")
"""Columns of every annotation table. All other columns come from the user's file."""
RESERVED_COLUMNS = ("image", "digest", *OWN_COLUMNS)
_COLUMNS = OWN_COLUMNS[:4]  # `problem` is added when the images are located
_MAX_BYTES = 50_000_000
_MAX_LINES = 1_000_000
_MAX_PROBLEMS = 1_000  # with more, it is not an annotation file
_MAX_NAME = 200  # bytes: file systems allow 255, including the suffix
_NO_PATH = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


def read_annotations(
    path: str | Path, problems: Problems, reading: Reading = PLAIN, name: str | None = None
) -> pd.DataFrame:
    """Read one annotation file: CSV (`image_id,label`, with or without a header line), JSON Lines or Parquet.

    A header names the columns, in any order and case. Additional columns are kept as text. Cells may be separated by
    commas, semicolons or tabs, and encoded as UTF-8, UTF-16 or cp1252. Anything but commas and UTF-8 is logged.

    Args:
        path: annotation file, up to 50 MB.
        problems: every problem is appended here as `file:line: what is wrong`.
        reading: column and label names.
        name: file name to use in messages, by default that of `path`.

    Returns:
        One row per valid line: `image_id` (str, as in the file), `file` (the cell that names the image), `label`
        (int; -1 for an unknown label, which is a problem), `where` ("train.csv:7"), and additional columns.

    >>> problems = Problems()
    >>> table = read_annotations("data/happy_images/train.csv", problems)  # doctest: +SKIP
    """
    return next(annotation_pieces(Path(path), problems, reading, name=name), pd.DataFrame(columns=_COLUMNS))


def annotation_pieces(
    path: Path, problems: Problems, reading: Reading, piece: int = 0, name: str | None = None
) -> Iterator[pd.DataFrame]:
    """Read an annotation file of any size as a series of tables, one of which is in memory at a time.

    Args:
        path: see `read_annotations`.
        problems: see `read_annotations`.
        reading: see `read_annotations`.
        piece: rows per table; 0 reads a file of up to 50 MB and a million lines into one table.
        name: see `read_annotations`.

    >>> path = Path("data/shards/train.csv")
    >>> rows = sum(map(len, annotation_pieces(path, problems, PLAIN, 5000)))  # doctest: +SKIP
    """
    name = name or path.name
    limit = None if piece else _MAX_LINES
    try:
        if limit and (size := path.stat().st_size) > _MAX_BYTES:
            raise SmileDataError(f"{size:,} bytes are over the limit of {_MAX_BYTES:,}; {TOO_LARGE}")
        names, rows = read_rows(path, limit, reading)
        columns = reading.columns_of(names)
        if columns.label is None or columns.image_id is None is columns.file:
            missing = "label" if columns.label is None else "image_id"
            raise SmileDataError(
                f"no column {missing!r}; the header has {', '.join(names)} "
                f"(name it with --{'label' if missing == 'label' else 'id'}_column)"
            )
        lower = [column.strip().lower() for column in names]
        column, count = Counter(lower).most_common(1)[0]
        if count > 1:
            raise SmileDataError(f"column {column!r} appears twice; rename one of them")
        if dropped := [c for at, c in enumerate(lower) if c in RESERVED_COLUMNS and at not in columns]:
            logger.warning(f"Note: column {', '.join(dropped)} of {name} is not kept, because its name is reserved")
        while block := list(islice(rows, piece or _MAX_LINES + 1)):
            if limit and len(block) > limit:
                raise SmileDataError(f"more than {limit:,} rows; {TOO_LARGE}")
            yield _table(name, columns, names, block, reading, problems)
            if len(problems) > _MAX_PROBLEMS:
                return
    except SmileDataError as error:
        text = str(error)
        at_line = text.startswith(f"{path.name}:")
        problems.append(name + text.removeprefix(path.name) if at_line else f"{name}: {text}")
    except (pa.ArrowException, OSError) as error:
        if path.suffix != ".parquet":
            raise
        problems.append(f"{name}: not a readable Parquet file ({first_line(error)}); write it again")


def _table(
    file: str, columns: Columns, names: list[str], rows: list[Row], reading: Reading, problems: Problems
) -> pd.DataFrame:
    lower = [name.strip().lower() for name in names]
    further = {name: at for at, name in enumerate(lower) if at not in columns and name not in RESERVED_COLUMNS}
    id_at = columns.file if columns.image_id is None else columns.image_id
    file_at = columns.image_id if columns.file is None else columns.file
    assert id_at is not None and file_at is not None and columns.label is not None
    records: list[tuple[object, ...]] = []
    for line, row in rows:
        if len(problems) > _MAX_PROBLEMS:
            problems.append(f"{file}: not read beyond line {line}, because of too many problems")
            break
        where = f"{file}:{line}"
        if len(row) != len(names):
            count = f"{len(row)} column" + "s" * (len(row) != 1)
            problems.append(f"{where}: {count} where {len(names)} are expected ({','.join(names)})")
            continue
        image_id, image_file, text = plain_path(row[id_at]), plain_path(row[file_at]), row[columns.label]
        if not image_id or not image_file:
            problems.append(f"{where}: empty id" if not image_id else f"{where}: empty file name")
            continue
        if odd := next(filter(None, map(path_problem, (image_id, image_file))), None):
            problems.append(f"{where}: {image_id!r} {odd}")
            continue
        if not text.strip():
            problems.append(f"{where}: the label is empty")
            continue
        if text.strip().isdigit():
            problems.number_labels.setdefault(text.strip())
        hint = "; if this line is a header, name its columns with --image_column and --label_column" * (line == 1)
        label = reading.label_id(text, where, problems, hint)
        records.append((image_id, image_file, label, where, *(row[at].strip() for at in further.values())))
    return pd.DataFrame.from_records(records, columns=[*_COLUMNS, *further])


def path_problem(path: str) -> str | None:
    """Return why a path can't name an image, or None if it can.

    >>> path_problem("person0/000.jpg"), path_problem("a\\0b")
    (None, "can't be the name of a file")
    """
    odd = _NO_PATH.search(path) or any(len(part.encode()) > _MAX_NAME for part in path.split("/"))
    stem = path.rpartition("/")[2]
    return "can't be the name of a file" if odd or stem in ("", ".", "..") or stem.lower() in IMAGE_SUFFIXES else None
