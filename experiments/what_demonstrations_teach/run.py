"""What demonstrations teach: labels right, random, flipped and without meaning, by size and through training.

    python -m experiments.what_demonstrations_teach.run --experiment_dir DIR

Run again, it goes on where it stopped. See the README beside this file.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from absl import flags

from icl import experiment_command
from icl.experiment_command import train_to_end, write_json

flags.adopt_module_key_flags(experiment_command)


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is done.

    Attributes:
      gin: The models and their training, in a file beside this one.
      seeds: Training seeds: of the first weights and of the rows.
      queries: Held-out words that are asked at the end of training.
      through_training: Held-out words that every checkpoint is asked.
      sets: Sets of demonstrations that are shown in several orders.
    """

    gin: str
    seeds: tuple[int, ...]
    queries: int
    through_training: int
    sets: int


SIZES = {
    "smoke": Size("smoke.gin", (0,), 8, 8, 2),
    "cpu": Size("cpu.gin", (0, 1), 200, 64, 8),
    "gpu": Size("gpu.gin", (0, 1, 2), 800, 400, 24),
}
SHARES = (0.5, 0.0)
"""Of the training episodes, those whose classes have other names than usual."""
TASK = "word_class"
CONDITIONS: tuple[Literal["gold", "random_labels", "flipped_labels", "abstract_labels"], ...] = (
    "gold",
    "random_labels",
    "flipped_labels",
    "abstract_labels",
)
KS = (0, 1, 2, 4, 8, 16)
ORDERS, ORDERED_K = 8, 4


def experiment(workdir: Path, size: Size, bindings: Sequence[str]) -> dict[str, Any]:
    """Trains every model on every share of renamed episodes, asks all, writes results.json and labels.png.

    Args:
      workdir: Folder to write to; what it holds already is gone on with.
      size: How much is done.
      bindings: Lines of gin that win over its file.

    Returns:
      What results.json holds.

    Raises:
      InputError: a setting is wrong, or a run was terminated.
    """
    from icl.analysis.label_figures import Trained, draw

    found: dict[float, list[Trained]] = {}
    for share in SHARES:
        folders: dict[str, list[Path]] = {}
        for seed in size.seeds:
            for run in load(size, share, seed, bindings):
                folder = workdir / f"renamed_{round(100 * share)}" / run.rung / f"seed_{seed}"
                train_to_end(run, folder)
                folders.setdefault(run.rung, []).append(folder)
        found[share] = [measure(name, of_model, size) for name, of_model in folders.items()]
    results = {
        f"{share:g}": {one.name: as_results(one) for one in of_share} for share, of_share in found.items()
    }
    write_json(workdir / "results.json", results)
    (workdir / "labels.png").write_bytes(draw(found[SHARES[0]], found[SHARES[1]]))
    return results


def load(size: Size, share: float, seed: int, bindings: Sequence[str]) -> list[Any]:
    """The runs of one seed with so much of the training renamed, a run a model."""
    from icl.config import load_runs

    weights = {TASK: 1 - share, f"permuted/{TASK}": share / 2, f"drawn/{TASK}": share / 2}
    own = [
        f"DataConfig.weights = {weights}",
        f"DataConfig.seed = {seed}",
        f"TrainConfig.seed = {seed}",
    ]
    return load_runs([str(Path(__file__).parent / size.gin)], [*own, *bindings])


