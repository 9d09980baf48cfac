"""Protect CSV cells: text that a spreadsheet would run as a formula is written with an apostrophe in front.

See OWASP, "CSV Injection".
"""

from __future__ import annotations

from typing import Any

_BEGINNINGS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def guarded(cell: Any) -> Any:
    """The cell as written to the file. Cells that are not text are returned unchanged.

    >>> guarded("=1+1"), guarded("1.jpg"), guarded(-1)
    ("'=1+1", '1.jpg', -1)
    """
    return f"'{cell}" if isinstance(cell, str) and _is_formula(cell) else cell


def unguarded(cell: str) -> str:
    """The original cell: the inverse of `guarded`.

    >>> unguarded("'=1+1"), unguarded(guarded("'=1")), unguarded("'tis")
    ('=1+1', "'=1", "'tis")
    """
    return cell[1:] if cell.startswith("'") and _is_formula(cell) else cell


def _is_formula(cell: str) -> bool:
    """Ignores leading apostrophes, so that the text `'=1` survives a round trip."""
    return cell.lstrip("'").startswith(_BEGINNINGS)
