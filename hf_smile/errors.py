"""Errors a user can cause. Their message says what is wrong, where, and how to fix it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import chain, islice, zip_longest

REPORTED_PROBLEMS = 20
_MAX_UNKNOWN_LABELS = 10  # a column with more unknown values probably doesn't contain labels
_REPORTED_LENGTH = 300


class SmileError(Exception):
    """Base class of errors that a user can cause. `utils.console.run_script` prints them without a traceback."""


class SmileDataError(SmileError):
    """Something is wrong with the annotations, the images or the predictions."""


class SmileModelError(SmileError):
    """Something is wrong with the backbone, the checkpoint or the settings."""


class MissingPackageError(SmileError, ModuleNotFoundError):
    """A package is not installed that hf_smile or an extra brings; `name` is its import name, or several of them."""


def first_line(error: object) -> str:
    """First line of the message of a library's error; the type of the error if it has no message.

    >>> first_line(ValueError("no such layer\\nSee the documentation ..."))
    'no such layer'
    >>> first_line(KeyboardInterrupt())
    'KeyboardInterrupt'
    """
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _one_line(text: str) -> str:
    """Shorten and escape: names and cells may contain line breaks, terminal commands, or an entire file."""
    text = text if len(text) <= _REPORTED_LENGTH else f"{text[:_REPORTED_LENGTH]} ..."
    return "".join(letter if letter.isprintable() else "?" for letter in text)


class Problems(list[str]):
    """Problems of the data, collected so that one message reports them all.

    Attributes:
        unknown_labels: labels that `--label_map` could map, in the order in which they were found.
        number_labels: labels that are numbers. If one of them is unknown, the others may be numbered differently too.

    >>> Problems(["train.csv:3: empty id"]).raise_if_any("happy_images")
    Traceback (most recent call last):
    hf_smile.errors.SmileDataError: 1 problem in happy_images:
      train.csv:3: empty id
    """

    def __init__(self, problems: Iterable[str] = ()) -> None:
        super().__init__(problems)
        self.unknown_labels: dict[str, None] = {}
        self.number_labels: dict[str, None] = {}

    def add_images(self, rows: Iterable[Iterable[str]]) -> None:
        """Add rows of place, image id and problem; a row with an empty problem is skipped."""
        self.extend(f"{place}: image {image_id!r}: {problem}" for place, image_id, problem in rows if problem)

    def raise_if_any(self, where: object, hint: str = "") -> None:
        """Raise a `SmileDataError` with up to 20 problems, their total and a `hint` on how to fix them.

        Problems that differ only in place share a line. With more than 20 lines, the message shows some of each kind.
        """
        if not self:
            return
        lines = [f"{len(self):,} problem{'s' if len(self) > 1 else ''} in {where}:"]
        shown = 0
        for problem, count in self._some_of_each_kind():
            again = f" (and {count - 1:,} more like this)" if count > 1 else ""
            lines.append(f"  {_one_line(problem)}{again}")
            shown += count
        if shown < len(self):
            lines.append(f"  ... and {len(self) - shown:,} more")
        if 0 < len(self.unknown_labels) <= _MAX_UNKNOWN_LABELS:
            numbers = self.number_labels if any(map(str.isdigit, self.unknown_labels)) else {}
            pairs = ",".join(f"{label}=..." for label in {**numbers, **self.unknown_labels})
            lines.append(f'Map each one to a label: --label_map "{_one_line(pairs)}"')
            lines[-1] += ". Or name the labels of your data in the order of their ids: --labels NAME NAME ..."
        raise SmileDataError("\n".join(lines + [hint] * bool(hint)))

    def _some_of_each_kind(self) -> list[tuple[str, int]]:
        """Up to 20 problems, each with the number of problems that differ from it only in place.

        Two problems are of the same kind if they differ only in place, numbers and quoted text.
        """
        same: dict[str, list[str]] = {}
        for problem in self:
            same.setdefault(re.sub(r"^\S*: ", "", problem), []).append(problem)
        kinds: dict[str, list[int]] = {}
        for number, text in enumerate(same):
            kinds.setdefault(re.sub(r"'[^']*'|\d+", "", text), []).append(number)
        in_turn = chain.from_iterable(zip_longest(*kinds.values()))
        chosen = set(islice((number for number in in_turn if number is not None), REPORTED_PROBLEMS))
        return [(group[0], len(group)) for number, group in enumerate(same.values()) if number in chosen]
