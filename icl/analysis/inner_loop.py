"""Learning within a row: the loss of an episode's answers by the number of demonstrations before them.

The forward pass over a row is the inner loop of the GPT-3 paper (Fig. 1.1), training the outer one.
Dimension letters: B rows, T positions, K demonstrations before an answer, R runs, S steps.
"""

from collections.abc import Mapping
from typing import Any

import jax
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from icl.analysis.losses import exact_by_demonstration, loss_by_demonstration, token_scores
from icl.analysis.row_figure import draw_row
from icl.data.batch import NO_EXAMPLE, Batch
from icl.data.tokenizer import Tokenizer
from icl.figure_style import PANEL_INCHES, VARIANTS, k_axis, k_position, look, png
from icl.model.config import ModelConfig

_ROWS = 128
"""Read at once."""


def by_demonstration(
    config: ModelConfig, params: Any, rows: Batch, num_components: int, num_examples: int
) -> dict[str, Any]:
    """What a model's answers cost after K = 0, 1, ... demonstrations, by task and over all.

    Args:
      config: The model.
      params: Its parameters.
      rows: A multiple of rows read at once or fewer; a row may hold several episodes.
      num_components: How many tasks `rows.tasks_BT` numbers.
      num_examples: How many K to report, from 0.

    Returns:
      `loss`, nats a token of the answer, [num_examples]; `by_task`, the same for each task; `exact`, the
      share of answers that are right token for token, or None where rows hold several episodes.
    """
    loss_BT, best_BT = (np.concatenate(parts) for parts in zip(*_scored(config, params, rows), strict=True))
    examples_BT, tasks_BT = np.asarray(rows.examples_BT), np.asarray(rows.tasks_BT)
    exact = None
    if np.max(rows.segments_BT) <= 1:
        exact = exact_by_demonstration(best_BT, rows.targets_BT, examples_BT, num_examples).mean
    of_task = (np.where(tasks_BT == task, examples_BT, NO_EXAMPLE) for task in range(num_components))
    return {
        "loss": _plain(loss_by_demonstration(loss_BT, examples_BT, num_examples).mean),
        "by_task": [
            _plain(loss_by_demonstration(loss_BT, only_BT, num_examples).mean) for only_BT in of_task
        ],
        "exact": None if exact is None else _plain(exact),
    }


def mean_over_seeds(results: Mapping[str, Any], rows: str, step: int, what: str) -> np.ndarray:
    """A curve of an experiment's results, [num_examples], the mean of its runs; NaN where one has nothing."""
    return np.mean([_curve(run[rows][step][what]) for run in results["runs"]], axis=0)


def draw(results: Mapping[str, Any], row: Batch, losses: Mapping[str, Any], tokenizer: Tokenizer) -> bytes:
    """A figure, as PNG: a row with its losses at some steps; loss by demonstration through training; by task.

    Args:
      results: `steps`, `components`, and `runs` with what `by_demonstration` gives at each step for rows
        called `held_out` and `training`.
      row: The row to draw.
      losses: Its losses, as `draw_row` takes them.
      tokenizer: Of the row.
    """
    width, height = PANEL_INCHES
    with look():
        figure = Figure(figsize=(2.3 * width, 2.2 * height), layout="constrained")
        grid = figure.add_gridspec(2, 3, height_ratios=(1.0, 1.25))
        top = figure.add_subplot(grid[0, :])
        colors = draw_row(top, row, tokenizer, results["components"], losses)
        bar = figure.colorbar(colors, ax=top, fraction=0.02, pad=0.01, extend="max")
        bar.set_label("loss of a token (nats)")
        bar.outline.set_visible(False)
        left, middle, right = (figure.add_subplot(grid[1, i]) for i in range(3))
        for axes, rows, title in (
            (left, "training", "unseen training rows"),
            (middle, "held_out", "held-out instances"),
        ):
            _draw_steps(axes, results, rows)
            axes.set_title(title)
        middle.sharey(left)
        right.sharey(left)
        left.set_ylabel("loss of an answer's token (nats)")
        _draw_tasks(right, results)
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=5)
        right.legend(loc="upper right")
        return png(figure)


def _draw_steps(axes: Any, results: Mapping[str, Any], rows: str) -> None:
    """A line a step, the range of the seeds as its band."""
    steps = results["steps"]
    shades = matplotlib.colormaps["viridis"](np.linspace(0.9, 0.1, len(steps)))
    curves_RSK = np.array([[_curve(at["loss"]) for at in run[rows]] for run in results["runs"]])
    ks = range(curves_RSK.shape[2])
    at = [k_position(k) for k in ks]
    for i, (step, shade) in enumerate(zip(steps, shades, strict=True)):
        curves = curves_RSK[:, i]
        axes.plot(at, curves.mean(axis=0), color=shade, linewidth=1.5, label=f"step {step:,}")
        axes.fill_between(at, curves.min(axis=0), curves.max(axis=0), color=shade, alpha=0.2, linewidth=0)
    k_axis(axes, ks)


def _draw_tasks(axes: Any, results: Mapping[str, Any]) -> None:
    """A line a task, at the last step, on held-out instances."""
    curves = np.array(
        [[_curve(of_task) for of_task in run["held_out"][-1]["by_task"]] for run in results["runs"]]
    )
    at = [k_position(k) for k in range(curves.shape[2])]
    for i, name in enumerate(results["components"]):
        color = VARIANTS[(i + 1) % len(VARIANTS)]
        axes.plot(at, curves[:, i].mean(axis=0), color=color, linewidth=1.5, label=name)
        axes.fill_between(
            at, curves[:, i].min(axis=0), curves[:, i].max(axis=0), color=color, alpha=0.2, linewidth=0
        )
    axes.set_title(f"held-out instances by task, step {results['steps'][-1]:,}")
    k_axis(axes, range(curves.shape[2]))


def _scored(config: ModelConfig, params: Any, rows: Batch) -> Any:
    """Loss and likeliest token of some rows at a time."""
    number = np.asarray(rows.inputs_BT).shape[0]
    for start in range(0, number, _ROWS):
        part = jax.tree.map(lambda x_BT, start=start: np.asarray(x_BT)[start : start + _ROWS], rows)
        scores = jax.device_get(token_scores(config, params, part))
        yield scores.cross_entropy_BT, scores.best_BT


def _plain(values: np.ndarray) -> list[float | None]:
    """For JSON: four digits after the point, None where there is nothing."""
    return [None if not np.isfinite(value) else round(float(value), 4) for value in values]


def _curve(values: list[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values])
