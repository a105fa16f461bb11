"""Scores against the number of parameters, as Figure 1.3 of the GPT-3 paper, its scores behind ours.

Both lie on the same axes only for the same tasks: a mean of ours that is set beside the published one is over
the tasks that count in that figure, in the metric that counts there.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from icl.evaluation.curves import (
    SCORE,
    by_task,
    curves,
    main_metric,
    metric_name,
    models,
    outcome,
    scale,
    shots,
    wording_name,
    wordings,
)
from icl.evaluation.published import SETTINGS, SIZES, SMALLEST, Published, accuracy_row, mean_score, published
from icl.evaluation.records import Result, write_file
from icl.evaluation.results import MEAN
from icl.figure_style import INK, PANEL_INCHES, look, panel, png, score_axis, svg

COLORS = {"zero": "#009e73", "one": "#d55e00", "few": "#0072b2"}
"""Of zero-, one- and few-shot."""


class Point(NamedTuple):
    """The mean of a checkpoint over tasks, as it is shown, with its interval."""

    checkpoint: str
    params: int
    value: float
    low: float | None
    high: float | None


class BySize(NamedTuple):
    """What one panel shows: our scores by setting, and the published rows of the same tasks.

    `ks` is the K of our few-shot, a range where tasks differ.
    """

    title: str
    label: str
    bounded: bool
    tasks: tuple[str, ...]
    ks: str
    ours: Mapping[str, Sequence[Point]]
    published: tuple[Published, ...]

    @property
    def suspect(self) -> int:
        """How many of the published rows have no few-shot score of their own for the smallest model."""
        return sum(row.is_suspect for row in self.published)


def size_panels(results: Sequence[Result]) -> list[BySize]:
    """The means over tasks: of those that Figure 1.3 has too, and of all if there are others, by wording."""
    found = {task: rows for task, rows in by_task(results).items() if task != MEAN}
    shared = {task: row for task in found if (row := accuracy_row(task)) and has_metric(found[task], row)}
    shown = []
    for instruction in wordings(results):
        if shared:
            title = f"Mean over {len(shared)} published task{'s' * (len(shared) != 1)}"
            metrics = {task: metric_of(found[task], row) for task, row in shared.items()}
            shown.append(_by_size(title, found, metrics, instruction, tuple(shared.values())))
        if len(shared) < len(found):
            metrics = {task: _percent_metric(rows, task) for task, rows in found.items()}
            shown.append(_by_size("Mean over all tasks", found, metrics, instruction, ()))
    return [one for one in shown if one.ours]


def task_size_panel(rows: Sequence[Result], task: str, instruction: bool) -> BySize | None:
    """A task's scores against size beside the published ones; None where there are none."""
    metric = main_metric(rows, task)
    found = tuple(row for row in published(task) if metric in row.ours)[:1]
    if not found:
        return None
    one = _by_size(task, {task: rows}, {task: metric}, instruction, found)
    return one if one.ours else None


def has_metric(rows: Iterable[Result], row: Published) -> bool:
    """Whether a task's results have the metric of a published row."""
    return not {result.metric for result in rows}.isdisjoint(row.ours)


def metric_of(rows: Iterable[Result], row: Published) -> str:
    """What a task's results call the metric of a published row."""
    found = {result.metric for result in rows}
    return next(metric for metric in row.ours if metric in found)


def size_panel_svg(one: BySize) -> str:
    """One panel as an SVG element to stand in HTML."""
    with look():
        figure, axes = panel()
        draw_by_size(axes, one)
        axes.legend(handles=size_handles(one), loc="upper left", fontsize=7)
        return svg(figure)


def write_by_size(folder: Path, panels: Sequence[BySize]) -> None:
    """Writes `by_size.png` with all panels; nothing if there are none."""
    if not panels:
        return
    with look():
        size = (PANEL_INCHES[0] * len(panels), PANEL_INCHES[1] + 0.6)
        figure = Figure(figsize=size, layout="constrained")
        for axes, one in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            draw_by_size(axes, one)
            axes.set_title(one.title, color=INK)
        widest = max((size_handles(one) for one in panels), key=len)
        figure.legend(handles=widest, loc="outside lower center", ncols=3)
        write_file(folder / "by_size.png", png(figure))


def _percent_metric(rows: Sequence[Result], task: str) -> str:
    """A metric that can stand in a mean with others."""
    metric = main_metric(rows, task)
    return metric if scale(metric) == 100 else SCORE


