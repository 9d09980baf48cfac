"""What all pictures share: colours that colour-blind readers can tell apart, and how a figure is saved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hf_smile.labels import LABEL_NAMES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLASS_COLORS = dict(zip(LABEL_NAMES, ("#D55E00", "#009E73", "#0072B2"), strict=True))
"""One colour per label name, from the palette of Okabe and Ito (2008), "Color Universal Design"."""


def new_figure(width: float = 7.0, height: float = 4.2) -> Figure:
    """An empty figure, `width` x `height` inches, that needs no display and no pyplot state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write `figure` to `path` as a PNG of 150 dots per inch, and make the folder if it is not there."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, bbox_inches="tight")
