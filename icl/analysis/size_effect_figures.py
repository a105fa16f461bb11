"""The figure of a ladder's K-curves and of its scores by size, after Figs. 1.2 and 1.3 of the GPT-3 paper."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from icl.analysis.size_effects import SizeCurve
from icl.evaluation.curves import wording_name
from icl.evaluation.size_figures import BySize, draw_by_size, size_handles
from icl.figure_style import FAINT, INK, PANEL_INCHES, k_axis, k_position, look, png, score_axis

_COLUMNS = 3


def draw(
    curves: Sequence[SizeCurve],
    chance: Mapping[tuple[str, bool], Mapping[int, float]],
    by_size: Sequence[BySize],
) -> bytes:
    """A grid of panels as PNG: K-curves of each group and wording, a line a size; then scores against size.

    Args:
      curves: As `size_curves` gives them; thin lines are training seeds, the thick one is their mean.
      chance: By group and wording, what guessing scores at each K, 0..1; dotted.
      by_size: Panels of scores against size.
    """
    shown = list(dict.fromkeys((curve.group, curve.instruction) for curve in curves))
    columns = min(_COLUMNS, len(shown) + len(by_size))
    rows = -(-(len(shown) + len(by_size)) // columns)
    sizes = {curve.rung: curve.params for curve in curves}
    shades = matplotlib.colormaps["magma"](np.linspace(0.8, 0.1, len(sizes)))
    colors = {rung: matplotlib.colors.to_hex(shade) for rung, shade in zip(sizes, shades, strict=True)}
    with look():
        size = (PANEL_INCHES[0] * columns, PANEL_INCHES[1] * rows + 0.8)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, (group, instruction) in zip(panels, shown, strict=False):
            own = [curve for curve in curves if (curve.group, curve.instruction) == (group, instruction)]
            _draw_curves(axes, own, chance.get((group, instruction), {}), colors)
            axes.set_title(f"{group}, {wording_name(instruction)}", color=INK)
        for axes, one in zip(panels[len(shown) :], by_size, strict=False):
            draw_by_size(axes, one)
            axes.set_title(one.title, color=INK)
            axes.legend(handles=size_handles(one), loc="upper left", fontsize=7)
        for axes in panels[len(shown) + len(by_size) :]:
            axes.axis("off")
        figure.legend(handles=_handles(sizes, colors), loc="outside lower center", ncols=4)
        return png(figure)


def _draw_curves(
    axes: Axes, curves: Sequence[SizeCurve], chance: Mapping[int, float], colors: Mapping[str, str]
) -> None:
    for curve in curves:
        at, color = [k_position(k) for k in curve.ks], colors[curve.rung]
        for score_K in curve.score_RK:
            axes.plot(at, 100 * score_K, color=color, linewidth=0.6, alpha=0.6)
        axes.plot(at, 100 * curve.mean_K, color=color, linewidth=1.8, marker="o", markersize=3)
    if chance:
        axes.plot(
            [k_position(k) for k in chance],
            [100 * value for value in chance.values()],
            color=FAINT,
            linewidth=1,
            linestyle=":",
        )
    k_axis(axes, sorted({k for curve in curves for k in curve.ks}))
    score_axis(axes, "right answers (%)", True)


def _handles(sizes: Mapping[str, int], colors: Mapping[str, str]) -> list[Line2D]:
    signs = [
        Line2D([], [], color=colors[rung], marker="o", markersize=3, label=f"{rung} ({params:,} parameters)")
        for rung, params in sizes.items()
    ]
    seeds = Line2D([], [], color=INK, linewidth=0.6, label="thin: one training seed each")
    return [*signs, seeds, Line2D([], [], color=FAINT, linestyle=":", label="chance")]
