"""Which data makes in-context learning appear: sweeps of small runs, measured on the way.

    python -m experiments.data_that_makes_it_appear.run --experiment_dir DIR

Run again, it goes on with the runs that are missing. See the README beside this file.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from icl import experiment_command
from icl.errors import InputError
from icl.experiment_command import write_json

_STUDIES = flags.DEFINE_list(
    "studies", [], "Train the runs of these studies only, as one of several processes on one folder."
)
flags.adopt_module_key_flags(experiment_command)


@dataclasses.dataclass(frozen=True)
class Study:
    """One thing that is varied: lines of gin by the name of the condition."""

    gin: str
    steps: int
    conditions: Mapping[str, tuple[str, ...]]


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is done.

    Attributes:
      seeds: Training seeds, of the first weights and of the order of the rows.
      rows: Different rows that a run is trained on, again and again.
      probed: Rows that each score is measured on, by task.
      measured: How often a run is measured, its beginning aside.
      length: Times the steps of each study.
      ends_only: Whether only the first and the last condition of every study are run.
      bindings: Lines of gin for all runs.
    """

    seeds: tuple[int, ...]
    rows: int
    probed: int
    measured: int
    length: float = 1.0
    ends_only: bool = False
    bindings: tuple[str, ...] = ()


SIZES = {
    "smoke": Size(
        (0,), 512, 64, 2, length=0.01, ends_only=True, bindings=("OptimizerConfig.warmup_steps = 5",)
    ),
    "cpu": Size((0, 1), 16_384, 256, 20),
    "gpu": Size(
        (0, 1, 2, 3, 4), 131_072, 1024, 40, 10.0, bindings=("ModelConfig.embed_dim = 64",)
    ),
}  # fmt: skip
BURSTINESS = (0.0, 0.5, 0.9, 1.0)
SKEWS = (0.0, 1.0, 1.5)
CLASSES = (128, 256, 512, 1024)
INSTANCES = (1, 4, 16, 64, 256, 1024, 0)
FAMILIES = ("recall", "word_label", "affine", "cipher")
KS = (0, 1, 2, 4, 8)
STUDIES = {
    "burstiness": Study(
        "classes.gin", 4000, {f"p = {p:g}": (f"ClassLabel.burstiness = {p}",) for p in BURSTINESS}
    ),
    "skew": Study(
        "classes.gin", 4000, {f"alpha = {skew:g}": (f"ClassLabel.skew = {skew}",) for skew in SKEWS}
    ),
    "classes": Study(
        "classes.gin", 4000, {f"{size} classes": (f"ClassLabel.num_classes = {size}",) for size in CLASSES}
    ),
    "no_convolution": Study(
        "classes.gin",
        4000,
        {
            f"{number} classes": (f"ClassLabel.num_classes = {number}", "ModelConfig.conv_width = 0")
            for number in (256, 1024)
        },
    ),
    "long": Study("classes.gin", 10_000, {"384 classes": ("ClassLabel.num_classes = 384",)}),
    "instances": Study(
        "instances.gin",
        1000,
        {str(number or "fresh"): (f"Recall.num_training_instances = {number}",) for number in INSTANCES},
    ),
    "families": Study(
        "families.gin",
        1500,
        {"none": ()} | {name: (f"DataConfig.leave_out = ({name!r},)",) for name in FAMILIES},
    ),
}  # fmt: skip


