"""Function vectors or induction heads: which heads few-shot answers need, and whether a vector does the task.

    python -m experiments.function_vectors.run --experiment_dir DIR --gin_bindings "tasks = 'TASKS/*.json*'"

Its models are those of `experiments.k_curves_by_size`; `--ladder_dir` takes the ones trained there. Run
again, it goes on where it stopped. See the README beside this file.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from absl import flags

from experiments.k_curves_by_size import run as ladder
from icl import experiment_command
from icl.errors import InputError
from icl.experiment_command import seed_bindings, train_to_end, write_json

_LADDER = flags.DEFINE_string(
    "ladder_dir",
    None,
    "Folder of experiments.k_curves_by_size, whose models are taken; without it they are trained.",
)
flags.adopt_module_key_flags(experiment_command)


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is done.

    Attributes:
      ladder: Which size of the ladder the models are of.
      rungs: Its models that are looked into.
      prompts: Of every kind and task instance.
      demonstrations: In each.
      least: How much right labels have to bring (0..1): over none for a task to be judged, over shuffled ones
        for heads to be chosen by it.
      removed: Numbers of heads that are taken away.
      draws: Random sets of heads.
    """

    ladder: str
    rungs: tuple[str, ...]
    prompts: int
    demonstrations: int
    least: float
    removed: tuple[int, ...]
    draws: int


SIZES = {
    "smoke": Size("smoke", ("w16",), 4, 2, -1.0, (1,), 1),
    "cpu": Size("cpu", ("p300k", "p1m"), 48, 5, 0.1, (1, 2, 3, 4, 6), 4),
    "gpu": Size("gpu", ("p1m", "p10m", "p30m"), 128, 5, 0.1, (1, 2, 4, 8, 16), 8),
}
VECTOR_SHARE = 0.2
"""Of all heads: those whose outputs make up a function vector."""
INSTANCES = 3
"""Of each synthetic family, where it has so many."""
HELD_OUT_ROWS = 64
COUNTED_ROWS = 200
LETTERS, REPEATS, SAMPLES = 16, 4, 16
"""Of the repeated random tokens."""
COPYING = "repeated random letters"
SHOWN = ("new position maps", "word tasks trained on", "word tasks kept out", "new ciphers")
"""Groups that the figure has a panel of."""


def experiment(
    folder: Path, size: Size, bindings: Sequence[str], given: Path | None = None
) -> dict[str, Any]:
    """Trains the models that are not there, looks into them, writes `results.json` and `heads.png`.

    Args:
      folder: Folder to write to; what it holds already is gone on with.
      size: How much is done.
      bindings: Lines of gin that win over the ladder's; they name the word tasks.
      given: Folder of a ladder that is trained; None to train the models in `folder`.

    Returns:
      What results.json holds.

    Raises:
      InputError: a setting is wrong, a run was terminated, or a model of the given ladder is missing.
    """
    from icl.config import load_runs

    gin = [str(Path(ladder.__file__).parent / f"{size.ladder}.gin")]
    found: dict[str, list[Any]] = {rung: [] for rung in size.rungs}
    for seed in ladder.TRAIN_SEEDS[size.ladder]:
        for run in load_runs(gin, [*seed_bindings(seed), *bindings], size.rungs):
            name = f"seed_{seed}/{run.rung}"
            trained = train_to_end(run, folder / name) if not given else given / name
            if given:
                check_trained(run, trained)
            kept = folder / "heads" / f"{run.rung}_{seed}.json"
            if not kept.exists():
                write_json(kept, {"seed": seed} | look_into(trained, run, size))
            found[run.rung].append(json.loads(kept.read_text()))
    results = {"demonstrations": size.demonstrations, "removed": [0, *size.removed], "models": found}
    write_json(folder / "results.json", results)
    (folder / "heads.png").write_bytes(draw_figure(results))
    return results


def check_trained(run: Any, trained: Path) -> None:
    """Whether a model of a given ladder is there, and trained to its end."""
    from icl.training.checkpoints import find_checkpoint

    _, step = find_checkpoint(trained)
    if step != run.train.steps:
        raise InputError(f"{trained}: is at step {step} of {run.train.steps}; expected a run at its end")


