"""What `tools.cost_growth` measured: the power laws fitted to it, as a table, as JSON and as figures."""

import dataclasses
import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator
from numpy.typing import ArrayLike
from scipy import stats

from icl.figure_style import FAINT, INK, VARIANTS, look, panel, png


class PowerLaw(NamedTuple):
    """y = factor x^exponent; the standard error and the 95 % interval (Student's t) are of the exponent."""

    factor: float
    exponent: float
    standard_error: float
    low: float
    high: float


def fit_power_law(x: ArrayLike, y: ArrayLike) -> PowerLaw:
    """Least squares on logs.

    The standard error takes the residuals for noise, so that a curve that is no power law widens it too.

    Args:
      x: positive numbers [points], three or more, not all the same.
      y: positive numbers [points].
    """
    log_x, log_y = np.log(np.asarray(x, np.float64)), np.log(np.asarray(y, np.float64))
    free = len(log_x) - 2
    if free < 1 or np.ptp(log_x) == 0:
        raise ValueError(f"x = {np.asarray(x)}: expected three points or more, not all at the same place")
    from_mean = log_x - log_x.mean()
    spread = float(from_mean @ from_mean)
    exponent = float(from_mean @ log_y) / spread
    intercept = float(log_y.mean() - exponent * log_x.mean())
    residuals = log_y - intercept - exponent * log_x
    error = math.sqrt(float(residuals @ residuals) / free / spread)
    reach = float(stats.t.ppf(0.975, free)) * error
    return PowerLaw(math.exp(intercept), exponent, error, exponent - reach, exponent + reach)


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What was measured of one cost.

    Attributes:
      name: Of the cost, in the table and the legend.
      setting: What does not grow.
      against: What grows, with its unit.
      x: Its values [points].
      expected: What the cost should be proportional to [points].
      of: What that is.
      samples: Seconds [points][rounds].
    """

    name: str
    setting: str
    against: str
    x: tuple[float, ...]
    expected: tuple[float, ...]
    of: str
    samples: tuple[tuple[float, ...], ...]

    @property
    def seconds(self) -> list[float]:
        """Medians over the rounds [points]."""
        return [statistics.median(rounds) for rounds in self.samples]

    @property
    def fit(self) -> PowerLaw:
        """Of the seconds."""
        return fit_power_law(self.x, self.seconds)

    @property
    def expected_fit(self) -> PowerLaw:
        """Of what is expected, at the same points."""
        return fit_power_law(self.x, self.expected)

    @property
    def against_expected(self) -> PowerLaw | None:
        """Of the seconds against what is expected; an exponent of 1 is as it should be.

        None where what is expected does not grow.
        """
        return fit_power_law(self.expected, self.seconds) if len(set(self.expected)) > 1 else None

    @property
    def last_exponents(self) -> tuple[float, float]:
        """Of seconds and of what is expected, between the last two points."""
        before, last = (np.log([self.x[i], self.seconds[i], self.expected[i]]) for i in (-2, -1))
        grown = last - before
        return float(grown[1] / grown[0]), float(grown[2] / grown[0])


def table(figures: dict[str, list[Sweep]]) -> Iterator[str]:
    """Lines of the table of all fits."""
    yield (
        f"{'seconds of':18} {'against':10} {'exponent':>15} {'95 %':>16}  {'expected':>8} {'of':11} "
        f"{'against that':>15}  {'last two points':>15}"
    )
    for figure, sweeps in figures.items():
        for one in sweeps:
            fit, beside, last = one.fit, one.against_expected, one.last_exponents
            interval = f"{_number(fit.low)} to {_number(fit.high)}"
            yield (
                f"{one.name:18} {figure:10} {_exponent(fit):>15} {interval:>16}  "
                f"{_number(one.expected_fit.exponent):>8} {one.of:11} "
                f"{_exponent(beside) if beside else '':>15}  {last[0]:6.2f} ({last[1]:.2f})"
            )


def as_json(figures: dict[str, list[Sweep]]) -> dict[str, Any]:
    """Everything measured and fitted, by figure."""
    return {
        figure: [
            dataclasses.asdict(one)
            | {
                "seconds": one.seconds,
                "fit": one.fit._asdict(),
                "expected_fit": one.expected_fit._asdict(),
                "against_expected": one.against_expected and one.against_expected._asdict(),
                "last_exponents": one.last_exponents,
            }
            for one in sweeps
        ]
        for figure, sweeps in figures.items()
    }


def draw(sweeps: Sequence[Sweep], title: str) -> bytes:
    """A figure, as PNG: medians with quartiles, the fit, and what is expected of the least cost a unit."""
    with look():
        figure, axes = panel(1.4)
        figure.set_figheight(3.6 + 0.25 * len(sweeps))
        for one, color in zip(sweeps, (VARIANTS[2], VARIANTS[1]), strict=False):
            _draw_sweep(axes, one, color)
        axes.set_title(f"{title}\n{sweeps[0].setting}", color=INK)
        axes.set_xlabel(sweeps[0].against)
        axes.set_ylabel("seconds a step" if len(sweeps) == 1 else "seconds")
        _log_axes(axes, sweeps[0].x)
        figure.legend(loc="outside lower center", ncols=len(sweeps))
        return png(figure)


def _draw_sweep(axes: Axes, one: Sweep, color: str) -> None:
    seconds, fit = one.seconds, one.fit
    quartiles = np.quantile(one.samples, (0.25, 0.75), axis=1)
    axes.vlines(one.x, *quartiles, color=color, linewidth=1.2)
    axes.plot(one.x, seconds, "o", color=color, markersize=5, label=f"{one.name}, median and quartiles")
    ends = np.array([min(one.x), max(one.x)])
    label = f"power law, exponent {_exponent(fit)}"
    axes.plot(ends, fit.factor * ends**fit.exponent, color=color, linewidth=1.5, label=label)
    least = min(s / e for s, e in zip(seconds, one.expected, strict=True))
    at = f" at {short(1 / least, ' ')}FLOP/s" if "FLOPs" in one.of else ""
    label = f"{one.of}{at}, exponent {_number(one.expected_fit.exponent)}"
    expected = least * np.array(one.expected)
    axes.plot(one.x, expected, color=FAINT, dashes=(4, 2), linewidth=1.3, label=label)


def _log_axes(axes: Axes, x: Sequence[float]) -> None:
    """Both axes by ratios; the points themselves are marked below, round numbers of seconds at the side."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(x, [short(one) for one in x])
    low, high = axes.get_ylim()
    rounded = (1.0, 2.0, 5.0) if high > 8 * low else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
    axes.yaxis.set_major_locator(LogLocator(subs=rounded))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds:g}"))
    axes.minorticks_off()


def _exponent(fit: PowerLaw) -> str:
    return f"{_number(fit.exponent)} ± {fit.standard_error:.3f}"


def _number(exponent: float) -> str:
    return f"{exponent:.3f}".replace("-", "−").replace("−0.000", "0.000")


def short(number: float, space: str = "") -> str:
    """A number as it is said: 125M, 1.3G."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size and not (unit == "k" and number < 10_000):
            return f"{number / size:.3g}{space}{unit}"
    return f"{number:g}{space}"