def experiment(workdir: Path, size: Size, studies: Sequence[str], bindings: Sequence[str]) -> dict[str, Any]:
    """Trains what is missing of the studies; once no run is missing, writes results.json and data.png.

    Args:
      workdir: Folder to write to; what it holds already is gone on with.
      size: How much is done.
      studies: Names of those to train; all if empty.
      bindings: Lines of gin that win over the files.

    Returns:
      What results.json holds; nothing while runs are missing.

    Raises:
      InputError: a study is unknown or a setting is wrong.
    """
    from icl.analysis.small_runs import read_trace, train_and_probe, write_trace
    from icl.progress import Progress

    if unknown := set(studies) - set(STUDIES):
        raise InputError(f"--studies: {unknown.pop()!r}: expected of {', '.join(STUDIES)}")
    planned = list(plan(size, bindings))
    wanted = [one for one in planned if not studies or one.study in studies]
    with Progress("sweep", len(wanted)) as progress:
        for number, one in enumerate(wanted, 1):
            path = one.path(workdir)
            if not path.exists():
                steps, is_curve = one.run.train.steps, study_file(one) != "families.gin"
                trace = train_and_probe(
                    one.run,
                    probes(one, size),
                    distinct_rows=size.rows,
                    every=max(steps // size.measured, 1) if is_curve else steps,
                    scored_positions=2 if one.run.data.loss_on == "query" else None,
                )
                write_trace(path, trace)
            progress.update(number, f"{one.study}, {one.condition}, seed {one.run.train.seed}")
    if not all(one.path(workdir).exists() for one in planned):
        return {}
    return conclude(workdir, [(one, read_trace(one.path(workdir))) for one in planned])


@dataclasses.dataclass(frozen=True)
class Planned:
    """One run of a study; conditions that come to the same settings share a file, and so a run."""

    study: str
    condition: str
    run: Any
    rows: int
    probed: int

    def path(self, workdir: Path) -> Path:
        """Where its trace is, by the content of its settings."""
        from icl.data.keys import digest
        from icl.training.workdir import settings_of

        content = json.dumps(settings_of(self.run), sort_keys=True)
        return workdir / "runs" / f"{digest(content, self.rows, self.probed)}.json"


def plan(size: Size, bindings: Sequence[str]) -> Iterator[Planned]:
    """All runs of a size, those on the same rows one after the other."""
    from icl.config import load_runs

    for name, study in STUDIES.items():
        steps = max(round(size.length * study.steps), 10)
        conditions = list(study.conditions)
        if size.ends_only:
            conditions = list(dict.fromkeys((conditions[0], conditions[-1])))
        for condition in conditions:
            for seed in size.seeds:
                own = [f"TrainConfig.steps = {steps}", f"TrainConfig.seed = {seed}"]
                lines = [*own, *study.conditions[condition], *size.bindings, *bindings]
                (run,) = load_runs([str(Path(__file__).parent / study.gin)], lines)
                yield Planned(name, condition, run, size.rows, size.probed)


def probes(one: Planned, size: Size) -> list[Any]:
    """What a run is measured on."""
    import numpy as np

    from icl.analysis.losses import present_answers
    from icl.analysis.small_runs import Probe, seen_inputs
    from icl.data.loader import stack
    from icl.data.rows import Rows
    from icl.data.tokenizer import load_tokenizer
    from icl.tasks.registry import build_tasks

    run = one.run
    made = build_tasks(run.families), load_tokenizer(run.data.tokenizer)
    held_out = Rows(run.data, *made, "held_out")
    number, tasks = run.data.max_examples, held_out.components
    batch = stack([held_out[i] for i in range(size.probed * len(tasks))])
    task_B, present_BK = np.asarray(batch.tasks_BT)[:, 0], present_answers(batch.examples_BT, number)

    def at(task: int, k: int) -> Any:
        counted_BK = present_BK & (task_B == task)[:, None]
        counted_BK[:, :k] = counted_BK[:, k + 1 :] = False
        return counted_BK

    if study_file(one) == "classes.gin":
        names = ("novel", "relabelled", "in_weights", "in_weights_even")
        return [Probe(batch, {name: at(task, number - 1) for task, name in enumerate(names)})]
    if study_file(one) == "families.gin":
        return [Probe(batch, {f"{tasks[task]} K={k}": at(task, k) for task in range(len(tasks)) for k in KS})]
    trained_rows = Rows(run.data, *made)
    trained = stack([trained_rows[size.rows + i] for i in range(size.probed)])
    found = []
    for name, rows in (("held_out", batch), ("trained", trained)):
        present_BK, seen_BK = present_answers(rows.examples_BT, number), seen_inputs(rows, number)
        unseen_BK = present_BK & ~seen_BK
        unseen_BK[:, 0] = False  # the first pair shown may tell which instance it is
        found.append(Probe(rows, {f"{name}_seen": present_BK & seen_BK, f"{name}_unseen": unseen_BK}))
    return found


def study_file(one: Planned) -> str:
    """The gin file of a run's study."""
    return STUDIES[one.study].gin


def conclude(workdir: Path, runs: Sequence[tuple[Planned, Any]]) -> dict[str, Any]:
    """Writes results.json and the figure."""
    studies: dict[str, dict[str, list[Any]]] = {}
    for one, trace in runs:
        of_study = studies.setdefault(one.study, {})
        of_study.setdefault(one.condition, []).append((one.run.train.seed, trace))
    different = {one.path(workdir): trace for one, trace in runs}
    results = {
        "cpu_seconds": round(sum(trace.cpu_seconds for trace in different.values())),
        "runs": len(different),
        "studies": {
            study: {
                name: [summary(study, seed, trace) for seed, trace in of_name]
                for name, of_name in conditions.items()
            }
            for study, conditions in studies.items()
        },
    }
    write_json(workdir / "results.json", results)
    (workdir / "data.png").write_bytes(figure(studies))
    return results


def summary(study: str, seed: int, trace: Any) -> dict[str, Any]:
    """A run in numbers: its curves, or where they end."""
    from icl.analysis.small_runs import fading, half_way

    found: dict[str, Any] = {"seed": seed, "params": trace.params, "answers": trace.answers}
    if STUDIES[study].gin == "families.gin":
        return found | {"steps": trace.steps[-1], "scores": {name: s[-1] for name, s in trace.scores.items()}}
    first = "novel" if "novel" in trace.scores else "held_out_seen"
    return found | {
        "steps": trace.steps,
        "scores": trace.scores,
        "loss": trace.loss[1:],
        "in_context_from": half_way(trace.steps, trace.scores[first], 0.5),
        "in_context_faded_by": round(fading(trace.scores[first]), 4),
    }


def figure(studies: Mapping[str, Mapping[str, Sequence[tuple[int, Any]]]]) -> bytes:
    """Small multiples of all studies, as PNG."""
    from icl.analysis.small_run_figures import Panel, draw

    shown = {"novel": "in context: novel classes, held-out instances",
             "relabelled": "in context: relabelled classes",
             "in_weights": "in weights: what the context does not show"}  # fmt: skip
    titles = {"burstiness": "burstiness ", "skew": "skew ", "classes": "",
              "no_convolution": "no convolution, ", "long": "longer, "}  # fmt: skip
    panels = []
    for row, names in enumerate((("burstiness",), ("skew", "long"), ("classes",), ("no_convolution",))):
        for study in names:
            for name, runs in studies[study].items():
                curves = {label: [trace.scores[key] for _, trace in runs] for key, label in shown.items()}
                steps = runs[0][1].steps
                panels.append(Panel(row, f"{titles[study]}{name}", "training step", steps, curves))
    of_instances = studies["instances"]
    ends = {shown["novel"]: "held_out_seen", shown["in_weights"]: "trained_unseen"}
    curves = {
        label: [
            [runs[i][1].scores[key][-1] for runs in of_instances.values()]
            for i in range(len(next(iter(of_instances.values()))))
        ]
        for label, key in ends.items()
    }
    panels.append(Panel(3, "recall at the end", "training instances", list(of_instances), curves))
    for family in FAMILIES:
        if family not in studies["families"]:
            continue
        pairs = {"trained on": studies["families"]["none"], "left out": studies["families"][family]}
        curves = {
            f"family {label}": [[trace.scores[f"{family} K={k}"][-1] for k in KS] for _, trace in runs]
            for label, runs in pairs.items()
        }
        title = f"family {family.replace('_', ' ')}"
        panels.append(Panel(4, title, "demonstrations K", [str(k) for k in KS], curves))
    return draw(panels)


def table(results: Mapping[str, Any]) -> Iterator[str]:
    """Lines that say what came out: scores at the end, each training seed's."""
    if not results:
        yield "runs of other studies are missing: no results yet"
        return
    for study, conditions in results["studies"].items():
        for name, runs in conditions.items():
            scores = {key: [run["scores"][key] for run in runs] for key in runs[0]["scores"]}
            cells = [
                f"{key} {' '.join(f'{100 * (s[-1] if isinstance(s, list) else s):.0f}' for s in of_key)}"
                for key, of_key in scores.items()
            ]
            yield f"{study:15} {name:14} {'; '.join(cells)}"


def main(folder: Path, size: Size, bindings: Sequence[str]) -> dict[str, Any]:
    """The experiment with the studies of the flags."""
    return experiment(folder, size, _STUDIES.value, bindings)


if __name__ == "__main__":
    experiment_command.run(main, table, SIZES)
