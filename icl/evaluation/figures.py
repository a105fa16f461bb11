"""K-curves as figures: one panel a task and wording, one line a model, with intervals and baselines.

Panels are SVG for the report, whole figures PNG for everything else. The same results give the same bytes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from icl.errors import InputError
from icl.evaluation.baselines import CHANCE
from icl.evaluation.curves import (
    Curve,
    baselines,
    by_task,
    checkpoints,
    curves,
    main_metric,
    metric_name,
    models,
    scale,
    shown_ks,
    wording_name,
    wordings,
)
from icl.evaluation.figure_style import MARKERS, Style, styles
from icl.evaluation.records import Result, write_file
from icl.evaluation.results import BASELINE, MEAN
from icl.figure_style import FAINT, INK, PANEL_INCHES, k_axis, k_position, look, panel, png, score_axis, svg

DASHES = ((5, 2), (1, 1.2), (6, 2, 1, 2), (3, 1, 1, 1, 1, 1), (10, 3))
MAX_PNG_ROWS = 80
"""Tasks in one PNG, which cannot be arbitrarily tall."""


class Lines(NamedTuple):
    """How the lines of all panels are drawn: models, and dashes of baselines by their scoring."""

    models: Mapping[str, Style]
    dashes: Mapping[str, tuple[float, ...]]


def lines(results: Sequence[Result]) -> Lines:
    """The same look of a model or baseline in every panel; chance is the finest."""
    names = dict.fromkeys(row.scoring for row in results if row.checkpoint == BASELINE)
    rules = [name for name in names if name != CHANCE]
    dashes = {name: DASHES[i % len(DASHES)] for i, name in enumerate(rules)}
    return Lines(styles(results), dashes | ({CHANCE: (1, 3)} if CHANCE in names else {}))


def panel_svg(rows: Sequence[Result], looks: Lines, task: str, instruction: bool) -> str:
    """One panel as an SVG element to stand in HTML; `rows` are the task's."""
    with look():
        figure, axes = panel()
        _draw(axes, rows, looks, task, instruction, title=False)
        return svg(figure)


def legend_svg(results: Sequence[Result], looks: Lines) -> list[tuple[str, str]]:
    """Names of all lines, each with its sign as an SVG element."""
    signs = []
    for name, row in checkpoints(results).items():
        color, marker = looks.models[name]
        line = "<path d='M0 6h36' stroke-width='2.5'/>"
        signs.append((_label(name, row), f"<g stroke='{color}' fill='{color}'>{line}{MARKERS[marker]}</g>"))
    for name, dashes in looks.dashes.items():
        pattern = " ".join(str(2 * length) for length in dashes)
        line = f"<path d='M0 6h36' stroke='{FAINT}' stroke-width='1.8' stroke-dasharray='{pattern}'/>"
        signs.append((_rule(name), line))
    return [(name, f"<svg viewBox='0 0 36 12' aria-hidden='true'>{sign}</svg>") for name, sign in signs]


def k_curve_figure(
    results: Sequence[Result], tasks: Sequence[str] = (MEAN,), instruction: Sequence[bool] = ()
) -> Figure:
    """K-curves of tasks with their intervals and baselines, as a figure that a notebook shows as it is.

    Args:
      results: From `icl.evaluation.runner.evaluate`.
      tasks: Names of tasks, or "mean"; a row of panels each, or one row if there is but one wording.
      instruction: Without and with an instruction; by default all that the results have.

    Raises:
      InputError: the results have no such task.
    """
    found = by_task(results)
    for task in tasks:
        if task not in found:
            raise InputError(f"no results of task {task!r}; there are {sorted(found)}")
    settings = list(instruction) or wordings(results)
    grid = [[(task, instructed) for instructed in settings] for task in tasks]
    if len(settings) == 1:
        grid = [[cell for row in grid for cell in row]]
    return _figure(results, found, lines(results), grid)