def measure(name: str, folders: Sequence[Path], size: Size) -> Any:
    """What the models of one kind make of demonstrations, through training and at its end.

    Args:
      name: What the models are called.
      folders: Of their runs, one a seed.
      size: How much is asked.
    """
    from icl.analysis.label_effects import label_effects, order_spread
    from icl.analysis.label_figures import Trained
    from icl.evaluation.config import EvalConfig
    from icl.training.checkpoints import read_description

    asked = EvalConfig(
        tasks=(TASK,),
        ks=KS,
        instruction=(False,),
        seeds=1,
        queries=size.queries,
        conditions=CONDITIONS,
        option_rules=("calibrated",),
    )
    lighter = dataclasses.replace(asked, ks=(0, KS[-1]), queries=size.through_training, option_rules=())
    ordered = dataclasses.replace(
        asked,
        ks=(ORDERED_K,),
        seeds=size.sets,
        orders=ORDERS,
        queries=size.through_training,
        demonstrations="fixed",
        option_rules=(),
    )
    labels = usual_names(folders[0])
    final = [ask([folder], asked, folder / "asked") for folder in folders]
    steps = kept_steps(folders[0])
    through = [
        ask([folder / "checkpoints" / str(step) for step in steps], lighter, folder / "through_training")
        for folder in folders
    ]
    orders = [ask([folder], ordered, folder / "orders") for folder in folders]
    by_condition = {
        condition: [[record for record in records if record.condition == condition] for records in orders]
        for condition in CONDITIONS
    }
    return Trained(
        name=name,
        params=read_description(*last_checkpoint(folders[0])).params,
        labels=labels,
        effects=label_effects(final, labels),
        through_training={
            step: label_effects([[r for r in records if r.step == step] for records in through], labels)
            for step in steps
        },
        orders={condition: order_spread(records) for condition, records in by_condition.items()},
    )


def ask(checkpoints: Sequence[Path], config: Any, output_dir: Path) -> list[Any]:
    """The records of an evaluation; what is there already is not asked again."""
    from icl.evaluation.finished import read_all_records
    from icl.evaluation.runner import evaluate

    evaluate(checkpoints, config, output_dir, records_only=True)
    return read_all_records(output_dir)


def last_checkpoint(folder: Path) -> tuple[Path, int]:
    """Folder and step of a run's last checkpoint."""
    from icl.training.checkpoints import find_checkpoint

    return find_checkpoint(folder)


def kept_steps(folder: Path) -> list[int]:
    """Steps of the checkpoints that a run kept."""
    return sorted(int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit())


def usual_names(folder: Path) -> tuple[str, ...]:
    """The labels of the task that a run was trained on."""
    from icl.tasks import build_tasks, rebuild
    from icl.training.checkpoints import read_description

    families = rebuild(read_description(*last_checkpoint(folder)).tasks)
    (task,) = build_tasks(families)[TASK]
    return task.labels()


def as_results(trained: Any) -> dict[str, Any]:
    """A model's figures for results.json: each its value, the ends of its interval, and the value a seed."""
    from icl.analysis.label_effects import as_json

    shown = ("gold", "random_labels", "following", "abstract_labels")
    return {
        "params": trained.params,
        "by_demonstrations": as_json(trained.effects),
        "through_training": as_json(
            {
                step: {name: effects[name] for name in shown}
                for step, effects in trained.through_training.items()
            }
        ),
        "orders": as_json(trained.orders),
    }


def table(results: Mapping[str, Any]) -> Iterator[str]:
    """Lines that say what came out at the largest K: percent, and calibration errors."""
    k = str(KS[-1])
    columns = ("gold", "random_labels", "flipped_labels", "following", "abstract_labels", "ECE, gold")
    heads = ("gold", "random", "flipped", "following", "abstract", "ECE gold")
    yield f"K = {k}: {'renamed':>9} {'parameters':>11} " + " ".join(f"{head:>16}" for head in heads)
    for share, of_share in results.items():
        for name, one in of_share.items():
            cells = []
            for column in columns:
                value, low, high, _ = one["by_demonstrations"][column][k]
                cells.append(f"{100 * value:.1f} [{100 * low:.0f}, {100 * high:.0f}]")
            yield (
                f"{name:>7} {float(share):>9.0%} {one['params']:>11,} "
                + " ".join(f"{cell:>16}" for cell in cells)
            )


if __name__ == "__main__":
    experiment_command.run(experiment, table, SIZES)
