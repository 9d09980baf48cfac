"""`corrections.csv`: what people decided about labels, one decision a row; the annotations themselves stay as they are.

The file only grows: a decision is taken back by a row `undo`, and of several about one image the last counts.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from hf_smile.data.cells import read_rows
from hf_smile.data.columns import Reading
from hf_smile.errors import Problems, SmileDataError
from hf_smile.labels import LabelSet
from hf_smile.utils.csv_cells import guarded

KEEP, RELABEL, UNSURE, LEAVE_OUT, UNDO = DECISIONS = ("keep", "relabel", "unsure", "leave_out", "undo")
COLUMNS = ("image_id", "old_label", "new_label", "decision", "reviewer", "time")
_HEADER = ",".join(COLUMNS) + "\n"


def now() -> str:
    """UTC, to the second: `2026-11-25T23:47:13+00:00`."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Decision(NamedTuple):
    """A row of the file: what a reviewer said of the label of an image."""

    image_id: str
    old_label: str
    """The name of the label in the annotations."""
    new_label: str
    """The name of another label; empty unless the decision is `relabel`."""
    decision: str
    """One of `DECISIONS`. `undo` takes back the reviewer's latest decision about the image."""
    reviewer: str
    time: str
    """As `now` gives it."""
    line: int = 0
    """Of the file; 0 where it was not read from one."""


def append(path: str | Path, decision: Decision) -> None:
    """Add a decision to the file, which is made if it is not there. When this returns, the row is on disk.

    Raises:
        SmileDataError: the file can't be written to, or does not begin with the header.

    >>> append("corrections.csv", Decision("7", "NOT smile", "", "keep", "ann", now()))  # doctest: +SKIP
    """
    row = io.StringIO()
    csv.writer(row, lineterminator="\n").writerow(map(guarded, decision[: len(COLUMNS)]))
    try:
        with Path(path).open("a+b", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            text = row.getvalue()
            if not size:
                text = _HEADER + text
            elif file.read(len(_HEADER)).replace(b"\r\n", b"\n").rstrip() != _HEADER.rstrip().encode():
                raise SmileDataError(f"{path}: its first line is not {_HEADER.strip()}; name another file")
            else:
                file.seek(-1, os.SEEK_END)
                text = text if file.read(1) == b"\n" else "\n" + text  # an editor left the last line open
            try:
                if file.write(text.encode()) < len(text.encode()):
                    raise OSError(None, "the disk is full")
                os.fsync(file.fileno())
            except OSError:
                file.truncate(size)
                raise
    except OSError as error:
        raise SmileDataError(f"{path}: the decision can't be written ({error.strerror})") from None


def read_decisions(path: str | Path, labels: LabelSet) -> list[Decision]:
    """All rows of the file, in their order, with the names of labels as `labels` spells them.

    Raises:
        SmileDataError: each row that can't be right, with its line.

    >>> read_decisions("corrections.csv", SMILE_LABELS)[0].decision  # doctest: +SKIP
    'relabel'
    """
    path, problems = Path(path), Problems()
    if not path.is_file():
        raise SmileDataError(f"{path}: there is no such file of corrections")
    try:
        names, rows = read_rows(path, None, Reading(labels=labels))
        if missing := [name for name in COLUMNS if name not in names]:
            raise SmileDataError(f"no column {missing[0]!r}; the header of corrections is {','.join(COLUMNS)}")
        decisions = []
        standing: Counter[tuple[str, str]] = Counter()
        for line, cells in rows:
            try:
                if len(cells) != len(names):
                    raise ValueError(f"{len(cells)} columns where {len(names)} are expected")
                decision = _checked(dict(zip(names, cells, strict=True)), line, labels)
                who = decision.image_id, decision.reviewer
                standing[who] += -1 if decision.decision == UNDO else 1
                if standing[who] < 0:
                    raise ValueError(f"nothing to undo about {decision.image_id!r} by {decision.reviewer!r}")
                decisions.append(decision)
            except ValueError as error:
                problems.append(f"{path.name}:{line}: {error}")
    except SmileDataError as error:
        raise SmileDataError(f"{path}: {str(error).removeprefix(f'{path.name}:')}") from None
    problems.raise_if_any(path)
    return decisions


def standing(decisions: Iterable[Decision]) -> dict[str, Decision]:
    """The decision about each image that counts: the last that was not taken back, of whichever reviewer.

    >>> rows = [Decision("7", "NOT smile", "", word, "ann", now()) for word in ("unsure", "keep", "undo")]
    >>> standing(rows)["7"].decision
    'unsure'
    """
    of_image: dict[str, list[Decision]] = {}
    for decision in decisions:
        rows = of_image.setdefault(decision.image_id, [])
        if decision.decision != UNDO:
            rows.append(decision)
        elif own := [at for at, row in enumerate(rows) if row.reviewer == decision.reviewer]:
            del rows[own[-1]]
    return {image_id: rows[-1] for image_id, rows in of_image.items() if rows}


def _checked(cells: dict[str, str], line: int, labels: LabelSet) -> Decision:
    cells = {name: cells[name].strip() for name in COLUMNS}
    decision = Decision(**cells, line=line)
    if not decision.image_id:
        raise ValueError("empty image_id")
    if decision.decision not in DECISIONS:
        raise ValueError(f"unknown decision {decision.decision!r}; expected one of {', '.join(DECISIONS)}")
    try:
        datetime.fromisoformat(decision.time)
    except ValueError:
        raise ValueError(f"time {decision.time!r} is not of the form {now()}") from None
    old = labels[labels.parse(decision.old_label)]
    new = labels[labels.parse(decision.new_label)] if decision.new_label else ""
    if (decision.decision == RELABEL) != bool(new) or new == old:
        raise ValueError("new_label must be another label where the decision is relabel, and else empty")
    return decision._replace(old_label=old, new_label=new)