def look_into(trained: Path, run: Any, size: Size) -> dict[str, Any]:
    """Scores of all heads of a model, and what it answers without some of them, or with a vector added."""
    import numpy as np

    from icl.analysis import head_roles
    from icl.analysis.emergence import token_counts
    from icl.analysis.function_vectors import indirect_effects, mean_last_outputs
    from icl.analysis.heads import head_scores, repeated_tokens, usual_tokens
    from icl.analysis.losses import mean_head_outputs
    from icl.data.loader import stack
    from icl.data.rows import Rows
    from icl.training.checkpoints import restore_params
    from icl.training.setup import Setup

    setup = Setup(run)
    params, description = restore_params(trained)
    config = description.model
    asked, groups = ask_all(setup, size)
    shares = {
        name: [head_roles.accuracy(config, params, prompts) for prompts in one[:3]]
        for name, one in asked.items()
    }
    gains = {name: told - alone for name, (told, _, alone) in shares.items()}
    asked = {name: one for name, one in asked.items() if gains[name] >= size.least}
    choosing = [name for name in asked if shares[name][0] - shares[name][1] >= size.least]
    if not choosing:
        raise InputError(f"{run.rung}: right labels bring {size.least} in no task; expected one or more")
    vectors = {name: mean_last_outputs(config, params, one.chosen_by) for name, one in asked.items()}
    effects = {name: indirect_effects(config, params, asked[name].untold, vectors[name]) for name in choosing}
    effects_LH = np.mean(list(effects.values()), axis=0)
    counts = token_counts(setup.rows, COUNTED_ROWS, setup.model.vocab_size)
    repeated = repeated_tokens(
        usual_tokens(counts), setup.tokenizer.start_id, length=LETTERS, repeats=REPEATS, samples=SAMPLES
    )
    scores = head_scores(config, params, repeated)
    held_out = Rows(run.data, setup.tasks, setup.tokenizer, "held_out")
    means_LHK = mean_head_outputs(config, params, [stack([held_out[i] for i in range(HELD_OUT_ROWS)])])

    def answered(heads: Any) -> dict[str, float]:
        right = {
            name: head_roles.accuracy(config, params, one.judged_by, heads, means_LHK)
            for name, one in asked.items()
        }
        copied = head_roles.copying_accuracy(config, params, repeated, heads, means_LHK)
        return head_roles.mean_by_group(right, groups) | {COPYING: copied}

    removed, overlaps = remove_heads(answered, effects_LH, scores.prefix_matching, size)
    return {
        "tasks": {
            name: dict(zip(("right labels", "shuffled labels", "none"), map(_rounded, of), strict=True))
            for name, of in shares.items()
        },
        "judged": list(asked),
        "chosen_by": choosing,
        "intact": {
            name: _rounded(head_roles.accuracy(config, params, asked[name].judged_by)) for name in asked
        },
        "effects": _rounded(effects_LH),
        "prefix_matching": _rounded(scores.prefix_matching),
        "copying": _rounded(scores.copying),
        "rank_correlation": round(head_roles.rank_correlation(effects_LH, scores.prefix_matching), 3),
        "overlap": overlaps,
        "removed": removed,
        "vector": inject(config, params, asked, groups, vectors, effects_LH),
    }


def remove_heads(
    answered: Callable[[Any], Mapping[str, float]], effects_LH: Any, matching_LH: Any, size: Size
) -> tuple[dict[str, dict[str, list[float]]], list[float]]:
    """Takes away more and more heads of each kind.

    Args:
      answered: Right answers (0..1) by group without some heads.
      effects_LH: How much each head carries the task.
      matching_LH: How much each head matches prefixes.
      size: How many heads, and how many random sets.

    Returns:
      By kind and group the right answers after each number of heads, none first. For each number, the share
      of the heads that carry the task best that match prefixes best, too.
    """
    from icl.analysis import head_roles

    removed: dict[str, list[Mapping[str, float]]] = {}
    overlaps = []
    intact = answered(())
    for count in size.removed:
        sets = head_roles.head_sets(effects_LH, matching_LH, count, draws=size.draws)
        overlaps.append(head_roles.overlap(*sets[head_roles.CARRY], *sets[head_roles.MATCH]))
        for kind, of_kind in sets.items():
            each = [answered(heads) for heads in of_kind]
            means = {name: fmean(one[name] for one in each) for name in each[0]}
            removed.setdefault(kind, [intact]).append(means)
    by_group = {
        kind: {name: _rounded([one[name] for one in by_count]) for name in intact}
        for kind, by_count in removed.items()
    }
    return by_group, overlaps


def _rounded(values: Any) -> Any:
    """Plain numbers of four digits after the point."""
    import numpy as np

    return np.round(np.asarray(values, np.float64), 4).tolist()


