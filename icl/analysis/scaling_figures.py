"""The figure of a ladder's losses against compute, after Fig. 3.1 of the GPT-3 paper, and against size."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from icl.analysis.law_forms import Floats
from icl.analysis.run_points import Curve
from icl.analysis.scaling_laws import FittedLaw, Prediction, RunPoint, efficient
from icl.figure_style import FAINT, INK, PANEL_INCHES, VARIANTS, look, png

_TARGET = VARIANTS[1]
Color = Callable[[float], tuple[float, ...]]


@dataclasses.dataclass(frozen=True)
class Target:
    """A run predicted before it was trained.

    Attributes:
      params: N.
      tokens: D.
      flops: C.
      prediction: From smaller runs.
      measured: Its loss in nats per token; None before it is trained.
    """

    params: int
    tokens: int
    flops: float
    prediction: Prediction
    measured: float | None = None


def draw(
    points: Sequence[RunPoint],
    curves: Sequence[Curve],
    law: FittedLaw,
    compute_law: FittedLaw,
    target: Target,
    loss_name: str = "loss (nats per token)",
) -> bytes:
    """A figure of two panels, as PNG.

    Args:
      points: The runs that the laws were fitted to, `params` first in colour.
      curves: Training losses as they went, of those runs and of the target; faint.
      law: L(N, D), in the right panel a line for each number of tokens.
      compute_law: L(C) of the efficient runs, in the left panel.
      target: The run predicted.
      loss_name: What the loss is of.
    """
    with look():
        figure = Figure(figsize=(2.3 * PANEL_INCHES[0], 1.25 * PANEL_INCHES[1]), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        _draw_compute(left, points, curves, compute_law, target)
        _draw_sizes(right, points, law, target)
        losses = [*(point.loss for point in points), target.prediction.low, target.measured or np.inf]
        left.set_ylim(0.96 * min(losses), 1.12 * max(point.loss for point in points))
        left.set_ylabel(loss_name)
        figure.legend(handles=_handles(compute_law, target), loc="outside lower center", ncols=4)
        return png(figure)


def _draw_compute(
    axes: Axes, points: Sequence[RunPoint], curves: Sequence[Curve], law: FittedLaw, target: Target
) -> None:
    for curve in curves:
        axes.plot(curve.flops_N, _smoothed(curve.loss_N), color=FAINT, alpha=0.35, linewidth=0.7)
    color = _colors([point.params for point in points])
    kept = efficient(points)
    for point in points:
        filled = color(point.params) if point in kept else "white"
        axes.plot(
            point.flops, point.loss, "o", color=color(point.params), markerfacecolor=filled, markersize=5
        )
    line = np.geomspace(min(point.flops for point in kept), target.flops, 100)
    axes.plot(line, law.losses(flops=line), color=INK, dashes=(4, 2), linewidth=1.2)
    _draw_target(axes, target.flops, target)
    axes.set_xlabel("training compute (FLOPs)")
    _log_axes(axes, lambda flops: f"1e{round(np.log10(flops))}")


def _draw_sizes(axes: Axes, points: Sequence[RunPoint], law: FittedLaw, target: Target) -> None:
    color = _colors([point.params for point in points])
    line = np.geomspace(min(point.params for point in points), target.params, 100)
    for tokens in sorted({point.tokens for point in points} | {target.tokens}):
        losses = law.losses(params=line, tokens=np.full_like(line, tokens))
        axes.plot(line, losses, color=INK, linewidth=0.9, alpha=0.7)
        _label(axes, line[0], losses[0], f"D = {_short(tokens)}")
    for point in points:
        axes.plot(point.params, point.loss, "o", color=color(point.params), markersize=5)
    _draw_target(axes, target.params, target)
    axes.set_xlabel("parameters N; a line for each number of tokens D")
    axes.margins(x=0.16)
    _log_axes(axes, _short)


def _label(axes: Axes, x: float, y: float, text: str) -> None:
    """Names a line at its left end."""
    beside: dict[str, Any] = {"xytext": (-6, 0), "textcoords": "offset points", "ha": "right", "va": "center"}
    axes.annotate(text, (x, y), fontsize=7, color=FAINT, **beside)


def _short(number: float) -> str:
    """A number as it is said: 300k, 1.2M."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= 0.995 * size:
            return f"{float(f'{number / size:.2g}'):g}{unit}"
    return f"{float(f'{number:.2g}'):g}"


def _draw_target(axes: Axes, x: float, target: Target) -> None:
    predicted = target.prediction
    axes.vlines(x, predicted.low, predicted.high, color=_TARGET, linewidth=1.6)
    axes.plot(x, predicted.loss, "_", color=_TARGET, markersize=11, markeredgewidth=1.8)
    if target.measured is not None:
        axes.plot(
            x, target.measured, "*", color=_TARGET, markersize=10, markeredgecolor=INK, markeredgewidth=0.5
        )


def _handles(compute_law: FittedLaw, target: Target) -> list[Line2D]:
    signs = [
        Line2D([], [], color=VARIANTS[2], marker="o", linestyle="", label="finished run (filled: efficient)"),
        Line2D([], [], color=FAINT, linewidth=0.8, label="on the way there"),
        Line2D([], [], color=INK, linewidth=0.9, label="L(N, D), fitted"),
        Line2D(
            [], [], color=INK, dashes=(4, 2), label=f"efficient runs: C^-{compute_law.values['alpha']:.3f}"
        ),
        Line2D(
            [],
            [],
            color=_TARGET,
            marker="_",
            markersize=10,
            label=f"predicted, {target.prediction.level:.0%}",
        ),
    ]
    if target.measured is not None:
        signs.append(
            Line2D([], [], color=_TARGET, marker="*", linestyle="", markersize=9, label="then measured")
        )
    return signs


def _colors(sizes: Sequence[float]) -> Color:
    """Dark for small models, light for large ones."""
    low, high = np.log([min(sizes), max(sizes)])
    shades = matplotlib.colormaps["viridis"]

    def color(size: float) -> tuple[float, ...]:
        return tuple(shades(float(0.85 * (np.log(size) - low) / max(high - low, 1e-9))))

    return color


def _smoothed(loss_N: Floats, share: float = 0.03) -> Floats:
    """The mean over a window that grows up to a share of the curve, so that single batches do not hide it."""
    width = max(1, round(share * len(loss_N)))
    sums = np.concatenate([[0.0], np.cumsum(loss_N)])
    ends = np.arange(1, len(loss_N) + 1)
    begins = np.maximum(ends - width, 0)
    smoothed: Floats = (sums[ends] - sums[begins]) / (ends - begins)
    return smoothed


def _log_axes(axes: Axes, shown: Callable[[float], str]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(
        LogLocator(subs=(1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.2, 2.5, 3.0, 4.0, 5.0, 7.0))
    )
    axes.yaxis.set_major_formatter(FuncFormatter(lambda loss, _: f"{loss:g}"))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: shown(x)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()
