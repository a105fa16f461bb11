"""The figure of what demonstrations teach: labels by K and size, through training, orders and calibration."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from icl.analysis.label_effects import Curve, Measured, OrderSpread, look_up_ceiling
from icl.figure_style import FAINT, INK, PANEL_INCHES, VARIANTS, k_axis, k_position, look, png

CONDITIONS = {
    "gold": "right labels",
    "random_labels": "random labels",
    "flipped_labels": "flipped labels",
    "following": "flipped labels, followed",
    "abstract_labels": "abstract labels",
}
"""The curves of a model by what they are called; `following` is judged by the flipped labels."""
_COLORS = (*VARIANTS[:3], VARIANTS[2], VARIANTS[3])
_STYLES = {name: (color, marker) for name, color, marker in zip(CONDITIONS, _COLORS, "osD^v", strict=True)}
_DASHED = {"following"}


@dataclasses.dataclass(frozen=True)
class Trained:
    """Models of one size and one kind of training, one a seed.

    Attributes:
      name: What they are called.
      params: All parameters of one.
      labels: The task's.
      effects: What labels do at the end of training (`icl.analysis.label_effects.label_effects`).
      through_training: The same by training step, at fewer K.
      orders: Spread over orders of the same demonstrations, by condition.
    """

    name: str
    params: int
    labels: tuple[str, ...]
    effects: Mapping[str, Curve]
    through_training: Mapping[int, Mapping[str, Curve]]
    orders: Mapping[str, OrderSpread]


def draw(renamed: Sequence[Trained], usual: Sequence[Trained]) -> bytes:
    """The figure, as PNG.

    Args:
      renamed: Models that met classes under other names in training too, from small to large.
      usual: The same models, trained on usual names only.
    """
    width, height = PANEL_INCHES
    columns, chance = max(len(renamed), 4), 1 / len(renamed[0].labels)
    with look():
        figure = Figure(figsize=(0.72 * width * columns, 3.1 * height), layout="constrained")
        grid = figure.subplots(4, columns, squeeze=False)
        for row, kind, models in ((0, "renamed too", renamed), (1, "usual names only", usual)):
            for axes, one in zip(grid[row], models, strict=False):
                _draw_conditions(axes, one)
                axes.set_title(f"{one.name} ({one.params / 1000:.0f}k), {kind}")
            for axes in grid[row, len(models) :]:
                axes.axis("off")
            grid[row, 0].set_ylabel("accuracy (%)")
        _draw_training(grid[2], renamed, usual, chance)
        _draw_orders(grid[3, 0], renamed, chance)
        for axes, condition in zip(grid[3, 1:3], ("gold", "abstract_labels"), strict=True):
            for one, shade in zip(renamed, _shades(renamed), strict=True):
                _by_k(axes, one.effects[f"ECE, {condition}"], shade, 1.0)
            axes.set(title=f"calibration, {CONDITIONS[condition]}", ylim=(-0.02, None))
        grid[3, 1].set_ylabel("calibration error")
        _draw_calibrated(grid[3, 3], renamed, chance)
        for row in (2, 3):
            for axes in grid[row, 4:]:
                axes.axis("off")
        figure.legend(handles=_handles(renamed), loc="outside lower center", ncols=5)
        return png(figure)


def _draw_conditions(axes: Axes, trained: Trained) -> None:
    for name, (color, marker) in _STYLES.items():
        curve = trained.effects[name]
        line = "--" if name in _DASHED else "-"
        _by_k(axes, curve, color, 100, marker=marker, line=line)
    ks = list(trained.effects["abstract_labels"])
    ceiling = [100 * look_up_ceiling(len(trained.labels), k) for k in ks]
    axes.plot([k_position(k) for k in ks], ceiling, color=FAINT, linestyle="--", linewidth=0.9)
    _percent(axes, 1 / len(trained.labels))


def _by_k(
    axes: Axes,
    curve: Curve,
    color: str,
    scale: float,
    *,
    marker: str = "o",
    line: str = "-",
    band: bool = True,
) -> None:
    """A figure against K with its interval; every model a thin line."""
    x = [k_position(k) for k in curve]
    if band:
        low, high = ([scale * getattr(one, end) for one in curve.values()] for end in ("low", "high"))
        axes.fill_between(x, low, high, color=color, alpha=0.12, linewidth=0)
    _lines(axes, x, list(curve.values()), color, scale, line=line, marker=marker)
    k_axis(axes, list(curve))


def _lines(
    axes: Axes,
    x: Sequence[float],
    found: Sequence[Measured],
    color: str,
    scale: float,
    *,
    line: str,
    marker: str = "",
) -> None:
    for values in zip(*(one.models for one in found), strict=True):
        axes.plot(x, scale * np.array(values), color=color, linewidth=0.5, alpha=0.6, linestyle=line)
    middle = [scale * one.value for one in found]
    axes.plot(x, middle, color=color, marker=marker, markersize=3, linewidth=1.3, linestyle=line)


def _percent(axes: Axes, chance: float) -> None:
    axes.axhline(100 * chance, color=FAINT, linestyle=":", linewidth=0.9)
    axes.set_ylim(-3, 103)


def _draw_training(
    panels: Sequence[Axes], renamed: Sequence[Trained], usual: Sequence[Trained], chance: float
) -> None:
    """Four figures against the training step, a colour a size; trained on usual names only is dashed."""
    first = next(iter(renamed[0].through_training.values()))
    fewest, most = min(first["gold"]), max(first["gold"])
    shown: list[tuple[str, Callable[[Mapping[str, Curve]], Measured]]] = [
        (f"right labels, K = {fewest}", lambda effects: effects["gold"][fewest]),
        (f"random labels, K = {most}", lambda effects: effects["random_labels"][most]),
        (f"flipped labels followed, K = {most}", lambda effects: effects["following"][most]),
        (f"abstract labels, K = {most}", lambda effects: effects["abstract_labels"][most]),
    ]
    for axes, (title, pick) in zip(panels, shown, strict=False):
        for models, line in ((usual, "--"), (renamed, "-")):
            for one, shade in zip(models, _shades(models), strict=True):
                found = [pick(effects) for effects in one.through_training.values()]
                _lines(axes, list(one.through_training), found, shade, 100, line=line)
        _percent(axes, chance)
        axes.set(title=title, xlabel="training step")
    panels[0].set_ylabel("accuracy (%)")


def _draw_orders(axes: Axes, models: Sequence[Trained], chance: float) -> None:
    """From the worst to the best order of a set; the fainter bar is as wide as chance alone makes it."""
    conditions = list(models[0].orders)
    for place, one in enumerate(models):
        for number, condition in enumerate(conditions):
            spread, (color, marker) = one.orders[condition], _STYLES[condition]
            x = place + 0.2 * (number - (len(conditions) - 1) / 2)
            middle, half = 100 * spread.mean.value, 50 * spread.by_chance
            axes.plot([x, x], [middle - half, middle + half], color=color, linewidth=5, alpha=0.25)
            ends = [100 * spread.worst.value, 100 * spread.best.value]
            axes.plot([x, x], ends, color=color, linewidth=1.2)
            axes.plot([x], [middle], color=color, marker=marker, markersize=2.5)
    _percent(axes, chance)
    axes.set_xticks(range(len(models)), [one.name for one in models])
    axes.set(title="worst to best order of a set", ylabel="accuracy (%)")


def _draw_calibrated(axes: Axes, models: Sequence[Trained], chance: float) -> None:
    for one, shade in zip(models, _shades(models), strict=True):
        _by_k(axes, one.effects["abstract_labels"], shade, 100, band=False)
        _by_k(axes, one.effects["abstract_labels, calibrated"], shade, 100, marker="s", line=":", band=False)
    _percent(axes, chance)
    axes.set(title="abstract labels, calibrated (dotted)", ylabel="accuracy (%)")


def _shades(models: Sequence[Trained]) -> list[str]:
    """A colour a size, darker where larger."""
    spread = np.linspace(0.85, 0.05, len(models)) if len(models) > 1 else [0.4]
    return [matplotlib.colors.to_hex(matplotlib.colormaps["viridis"](at)) for at in spread]


def _handles(models: Sequence[Trained]) -> list[Line2D]:
    return [
        *(
            Line2D(
                [],
                [],
                color=color,
                marker=marker,
                ls="--" if name in _DASHED else "-",
                label=CONDITIONS[name],
            )
            for name, (color, marker) in _STYLES.items()
        ),
        *(
            Line2D([], [], color=shade, linewidth=1.6, label=one.name)
            for one, shade in zip(models, _shades(models), strict=True)
        ),
        Line2D([], [], color=INK, linestyle="--", label="through training: usual names only"),
        Line2D([], [], color=FAINT, linewidth=5, alpha=0.5, label="orders: spread by chance"),
        Line2D([], [], color=FAINT, linestyle="--", label="by K: all that demonstrations show"),
        Line2D([], [], color=FAINT, linestyle=":", label="a guess"),
    ]
