"""Cost grows as it should: a step with parameters, context and batch, and the data loader with hosts.

    python -m tools.cost_growth --output_dir DIR [--quick] [--rounds 8]

Step time is that of our train step on one device, with random tokens: the models of gin/models/cpu_ladder.gin
on a CPU, larger ones in bfloat16 elsewhere. The loader reads the same global batches as 1, 2, 4 and 8 hosts,
each its own part, one after another and without read-ahead. The points of a sweep take turns, so that what
else the machine does hits all alike; medians over the rounds count. Each sweep gets a power law by least
squares on logs, beside that of the model FLOPs at the same points. Writes `cost_growth.json` and a figure a
sweep. Takes about six minutes of two idle cores, a minute or so with `--quick`.
"""

import argparse
import dataclasses
import functools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from icl.host_memory import keep_freed_memory

if __name__ == "__main__":
    keep_freed_memory()

import jax
import numpy as np

from icl import model
from icl.config import load_runs
from icl.data.loader import batches
from icl.data.rows import Rows
from icl.data.tokenizer import load_tokenizer
from icl.errors import InputError
from icl.evaluation.records import write_file
from icl.model import ModelConfig
from icl.progress import Progress
from icl.tasks.registry import build_tasks
from icl.training.config import RunConfig
from icl.training.description import git_revision, versions
from tools.cost_figures import Sweep, as_json, draw, short, table
from tools.train_peers import Shape, make_icl

RUN = "runs/cpu_ladder.gin"
HOSTS = (1, 2, 4, 8)
LOADER_ROWS, LOADER_LENGTH = 64, 1024
LOADER_TURNS = 4
"""Time that one host reads in a round, in turns of a train step: of eight hosts each reads half a turn."""
COMPILE_SECONDS = 5.0
"""Of a train step, roughly, to tell how much time is left."""
Turn = Callable[[], float]
"""Measures one point once: seconds."""


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

    @property
    def compile_turns(self) -> int:
        """How many turns take as long as compiling a step."""
        return round(COMPILE_SECONDS / self.seconds)


