"""Text for messages."""

from __future__ import annotations


def counted(n: int, noun: str) -> str:
    """A count with its noun, in singular or plural.

    >>> counted(1, "image"), counted(2000, "image")
    ('1 image', '2,000 images')
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
