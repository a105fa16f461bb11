"""Cost grows as it should: step time against parameters, context and batch, and the data loader against hosts.

    python -m tools.cost_growth --output_dir DIR [--quick] [--rounds 10]

Step time is that of our train step on one device, with random tokens: the models of gin/models/cpu_ladder.gin
on a CPU, larger ones in bfloat16 elsewhere. The loader reads the same global batches as 1, 2, 4 and 8 hosts,
each its own part, one after another and without read-ahead. The points of a sweep take turns, so that what
else the machine does hits all alike; medians over the rounds count. Each sweep gets a power law by least
squares on logs, beside that of the model FLOPs at the same points. Writes `cost_growth.json` and a figure a
sweep. Takes about five minutes of two cores, a minute and a half at most with `--quick`.
"""

import argparse
import dataclasses
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from icl.host_memory import keep_freed_memory

if __name__ == "__main__":
    keep_freed_memory()

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import ArrayLike
from scipy import stats
from tqdm import tqdm

from icl import model
from icl.config import load_runs
from icl.data.loader import batches
from icl.data.rows import Rows
from icl.data.tokenizer import load_tokenizer
from icl.errors import InputError
from icl.evaluation.figure_style import FAINT, INK, VARIANTS, look, panel, png
from icl.evaluation.records import write_file
from icl.model import ModelConfig
from icl.tasks.registry import build_tasks
from icl.training.config import RunConfig
from icl.training.description import git_revision, versions
from tools.train_peers import Shape, make_icl

RUN = "runs/cpu_ladder.gin"
MIDDLE = "p1m"
"""The model whose context and batch grow."""
HOSTS = (1, 2, 4, 8)
LOADER_ROWS, LOADER_LENGTH = 64, 1024
Turn = Callable[[], float]
"""Measures one point once: seconds."""


class PowerLaw(NamedTuple):
    """y = factor x^exponent; `standard_error` and the 95 % interval (Student's t) are those of the exponent."""

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
        raise ValueError(f"x = {x}: expected three points or more, not all at the same place")
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
      against: What grows, with its unit.
      x: Its values [points].
      expected: What the cost should be proportional to [points].
      of: What that is.
      samples: Seconds [points][rounds].
    """

    name: str
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
        """Of the seconds against what is expected: an exponent of 1 is as it should be. None if that is flat."""
        return fit_power_law(self.expected, self.seconds) if len(set(self.expected)) > 1 else None

    @property
    def last_exponents(self) -> tuple[float, float]:
        """Of seconds and of what is expected, between the last two points."""
        step = math.log(self.x[-1] / self.x[-2])
        seconds = self.seconds
        return math.log(seconds[-1] / seconds[-2]) / step, math.log(
            self.expected[-1] / self.expected[-2]
        ) / step


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is measured, and for how long.

    Attributes:
      sizes: Models of the first sweep.
      middle: The model of the second and third.
      tokens: Of a step in the first two.
      length: Of the rows in the first and third.
      lengths: Of the rows in the second.
      rows: Of a step in the third.
      rounds: Of all points.
      seconds: Of a point in a round, at least one step.
    """

    sizes: tuple[ModelConfig, ...]
    middle: ModelConfig
    tokens: int
    length: int
    lengths: tuple[int, ...]
    rows: tuple[int, ...]
    rounds: int
    seconds: float


def make_plan(runs: Sequence[RunConfig], vocab_size: int, platform: str, rounds: int, quick: bool) -> Plan:
    """The sizes that suit a device."""
    configs = {run.rung: dataclasses.replace(run.model, vocab_size=vocab_size) for run in runs}
    middle = configs[MIDDLE]
    if platform == "cpu":
        sizes = list(configs.values())[:-2] if quick else list(configs.values())
        lengths = (128, 256, 512, 1024, 2048)
        rows = (1, 2, 4, 8) if quick else (1, 2, 4, 8, 16, 32)
        return Plan(tuple(sizes), middle, 2048, 256, lengths, rows, rounds, 0.1 if quick else 0.5)

    def larger(layers: int, width: int) -> ModelConfig:
        return dataclasses.replace(
            middle, num_layers=layers, embed_dim=width, num_heads=width // 64, compute_dtype="bfloat16"
        )

    shapes = ((4, 256), (6, 384), (8, 512), (10, 768), (12, 1024), (16, 1280))
    sizes = [larger(*shape) for shape in shapes[: 5 if quick else 6]]
    lengths, rows = (512, 1024, 2048, 4096, 8192), (1, 2, 4, 8, 16, 32)
    return Plan(tuple(sizes), sizes[3], 16_384, 1024, lengths, rows, rounds, 0.1 if quick else 0.5)


def take_turns(turns: Sequence[Turn], rounds: int, bar: "tqdm[NoReturn]") -> list[tuple[float, ...]]:
    """Seconds [turns][rounds]; every other round goes backwards."""
    samples: list[list[float]] = [[] for _ in turns]
    for number in range(rounds):
        for i in range(len(turns))[:: -1 if number % 2 else 1]:
            samples[i].append(turns[i]())
            bar.update()
    return [tuple(one) for one in samples]


