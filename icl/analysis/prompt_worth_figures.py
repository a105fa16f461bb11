"""The figure of fine-tuning beside demonstrations: a panel a task, both curves, and where they cross."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from icl.analysis.prompt_worth import Worth
from icl.figure_style import FAINT, INK, PANEL_INCHES, VARIANTS, look, png

_TUNED, _PROMPTED = VARIANTS[1], VARIANTS[2]


class Compared(NamedTuple):
    """A task: accuracies (0..1) by seed after fine-tuning on N examples and with K demonstrations.

    `worth` has one entry for each K above 0, rising; `chance` is the rate of a guess.
    """

    sizes: Sequence[int]
    tuned_SN: NDArray[np.float64]
    ks: Sequence[int]
    prompted_SK: NDArray[np.float64]
    worth: Sequence[Worth]
    chance: float


def draw(tasks: Mapping[str, Compared]) -> bytes:
    """A figure of two columns, as PNG: N and K on one logarithmic axis, seeds thin, their mean bold."""
    width, height = PANEL_INCHES
    rows = -(-len(tasks) // 2)
    with look():
        figure = Figure(figsize=(2 * width, 1.15 * height * rows), layout="constrained")
        grid = figure.subplots(rows, 2, squeeze=False, sharey=True)
        for axes in grid.ravel()[len(tasks) :]:
            axes.set_visible(False)
        for axes, (name, task) in zip(grid.ravel(), tasks.items(), strict=False):
            _draw_task(axes, task)
            most = task.worth[-1]
            axes.set_title(f"{name}\n{most.k} demonstrations: {most.text()} examples", fontsize=7.5)
        for axes in grid[:, 0]:
            axes.set_ylabel("exact match (%)")
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
        return png(figure)


def _draw_task(axes: Axes, task: Compared) -> None:
    positive = [i for i, k in enumerate(task.ks) if k]
    ks = [task.ks[i] for i in positive]
    _curve(axes, task.sizes, 100 * task.tuned_SN, _TUNED, "fine-tuned on N examples")
    _curve(axes, ks, 100 * task.prompted_SK[:, positive], _PROMPTED, "frozen, K demonstrations")
    if 0 in task.ks:
        untuned = 100 * task.prompted_SK[:, task.ks.index(0)].mean()
        axes.axhline(untuned, color=FAINT, linestyle=":", linewidth=1.0, label="frozen, K = 0")
    most = task.worth[-1]
    level = 100 * most.accuracy
    axes.set_xscale("log", base=2)
    most_shown = max(*ks, *task.sizes)
    ticks = [4**power for power in range(math.ceil(math.log(most_shown, 4)) + 1)]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    if not most.is_censored:
        axes.plot([most.k, most.examples], [level, level], color=INK, linestyle="--", linewidth=1.0)
        axes.plot([most.examples], [level], "o", color=INK, markersize=5, label="as accurate as the most K")
    low, high = (min(max(end, task.sizes[0]), task.sizes[-1]) for end in (most.low, most.high))
    if high > low:
        axes.plot([low, high], [level, level], color=INK, linewidth=3.0, alpha=0.35, solid_capstyle="butt")
    axes.set(xlabel="examples N, demonstrations K", ylim=(-3, 103))


def _curve(axes: Axes, xs: Sequence[int], values_SX: NDArray[np.float64], color: str, label: str) -> None:
    for values in values_SX:
        axes.plot(xs, values, color=color, linewidth=0.7, alpha=0.5)
    axes.fill_between(xs, values_SX.min(0), values_SX.max(0), color=color, alpha=0.15, linewidth=0)
    axes.plot(xs, values_SX.mean(0), color=color, linewidth=1.8, marker="o", markersize=3, label=label)
