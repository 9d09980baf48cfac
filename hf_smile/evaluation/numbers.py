"""Numbers as reports, cards and tables write them: a dash where one is undefined, and its interval behind it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

DASH = "–"
NO_INTERVAL = (math.nan, math.nan)
QUESTIONS = {"smile_auc": "**Is it a smile?**", "genuine_auc": "**Is the smile genuine?**"}
"""What an AUC answers, by its name."""

_PAIRS = {
    "smile_auc": "a smiling face and one that does not smile",
    "genuine_auc": "a genuine smile and a posed one",
}


def number(value: float, decimals: int = 3) -> str:
    """A number of so many decimals; a dash where it is NaN.

    >>> number(0.81249), number(float("nan"))
    ('0.812', '–')
    """
    return DASH if math.isnan(value) else f"{value:.{decimals}f}"


def share(value: float, decimals: int = 1) -> str:
    """A share in percent; a dash where it is NaN.

    >>> share(0.7371)
    '73.7 %'
    """
    return DASH if math.isnan(value) else f"{100 * value:.{decimals}f} %"


def interval(low: float, high: float, decimals: int = 3) -> str:
    """Both ends of an interval; a dash where they are NaN.

    >>> interval(0.8921, 0.9207)
    '0.892 to 0.921'
    """
    return DASH if math.isnan(low) else f"{low:.{decimals}f} to {high:.{decimals}f}"


def share_interval(low: float, high: float, decimals: int = 1) -> str:
    """Both ends of the interval of a share, in percent.

    >>> share_interval(0.7371, 0.7802)
    '73.7 to 78.0 %'
    """
    return interval(100 * low, 100 * high, decimals) + ("" if math.isnan(low) else " %")


def with_interval(value: float, low: float, high: float, *, percent: bool = False) -> str:
    """A number, and its interval in brackets if there is one. A share of nothing, from 0 to 1, is a dash.

    >>> with_interval(0.912, 0.892, 0.921), with_interval(0.5, 0.4, 0.6, percent=True), with_interval(0.0, 0.0, 1.0)
    ('0.912 (0.892 to 0.921)', '50.0 % (40.0 to 60.0 %)', '–')
    """
    if math.isnan(value) or (value, low, high) == (0, 0, 1):
        return DASH
    text, ends = (share(value), share_interval(low, high)) if percent else (number(value), interval(low, high))
    return text if math.isnan(low) else f"{text} ({ends})"


def times_in_100(share: float) -> str:
    """A share in words that never round to certainty.

    >>> times_in_100(0.913), times_in_100(0.9985), times_in_100(1.0)
    ('91', 'more than 99', '100')
    """
    return "more than 99" if 0.995 <= share < 1 else f"{100 * share:.0f}"


def auc_sentence(name: str, auc: float) -> str:
    """One of the `QUESTIONS` answered in words.

    >>> auc_sentence("smile_auc", 0.913)[:67]
    'Of a smiling face and one that does not smile, drawn at random, it '
    """
    if math.isnan(auc):
        return f"Not available: it needs images of both {_PAIRS[name]}."
    times = times_in_100(auc)
    return f"Of {_PAIRS[name]}, drawn at random, it tells which is which {times} times in 100; guessing does 50 times."


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown. Its first column is text, and the others stand to the right, as numbers do.

    >>> print(markdown_table(["", "images"], [["smile", "12"]]))
    |  | images |
    | --- | ---: |
    | smile | 12 |
    """
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))
