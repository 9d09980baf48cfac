"""What was decided, and where the reviewer is. Each decision is on disk before the next picture is asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

from hf_smile.data.corrections import (
    KEEP,
    LEAVE_OUT,
    RELABEL,
    UNDO,
    UNSURE,
    Decision,
    append,
    now,
    read_decisions,
    standing,
)
from hf_smile.errors import SmileDataError
from hf_smile.labels import LabelSet
from hf_smile.review.queue import Entry

DECISION_KEYS = {"k": KEEP, "u": UNSURE, "x": LEAVE_OUT}
LABEL_KEYS = "123456789abcdefghijlmnopqrtvwy"
"""One a label, in their order."""


class Session:
    """The decisions of one reviewer about a queue.

    Args:
        queue: of `make_queue`.
        labels: of the data.
        path: file of corrections; what it holds is where the session resumes.
        reviewer: who decides.
        blind: the reviewer does not know the given label, and can't keep it without naming it.

    Raises:
        SmileDataError: the file is not one of corrections of these data, or there are more labels than keys.

    >>> session = Session(queue, SMILE_LABELS, "corrections.csv", "ann")  # doctest: +SKIP
    >>> session.press("k", session.start(), queue[session.start()].image_id)  # doctest: +SKIP
    1
    """

    def __init__(
        self, queue: Sequence[Entry], labels: LabelSet, path: str | Path, reviewer: str, blind: bool = False
    ) -> None:
        if len(labels) > len(LABEL_KEYS):
            raise SmileDataError(f"{len(labels)} labels; a page has keys for {len(LABEL_KEYS)}")
        self.queue, self.labels, self.path, self.reviewer, self.blind = queue, labels, Path(path), reviewer, blind
        self.position_of = {entry.image_id: position for position, entry in enumerate(queue)}
        self.decisions = read_decisions(path, labels) if self.path.is_file() else []
        for decision in self.decisions:
            position = self.position_of.get(decision.image_id)
            if position is None or labels[queue[position].label] != decision.old_label:
                raise SmileDataError(
                    f"{path}:{decision.line}: the data have no image {decision.image_id!r} with the label "
                    f"{decision.old_label!r}; name another --output"
                )
        self.standing = standing(self.decisions)
        self._lock = Lock()

    def start(self) -> int:
        """Where the reviewer was left: the first undecided picture after their last decision."""
        last = self._last()
        return self._undecided(self.position_of[last.image_id] if last else -1)

    def press(self, key: str, at: int, image_id: str) -> int:
        """Do what a key says about the picture that was shown, and name the position that comes next.

        Args:
            key: `k`, `u`, `x`, one of `LABEL_KEYS`, `z` (undo), `s` (skip), `left` or `right`; others do nothing.
            at: position of the picture, `len(queue)` for the end.
            image_id: its id; where it is another one's, as on a page of yesterday, nothing is decided.

        Raises:
            SmileDataError: the decision can't be written.
        """
        with self._lock:
            at = min(max(at, 0), len(self.queue))
            if key == "left":
                return max(at - 1, 0)
            if key == "right":
                return min(at + 1, len(self.queue))
            if key == "z":
                return self._undo(at)
            if at == len(self.queue) or self.queue[at].image_id != image_id:
                return at
            if key == "s":
                return self._undecided(at)
            decision, new = DECISION_KEYS.get(key, ""), ""
            old = self.labels[self.queue[at].label]
            if key in LABEL_KEYS[: len(self.labels)]:
                label = self.labels[LABEL_KEYS.index(key)]
                decision, new = (KEEP, "") if label == old else (RELABEL, label)
            elif decision == KEEP and self.blind:
                return at
            if not decision:
                return at
            self._write(Decision(image_id, old, new, decision, self.reviewer, now()))
            return self._undecided(at)

    def changes(self) -> Counter[str]:
        """How many labels are changed so far, by the given label."""
        return Counter(decision.old_label for decision in self.standing.values() if decision.decision == RELABEL)

    def _undo(self, at: int) -> int:
        last = self._last()
        if last is None:
            return at
        self._write(last._replace(new_label="", decision=UNDO, time=now()))
        return self.position_of[last.image_id]

    def _write(self, decision: Decision) -> None:
        append(self.path, decision)
        self.decisions.append(decision)
        self.standing = standing(self.decisions)

    def _last(self) -> Decision | None:
        """The reviewer's latest decision that was not taken back."""
        undone: Counter[str] = Counter()
        for decision in reversed(self.decisions):
            if decision.reviewer != self.reviewer:
                continue
            if decision.decision == UNDO:
                undone[decision.image_id] += 1
            elif not undone[decision.image_id]:
                return decision
            else:
                undone[decision.image_id] -= 1
        return None

    def _undecided(self, at: int) -> int:
        """The next undecided picture after a position, from the front again after the end; there, if none is left."""
        positions = [*range(at + 1, len(self.queue)), *range(min(at + 1, len(self.queue)))]
        return next((p for p in positions if self.queue[p].image_id not in self.standing), len(self.queue))
