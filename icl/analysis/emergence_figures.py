"""Figures of what appears when: exact match by demonstration, or loss by position, and the heads' scores."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from icl.analysis.emergence import Snapshot
from icl.figure_style import FAINT, INK, PANEL_INCHES, VARIANTS, look, png

Run = Sequence[Snapshot]
_LAYERS = (VARIANTS[2], VARIANTS[1], VARIANTS[3], VARIANTS[4])


def draw(
    runs: Mapping[str, Sequence[Run]],
    rises: Mapping[str, Sequence[float | None]],
    *,
    ks: Sequence[int],
    chance: float,
) -> bytes:
    """A figure of a column a model and three rows, as PNG.

    Args:
      runs: Snapshots by model, a run a training seed.
      rises: The step at which each of those runs learnt to use demonstrations, dotted through a column.
      ks: The numbers of demonstrations to show.
      chance: Prefix matching of a head that attends equally to all.
    """
    width, height = PANEL_INCHES
    with look():
        figure = Figure(figsize=(0.85 * width * len(runs), 2.1 * height), layout="constrained")
        grid = figure.subplots(3, len(runs), sharex=True, sharey="row", squeeze=False)
        spread = np.linspace(0.85, 0.05, len(ks))
        shades = [matplotlib.colors.to_hex(matplotlib.colormaps["viridis"](at)) for at in spread]
        for column, (name, of_model) in enumerate(runs.items()):
            curve, matching, copying = grid[:, column]
            curve.set_title(name)
            for run in of_model:
                _draw_curve(curve, run, ks, shades)
                _draw_heads(matching, run, [snapshot.prefix_matching for snapshot in run])
                _draw_heads(copying, run, [snapshot.copying for snapshot in run])
            matching.axhline(chance, color=FAINT, linestyle="--", linewidth=0.8)
            copying.axhline(0.0, color=FAINT, linestyle="--", linewidth=0.8)
            for axes in grid[:, column]:
                for step in filter(None, rises[name]):
                    axes.axvline(step, color=INK, linestyle=":", linewidth=0.8)
            copying.set_xlabel("training step")
        grid[0, 0].set(ylabel="exact match (%)", ylim=(-3, 103))
        grid[1, 0].set(ylabel="prefix matching", ylim=(-0.03, 1.03))
        grid[2, 0].set(ylabel="copying", ylim=(-1.05, 1.05))
        figure.legend(handles=_handles(runs, ks, shades), loc="outside lower center", ncols=4)
        return png(figure)


def draw_on_text(runs: Mapping[str, Sequence[Run]], *, chance: float) -> bytes:
    """A figure of a column a model and three rows, as PNG: loss by position, the score, prefix matching.

    Args:
      runs: Snapshots by model, a run a training seed.
      chance: Prefix matching of a head that attends equally to all.
    """
    width, height = PANEL_INCHES
    with look():
        figure = Figure(figsize=(1.1 * width * len(runs), 2.3 * height), layout="constrained")
        grid = figure.subplots(3, len(runs), sharey="row", squeeze=False)
        shades: list[Line2D] = []
        for column, (name, of_model) in enumerate(runs.items()):
            by_position, score, matching = grid[:, column]
            by_position.set_title(name)
            shades = _draw_by_position(by_position, of_model)
            for run in of_model:
                steps = [snapshot.step for snapshot in run]
                gained = [snapshot.in_context_learning for snapshot in run]
                score.plot(steps, gained, color=VARIANTS[1], linewidth=1.3)
                _draw_heads(matching, run, [snapshot.prefix_matching for snapshot in run])
            score.axhline(0.0, color=FAINT, linestyle="--", linewidth=0.8)
            matching.axhline(chance, color=FAINT, linestyle="--", linewidth=0.8)
            matching.set_xlabel("training step")
        grid[0, 0].set_ylabel("loss (nats a token)")
        grid[1, 0].set_ylabel("in-context-learning\nscore (nats)")
        grid[2, 0].set(ylabel="prefix matching", ylim=(-0.03, 1.03))
        layers = _layer_handles(max(len(run[-1].copying) for of_model in runs.values() for run in of_model))
        even = Line2D([], [], color=FAINT, linestyle="--", label="no gain; an even head")
        figure.legend(handles=[*shades, *layers, even], loc="outside lower center", ncols=4)
        return png(figure)


def _draw_by_position(axes: Axes, of_model: Sequence[Run]) -> list[Line2D]:
    """Loss by position at five checkpoints, the mean of the seeds; returns the signs of the steps."""
    chosen = np.unique(np.linspace(0, len(of_model[0]) - 1, 5).astype(int))
    colors = matplotlib.colormaps["viridis"](np.linspace(0.85, 0.05, len(chosen)))
    handles = []
    for i, shade in zip(chosen, colors, strict=True):
        loss_P = np.mean([run[i].position_loss for run in of_model], axis=0)
        color = matplotlib.colors.to_hex(shade)
        axes.plot(2.0 ** np.arange(len(loss_P)), loss_P, color=color, linewidth=1.3)
        handles.append(Line2D([], [], color=color, label=f"step {of_model[0][i].step:,}"))
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: f"{at:g}"))
    axes.set_xlabel("position in the context, up to")
    return handles


def _draw_curve(axes: Axes, run: Run, ks: Sequence[int], shades: Sequence[str]) -> None:
    steps = [snapshot.step for snapshot in run]
    for k, shade in zip(ks, shades, strict=True):
        axes.plot(steps, [100 * snapshot.exact_match[k] for snapshot in run], color=shade, linewidth=1.1)


def _draw_heads(axes: Axes, run: Run, scores: Sequence[Sequence[Sequence[float]]]) -> None:
    """Every head a line; strong is the one that matches prefixes best at the end."""
    scores_SLH, best = np.array(scores), run[-1].best_head()
    steps = [snapshot.step for snapshot in run]
    for layer, head in np.ndindex(*scores_SLH.shape[1:]):
        strong = (layer, head) == best
        axes.plot(
            steps,
            scores_SLH[:, layer, head],
            color=_LAYERS[layer % len(_LAYERS)],
            linewidth=1.6 if strong else 0.8,
            alpha=1.0 if strong else 0.35,
        )


def _handles(runs: Mapping[str, Sequence[Run]], ks: Sequence[int], shades: Sequence[str]) -> list[Line2D]:
    layers = max(len(run[-1].copying) for of_model in runs.values() for run in of_model)
    return [
        *(Line2D([], [], color=shade, label=f"K = {k}") for k, shade in zip(ks, shades, strict=True)),
        *_layer_handles(layers),
        Line2D([], [], color=FAINT, linestyle="--", label="chance"),
        Line2D([], [], color=INK, linestyle=":", label="half of the rise at the largest K"),
    ]


def _layer_handles(layers: int) -> list[Line2D]:
    """Signs of the heads of each layer."""
    return [
        Line2D(
            [],
            [],
            color=_LAYERS[i % len(_LAYERS)],
            linewidth=1.6,
            label=f"head of layer {i + 1} (strong: best at matching)",
        )
        for i in range(layers)
    ]