def _by_size(
    title: str,
    found: Mapping[str, Sequence[Result]],
    metrics: Mapping[str, str],
    instruction: bool,
    rows: tuple[Published, ...],
) -> BySize:
    scored: dict[tuple[str, str], list[Result]] = {}
    fews = set()
    for task, metric in metrics.items():
        for curve in models(curves(found[task], task, instruction, metric=metric)):
            for setting, row in shots(curve).items():
                scored.setdefault((setting, curve.name), []).append(row)
                fews |= {row.k} if setting == "few" else set()
    ours: dict[str, list[Point]] = {}
    distinct = set(metrics.values())
    times = scale(next(iter(distinct)))
    for setting in SETTINGS:
        for (this, name), members in scored.items():
            if this == setting and len(members) == len(metrics):
                value, low, high = outcome(members)
                ends = (None if end is None else times * end for end in (low, high))
                ours.setdefault(setting, []).append(Point(name, members[0].params or 0, times * value, *ends))
    label = metric_name(distinct.pop()) if len(distinct) == 1 else "score, %"
    ks = f"{min(fews)}–{max(fews)}" if len(fews) > 1 else "".join(map(str, fews))
    return BySize(
        f"{title}, {wording_name(instruction)}", label, times == 100, tuple(metrics), ks, ours, rows
    )


def draw_by_size(axes: Axes, one: BySize) -> None:
    """Draws one panel: our scores solid, a mean over checkpoints of one size, the published ones dashed."""
    for setting in SETTINGS:
        color = COLORS[setting]
        if one.published:
            y = [mean_score(one.published, setting, size) for size in SIZES]
            x = list(SIZES.values())
            axes.plot(x, y, color=color, alpha=0.45, linewidth=1.2, dashes=(4, 2))
            for size, value in zip(SIZES, y, strict=True):
                hollow = setting == "few" and size == SMALLEST and one.suspect
                face = "white" if hollow else color
                axes.plot(
                    SIZES[size], value, "D", markersize=3.5, color=color, alpha=0.55, markerfacecolor=face
                )
        points = one.ours.get(setting, ())
        sizes = sorted({point.params for point in points})
        means = [_mean([p.value for p in points if p.params == size]) for size in sizes]
        axes.plot(sizes, means, color=color, linewidth=1.8)
        for point in points:
            if point.low is not None and point.high is not None:
                axes.vlines(point.params, point.low, point.high, color=color, linewidth=1, alpha=0.7)
            axes.plot(point.params, point.value, "o", color=color, markersize=4.5)
    _size_axis(axes, sorted({point.params for points in one.ours.values() for point in points}), one)
    score_axis(axes, one.label, one.bounded)


def _size_axis(axes: Axes, sizes: Sequence[int], one: BySize) -> None:
    """Marks powers of ten; our sizes themselves where they lie within so few that these would not tell."""
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.xaxis.set_major_formatter(FuncFormatter(lambda params, _: _short(params)))
    axes.set_xlabel("parameters")
    axes.margins(x=0.08)
    if not one.published and sizes[-1] < 100 * max(sizes[0], 1):
        axes.set_xticks(sizes[:: max(len(sizes) // 5, 1)])
        if len(sizes) == 1:
            axes.set_xlim(max(sizes[0], 1) / 3, max(sizes[0], 1) * 3)


def _short(params: float) -> str:
    """A number of parameters as it is said: 125M, 1.3B."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if params >= size:
            return f"{params / size:.3g}{unit}"
    return f"{params:g}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def size_handles(one: BySize) -> list[Line2D]:
    """Signs of ours, then of the published."""
    fews = f" (K = {one.ks})" if one.ks else ""
    names = {"zero": "zero-shot", "one": "one-shot", "few": f"few-shot{fews}"}
    shown = [
        Line2D([], [], color=COLORS[setting], marker="o", markersize=4.5, label=f"{names[setting]}, ours")
        for setting in SETTINGS
        if setting in one.ours
    ]
    if one.published:
        shown += [
            Line2D(
                [],
                [],
                color=COLORS[setting],
                alpha=0.5,
                dashes=(4, 2),
                marker="D",
                markersize=3.5,
                label=f"{setting}-shot, GPT-3",
            )
            for setting in SETTINGS
        ]
    return shown
