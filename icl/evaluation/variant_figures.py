"""Curves of one checkpoint under several conditions or formats of the prompt: what else scores depend on."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from icl.evaluation.curves import (
    MEDIAN,
    Curve,
    checkpoints,
    condition_name,
    conditions,
    curves,
    main_metric,
    metric_name,
    models,
    scale,
    shown_ks,
    templates,
)
from icl.evaluation.figures import line
from icl.evaluation.records import Result
from icl.figure_style import FAINT, VARIANTS, k_axis, k_position, look, panel, score_axis, svg

MAX_PANELS = 3
"""Checkpoints that are shown: the smallest, the largest, and one between."""


def shown_checkpoints(rows: Sequence[Result]) -> list[str]:
    """Up to three checkpoints from small to large."""
    names = list(checkpoints(rows))
    if len(names) <= MAX_PANELS:
        return names
    return [names[0], names[len(names) // 2], names[-1]]


def condition_svg(rows: Sequence[Result], task: str, instruction: bool, checkpoint: str) -> str:
    """A curve for each condition; "" where there is but one."""
    figure = condition_figure(rows, task, instruction, checkpoint)
    with look():
        return "" if figure is None else svg(figure)


def condition_figure(rows: Sequence[Result], task: str, instruction: bool, checkpoint: str) -> Figure | None:
    """The same as a figure that a notebook shows as it is; None where there is but one condition."""
    metric = main_metric(rows, task)
    found = {
        condition_name(condition): curve
        for condition in conditions(rows)
        for curve in models(curves(rows, task, instruction, metric=metric, condition=condition))
        if curve.name == checkpoint
    }
    if len(found) < 2:
        return None
    with look():
        figure, axes = panel()
        for (name, curve), color, marker in zip(found.items(), VARIANTS, "osD^v<>", strict=False):
            low, high = _ends(curve, metric)
            axes.fill_between(line(curve, metric)[0], low, high, color=color, alpha=0.08, linewidth=0)
            axes.plot(*line(curve, metric), color=color, marker=marker, markersize=4, label=name)
        _finish(axes, rows, metric)
        return figure


def template_svg(rows: Sequence[Result], task: str, instruction: bool, checkpoint: str) -> str:
    """The median over formats of the prompt, from the worst to the best; "" where there is but one."""
    metric = main_metric(rows, task)
    found = {
        template: curve
        for template in templates(rows)
        for curve in models(curves(rows, task, instruction, metric=metric, template=template))
        if curve.name == checkpoint
    }
    if len(found) < 2:
        return ""
    with look():
        figure, axes = panel()
        median = found.pop(MEDIAN, None)
        for (name, curve), marker in zip(found.items(), "osD^v<>" * len(found), strict=False):
            axes.plot(
                *line(curve, metric), color=FAINT, marker=marker, markersize=3, linewidth=0.8, label=name
            )
        if median is not None:
            spread = {k: row.template_values or (row.value,) for k, row in median.points.items()}
            low, high = ([scale(metric) * end(values) for values in spread.values()] for end in (min, max))
            x = [k_position(k) for k in spread]
            axes.fill_between(x, low, high, color=VARIANTS[2], alpha=0.14, linewidth=0)
            axes.plot(*line(median, metric), color=VARIANTS[2], linewidth=1.8, label=MEDIAN)
        _finish(axes, rows, metric)
        return svg(figure)


def _ends(curve: Curve, metric: str) -> tuple[list[float], list[float]]:
    """The interval at every K; no wider than the point where there is none."""
    rows = curve.points.values()
    low = [row.value if row.ci_low is None else row.ci_low for row in rows]
    high = [row.value if row.ci_high is None else row.ci_high for row in rows]
    return [scale(metric) * value for value in low], [scale(metric) * value for value in high]


def _finish(axes: Axes, rows: Sequence[Result], metric: str) -> None:
    k_axis(axes, shown_ks(rows))
    score_axis(axes, metric_name(metric), scale(metric) == 100)
    # Below the axes: nowhere among the curves is sure to be free.
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.legend(loc="outside lower center", ncols=3, fontsize=7)
