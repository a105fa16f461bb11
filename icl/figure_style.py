"""How all figures look: fonts, grid, axes of K and score; the same figure always gives the same bytes."""

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, FAINT, GRID = "#1f2933", "#7b8794", "#e4e7eb"
VARIANTS = ("#1f2933", "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Colours that also colour-blind people tell apart (Okabe and Ito), for what is not a size."""
PANEL_INCHES = (4.3, 3.1)


def panel(width: float = 1.0) -> tuple[Figure, Axes]:
    """A figure of one panel, some panels wide."""
    figure = Figure(figsize=(PANEL_INCHES[0] * width, PANEL_INCHES[1]), layout="constrained")
    return figure, figure.subplots()


def svg(figure: Figure) -> str:
    """A figure as an SVG element to stand in HTML; its text stays text."""
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def png(figure: Figure) -> bytes:
    """A figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160, metadata={"Software": None})
    return buffer.getvalue()


def k_position(k: int) -> float:
    """Where a K stands: evenly spread where K doubles, and with a place for 0."""
    return math.log2(k + 1)


def k_axis(axes: Axes, ks: Sequence[int]) -> None:
    """Marks the numbers of demonstrations, leaving out what would overlap."""
    shown: list[int] = []
    for k in sorted(ks, reverse=True):
        if not shown or k_position(shown[-1]) - k_position(k) >= k_position(max(ks)) / 14:
            shown.append(k)
    axes.set_xticks([k_position(k) for k in shown], [str(k) for k in shown])
    axes.set_xlabel("demonstrations K")


def score_axis(axes: Axes, label: str, bounded: bool) -> None:
    """Scores between 0 and 100 stand on the whole range, so that panels compare."""
    if bounded:
        axes.set_ylim(-3, 103)
    axes.set_ylabel(label)


@contextmanager
def look() -> Iterator[None]:
    """Fonts, colours and grid of all figures. Names of tasks and models are text, never mathematics."""
    settings: dict[Any, Any] = {
        "font.size": 9,
        "axes.edgecolor": GRID,
        "axes.labelcolor": INK,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10,
        "grid.color": GRID,
        "grid.linewidth": 0.7,
        "legend.frameon": False,
        "legend.fontsize": 8,
        "xtick.color": INK,
        "ytick.color": INK,
        "svg.fonttype": "none",
        "svg.hashsalt": "icl",
        "text.parse_math": False,
    }
    with matplotlib.rc_context(settings):
        yield