def ask_all(setup: Any, size: Size) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Prompts by task instance, and the names of the instances by group."""
    from icl.analysis.head_roles import ask

    asked: dict[str, Any] = {}
    groups: dict[str, list[str]] = {}
    for family, tasks in setup.tasks.items():
        if family in ladder.BATTERY:
            continue
        for group, task, name, instance in instances(family, tasks):
            try:
                one = ask(
                    task, instance, setup.tokenizer, demonstrations=size.demonstrations, count=size.prompts
                )
            except InputError:  # an instance of fewer examples
                continue
            if one.judged_by.last_B.max() < setup.run.data.row_length:
                asked[name] = one
                groups.setdefault(group, []).append(name)
    return asked, groups


def instances(family: str, tasks: Sequence[Any]) -> Iterator[tuple[str, Any, str, Any]]:
    """Groups, tasks, names and instances of a family: word tasks; new maps and such, and some trained on."""
    for task in tasks:
        if family == "files":
            group = "word tasks trained on" if task.trained else "word tasks kept out"
            yield group, task, task.name, task.instance("held_out", 0)
            continue
        plural = f"{family}s".replace("_", " ")
        for split, known in (("held_out", "new"), ("train", "old")):
            number = task.num_instances(split)
            if number is None and split == "train":
                continue  # none of them comes twice in training
            for i in range(INSTANCES if number is None else min(number, INSTANCES)):
                yield f"{known} {plural}", task, f"{known} {family} {i}", task.instance(split, i)


def inject(
    config: Any,
    params: Any,
    asked: Mapping[str, Any],
    groups: Mapping[str, Sequence[str]],
    vectors: Mapping[str, Any],
    effects_LH: Any,
) -> dict[str, Any]:
    """What each task's vector does to prompts without demonstrations.

    The layer is that with the most right answers on the prompts that heads are chosen by.
    """
    from icl.analysis import head_roles
    from icl.analysis.function_vectors import effect_of_vector, function_vector, top_heads

    heads = top_heads(effects_LH, max(1, round(VECTOR_SHARE * effects_LH.size)))
    of_task = {name: function_vector(config, params, vectors[name], heads) for name in asked}

    def with_vector(name: str, prompts: Any, layer: int) -> Any:
        return effect_of_vector(config, params, prompts, of_task[name], layer)

    by_layer = [
        fmean(with_vector(name, one.alone, layer).accuracy_after for name, one in asked.items())
        for layer in range(config.num_layers)
    ]
    layer = by_layer.index(max(by_layer))
    effects = {name: with_vector(name, one.judged_alone, layer) for name, one in asked.items()}
    shown = {name: head_roles.accuracy(config, params, one.judged_by) for name, one in asked.items()}
    # The vector of the next task in the list: what any vector does.
    names = list(asked)
    wrong = {
        name: effect_of_vector(
            config, params, asked[name].judged_alone, of_task[names[(i + 1) % len(names)]], layer
        )
        for i, name in enumerate(names)
    }
    measured = {
        "without": {name: one.accuracy_before for name, one in effects.items()},
        "with the vector": {name: one.accuracy_after for name, one in effects.items()},
        "with another task's": {name: one.accuracy_after for name, one in wrong.items()},
        "with demonstrations": shown,
    }
    return {
        "heads": [[layer + 1, head + 1] for layer, head in heads],
        "layer": layer + 1,
        "accuracy": {
            which: {group: _rounded(value) for group, value in head_roles.mean_by_group(of, groups).items()}
            for which, of in measured.items()
        },
    }


def draw_figure(results: Mapping[str, Any]) -> bytes:
    """A row of panels a model: right answers by the number of heads removed; then those with a vector."""
    from icl.analysis.small_run_figures import Panel, draw

    panels = []
    for row, (rung, models) in enumerate(results["models"].items()):
        names = {name for one in models for of in one["removed"].values() for name in of}
        for name in [name for name in SHOWN if name in names]:
            curves = {
                f"without heads that {kind}" if kind != "random" else "without random heads": [
                    one["removed"][kind][name] for one in models if name in one["removed"][kind]
                ]
                for kind in models[0]["removed"]
            }
            panels.append(Panel(row, f"{rung}: {name}", "heads removed", results["removed"], curves))
    return draw(panels, "right first letters (%)")


def table(results: Mapping[str, Any]) -> Iterator[str]:
    """Lines that say what came out, means over training seeds."""
    for rung, models in results["models"].items():
        yield (
            f"{rung}: rank correlation of the scores "
            + ", ".join(f"{one['rank_correlation']:.2f}" for one in models)
            + "; tasks judged "
            + ", ".join(str(len(one["judged"])) for one in models)
            + ", chosen by "
            + ", ".join(str(len(one["chosen_by"])) for one in models)
        )
        for kind in models[0]["removed"]:
            groups = dict.fromkeys(name for one in models for name in one["removed"][kind])
            for name in groups:
                of_seeds = [one["removed"][kind][name] for one in models if name in one["removed"][kind]]
                means = [100 * fmean(column) for column in zip(*of_seeds, strict=True)]
                cells = "  ".join(
                    f"{n}: {mean:5.1f}" for n, mean in zip(results["removed"], means, strict=True)
                )
                yield f"  {kind:22} {name:32} heads removed {cells}"
        for which in models[0]["vector"]["accuracy"]:
            groups = dict.fromkeys(name for one in models for name in one["vector"]["accuracy"][which])
            for name in groups:
                of_seeds = [
                    one["vector"]["accuracy"][which][name]
                    for one in models
                    if name in one["vector"]["accuracy"][which]
                ]
                yield f"  {which:22} {name:32} {100 * fmean(of_seeds):5.1f}"


def main(folder: Path, size: Size, bindings: Sequence[str]) -> dict[str, Any]:
    """The experiment with the models of the flag."""
    return experiment(folder, size, bindings, Path(_LADDER.value) if _LADDER.value else None)


if __name__ == "__main__":
    experiment_command.run(main, table, SIZES)
