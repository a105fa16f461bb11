"""The figure of squared errors against the number of points, of models and of what they are held against."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from icl.figure_style import FAINT, GRID, INK, PANEL_INCHES, VARIANTS, look, png
from icl.functions.baselines import BAYES

_MODEL = VARIANTS[1]
_COLORS = {
    BAYES: INK,
    "lasso": INK,
    "least squares": VARIANTS[2],
    "nearest neighbours": VARIANTS[3],
    "averaging": VARIANTS[4],
    "ridge of training": VARIANTS[5],
}
_COLUMNS = 4
_HIGHEST = 1.6
"""Of the axis of errors, in units of the error without any point; where some are higher."""

Test = Mapping[str, Any]


def draw(tests: Mapping[str, Test], bar: float | None = None) -> bytes:
    """A PNG: a panel a test, and one of the first test's excess over Bayes where there is one.

    Args:
      tests: Title -> `icl.functions.measure.Comparison.to_json`.
      bar: Drawn in the panel of the excess.
    """
    first = next(iter(tests.values()))
    count = len(tests) + bool(first["excess"]) + 1
    rows = -(-count // _COLUMNS)
    with look():
        figure = Figure(
            figsize=(PANEL_INCHES[0] * 0.75 * _COLUMNS, PANEL_INCHES[1] * 0.85 * rows), layout="constrained"
        )
        panels = list(figure.subplots(rows, _COLUMNS, squeeze=False).flat)
        for axes in panels[::_COLUMNS]:
            axes.set_ylabel("squared error / variance")
        if first["excess"]:
            _draw_excess(panels.pop(1), first["excess"], bar)
        for axes, (title, test) in zip(panels, tests.items(), strict=False):
            _draw_errors(axes, title, test)
        for axes in panels[len(tests) :]:
            axes.axis("off")
        names = dict.fromkeys(name for test in tests.values() for name in test["estimators"])
        handles = [Line2D([], [], color=_MODEL, label="transformer, a line a seed")]
        handles += [Line2D([], [], color=_COLORS[name], linestyle="--", label=name) for name in names]
        panels[len(tests)].legend(handles=handles, loc="center left")
        return png(figure)


def _draw_errors(axes: Axes, title: str, test: Test) -> None:
    for name, curve in test["estimators"].items():
        _line(axes, curve, _COLORS[name], "--")
    for curve in test["models"]:
        _line(axes, curve, _MODEL, "-")
    axes.set_ylim(0, _HIGHEST * test["models"][0]["mean"][0])
    axes.set_title(title)
    axes.set_xlabel("points and values seen k")


def _draw_excess(axes: Axes, excess: Sequence[Mapping[str, Any]], bar: float | None) -> None:
    axes.axhline(0, color=FAINT, linewidth=1)
    if bar is not None:
        axes.axhline(bar, color=INK, linewidth=1, linestyle=":")
    for curve in excess:
        _line(axes, curve, _MODEL, "-")
    axes.set_title("transformer minus Bayes")
    axes.set_xlabel("points and values seen k")


def _line(axes: Axes, curve: Mapping[str, Any], color: str, style: str) -> None:
    ks = range(len(curve["mean"]))
    axes.fill_between(ks, curve["low"], curve["high"], color=color, alpha=0.2, linewidth=0)
    axes.plot(ks, curve["mean"], color=color, linestyle=style, linewidth=1.4)
    axes.grid(color=GRID)
