"""`corrections.csv`: reviewers' decisions about labels, one per row. The annotations themselves are not changed.

The file is append-only: an `undo` row takes a decision back. If there are several about one image, the last one counts.
"""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from datasets import ClassLabel, Dataset, DatasetDict

from hf_smile.data.cells import read_rows
from hf_smile.data.columns import Reading
from hf_smile.data.splits import SPLITS
from hf_smile.errors import Problems, SmileDataError
from hf_smile.labels import LabelSet
from hf_smile.utils.csv_cells import guarded
from hf_smile.utils.words import counted

logger = logging.getLogger(__name__)

KEEP, RELABEL, UNSURE, LEAVE_OUT, UNDO = DECISIONS = ("keep", "relabel", "unsure", "leave_out", "undo")
COLUMNS = ("image_id", "old_label", "new_label", "decision", "reviewer", "time")
_HEADER = ",".join(COLUMNS) + "\n"
_COLUMN = "label as corrected"
_LEFT_OUT = -1

Facts = dict[str, dict[str, Any]]
"""Effect of correction files on a split, by SHA-256: `file`, number of `changed` labels by pair, images `left_out`."""


def now() -> str:
    """The current time in UTC, to the second: `2026-11-25T23:47:13+00:00`."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Decision(NamedTuple):
    """A row of the file: a reviewer's decision about the label of an image."""

    image_id: str
    old_label: str
    """Name of the label in the annotations."""
    new_label: str
    """Name of the new label; empty unless the decision is `relabel`."""
    decision: str
    """One of `DECISIONS`. `undo` takes back the reviewer's latest decision about the image."""
    reviewer: str
    time: str
    """Time in the format of `now`."""
    line: int = 0
    """Line number in the file; 0 if the decision was not read from a file."""


def append(path: str | Path, decision: Decision) -> None:
    """Append a decision to the file, which is created if needed. When this returns, the row is on disk.

    Raises:
        SmileDataError: if the file can't be written to, or does not begin with the header.

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
                raise SmileDataError(f"{path}: its first line is not {_HEADER.strip()}; choose another file")
            else:
                file.seek(-1, os.SEEK_END)
                text = text if file.read(1) == b"\n" else "\n" + text  # the last line lacks its newline
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
    """All rows of the file in order, with label names spelled as in `labels`.

    Raises:
        SmileDataError: if the file or some of its rows are invalid; lists all invalid rows by line.

    >>> read_decisions("corrections.csv", SMILE_LABELS)[0].decision  # doctest: +SKIP
    'relabel'
    """
    path, problems = Path(path), Problems()
    digest_of(path)  # raises if the file can't be read
    try:
        names, rows = read_rows(path, None, Reading(labels=labels))
        if missing := [name for name in COLUMNS if name not in names]:
            raise SmileDataError(f"no column {missing[0]!r}; the header of a corrections file is {','.join(COLUMNS)}")
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
    """The final decision about each image: the last one by any reviewer that was not taken back.

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
        raise ValueError(f"time {decision.time!r} does not have the format {now()}") from None
    old = labels[labels.parse(decision.old_label)]
    new = labels[labels.parse(decision.new_label)] if decision.new_label else ""
    if (decision.decision == RELABEL) != bool(new) or new == old:
        raise ValueError("new_label must be another label if the decision is relabel, otherwise empty")
    return decision._replace(old_label=old, new_label=new)


