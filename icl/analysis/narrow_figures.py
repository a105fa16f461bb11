"""The figure of narrow data: right answers where the accident holds, breaks and reverses, by its strength."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from icl.figure_style import FAINT, INK, PANEL_INCHES, VARIANTS, k_axis, k_position, look, png, score_axis
from icl.tasks.cue_label import ACCIDENTS

_COLORS = dict(zip(ACCIDENTS, (VARIANTS[2], VARIANTS[3], VARIANTS[1]), strict=True))


def draw(results: Mapping[str, Any]) -> bytes:
    """A column for each strength of the accident; above demonstrations, below fine-tuning; as PNG.

    Args:
      results: `agreement` by name, and `runs` with the shares of right answers (0..1) by task and number:
        `demonstrations`, `ideal` and `fine_tuning`, as the experiment writes them.
    """
    names = list(results["agreement"])
    width, height = PANEL_INCHES
    with look():
        size = (0.75 * width * len(names), 2.05 * height)
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(2, len(names), sharey=True, squeeze=False)
        for (above, below), name in zip(grid.T, names, strict=True):
            above.set_title(f"the mark agrees in {results['agreement'][name]:.0%}", color=INK)
            for accident in ACCIDENTS:
                task = f"{name}_{accident}"
                _lines(above, [run["demonstrations"][task] for run in results["runs"]], _COLORS[accident])
                _ideal(above, [run["ideal"][task] for run in results["runs"]], _COLORS[accident])
                _lines(below, [run["fine_tuning"][task] for run in results["runs"]], _COLORS[accident])
            k_axis(above, [int(k) for k in results["runs"][0]["ideal"][f"{name}_{ACCIDENTS[0]}"]])
            k_axis(below, results["examples"])
            below.set_xlabel("examples N to fine-tune on")
            for axes in (above, below):
                axes.axhline(50, color=FAINT, linewidth=0.8, linestyle="--")
        score_axis(grid[0, 0], "in context: right (%)", True)
        score_axis(grid[1, 0], "fine-tuned: right (%)", True)
        figure.legend(handles=_handles(), loc="outside lower center", ncols=6)
        return png(figure)


def _lines(axes: Axes, of_seeds: Sequence[Mapping[str, float]], color: str) -> None:
    """A thin line a seed, a thick one for their mean."""
    at = [k_position(int(number)) for number in of_seeds[0]]
    shares = 100 * np.array([list(one.values()) for one in of_seeds])
    for share in shares:
        axes.plot(at, share, color=color, linewidth=0.6, alpha=0.6)
    axes.plot(at, shares.mean(axis=0), color=color, linewidth=1.8, marker="o", markersize=3)


def _ideal(axes: Axes, of_seeds: Sequence[Mapping[str, float]], color: str) -> None:
    at = [k_position(int(number)) for number in of_seeds[0]]
    mean = 100 * np.mean([list(one.values()) for one in of_seeds], axis=0)
    axes.plot(at, mean, color=color, linewidth=1, linestyle=":")


def _handles() -> list[Line2D]:
    signs = [
        Line2D([], [], color=color, marker="o", markersize=3, label=f"at test the accident {accident}")
        for accident, color in _COLORS.items()
    ]
    return [
        *signs,
        Line2D([], [], color=INK, linewidth=0.6, label="thin: one seed each"),
        Line2D([], [], color=INK, linewidth=1, linestyle=":", label="ideal learner"),
        Line2D([], [], color=FAINT, linewidth=0.8, linestyle="--", label="a guess of two"),
    ]
