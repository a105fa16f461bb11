"""The K-curve of a running training as a figure: a panel a wording, a line a task, and their mean."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from icl.figure_style import FAINT, INK, PANEL_INCHES, VARIANTS, k_axis, k_position, look, png, score_axis

METRIC = "exact_match"
_COLORS = VARIANTS[1:]
"""The first is the mean's."""
_MARKERS = "osD^v"
_NAMED = 12
"""Tasks that have a colour and a name each; more are drawn alike."""

Curve = Mapping[str, Mapping[str, Mapping[str, Any]]]


def curve_figure(curve: Curve) -> bytes:
    """A PNG of exact match against K; `curve` is that of `icl.training.held_out.HeldOut`."""
    with look():
        size = (PANEL_INCHES[0] * len(curve), PANEL_INCHES[1] + 0.5)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(1, len(curve), squeeze=False)[0]
        for axes, (wording, by_task) in zip(panels, curve.items(), strict=True):
            _draw(axes, {task: np.asarray(metrics[METRIC]) for task, metrics in by_task.items()})
            axes.set_title(wording.replace("_", " ") + " instruction" * (wording == "without"), color=INK)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3 * len(curve))
        return png(figure)


def _draw(axes: Axes, score_K_of: Mapping[str, np.ndarray]) -> None:
    looks = itertools.cycle(itertools.product(_MARKERS, _COLORS))
    is_named = len(score_K_of) <= _NAMED
    for (task, score_K), (marker, color) in zip(score_K_of.items(), looks, strict=False):
        ks = np.flatnonzero(np.isfinite(score_K)).tolist()
        style: dict[str, Any] = {"color": color, "marker": marker, "label": task}
        style = style if is_named else {"color": FAINT}
        axes.plot([k_position(k) for k in ks], 100 * score_K[ks], linewidth=1.2, markersize=3, **style)
    every = list(score_K_of.values())
    longest = max((len(score_K) for score_K in every), default=1)
    shared = [k for k in range(longest) if every and all(np.isfinite(score_K[k]) for score_K in every)]
    means = [100 * np.mean([score_K[k] for score_K in every]) for k in shared]
    axes.plot([k_position(k) for k in shared], means, color=INK, linewidth=2, label="mean over tasks")
    k_axis(axes, [k for k in range(longest) if k & (k - 1) == 0])
    score_axis(axes, "exact match, %", bounded=True)
