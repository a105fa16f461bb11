"""K-curves as figures: one panel a task and wording, one line a model, with intervals and baselines.

Panels are SVG for the report, whole figures PNG for everything else. The same results give the same bytes.
"""

import io
import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from icl.evaluation.baselines import CHANCE
from icl.evaluation.curves import (
    Curve,
    baselines,
    curves,
    models,
    shown_ks,
    task_names,
    wording_name,
    wordings,
)
from icl.evaluation.records import Result, write_file
from icl.evaluation.results import MEAN

INK, FAINT, GRID = "#1f2933", "#7b8794", "#e4e7eb"
MARKERS = {
    "o": "<circle cx='18' cy='6' r='4'/>",
    "s": "<rect x='14' y='2' width='8' height='8'/>",
    "D": "<path d='M18 1l5 5-5 5-5-5z'/>",
    "^": "<path d='M18 1l5 9h-10z'/>",
    "v": "<path d='M18 11l5-9h-10z'/>",
}
"""Markers of matplotlib, and as they stand in the legend of the report."""
DASHES = ((5, 2), (1, 1.2), (6, 2, 1, 2), (3, 1, 1, 1, 1, 1))
PANEL_INCHES = (4.3, 3.1)


class Style(NamedTuple):
    """How the line of a model is drawn."""

    color: str
    marker: str


def styles(results: Sequence[Result]) -> dict[str, Style]:
    """Colours by the number of parameters, light for few and dark for many; a marker for every model."""
    found = {curve.name: curve.first.params or 0 for curve in _all_models(results)}
    sizes = sorted(set(found.values()))
    shades = [0.72 - 0.6 * i / max(len(sizes) - 1, 1) for i in range(len(sizes))]
    colors = [matplotlib.colors.to_hex(matplotlib.colormaps["magma"](shade)) for shade in shades]
    return {
        name: Style(colors[sizes.index(size)], marker)
        for (name, size), marker in zip(found.items(), itertools.cycle(MARKERS), strict=False)
    }


def panel_svg(results: Sequence[Result], task: str, instruction: bool) -> str:
    """One panel as an SVG element to stand in HTML."""
    with _look():
        figure = Figure(figsize=PANEL_INCHES, layout="constrained")
        _draw(figure.subplots(), results, task, instruction, title=False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def legend_svg(results: Sequence[Result]) -> list[tuple[str, str]]:
    """Names of all lines, each with its sign as an SVG element."""
    found = curves(results, MEAN, wordings(results)[0])
    looks = styles(results)
    signs = []
    for curve in models(found):
        color, marker = looks[curve.name]
        line = "<path d='M0 6h36' stroke-width='2.5'/>"
        signs.append((_label(curve), f"<g stroke='{color}' fill='{color}'>{line}{MARKERS[marker]}</g>"))
    for curve, dashes in zip(baselines(found), _dashes(found), strict=True):
        pattern = " ".join(str(2 * length) for length in dashes)
        line = f"<path d='M0 6h36' stroke='{FAINT}' stroke-width='1.8' stroke-dasharray='{pattern}'/>"
        signs.append((_label(curve), line))
    return [(name, f"<svg viewBox='0 0 36 12' aria-hidden='true'>{sign}</svg>") for name, sign in signs]


def write_figures(folder: Path, results: Sequence[Result]) -> list[Path]:
    """Writes `k_curve.png`, the mean over tasks, and `k_curve_tasks.png`, every task; returns their paths."""
    settings = wordings(results)
    mean, by_task = folder / "k_curve.png", folder / "k_curve_tasks.png"
    write_file(mean, _png(results, [[(MEAN, instruction) for instruction in settings]]))
    grid = [[(task, instruction) for instruction in settings] for task in task_names(results)]
    write_file(by_task, _png(results, grid))
    return [mean, by_task]


def _png(results: Sequence[Result], grid: Sequence[Sequence[tuple[str, bool]]]) -> bytes:
    """A grid of panels with one legend below."""
    with _look():
        rows, columns = len(grid), len(grid[0])
        size = (PANEL_INCHES[0] * columns, PANEL_INCHES[1] * rows + 0.5)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for i, row in enumerate(grid):
            for j, (task, instruction) in enumerate(row):
                _draw(axes[i][j], results, task, instruction, title=True)
        handles = _legend(results)
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 3 * columns))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=160, metadata={"Software": None})
    return buffer.getvalue()


def _draw(axes: Axes, results: Sequence[Result], task: str, instruction: bool, *, title: bool) -> None:
    found, looks = curves(results, task, instruction), styles(results)
    for curve, dashes in zip(baselines(found), _dashes(found), strict=True):
        axes.plot(*_line(curve), color=FAINT, linewidth=1, dashes=dashes)
    for curve in models(found):
        look = looks[curve.name]
        x, y = _line(curve)
        low, high = _band(curve)
        axes.fill_between(x, low, high, color=look.color, alpha=0.14, linewidth=0)
        axes.plot(x, y, color=look.color, marker=look.marker, markersize=4, linewidth=1.6)
        for k, row in curve.points.items():
            seeds = [100 * value for value in row.seed_values]
            axes.plot([_x(k)] * len(seeds), seeds, ".", color=look.color, alpha=0.3, markersize=2.5)
    ks = shown_ks(results)
    axes.set_xticks([_x(k) for k in ks], [str(k) for k in ks])
    axes.set_xlabel("demonstrations K")
    axes.set_ylim(-3, 103)
    axes.set_ylabel("exact match, %")
    if title:
        name = "mean over tasks" if task == MEAN else task
        axes.set_title(f"{name}, {wording_name(instruction)}", color=INK)


def _legend(results: Sequence[Result]) -> list[Line2D]:
    looks, found = styles(results), curves(results, MEAN, wordings(results)[0])
    handles = []
    for curve in _all_models(results):
        look = looks[curve.name]
        handles.append(
            Line2D([], [], color=look.color, marker=look.marker, markersize=4, label=_label(curve))
        )
    for curve, dashes in zip(baselines(found), _dashes(found), strict=True):
        handles.append(Line2D([], [], color=FAINT, linewidth=1, dashes=dashes, label=curve.name))
    return handles


def _label(curve: Curve) -> str:
    return f"{curve.name} ({curve.first.params:,} parameters)" if curve.first.params else curve.name


def _all_models(results: Sequence[Result]) -> list[Curve]:
    return models(curves(results, MEAN, wordings(results)[0]))


def _dashes(found: Sequence[Curve]) -> list[tuple[float, ...]]:
    """A pattern for each baseline; chance is the finest."""
    names = [curve.first.scoring for curve in baselines(found)]
    return [(1, 3) if name == CHANCE else DASHES[i % len(DASHES)] for i, name in enumerate(names)]


def _x(k: int) -> float:
    """Where a K stands: evenly spread where K doubles, and with a place for 0."""
    return math.log2(k + 1)


def _line(curve: Curve) -> tuple[list[float], list[float]]:
    return [_x(k) for k in curve.points], [100 * row.value for row in curve.points.values()]


def _band(curve: Curve) -> tuple[list[float], list[float]]:
    """The interval at every K; no wider than the point where there is none."""
    rows = curve.points.values()
    low = [row.value if row.ci_low is None else row.ci_low for row in rows]
    high = [row.value if row.ci_high is None else row.ci_high for row in rows]
    return [100 * value for value in low], [100 * value for value in high]


@contextmanager
def _look() -> Iterator[None]:
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
        "svg.hashsalt": "icl",
        "text.parse_math": False,
    }
    with matplotlib.rc_context(settings):
        yield
