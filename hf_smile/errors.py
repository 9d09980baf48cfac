"""Errors a user can cause. Their message says what is wrong, where, and how to mend it."""

from __future__ import annotations

REPORTED_PROBLEMS = 20
_REPORTED_LENGTH = 300


class SmileError(Exception):
    """Base of the errors a user can cause. `hf_smile.console.run_script` prints them without a traceback."""


class SmileDataError(SmileError):
    """Something is wrong with the annotations, the images or the predictions."""


class SmileModelError(SmileError):
    """Something is wrong with the backbone, the checkpoint or the settings."""


def first_line(error: object) -> str:
    """What an error of a library's says, without its traceback and its advice; its type where it says nothing.

    >>> first_line(ValueError("no such layer\\nSee the documentation ..."))
    'no such layer'
    >>> first_line(KeyboardInterrupt())
    'KeyboardInterrupt'
    """
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _one_line(text: str) -> str:
    """Names and cells may hold line breaks, terminal commands, or a whole file."""
    text = text if len(text) <= _REPORTED_LENGTH else f"{text[:_REPORTED_LENGTH]} ..."
    return "".join(letter if letter.isprintable() else "?" for letter in text)


class Problems(list[str]):
    """What is wrong with the data, collected so that it can be told at once.

    >>> Problems(["train.csv:3: empty id"]).raise_if_any("happy_images")
    Traceback (most recent call last):
    hf_smile.errors.SmileDataError: 1 problem in happy_images:
      train.csv:3: empty id
    """

    def raise_if_any(self, where: object, hint: str = "") -> None:
        """Raise a `SmileDataError` with the first 20 problems, their total and a `hint` on how to mend them."""
        if not self:
            return
        lines = [f"{len(self)} problem{'s' if len(self) > 1 else ''} in {where}:"]
        lines += [f"  {_one_line(problem)}" for problem in self[:REPORTED_PROBLEMS]]
        if len(self) > REPORTED_PROBLEMS:
            lines.append(f"  ... and {len(self) - REPORTED_PROBLEMS} more")
        raise SmileDataError("\n".join(lines + [hint] * bool(hint)))
