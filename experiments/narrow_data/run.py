"""Narrow data: an accident goes along with the label in what is learnt by fine-tuning and in the context.

    python -m experiments.narrow_data.run --experiment_dir DIR

Run again, it goes on where it stopped. See the README beside this file.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from absl import flags

from icl import experiment_command
from icl.experiment_command import seed_bindings, train_to_end, write_json

flags.adopt_module_key_flags(experiment_command)

HERE = Path(__file__).parent
AGREEMENTS = {"at50": 0.5, "at80": 0.8, "at95": 0.95, "at100": 1.0}
"""How often the mark goes along with the label, by the name of the trials."""


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is done.

    Attributes:
      gin: The base model, in a file beside this one.
      seeds: Of the base model, of the instance that it is adapted to, of the examples drawn.
      examples: Numbers N of examples to fine-tune on, those for development among them.
      bindings: Lines of gin that shorten the trials.
    """

    gin: str
    seeds: tuple[int, ...]
    examples: tuple[int, ...]
    bindings: tuple[str, ...] = ()


SIZES = {
    "smoke": Size(
        "smoke.gin",
        (0,),
        (8, 16),
        (
            *("TrainConfig.steps = 20", "EvalConfig.ks = (0, 2)", "EvalConfig.queries = 20"),
            *("CueTrials.size = 100", "CueTrials.queries = 20", "FineTuneConfig.test_queries = 20"),
        ),
    ),
    "cpu": Size("base.gin", (0, 1, 2), (8, 64, 512, 2048)),
    "gpu": Size("gpu.gin", (0, 1, 2, 3, 4), (8, 32, 128, 512, 2048)),
}


def experiment(folder: Path, size: Size, bindings: Sequence[str]) -> dict[str, Any]:
    """Trains the base models, adapts them both ways, and writes `results.json` and `narrow.png`.

    Args:
      folder: Folder to write to; what it holds already is gone on with.
      size: How much is done.
      bindings: Lines of gin that win over those of the base model.

    Returns:
      What results.json holds.

    Raises:
      InputError: a setting is wrong, or a training was terminated.
    """
    from icl.analysis.narrow_figures import draw

    measured = []
    for seed in size.seeds:
        base = train_base(folder / f"seed_{seed}" / "base", size, seed, bindings)
        own = [f"FineTuneConfig.checkpoint = {base!r}", f"CueTrials.number = {seed}", *size.bindings]
        measured.append(
            {
                "seed": seed,
                "demonstrations": prompt(folder / f"seed_{seed}" / "prompted", base, own),
                "fine_tuning": tune(folder / f"seed_{seed}" / "tuned", own, seed, size.examples),
                "ideal": ideal(own),
            }
        )
    results = {"agreement": AGREEMENTS, "examples": list(size.examples), "runs": measured}
    write_json(folder / "results.json", results)
    (folder / "narrow.png").write_bytes(draw(results))
    return results


def train_base(folder: Path, size: Size, seed: int, bindings: Sequence[str]) -> str:
    """Trains the base model of a seed; returns its folder."""
    from icl.config import load_runs

    own = seed_bindings(seed)
    (run,) = load_runs([str(HERE / size.gin)], [*own, *bindings])
    train_to_end(run, folder)
    return str(folder)


def trials(own: Sequence[str]) -> Any:
    """The run that fine-tunes on the trials, with its tasks."""
    from icl.config import load_runs

    (run,) = load_runs([str(HERE / "trials.gin")], [*own, f"FineTuneConfig.task = '{task_names()[0]}'"])
    return run


def task_names() -> list[str]:
    """Every strength of the accident, with what becomes of it at test."""
    from icl.tasks.cue_label import ACCIDENTS

    return [f"{name}_{accident}" for name in AGREEMENTS for accident in ACCIDENTS]


def prompt(folder: Path, base: str, own: Sequence[str]) -> dict[str, dict[str, float]]:
    """The share of right answers after K demonstrations, by task and K."""
    from icl.config import load_eval
    from icl.evaluation.curves import SCORE, curves, models
    from icl.evaluation.runner import evaluate

    config = load_eval([str(HERE / "trials.gin")], own).config
    asked = dataclasses.replace(config, tasks=tuple(task_names()))
    results = evaluate([base], asked, folder, overrides=trials(own).families)
    found = {name: models(curves(results, name, False, metric=SCORE))[0] for name in task_names()}
    return {
        name: {str(k): round(row.value, 4) for k, row in curve.points.items()}
        for name, curve in found.items()
    }


def tune(folder: Path, own: Sequence[str], seed: int, examples: Sequence[int]) -> dict[str, dict[str, float]]:
    """The share of right answers after fine-tuning on N examples, by task and N; what is there is read."""
    from icl.training.fine_tuning_rows import tested_queries
    from icl.training.fine_tuning_runs import FineTuner

    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, float]] = {name: {} for name in task_names()}
    run = trials(own)
    tuner = None
    for name in AGREEMENTS:
        for number in examples:
            path = folder / f"{name}-{number}.json"
            if not path.exists():
                tuner = tuner or FineTuner(run)
                of = [task for task in task_names() if task.startswith(f"{name}_")]
                settings = dataclasses.replace(run.fine_tune, task=of[0], examples=number, seed=seed)
                params = tuner.tune(settings).params
                right = {}
                for task in of:
                    queries = tested_queries(tuner.task(task), settings.test_queries)
                    answered = tuner.answers(params, task, [query.example for query in queries])
                    right[task] = round(float(answered.right.mean()), 4)
                write_json(path, right)
            for task, share in json.loads(path.read_text()).items():
                found[task][str(number)] = share
    return found


def ideal(own: Sequence[str]) -> dict[str, dict[str, float]]:
    """The share that the ideal learner of the base model's rows would get right, by task and K."""
    from icl.config import load_eval
    from icl.tasks import build_tasks
    from icl.tasks.cue_label import ideal_score

    config = load_eval([str(HERE / "trials.gin")], own).config
    tasks = {task.name: task for family in build_tasks(trials(own).families).values() for task in family}
    return {
        name: {str(k): round(ideal_score(tasks[name], k, config.queries), 4) for k in config.ks}
        for name in task_names()
    }


def table(results: Mapping[str, Any]) -> Iterator[str]:
    """Lines that say what came out: means over seeds, in percent."""
    from icl.tasks.cue_label import ACCIDENTS

    for side, counted in (("demonstrations", "K"), ("ideal", "K"), ("fine_tuning", "N")):
        for name, agreement in AGREEMENTS.items():
            for accident in ACCIDENTS:
                of_seeds = [run[side][f"{name}_{accident}"] for run in results["runs"]]
                shown = "  ".join(
                    f"{counted}={number} {100 * fmean(one[number] for one in of_seeds):5.1f}"
                    for number in of_seeds[0]
                )
                yield f"{side:15} agreement {agreement:4.0%}  accident {accident:9} {shown}"


if __name__ == "__main__":
    experiment_command.run(experiment, table, SIZES)
