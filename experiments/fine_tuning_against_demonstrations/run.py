"""Fine-tuning against demonstrations: how many labelled examples a number of demonstrations is worth.

    python -m experiments.fine_tuning_against_demonstrations.run --experiment_dir DIR \
        --inflection 'conll2017/*-train-medium' --inflected conll2017/english-train-high.gz

Run again, it goes on where it stopped. See the README beside this file.
"""

import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from absl import flags

from icl import experiment_command
from icl.errors import InputError
from icl.experiment_command import seed_bindings, train_to_end, write_json

_INFLECTION = flags.DEFINE_string("inflection", None, "Glob of lists of lemma, form, features; none English.")
_INFLECTED = flags.DEFINE_string("inflected", None, "The English list: the real task.")
_BASES = flags.DEFINE_multi_string(
    "base_checkpoint", [], "A base model trained already, one for each seed, in place of training them."
)
flags.adopt_module_key_flags(experiment_command)

HERE = Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is done.

    Attributes:
      gin: The base model, in a file beside this one.
      seeds: Of the base model, of the examples drawn, of the order of training.
      examples: Numbers N of labelled examples, those for development among them.
      queries: That both sides are tested on.
      rate: The learning rate of fine-tuning.
      bindings: Lines of gin that shorten it.
    """

    gin: str
    seeds: tuple[int, ...]
    examples: tuple[int, ...]
    queries: int
    rate: float
    bindings: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Data:
    """The files: lists of lemma, form and features of many languages, and the English one that is asked."""

    inflection: str
    inflected: str


_FULL = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
SIZES = {
    "smoke": Size(
        "smoke.gin",
        (0,),
        (8, 16),
        20,
        1e-3,
        ("TrainConfig.steps = 20", "EvalConfig.ks = (0, 1)", "OneInstance.size = 400"),
    ),
    "cpu": Size("cpu.gin", (0, 1, 2), _FULL, 500, 1e-3),
    "gpu": Size("gpu.gin", (0, 1, 2), _FULL, 500, 3e-4),
}


def experiment(
    folder: Path, size: Size, data: Data, bindings: Sequence[str] = (), bases: Sequence[str] = ()
) -> dict[str, Any]:
    """Trains the base models, measures both sides, writes results.json and worth.png.

    Args:
      folder: Folder to write to; what it holds already is gone on with.
      size: How much is done.
      data: The files.
      bindings: Lines of gin that win over those of the base model.
      bases: Base models in place of those that it would train, one for each seed.

    Returns:
      What results.json holds.

    Raises:
      InputError: a setting is wrong, or a training was terminated.
    """
    if bases and len(bases) != len(size.seeds):
        raise InputError(f"--base_checkpoint: {len(bases)} of them; expected {len(size.seeds)}, one a seed")
    measured: list[dict[str, Any]] = []
    chance: dict[str, float] = {}
    for number, seed in enumerate(size.seeds):
        of_seed = folder / f"seed_{seed}"
        base = bases[number] if bases else train_base(of_seed / "base", size, seed, data, bindings)
        sides = Sides(base, size, data)
        chance = sides.chance()
        prompted = sides.prompt(of_seed / "prompted")
        tuned = tune(sides, of_seed / "tuned", seed, list(prompted))
        measured.append({"prompted": prompted, "tuned": tuned})
    results = {"learning_rate": size.rate, "tasks": conclude(measured, size, chance)}
    write_json(folder / "results.json", results)
    draw_figure(folder / "worth.png", measured, size, chance)
    return results


def train_base(folder: Path, size: Size, seed: int, data: Data, bindings: Sequence[str]) -> str:
    """Trains the base model of a seed; returns its folder."""
    from icl.config import load_runs

    own = [f"inflection = {data.inflection!r}", *seed_bindings(seed)]
    (run,) = load_runs([str(HERE / size.gin)], [*own, *bindings])
    train_to_end(run, folder)
    return str(folder)


class Sides:
    """A base model, to be asked with demonstrations and to be fine-tuned."""

    def __init__(self, base: str, size: Size, data: Data) -> None:
        self._base = base
        self.size = size
        self._bindings = [
            f"FineTuneConfig.checkpoint = {base!r}",
            f"inflected = {data.inflected!r}",
            f"FineTuneConfig.examples = {size.examples[0]}",
            "FineTuneConfig.task = 'translation'",  # any: `tune` says which
            f"OptimizerConfig.learning_rate = {size.rate}",
            f"FineTuneConfig.test_queries = {size.queries}",
            f"EvalConfig.queries = {size.queries}",
            *size.bindings,
        ]

    @functools.cached_property
    def tuner(self) -> Any:
        """What fine-tunes the base model."""
        from icl.training.fine_tuning_runs import FineTuner

        return FineTuner(self._run())

    def settings(self, task: str, examples: int, seed: int) -> Any:
        """How the base model is fine-tuned."""
        own = {"task": task, "examples": examples, "seed": seed}
        return dataclasses.replace(self._run().fine_tune, **own)

    def chance(self) -> dict[str, float]:
        """By reported task, the rate of a guess."""
        from icl.tasks import build_tasks

        tasks = (task for family in build_tasks(self._run().families).values() for task in family)
        return {task.name: task.chance() for task in tasks}

    def prompt(self, folder: Path) -> dict[str, Any]:
        """Asks the frozen model each query of each reported task at every K.

        Returns:
          By task, as `_prompted` gives it.
        """
        from icl.config import load_eval
        from icl.evaluation.finished import read_evaluation
        from icl.evaluation.runner import evaluate

        config = load_eval([str(HERE / "tasks.gin")], self._bindings).config
        names = tuple(self.chance())
        families = self._run().families
        path = folder / "prompted.json"
        if path.exists():
            return dict(json.loads(path.read_text()))
        evaluate([self._base], dataclasses.replace(config, tasks=names), folder, overrides=families)
        found: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in names}
        for record in read_evaluation(folder).records:
            found[record.task].setdefault(record.k, {})[record.query] = record
        write_json(path, {name: self._prompted(self.tuner, by_k) for name, by_k in found.items()})
        return dict(json.loads(path.read_text()))

    def _prompted(self, tuner: Any, by_k: Mapping[int, Mapping[str, Any]]) -> Mapping[str, Any]:
        """Answers of a task by K, and what 1,000 queries cost in seconds, in FLOPs, and with a cached prefix.

        A prompt is read up to the last token of its answer but one. Cached, the same K demonstrations stand
        before all queries and are read once.
        """
        found: dict[str, dict[int, Any]] = {
            name: {} for name in ("right", "k_effective", "flops", "cached_flops", "seconds")
        }
        alone = fmean(r.prompt_tokens + r.gold_tokens - 1 for r in by_k[0].values())
        for k, records in sorted(by_k.items()):
            length = fmean(r.prompt_tokens + r.gold_tokens - 1 for r in records.values())
            shared = length - alone
            found["right"][k] = {query: int(r.exact_match) for query, r in records.items()}
            found["k_effective"][k] = fmean(r.k_effective for r in records.values())
            found["flops"][k] = 1000 * tuner.reading_flops([length])
            found["cached_flops"][k] = tuner.reading_flops([shared]) + 1000 * tuner.reading_flops(
                [alone], shared
            )
            found["seconds"][k] = tuner.seconds_to_read(round(length))
        return found

    def _run(self) -> Any:
        from icl.config import load_runs

        (run,) = load_runs([str(HERE / "tasks.gin")], self._bindings)
        return run


def tune(sides: Sides, folder: Path, seed: int, tasks: Sequence[str]) -> dict[str, dict[int, Any]]:
    """Every task fine-tuned on every number of examples; what is there already is read."""
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[int, Any]] = {}
    for task in tasks:
        for examples in sides.size.examples:
            path = folder / f"{task}-{examples}.json"
            if not path.exists():
                write_json(path, tune_once(sides, task, examples, seed))
            found.setdefault(task, {})[examples] = json.loads(path.read_text())
    return found


def tune_once(sides: Sides, task: str, examples: int, seed: int) -> dict[str, Any]:
    """Fine-tunes once and asks every query without demonstrations."""
    from icl.training.fine_tuning_rows import tested_queries

    tuner = sides.tuner
    tuned = tuner.tune(sides.settings(task, examples, seed))
    queries = tested_queries(tuner.task(task), sides.size.queries)
    asked = [query.example for query in queries]
    of_base, of_tuned = (tuner.answers(params, task, asked) for params in (tuner.params, tuned.params))
    named = [query.name for query in queries]
    print(f"{task}, N = {examples}, seed {seed}: {100 * of_tuned.right.mean():.1f} %, {tuned.steps} steps")
    return {
        "right": dict(zip(named, map(int, of_tuned.right), strict=True)),
        "untuned": dict(zip(named, map(int, of_base.right), strict=True)),
        **{name: value for name, value in tuned._asdict().items() if name not in ("params", "development")},
        "development": tuned.development._asdict(),
    }


def conclude(
    measured: Sequence[Mapping[str, Any]], size: Size, chance: Mapping[str, float]
) -> dict[str, Any]:
    """By task: both curves with their costs, and what demonstrations are worth."""
    results = {}
    for task in chance:
        of_task = [{side: seed[side][task] for side in ("prompted", "tuned")} for seed in measured]
        compared = compare(of_task, size, chance[task])
        tuned = [[seed["tuned"][n] for seed in of_task] for n in size.examples]
        prompted = [seed["prompted"] for seed in of_task]
        untuned = zip(tuned[0], prompted, strict=True)
        kept = ("steps", "best_step", "cpu_seconds", "flops")
        results[task] = {
            "chance": chance[task],
            "queries": len(tuned[0][0]["right"]),
            "worth": [worth.to_json() for worth in compared.worth],
            "worth_by_seed": [compare([seed], size, chance[task]).worth[-1].to_json() for seed in of_task],
            "fine_tuning": [
                {"examples": n, "accuracy": accuracy.tolist()}
                | {name: [run[name] for run in runs] for name in kept}
                for n, accuracy, runs in zip(size.examples, compared.tuned_SN.T, tuned, strict=True)
            ],
            "demonstrations": [
                {"k": k, "accuracy": accuracy.tolist()}
                | {
                    f"{name}_of_1000": fmean(each[name][str(k)] for each in prompted)
                    for name in ("flops", "cached_flops", "seconds")
                }
                | {"k_effective": fmean(each["k_effective"][str(k)] for each in prompted)}
                for k, accuracy in zip(compared.ks, compared.prompted_SK.T, strict=True)
            ],
            "agreement_of_both_scorers": fmean(
                one["untuned"][query] == other["right"]["0"][query]
                for one, other in untuned
                for query in one["untuned"]
            ),
        }
    return results


def compare(of_task: Sequence[Mapping[str, Any]], size: Size, chance: float) -> Any:
    """Both curves of a task, by seed, and their crossings."""
    import numpy as np

    from icl.analysis.prompt_worth import prompt_worth
    from icl.analysis.prompt_worth_figures import Compared

    ks = [int(k) for k in of_task[0]["prompted"]["right"]]
    queries = list(of_task[0]["prompted"]["right"]["0"])

    def answers(side: Mapping[str, Mapping[str, int]]) -> list[list[int]]:
        return [[by_query[query] for by_query in side.values()] for query in queries]

    tuned_SQN = np.array(
        [answers({str(n): seed["tuned"][n]["right"] for n in size.examples}) for seed in of_task]
    )
    prompted_SQK = np.array([answers(seed["prompted"]["right"]) for seed in of_task])
    positive = [i for i, k in enumerate(ks) if k]
    worth = prompt_worth(size.examples, tuned_SQN, [ks[i] for i in positive], prompted_SQK[..., positive])
    return Compared(size.examples, tuned_SQN.mean(1), ks, prompted_SQK.mean(1), worth, chance)


def draw_figure(
    path: Path, measured: Sequence[Mapping[str, Any]], size: Size, chance: Mapping[str, float]
) -> None:
    """A panel a task."""
    from icl.analysis.prompt_worth_figures import draw

    compared = {
        task: compare(
            [{side: seed[side][task] for side in ("prompted", "tuned")} for seed in measured],
            size,
            chance[task],
        )
        for task in chance
    }
    path.write_bytes(draw(compared))


def table(results: Mapping[str, Any]) -> Iterator[str]:
    """Lines that say what came out."""
    for task, found in results["tasks"].items():
        yield f"{task} ({found['queries']} queries, a guess {100 * found['chance']:.1f} %)"
        for run in found["fine_tuning"]:
            accuracy, seconds = fmean(run["accuracy"]), fmean(run["cpu_seconds"])
            yield f"  N = {run['examples']:5,}: {100 * accuracy:5.1f} %, {seconds:6.1f} s of a processor"
        for one, worth in zip(found["demonstrations"], [None, *found["worth"]], strict=True):
            said = "" if worth is None else f", worth {worth['text']} examples"
            yield f"  K = {one['k']:5,}: {100 * fmean(one['accuracy']):5.1f} %{said}"


def main(folder: Path, size: Size, bindings: Sequence[str]) -> dict[str, Any]:
    """The experiment with the files and base models of the flags."""
    for name, value in (("inflection", _INFLECTION.value), ("inflected", _INFLECTED.value)):
        if not value:
            raise InputError(f"--{name} is missing: see --help")
    data = Data(_INFLECTION.value or "", _INFLECTED.value or "")
    return experiment(folder, size, data, bindings, _BASES.value)


if __name__ == "__main__":
    experiment_command.run(main, table, SIZES)
