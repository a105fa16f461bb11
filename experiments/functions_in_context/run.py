"""Functions in context: trains a transformer for each class of functions, and holds it against estimators.

    python -m experiments.functions_in_context.run --experiment_dir DIR

Run again, it goes on where it stopped. See the README beside this file.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from icl import experiment_command
from icl.experiment_command import train_to_end, write_json

flags.adopt_module_key_flags(experiment_command)


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is done.

    Attributes:
      gin: Models and functions, in a file beside this one.
      rungs: Which of them.
      seeds: Training seeds: of the first weights and of the prompts.
      prompts: Test prompts.
    """

    gin: str
    rungs: tuple[str, ...]
    seeds: tuple[int, ...]
    prompts: int


_RUNGS = ("linear", "sparse_linear", "tree", "network")
SIZES = {
    "smoke": Size("smoke.gin", _RUNGS, (0,), 256),
    "cpu": Size("cpu.gin", _RUNGS, (0,), 4096),
    "gpu": Size("gpu.gin", ("linear",), (0,), 4096),
}
BAR = 0.05
"""How near to Bayes linear functions are to come at every k from 0 to 2 d."""


def experiment(workdir: Path, size: Size, bindings: Sequence[str]) -> dict[str, Any]:
    """Trains every model with every seed, measures them, writes results.json and functions.png.

    Args:
      workdir: Folder to write to; what it holds already is gone on with.
      size: How much is done.
      bindings: Lines of gin that win over its file.

    Returns:
      What results.json holds.

    Raises:
      InputError: a setting is wrong, or a run was terminated.
    """
    from icl.functions import figures
    from icl.functions.transformer import num_params

    found: dict[str, Any] = {}
    for rung in size.rungs:
        runs = runs_of(size, rung, bindings)
        for seed, run in runs.items():
            train_to_end(run, workdir / rung / f"seed_{seed}")
        run = next(iter(runs.values()))
        found[rung] = {
            "functions": f"{run.data.kind}, d = {run.data.dimension}, noise {run.data.noise:g}",
            "params": num_params(run.model, run.data),
            "training": [
                {"seed": seed, "steps": run.train.steps, "seconds": seconds(workdir / rung / f"seed_{seed}")}
                for seed, run in runs.items()
            ],
            "tests": measure(workdir / rung, runs, size.prompts),
        }
    linear = found["linear"]["tests"]
    dimension = next(iter(runs_of(size, "linear", bindings).values())).data.dimension
    results = {"prompts": size.prompts, "rungs": found, "linear": of_linear(linear["none"], dimension)}
    write_json(workdir / "results.json", results)
    shown = {name: rung["tests"]["none"] for name, rung in found.items()}
    shown |= {f"linear: {shift}": test for shift, test in linear.items() if shift != "none"}
    titled = {name.replace("_", " "): test for name, test in shown.items()}
    (workdir / "functions.png").write_bytes(figures.draw(titled, BAR))
    return results


def runs_of(size: Size, rung: str, bindings: Sequence[str]) -> dict[int, Any]:
    """The runs of a rung by their training seeds."""
    from icl.config import load_function_runs

    path, runs = str(Path(__file__).parent / size.gin), {}
    for seed in size.seeds:
        own = [f"TrainConfig.seed = {seed}", f"FunctionConfig.seed = {seed}"]
        (runs[seed],) = load_function_runs([path], [*own, *bindings], [rung])
    return runs


def measure(folder: Path, runs: Mapping[int, Any], prompts: int) -> dict[str, Any]:
    """The errors of a rung's models, under every shift where functions are linear; kept in tests.json."""
    from icl.functions import shifts
    from icl.functions.measure import compare
    from icl.functions.setup import restore

    kept, of = (
        folder / "tests.json",
        {"prompts": prompts, "steps": [run.train.steps for run in runs.values()]},
    )
    if kept.exists() and (found := json.loads(kept.read_text()))["of"] == of:
        return found["tests"]
    run = next(iter(runs.values()))
    params = [restore(folder / f"seed_{seed}", own)[0] for seed, own in runs.items()]
    names = shifts.SHIFTS if run.data.kind == "linear" else ["none"]
    tests = {
        name: compare(run.model, run.data, params, shift=name, number=prompts).to_json() for name in names
    }
    write_json(kept, {"of": of, "tests": tests})
    return tests


def of_linear(test: Mapping[str, Any], dimension: int) -> dict[str, Any]:
    """Whether linear functions were learned, by seed: the largest excess over Bayes of all k up to 2 d."""
    largest = [int(np.argmax(curve["mean"])) for curve in test["excess"]]
    excess = [curve["mean"][k] for curve, k in zip(test["excess"], largest, strict=True)]
    return {
        "bar": BAR,
        "largest_excess": excess,
        "at_k": largest,
        "interval": [
            [curve["low"][k], curve["high"][k]] for curve, k in zip(test["excess"], largest, strict=True)
        ],
        "within_bar": [value <= BAR for value in excess],
        "error_after_d_points": [curve["mean"][dimension] for curve in test["models"]],
    }


def seconds(folder: Path) -> float:
    """What a run's steps took, without starting and compiling."""
    total, before = 0.0, 0
    for text in (folder / "metrics.jsonl").read_text().splitlines():
        line = json.loads(text)
        total += (line["tokens"] - before) / line["tokens_per_second"]
        before = line["tokens"]
    return round(total, 1)


def table(results: Mapping[str, Any]) -> Iterator[str]:
    """Lines that say what came out."""
    for name, rung in results["rungs"].items():
        for shift, test in rung["tests"].items():
            yield f"{name} ({rung['functions']}), shift: {shift}; squared error / variance"
            seeds = [f"transformer, seed {run['seed']}" for run in rung["training"]]
            curves = dict(zip(seeds, test["models"], strict=True)) | test["estimators"]
            ks = range(0, len(test["models"][0]["mean"]), 2)
            yield f"  {'k':22}" + "".join(f"{k:9}" for k in ks)
            for label, curve in curves.items():
                yield f"  {label:22}" + "".join(f"{curve['mean'][k]:9.3f}" for k in ks)
    linear = results["linear"]
    for excess, k, (low, high) in zip(
        linear["largest_excess"], linear["at_k"], linear["interval"], strict=True
    ):
        yield f"linear: largest excess over Bayes {excess:.4f} ({low:.4f} to {high:.4f}) at k = {k}"


if __name__ == "__main__":
    experiment_command.run(experiment, table, SIZES)