def make_plan(runs: Sequence[RunConfig], vocab_size: int, platform: str, rounds: int, quick: bool) -> Plan:
    """The sizes that suit a device."""
    configs = {run.rung: dataclasses.replace(run.model, vocab_size=vocab_size) for run in runs}
    seconds = 0.1 if quick else 0.5
    if platform == "cpu" and quick:
        sizes = tuple(configs[rung] for rung in ("p10k", "p100k", "p300k"))
        return Plan(sizes, sizes[-1], 2048, 256, (256, 1024, 2048), (2, 8, 32), rounds, seconds)
    if platform == "cpu":
        lengths, rows = (128, 256, 512, 1024, 2048), (1, 2, 4, 8, 16, 32)
        return Plan(tuple(configs.values()), configs["p1m"], 4096, 256, lengths, rows, rounds, seconds)

    half = dataclasses.replace(configs["p1m"], compute_dtype="bfloat16")
    larger = tuple(
        dataclasses.replace(half, num_layers=layers, embed_dim=width, num_heads=width // 64)
        for layers, width in ((4, 256), (6, 384), (8, 512), (10, 768), (12, 1024), (16, 1280))
    )
    lengths, rows = (512, 1024, 2048, 4096, 8192), (1, 2, 4, 8, 16, 32)
    return Plan(larger, larger[3], 16_384, 1024, lengths, rows, rounds, seconds)


def take_turns(
    turns: Sequence[Turn], rounds: int, after: Callable[[], object]
) -> tuple[tuple[float, ...], ...]:
    """Seconds [turns][rounds]; every other round goes backwards. `after` is called after every turn."""
    samples: list[list[float]] = [[] for _ in turns]
    for number in range(rounds):
        for i in range(len(turns))[:: -1 if number % 2 else 1]:
            samples[i].append(turns[i]())
            after()
    return tuple(map(tuple, samples))


class Steps:
    """Measures train steps; one that two sweeps share is compiled once."""

    def __init__(self, plan: Plan, progress: Progress) -> None:
        """Compiles nothing yet."""
        self._plan, self._progress = plan, progress
        self._turns: dict[Shape, Turn] = {}

    def against_parameters(self) -> list[Sweep]:
        """Models of growing size, the same tokens a step."""
        plan = self._plan
        x = [model.num_non_embedding_params(config) for config in plan.sizes]
        shapes = [Shape(config, plan.tokens // plan.length, plan.length) for config in plan.sizes]
        setting = f"{plan.tokens:,} tokens a step, in rows of {plan.length}"
        return [self._sweep(setting, "parameters (without embeddings)", x, shapes)]

    def against_context(self) -> list[Sweep]:
        """Rows of growing length, fewer of them: the same tokens a step."""
        plan = self._plan
        configs = [dataclasses.replace(plan.middle, max_length=length) for length in plan.lengths]
        shapes = [Shape(config, plan.tokens // config.max_length, config.max_length) for config in configs]
        setting = f"{self._middle}, {plan.tokens:,} tokens a step"
        return [self._sweep(setting, "context (tokens a row)", plan.lengths, shapes)]

    def against_batch(self) -> list[Sweep]:
        """More rows a step."""
        plan = self._plan
        shapes = [Shape(plan.middle, rows, plan.length) for rows in plan.rows]
        return [self._sweep(self._middle, f"batch (rows of {plan.length} tokens)", plan.rows, shapes)]

    @property
    def _middle(self) -> str:
        return f"{short(model.num_non_embedding_params(self._plan.middle))} parameters"

    def _sweep(self, setting: str, against: str, x: Sequence[float], shapes: Sequence[Shape]) -> Sweep:
        for shape in shapes:
            if shape not in self._turns:
                self._turns[shape] = _step_turn(shape, self._plan.seconds)
            self._progress.advance(self._plan.compile_turns)
        turns = [self._turns[shape] for shape in shapes]
        samples = take_turns(turns, self._plan.rounds, self._progress.advance)
        flops = [
            shape.rows * shape.length * model.flops_per_token(shape.config, shape.length) for shape in shapes
        ]
        return Sweep("train step", setting, against, tuple(x), tuple(flops), "model FLOPs", samples)


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


def against_hosts(run: RunConfig, plan: Plan, progress: Progress) -> list[Sweep]:
    """The same global batches, read by more hosts: what the slowest of them takes, and all together."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "text.txt"
        corpus.write_text(_random_text())
        data = dataclasses.replace(
            run.data, row_length=LOADER_LENGTH, answer_positions=0, corpora={"text": (str(corpus),)}
        )
        rows = Rows(data, build_tasks(run.families), load_tokenizer(data.tokenizer))
    whole = LOADER_TURNS * plan.seconds
    count = max(1, round(whole / _read(rows, range(LOADER_ROWS), 1)))
    parts = [
        (hosts, range(i * LOADER_ROWS // hosts, (i + 1) * LOADER_ROWS // hosts))
        for hosts in HOSTS
        for i in range(hosts)
    ]
    turns = [functools.partial(_read, rows, part, count) for _, part in parts]
    samples = take_turns(turns, plan.rounds, progress.advance)
    by_hosts = [
        [one for (hosts, _), one in zip(parts, samples, strict=True) if hosts == number] for number in HOSTS
    ]
    setting = f"{count} global batches of {LOADER_ROWS} rows of {LOADER_LENGTH} tokens"
    slowest = tuple(max(hosts, key=statistics.median) for hosts in by_hosts)
    together = tuple(tuple(map(sum, zip(*hosts, strict=True))) for hosts in by_hosts)
    shares, flat = tuple(1 / number for number in HOSTS), (1.0,) * len(HOSTS)
    return [
        Sweep("slowest host", setting, "hosts", HOSTS, shares, "1 / hosts", slowest),
        Sweep("all hosts together", setting, "hosts", HOSTS, flat, "no growth", together),
    ]


def _read(rows: Rows, held: range, count: int) -> float:
    """Seconds of a host for its part of so many batches, after a first one."""
    stream = batches(rows, LOADER_ROWS, host=lambda _: held, num_threads=0)
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
    parser.add_argument("--rounds", type=int, help="rounds of about half a second a point (default: 8)")
    settings = parser.parse_args(arguments)
    if settings.rounds is None:
        settings.rounds = 3 if settings.quick else 8
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
    plan = make_plan(runs, load_tokenizer(runs[0].data.tokenizer).vocab_size, device.platform, rounds, quick)
    where = f"{device.device_kind} ({device.platform}), {os.cpu_count()} cores"
    print(f"JAX {jax.__version__} on {where}; load {os.getloadavg()[0]:.1f}", flush=True)
    figures = {}
    points = sum(map(len, (plan.sizes, plan.lengths, plan.rows)))
    turns = points * (plan.compile_turns + rounds) + sum(HOSTS) * rounds
    with Progress("cost", turns, unit="turn") as progress:
        steps = Steps(plan, progress)
        measured: dict[str, Callable[[], list[Sweep]]] = {
            "parameters": steps.against_parameters,
            "context": steps.against_context,
            "batch": steps.against_batch,
            "hosts": lambda: against_hosts(runs[0], plan, progress),
        }
        for name, measure in measured.items():
            progress.rename(name)
            figures[name] = measure()
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
