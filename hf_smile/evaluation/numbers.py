"""Formatting of numbers and their intervals in reports, cards and tables. An undefined number is a dash."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

DASH = "–"
NO_INTERVAL = (math.nan, math.nan)
QUESTIONS = {"smile_auc": "**Is it a smile?**", "genuine_auc": "**Is the smile genuine?**"}
"""The question that an AUC answers, by its name."""

_PAIRS = {
    "smile_auc": "a smiling face and one that does not smile",
    "genuine_auc": "a genuine smile and a posed one",
}


def number(value: float, decimals: int = 3) -> str:
    """A number with `decimals` decimals; a dash for NaN.

    >>> number(0.81249), number(float("nan"))
    ('0.812', '–')
    """
    return DASH if math.isnan(value) else f"{value:.{decimals}f}"


def share(value: float, decimals: int = 1) -> str:
    """A share in percent; a dash for NaN.

    >>> share(0.7371)
    '73.7 %'
    """
    return DASH if math.isnan(value) else f"{100 * value:.{decimals}f} %"


def interval(low: float, high: float, decimals: int = 3) -> str:
    """Both ends of an interval; a dash for NaN.

    >>> interval(0.8921, 0.9207)
    '0.892 to 0.921'
    """
    return DASH if math.isnan(low) else f"{low:.{decimals}f} to {high:.{decimals}f}"


def share_interval(low: float, high: float, decimals: int = 1) -> str:
    """Both ends of an interval in percent.

    >>> share_interval(0.7371, 0.7802)
    '73.7 to 78.0 %'
    """
    return interval(100 * low, 100 * high, decimals) + ("" if math.isnan(low) else " %")


def with_interval(value: float, low: float, high: float, *, percent: bool = False) -> str:
    """A number with its interval, if any, in parentheses. A share with no images (interval 0 to 1) is a dash.

    >>> with_interval(0.912, 0.892, 0.921), with_interval(0.5, 0.4, 0.6, percent=True), with_interval(0.0, 0.0, 1.0)
    ('0.912 (0.892 to 0.921)', '50.0 % (40.0 to 60.0 %)', '–')
    """
    if math.isnan(value) or (value, low, high) == (0, 0, 1):
        return DASH
    text, ends = (share(value), share_interval(low, high)) if percent else (number(value), interval(low, high))
    return text if math.isnan(low) else f"{text} ({ends})"


def times_in_100(share: float) -> str:
    """A share as "times in 100", which never rounds up to certainty.

    >>> times_in_100(0.913), times_in_100(0.9985), times_in_100(1.0)
    ('91', 'more than 99', '100')
    """
    return "more than 99" if 0.995 <= share < 1 else f"{100 * share:.0f}"


def auc_sentence(name: str, auc: float) -> str:
    """A sentence that answers one of the `QUESTIONS`.

    >>> auc_sentence("smile_auc", 0.913)[:67]
    'Given a smiling face and one that does not smile, drawn at random, '
    """
    if math.isnan(auc):
        return f"Not available: it needs images of both {_PAIRS[name]}."
    times = times_in_100(auc)
    pair = f"{_PAIRS[name]}, drawn at random"
    return f"Given {pair}, the model tells which is which {times} times in 100; guessing would be right 50 times."


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table. The first column is text; the others are numbers, aligned to the right.

    >>> print(markdown_table(["", "images"], [["smile", "12"]]))
    |  | images |
    | --- | ---: |
    | smile | 12 |
    """
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))
