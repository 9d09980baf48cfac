"""Text for messages."""

from __future__ import annotations

import difflib
from collections.abc import Collection


def counted(n: int, noun: str) -> str:
    """A count with its noun, in singular or plural.

    >>> counted(1, "image"), counted(2000, "image")
    ('1 image', '2,000 images')
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def did_you_mean(word: str, known: Collection[str]) -> str:
    """The end of a message about an unknown word: the most similar known one, or nothing if none is similar.

    >>> did_you_mean("trian", ["train", "evaluate"]), did_you_mean("x", ["train", "evaluate"])
    ("; did you mean 'train'?", '')
    """
    nearest = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""
