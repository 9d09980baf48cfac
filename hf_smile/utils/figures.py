"""Shared by all figures: colours that colour-blind readers can tell apart, and how a figure is saved."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from hf_smile.labels import SMILE_LABELS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DEFAULT_COLORS = dict(zip(SMILE_LABELS, ("#D55E00", "#009E73", "#0072B2"), strict=True))
_PALETTE = ("#009E73", "#0072B2", "#D55E00", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#222222")


def class_colors(labels: Iterable[str]) -> dict[str, str]:
    """One colour per label, in order, from the palette of Okabe and Ito (2008), "Color Universal Design".

    >>> class_colors(["smile", "NOT smile"])
    {'smile': '#009E73', 'NOT smile': '#0072B2'}
    """
    names = [*labels]
    return _DEFAULT_COLORS if names == [*SMILE_LABELS] else dict(zip(names, cycle(_PALETTE)))


def new_figure(width: float = 7.0, height: float = 4.2) -> Figure:
    """An empty figure of `width` x `height` inches. Needs no display and no pyplot state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, path: str | Path) -> None:
    """Save a figure as a PNG at 150 dpi, without top and right spines. Creates the folder if needed."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, bbox_inches="tight")
