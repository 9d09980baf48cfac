"""Text in the cells of CSV files: what a spreadsheet would take for a formula is written with an apostrophe before it.

See OWASP, "CSV Injection". Imports nothing, so everyone may import it.
"""

from __future__ import annotations

from typing import Any

_BEGINNINGS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def guarded(cell: Any) -> Any:
    """The cell as it is written; what is no text stays as it is.

    >>> guarded("=1+1"), guarded("1.jpg"), guarded(-1)
    ("'=1+1", '1.jpg', -1)
    """
    return f"'{cell}" if isinstance(cell, str) and _is_formula(cell) else cell


def unguarded(cell: str) -> str:
    """The cell as it was before it was written.

    >>> unguarded("'=1+1"), unguarded(guarded("'=1")), unguarded("'tis")
    ('=1+1', "'=1", "'tis")
    """
    return cell[1:] if cell.startswith("'") and _is_formula(cell) else cell


def _is_formula(cell: str) -> bool:
    """Also behind apostrophes of the text's own: `'=1` must come back as it was."""
    return cell.lstrip("'").startswith(_BEGINNINGS)
