"""The decisions and the position of a reviewer. Each decision is on disk before the next picture is shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from threading import Lock

from hf_smile.data.corrections import (
    KEEP,
    LEAVE_OUT,
    RELABEL,
    UNDO,
    UNSURE,
    Corrections,
    Decision,
    append,
    now,
    read_decisions,
    standing,
)
from hf_smile.errors import Problems, SmileDataError
from hf_smile.labels import LabelSet
from hf_smile.review.queue import Entry

LABEL_KEYS = "123456789abcdefghijlmnopqrtvwy"
"""Keys of the labels, in order."""
_DECISION_KEYS = {"k": KEEP, "u": UNSURE, "x": LEAVE_OUT}


class Session:
    """The decisions of one reviewer about a queue.

    Args:
        queue: pictures to review, from `make_queue`.
        labels: label set of the data.
        path: corrections file. If it exists, the session resumes after its last decision.
        reviewer: name of the reviewer.
        blind: whether the given label is hidden. It can then only be kept by choosing it.

    Raises:
        SmileDataError: if the file does not contain corrections of these data, or there are more labels than keys.

    >>> session = Session(queue, SMILE_LABELS, "corrections.csv", "ann")  # doctest: +SKIP
    >>> session.press("k", session.start(), queue[session.start()].image_id)  # doctest: +SKIP
    1
    """

    def __init__(
        self, queue: Sequence[Entry], labels: LabelSet, path: str | Path, reviewer: str, blind: bool = False
    ) -> None:
        if len(labels) > len(LABEL_KEYS):
            raise SmileDataError(f"{len(labels)} labels are too many; the page has keys for {len(LABEL_KEYS)}")
        self.queue, self.labels, self.path, self.reviewer, self.blind = queue, labels, Path(path), reviewer, blind
        self.position_of = {entry.image_id: position for position, entry in enumerate(queue)}
        self._decisions: list[Decision] = []
        self._own: list[Decision] = []  # the reviewer's decisions that were not taken back
        if self.path.is_file():
            problems = Problems()
            Corrections(path, ((entry.image_id, entry.label) for entry in queue), labels, problems)
            problems.raise_if_any(path, "Or choose another --output.")
            for decision in read_decisions(path, labels):
                self._count(decision)
        self.standing = standing(self._decisions)
        self._lock = Lock()

    def start(self) -> int:
        """The start position: the first undecided picture after the reviewer's last decision."""
        return self._undecided(self.position_of[self._own[-1].image_id] if self._own else -1)

    def press(self, key: str, at: int, image_id: str) -> int:
        """Handle a key for the picture shown, and return the next position.

        Args:
            key: `k`, `u`, `x`, one of `LABEL_KEYS`, `z` (undo), `s` (skip), `left` or `right`; others do nothing.
            at: position of the picture; `len(queue)` at the end.
            image_id: id of the picture. If it does not match `at`, as on an outdated page, nothing is decided.

        Raises:
            SmileDataError: if the decision can't be written.
        """
        with self._lock:
            if key in ("left", "right"):
                return min(max(at + (1 if key == "right" else -1), 0), len(self.queue))
            if key == "z" and self._own:
                last = self._own[-1]
                self._write(last._replace(new_label="", decision=UNDO, time=now()))
                return self.position_of[last.image_id]
            if self.position_of.get(image_id) != at:
                return at
            old, new, decision = self.labels[self.queue[at].label], "", _DECISION_KEYS.get(key)
            if key in LABEL_KEYS[: len(self.labels)]:
                new = self.labels[LABEL_KEYS.index(key)]
                new, decision = ("", KEEP) if new == old else (new, RELABEL)
            elif decision == KEEP and self.blind:
                decision = None
            if decision:
                self._write(Decision(image_id, old, new, decision, self.reviewer, now()))
            return self._undecided(at) if decision or key == "s" else at

    def changes(self) -> Counter[str]:
        """Number of changed labels, by given label."""
        return Counter(decision.old_label for decision in self.standing.values() if decision.decision == RELABEL)

    def _write(self, decision: Decision) -> None:
        append(self.path, decision)
        self._count(decision)
        self.standing = standing(self._decisions)

    def _count(self, decision: Decision) -> None:
        self._decisions.append(decision)
        if decision.reviewer == self.reviewer and decision.decision != UNDO:
            self._own.append(decision)
        elif decision.reviewer == self.reviewer:
            last = max(at for at, own in enumerate(self._own) if own.image_id == decision.image_id)
            del self._own[last]

    def _undecided(self, at: int) -> int:
        """Position of the next undecided picture, wrapping around at the end; `len(queue)` if none is left."""
        positions = chain(range(at + 1, len(self.queue)), range(at + 1))
        return next((p for p in positions if self.queue[p].image_id not in self.standing), len(self.queue))