class Corrections:
    """A corrections file, matched to the data that it corrects.

    The data are split by their original labels, so the splits do not depend on the corrections.

    Args:
        path: path of the corrections file.
        given: image id and label id of every image in the data.
        labels: label set of the data.
        problems: each decision that does not match the data is appended here, with its line.

    Raises:
        SmileDataError: if the file is missing or has invalid rows.

    >>> problems = Problems()
    >>> corrections = Corrections("corrections.csv", [("7", 2)], SMILE_LABELS, problems)  # doctest: +SKIP
    """

    def __init__(
        self, path: str | Path, given: Iterable[tuple[str, int]], labels: LabelSet, problems: Problems
    ) -> None:
        self.path, self.labels = Path(path), labels
        self.digest = digest_of(path)
        self.decisions = standing(read_decisions(path, labels))
        self.new: dict[str, int] = {}
        """New label id by image id, for the images that change; -1 for those that are left out."""
        unknown = dict(self.decisions)
        for image_id, label in given:
            row = unknown.pop(image_id, None)
            if row is None or label < 0:
                continue
            if labels[label] != row.old_label:
                problems.append(
                    f"{self.path.name}:{row.line}: the label of {image_id!r} is now {labels[label]!r}, but it was "
                    f"{row.old_label!r} when it was reviewed; review it again, or remove the line"
                )
            elif row.decision in (RELABEL, LEAVE_OUT):
                self.new[image_id] = labels.parse(row.new_label) if row.decision == RELABEL else _LEFT_OUT
        for row in unknown.values():
            problems.append(f"{self.path.name}:{row.line}: the data have no image {row.image_id!r}; remove the line")

    @property
    def opinions(self) -> dict[str, int]:
        """Label id by image id, for the images whose label a reviewer kept or changed."""
        sure = [row for row in self.decisions.values() if row.decision in (KEEP, RELABEL)]
        return {row.image_id: self.labels.parse(row.new_label or row.old_label) for row in sure}

    def of(self, image_ids: Iterable[str], given: Iterable[int]) -> list[int]:
        """The label ids of images after the corrections; -1 for images that are left out."""
        return [self.new.get(image_id, label) for image_id, label in zip(image_ids, given, strict=True)]

    def facts(self, image_ids: Iterable[str], given: Sequence[int]) -> Facts:
        """The effect of the corrections on a split with these original label ids."""
        pairs = Counter((old, new) for old, new in zip(given, self.of(image_ids, given), strict=True) if old != new)
        names = {(old, new): f"{self.labels[old]} -> {self.labels[new]}" for old, new in sorted(pairs)}
        changed = {name: pairs[pair] for pair, name in names.items() if pair[1] != _LEFT_OUT}
        left_out = pairs.total() - sum(changed.values())
        return {self.digest: {"file": self.path.name, "changed": changed, "left_out": left_out}}

    def mark(self, splits: DatasetDict) -> DatasetDict:
        """The splits with the corrected labels in an additional column, for `apply`."""
        feature = ClassLabel(names=[*self.labels])
        return DatasetDict(
            {
                split: rows.add_column(_COLUMN, self.of(rows["image_id"], rows["label"]), feature=feature)
                for split, rows in splits.items()
            }
        )

    def apply(self, splits: DatasetDict) -> DatasetDict:
        """The marked splits with the corrected labels, without the images that are left out. Logs the changes."""
        done = DatasetDict()
        for split, rows in splits.items():
            facts = self.facts(rows["image_id"], rows["label"])
            columns = [name for name in rows.column_names if name != _COLUMN]
            rows = rows.select([row for row, label in enumerate(rows[_COLUMN]) if label != _LEFT_OUT])
            if not len(rows):
                raise SmileDataError(f"{self.path}: no image is left in {split}; leave out fewer images")
            rows = rows.remove_columns("label").rename_column(_COLUMN, "label").select_columns(columns)
            done[split] = with_facts(rows, facts)
        logger.info(corrections_sentence({split: facts_of(rows) for split, rows in done.items()}))
        return done


def digest_of(path: str | Path) -> str:
    """The SHA-256 of a corrections file.

    Raises:
        SmileDataError: if the file can't be read.
    """
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise SmileDataError(f"{path}: the corrections can't be read ({error.strerror}); choose another file") from None


def with_facts(dataset: Dataset, facts: Facts) -> Dataset:
    """Attach the effect of corrections to the data set. It is kept when the data set is split or saved."""
    dataset.info.download_checksums = {**(dataset.info.download_checksums or {}), **facts}
    return dataset


def facts_of(dataset: Dataset) -> Facts:
    """The effect of corrections on a data set; empty without corrections."""
    return {key: facts for key, facts in (dataset.info.download_checksums or {}).items() if "left_out" in facts}


def corrections_sentence(by_split: Mapping[str, Facts]) -> str:
    """A sentence on how many labels of each split were corrected; empty without corrections.

    >>> facts = {"3f5a": {"file": "corrections.csv", "changed": {"a -> b": 2}, "left_out": 0}}
    >>> print(corrections_sentence({"train": facts}))
    Labels were corrected by corrections.csv (SHA-256 3f5a): train 2 labels (2 a -> b).
    """
    parts, files = [], {}
    for split in (split for split in SPLITS if split in by_split):
        changed: Counter[str] = Counter()
        of_split = by_split[split]
        for digest, facts in of_split.items():
            files[digest] = f"{facts['file']} (SHA-256 {digest[:12]})"
            changed.update(facts["changed"])
        left_out = sum(facts["left_out"] for facts in of_split.values())
        words = f"{split} {counted(changed.total(), 'label')}"
        words += f" ({', '.join(f'{count:,} {pair}' for pair, count in changed.items())})" if changed else ""
        parts.append(words + f" and {counted(left_out, 'image')} left out" * bool(left_out))
    return f"Labels were corrected by {' and '.join(files.values())}: {'; '.join(parts)}." if files else ""
