"""Small multiples of scores: a panel a condition, a curve a score, thin by seed and strong their mean."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from icl.errors import InputError
from icl.figure_style import VARIANTS, look, png


@dataclasses.dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
      row: Which row of panels it stands in; rows fill from the left.
      title: What it shows.
      x_label: What stands below it.
      x: Numbers, or names that stand evenly spread.
      curves: Scores (0..1) by name, a curve a training seed, each as long as `x`.
    """

    row: int
    title: str
    x_label: str
    x: Sequence[float] | Sequence[str]
    curves: Mapping[str, Sequence[Sequence[float]]]


def draw(panels: Sequence[Panel], label: str = "exact answers (%)") -> bytes:
    """A figure of all panels, as PNG; a score has the same colour wherever it stands.

    Args:
      panels: From left to right in each row.
      label: What the scores are.

    Raises:
      InputError: there is no panel, or a curve is not as long as its panel's `x`.
    """
    if not panels:
        raise InputError("figure of small runs: expected a panel")
    names = list(dict.fromkeys(name for panel in panels for name in panel.curves))
    colours = {name: VARIANTS[1:][i % (len(VARIANTS) - 1)] for i, name in enumerate(names)}
    rows = sorted({panel.row for panel in panels})
    of_row = {row: [panel for panel in panels if panel.row == row] for row in rows}
    columns = max(map(len, of_row.values()))
    with look():
        figure = Figure(figsize=(2.55 * columns, 2.2 * len(rows) + 0.6), layout="constrained")
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for i, row in enumerate(rows):
            for axes in grid[i, len(of_row[row]) :]:
                axes.set_axis_off()
            for axes, panel in zip(grid[i], of_row[row], strict=False):
                _draw_panel(axes, panel, colours)
            grid[i, 0].set_ylabel(label)
        handles = [Line2D([], [], color=colours[name], linewidth=1.8, label=name) for name in names]
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
        return png(figure)


def _draw_panel(axes: Axes, panel: Panel, colours: Mapping[str, str]) -> None:
    named = any(isinstance(x, str) for x in panel.x)
    places = np.arange(len(panel.x)) if named else np.array(panel.x, float)
    for name, runs in panel.curves.items():
        values_RX = 100 * np.array([list(run) for run in runs], float)
        if values_RX.ndim != 2 or values_RX.shape[1] != len(places):
            raise InputError(f"panel {panel.title!r}: expected curves of {len(places)} values for {name!r}")
        for values_X in values_RX:
            axes.plot(places, values_X, color=colours[name], linewidth=0.7, alpha=0.5)
        axes.plot(places, values_RX.mean(axis=0), color=colours[name], linewidth=1.8)
    if named:
        axes.set_xticks(places, [str(x) for x in panel.x], rotation=30 if len(places) > 5 else 0)
    axes.set(title=panel.title, xlabel=panel.x_label, ylim=(-3, 103))