def write_figures(folder: Path, results: Sequence[Result]) -> list[Path]:
    """Writes `k_curve.png`, the mean over tasks, and `k_curve_tasks.png`, every task; returns their paths."""
    settings, found = wordings(results), by_task(results)
    mean, by_name = folder / "k_curve.png", folder / "k_curve_tasks.png"
    looks = lines(results)
    means = [[(MEAN, instruction) for instruction in settings]]
    write_file(mean, png(_figure(results, found, looks, means)))
    names = [task for task in found if task != MEAN][:MAX_PNG_ROWS]
    grid = [[(task, instruction) for instruction in settings] for task in names]
    write_file(by_name, png(_figure(results, found, looks, grid)))
    return [mean, by_name]


def _figure(
    results: Sequence[Result],
    found: Mapping[str, Sequence[Result]],
    looks: Lines,
    grid: Sequence[Sequence[tuple[str, bool]]],
) -> Figure:
    """A grid of panels with one legend below."""
    with look():
        rows, columns = len(grid), len(grid[0])
        size = (PANEL_INCHES[0] * columns, PANEL_INCHES[1] * rows + 0.5)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
        for i, row in enumerate(grid):
            for j, (task, instruction) in enumerate(row):
                _draw(axes[i][j], found.get(task, ()), looks, task, instruction, title=True)
        handles = _legend(results, looks)
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 3 * columns))
        return figure


def _draw(
    axes: Axes, rows: Sequence[Result], looks: Lines, task: str, instruction: bool, *, title: bool
) -> None:
    metric = main_metric(rows, task)
    found = curves(rows, task, instruction, metric=metric)
    for curve in baselines(found):
        dashes = looks.dashes[curve.first.scoring]
        axes.plot(*line(curve, metric), color=FAINT, linewidth=1, dashes=dashes)
    for curve in models(found):
        _draw_model(axes, curve, metric, looks.models[curve.name])
    k_axis(axes, shown_ks(rows) or [0])
    score_axis(axes, metric_name(metric), scale(metric) == 100)
    if title:
        name = "mean over tasks" if task == MEAN else task
        axes.set_title(f"{name}, {wording_name(instruction)}", color=INK)


def _draw_model(axes: Axes, curve: Curve, metric: str, style: Style) -> None:
    """The curve with its intervals; lightly around them what holds for all K at once; dots for seeds."""
    x, y = line(curve, metric)
    times = scale(metric)
    for ends, alpha in ((_band, 0.07), (_interval, 0.14)):
        spans = [ends(row) for row in curve.points.values()]
        low, high = ([times * span[i] for span in spans] for i in (0, 1))
        axes.fill_between(x, low, high, color=style.color, alpha=alpha, linewidth=0)
    axes.plot(x, y, color=style.color, marker=style.marker, markersize=4, linewidth=1.6)
    for k, row in curve.points.items():
        seeds = [times * value for value in row.seed_values]
        axes.plot([k_position(k)] * len(seeds), seeds, ".", color=style.color, alpha=0.3, markersize=2.5)
        if row.order_values:
            orders = [times * value for value in row.order_values]
            axes.vlines(k_position(k), min(orders), max(orders), color=style.color, linewidth=0.8, alpha=0.8)


def line(curve: Curve, metric: str) -> tuple[list[float], list[float]]:
    """Positions and values of a curve as they are drawn."""
    return [k_position(k) for k in curve.points], [scale(metric) * row.value for row in curve.points.values()]


def _interval(row: Result) -> tuple[float, float]:
    """The interval; no wider than the point where there is none."""
    if row.ci_low is None or row.ci_high is None:
        return row.value, row.value
    return row.ci_low, row.ci_high


def _band(row: Result) -> tuple[float, float]:
    if row.band_low is None or row.band_high is None:
        return _interval(row)
    return row.band_low, row.band_high


def _legend(results: Sequence[Result], looks: Lines) -> list[Line2D]:
    handles = []
    for name, row in checkpoints(results).items():
        color, marker = looks.models[name]
        handles.append(Line2D([], [], color=color, marker=marker, markersize=4, label=_label(name, row)))
    for name, dashes in looks.dashes.items():
        handles.append(Line2D([], [], color=FAINT, linewidth=1, dashes=dashes, label=_rule(name)))
    return handles


def _label(name: str, row: Result) -> str:
    return f"{name} ({row.params:,} parameters)" if row.params else name


def _rule(scoring: str) -> str:
    return scoring.partition(":")[2].replace("_", " ")