def step_sweep(
    name: str, against: str, x: Sequence[float], shapes: Sequence[Shape], plan: Plan, bar: "tqdm[NoReturn]"
) -> Sweep:
    """Compiles the train step of every shape, then times them in turns."""
    turns = []
    for shape in shapes:
        turns.append(_step_turn(shape, plan.seconds))
        bar.update()
    flops = [
        shape.rows * shape.length * model.flops_per_token(shape.config, shape.length) for shape in shapes
    ]
    samples = take_turns(turns, plan.rounds, bar)
    return Sweep(name, against, tuple(x), tuple(flops), "model FLOPs", tuple(samples))


def _step_turn(shape: Shape, seconds: float) -> Turn:
    step = make_icl(shape)
    step()  # Compiles.
    start = time.perf_counter()
    step()
    count = max(1, round(seconds / (time.perf_counter() - start)))

    def turn() -> float:
        step()  # Finds its data out of the caches.
        start = time.perf_counter()
        for _ in range(count):
            step()
        return (time.perf_counter() - start) / count

    return turn


def against_parameters(plan: Plan, bar: "tqdm[NoReturn]") -> list[Sweep]:
    """Models of growing size, the same tokens a step."""
    shapes = [Shape(config, plan.tokens // plan.length, plan.length) for config in plan.sizes]
    x = [model.num_non_embedding_params(config) for config in plan.sizes]
    return [step_sweep("step", "parameters (without embeddings)", x, shapes, plan, bar)]


def against_context(plan: Plan, bar: "tqdm[NoReturn]") -> list[Sweep]:
    """Rows of growing length, fewer of them: the same tokens a step."""
    shapes = [
        Shape(dataclasses.replace(plan.middle, max_length=length), plan.tokens // length, length)
        for length in plan.lengths
    ]
    return [step_sweep("step", "context (tokens a row)", plan.lengths, shapes, plan, bar)]


def against_batch(plan: Plan, bar: "tqdm[NoReturn]") -> list[Sweep]:
    """More rows a step."""
    shapes = [Shape(plan.middle, rows, plan.length) for rows in plan.rows]
    return [step_sweep("step", f"batch (rows of {plan.length} tokens)", plan.rows, shapes, plan, bar)]


def against_hosts(run: RunConfig, plan: Plan, bar: "tqdm[NoReturn]") -> list[Sweep]:
    """The same global batches, read by more hosts: what the slowest of them takes, and all together."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "text.txt"
        corpus.write_text(_random_text())
        data = dataclasses.replace(
            run.data, row_length=LOADER_LENGTH, answer_positions=0, corpora={"text": (str(corpus),)}
        )
        rows = Rows(data, build_tasks(run.families), load_tokenizer(data.tokenizer))
    count = max(1, round(8 * plan.seconds / _read(rows, slice(0, LOADER_ROWS), 1)))
    bar.update()
    parts = [
        (hosts, slice(i * LOADER_ROWS // hosts, (i + 1) * LOADER_ROWS // hosts))
        for hosts in HOSTS
        for i in range(hosts)
    ]
    samples = take_turns([lambda part=part: _read(rows, part, count) for _, part in parts], plan.rounds, bar)
    by_hosts = [
        [one for (hosts, _), one in zip(parts, samples, strict=True) if hosts == number] for number in HOSTS
    ]
    against = f"hosts, {count} global batches of {LOADER_ROWS} rows of {LOADER_LENGTH} tokens"
    slowest = tuple(max(hosts, key=statistics.median) for hosts in by_hosts)
    together = tuple(tuple(map(sum, zip(*hosts, strict=True))) for hosts in by_hosts)
    shares, flat = tuple(1 / number for number in HOSTS), (1.0,) * len(HOSTS)
    return [
        Sweep("slowest host", against, HOSTS, shares, "1 / hosts", slowest),
        Sweep("all hosts together", against, HOSTS, flat, "no growth", together),
    ]


def _read(rows: Rows, host: slice, count: int) -> float:
    """Seconds of a host for its part of so many batches, after a first one."""
    stream = batches(rows, LOADER_ROWS, host=host, num_threads=0)
    next(stream)
    start = time.perf_counter()
    for _ in range(count):
        next(stream)
    seconds = time.perf_counter() - start
    stream.close()
    return seconds


def _random_text() -> str:
    """A megabyte of paragraphs of random letters."""
    letters = np.random.default_rng(0).integers(97, 123, (500, 2000), np.uint8)
    return "\n\n".join(line.tobytes().decode() for line in letters)


def table(figures: dict[str, list[Sweep]]) -> Iterator[str]:
    """Lines of the table of all fits."""
    yield (
        f"{'seconds of':18} {'against':10} {'exponent':>15} {'95 %':>16}  {'expected':>8} {'of':11} "
        f"{'against that':>15}  {'last two points':>15}"
    )
    for figure, sweeps in figures.items():
        for one in sweeps:
            fit, beside, last = one.fit, one.against_expected, one.last_exponents
            yield (
                f"{one.name:18} {figure:10} {_exponent(fit):>15} {f'{fit.low:.3f} to {fit.high:.3f}':>16}  "
                f"{one.expected_fit.exponent:8.3f} {one.of:11} {_exponent(beside) if beside else '':>15}  "
                f"{last[0]:6.2f} ({last[1]:.2f})"
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
        figure, axes = panel(1.35)
        for one, color in zip(sweeps, (VARIANTS[2], VARIANTS[1]), strict=False):
            _draw_sweep(axes, one, color)
        axes.set_title(title, color=INK)
        axes.set_xlabel(sweeps[0].against)
        axes.set_ylabel("seconds" if len(sweeps) > 1 else "seconds a step")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(sweeps[0].x, [_short(x) for x in sweeps[0].x])
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds:g}"))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_formatter(NullFormatter())
        axes.tick_params(which="minor", length=0)
        figure.legend(loc="outside lower center")
        return png(figure)


def _draw_sweep(axes: Axes, one: Sweep, color: str) -> None:
    seconds, fit = one.seconds, one.fit
    quartiles = np.quantile(one.samples, (0.25, 0.75), axis=1)
    axes.vlines(one.x, *quartiles, color=color, linewidth=1.2)
    axes.plot(one.x, seconds, "o", color=color, markersize=5, label=f"{one.name}, median and quartiles")
    ends = np.array([min(one.x), max(one.x)])
    label = f"its power law: exponent {_exponent(fit)}"
    axes.plot(ends, fit.factor * ends**fit.exponent, color=color, linewidth=1.5, label=label)
    least = min(s / e for s, e in zip(seconds, one.expected, strict=True))
    at = f" at {_short(1 / least)}FLOP/s" if "FLOPs" in one.of else ""
    label = f"{one.of}{at}: exponent {one.expected_fit.exponent:.3f}"
    axes.plot(one.x, least * np.array(one.expected), color=FAINT, dashes=(4, 2), linewidth=1.3, label=label)


def _exponent(fit: PowerLaw) -> str:
    return f"{fit.exponent:.3f} ± {fit.standard_error:.3f}"


def _short(number: float) -> str:
    """A number as it is said: 125M, 1.3G."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size and not (unit == "k" and number < 10_000):
            return f"{number / size:.3g}{unit}"
    return f"{number:g}"


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        raise InputError(message)


def _settings(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--output_dir", required=True, help="folder to write to")
    parser.add_argument("--quick", action="store_true", help="fewer points, and 3 short rounds")
    parser.add_argument("--rounds", type=int, help="rounds of about half a second a point (default: 10)")
    settings = parser.parse_args(arguments)
    if settings.rounds is None:
        settings.rounds = 3 if settings.quick else 10
    if settings.rounds < 1:
        raise InputError(f"--rounds {settings.rounds}: expected a positive number")
    folder = Path(settings.output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output_dir {folder}: {error.strerror}; expected a folder to write to") from error
    if not os.access(folder, os.W_OK):
        raise InputError(f"--output_dir {folder}: expected a folder that can be written to")
    return settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures the four sweeps; returns the exit code."""
    try:
        settings = _settings(arguments)
        _run(Path(settings.output_dir), settings.rounds, settings.quick)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _run(folder: Path, rounds: int, quick: bool) -> None:
    runs = load_runs([RUN])
    device = jax.devices()[0]
    plan = make_plan(
        runs, load_tokenizer(runs[0].data.tokenizer).vocab_size, device.platform, rounds, quick
    )
    points = sum(map(len, (plan.sizes, plan.lengths, plan.rows)))
    measured: dict[str, Callable[[Any], list[Sweep]]] = {
        "parameters": lambda bar: against_parameters(plan, bar),
        "context": lambda bar: against_context(plan, bar),
        "batch": lambda bar: against_batch(plan, bar),
        "hosts": lambda bar: against_hosts(runs[0], plan, bar),
    }
    where = f"{device.device_kind} ({device.platform}), {os.cpu_count()} cores"
    print(f"JAX {jax.__version__} on {where}; load {os.getloadavg()[0]:.1f}", flush=True)
    figures = {}
    # A point is compiled, then measured in every round.
    total = points * (rounds + 1) + sum(HOSTS) * rounds + 1
    with tqdm(total=total, smoothing=0, unit="turn", file=sys.stderr) as bar:
        for name, measure in measured.items():
            bar.set_description(name)
            figures[name] = measure(bar)
            subject = "Time to read" if name == "hosts" else "Step time"
            write_file(folder / f"cost_{name}.png", draw(figures[name], f"{subject} against {name}"))
    print("\n".join(table(figures)))
    found = {
        "device": where,
        "versions": versions(),
        "revision": git_revision(),
        "rounds": rounds,
        "load": os.getloadavg()[0],
        "figures": as_json(figures),
    }
    write_file(folder / "cost_growth.json", (json.dumps(found, indent=1) + "\n").encode())


if __name__ == "__main__":
    sys.exit(main())
