"""K-curves by size: trains a ladder with several seeds; asks new instances, new tasks and the battery.

    python -m experiments.k_curves_by_size.run --experiment_dir DIR --gin_bindings "tasks = 'TASKS/*.json*'"

Run again, it goes on where it stopped. See the README beside this file.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from icl import experiment_command
from icl.experiment_command import seed_bindings, train_to_end, write_json

flags.adopt_module_key_flags(experiment_command)

TRAIN_SEEDS = {"smoke": (0, 1), "cpu": (0, 1, 2), "gpu": (0, 1, 2)}
"""Of the first weights and of the rows."""
RUNGS = {
    "smoke": ("w8", "w16"),
    "cpu": ("p10k", "p30k", "p100k", "p300k", "p1m"),
    "gpu": ("p100k", "p300k", "p1m", "p3m", "p10m", "p30m"),
}
SIZES = {name: name for name in RUNGS}
FAMILIES = ("cipher", "position_map", "word_label", "affine")
BATTERY = ("arithmetic", "scrambles")
_INSTANCES, _WORDS, _BATTERY = "new instances", "word tasks kept out", "the paper's synthetic battery"


def experiment(folder: Path, size: str, bindings: Sequence[str]) -> dict[str, Any]:
    """Trains every rung with every seed, evaluates all, and writes `results.json` and `k_curves.png`.

    Args:
      folder: Folder to write to; what it holds already is gone on with.
      size: Which ladder.
      bindings: Lines of gin that win over its file; they name the word tasks.

    Returns:
      What results.json holds.

    Raises:
      InputError: a setting is wrong, or a run was terminated.
    """
    from icl.config import load_eval, load_runs
    from icl.evaluation.runner import evaluate
    from icl.training.setup import Setup

    gin = [str(Path(__file__).parent / f"{size}.gin")]
    checkpoints = []
    groups: dict[str, list[str]] = {}
    for seed in TRAIN_SEEDS[size]:
        own = seed_bindings(seed)
        for run in load_runs(gin, [*own, *bindings], RUNGS[size]):
            checkpoints.append(folder / f"seed_{seed}" / run.rung)
            train_to_end(run, checkpoints[-1])
            groups = groups or task_groups(Setup(run).tasks)
    asked = [task for tasks in groups.values() for task in tasks]
    config = dataclasses.replace(load_eval(gin, bindings).config, tasks=tuple(asked))
    results = evaluate(checkpoints, config, folder / "eval")
    return conclude(folder, results, groups)


def task_groups(tasks: Mapping[str, Sequence[Any]]) -> dict[str, list[str]]:
    """What is asked, as far as there is any: held-out instances, word tasks kept out, the battery."""
    found = {
        _INSTANCES: [task.name for family in FAMILIES for task in tasks.get(family, ())],
        _WORDS: [task.name for task in tasks.get("files", ()) if not task.trained],
        _BATTERY: [task.name for family in BATTERY for task in tasks.get(family, ())],
    }
    return {group: names for group, names in found.items() if names}


def conclude(folder: Path, results: Sequence[Any], groups: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Averages the results over tasks, writes and draws them."""
    from icl.analysis.size_effect_figures import draw
    from icl.analysis.size_effects import chance, size_curves
    from icl.evaluation.size_figures import size_panels

    curves = size_curves(results, groups)
    guessed = {
        (group, instruction): chance(results, groups[group], instruction)
        for group, instruction in {(curve.group, curve.instruction): None for curve in curves}
    }
    battery = [row for row in results if row.task in groups.get(_BATTERY, ())]
    panels = [one for one in size_panels(battery) if one.published]
    found = {
        "groups": {group: list(tasks) for group, tasks in groups.items()},
        "curves": [curve.as_json() for curve in curves],
        "chance": [
            {"group": group, "instruction": instruction, "score": [round(100 * v, 2) for v in of.values()]}
            for (group, instruction), of in guessed.items()
        ],
        "by_size": [
            {"title": one.title, "ks": one.ks, "points": {name: list(of) for name, of in one.ours.items()}}
            for one in panels
        ],
    }
    write_json(folder / "results.json", found)
    (folder / "k_curves.png").write_bytes(draw(curves, guessed, panels))
    return found


def table(found: Mapping[str, Any]) -> Iterator[str]:
    """Lines that say what came out: means over training seeds, and each seed's gain."""
    for one in found["curves"]:
        scores, ks = one["score"], one["ks"]
        means = [sum(column) / len(column) for column in zip(*scores, strict=True)]
        shown = "  ".join(f"K={k} {mean:5.1f}" for k, mean in zip(ks, means, strict=True))
        gains = ", ".join(f"{score[-1] - score[0]:+.1f}" for score in scores)
        wording = "with instruction" if one["instruction"] else "without"
        yield f"{one['group']:30} {wording:17} {one['rung']:>6} {one['params']:>11,}  {shown}  gain {gains}"


if __name__ == "__main__":
    experiment_command.run(experiment, table, SIZES)
