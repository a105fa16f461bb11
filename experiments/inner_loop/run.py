"""The inner loop: a training row drawn, and the loss of answers by demonstration, early and late in training.

    python -m experiments.inner_loop.run --experiment_dir DIR

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


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is done.

    Attributes:
      gin: Model and rows, in a file beside this one.
      seeds: Training seeds: of the first weights and of the rows.
      steps: The checkpoints that are measured; the first and the last also on the drawn row.
      episodes: Held-out episodes, and unseen training rows, that each is measured on.
      num_examples: Answers of an episode that are reported.
    """

    gin: str
    seeds: tuple[int, ...]
    steps: tuple[int, ...]
    episodes: int
    num_examples: int


SIZES = {
    "smoke": Size("smoke.gin", (0,), (10, 30), 32, 17),
    "cpu": Size("cpu.gin", (0, 1), (100, 300, 600, 1000, 3000), 1024, 17),
    "gpu": Size("gpu.gin", (0, 1, 2), (500, 1000, 2000, 5000, 20_000), 4096, 64),
}
_TASKS, _SOUGHT = 3, 1000
"""The row that is drawn is the first unseen one of so many tasks, among so many rows; else the first."""


def experiment(folder: Path, size: Size, bindings: Sequence[str]) -> dict[str, Any]:
    """Trains with every seed, measures the checkpoints, and writes `results.json` and `inner_loop.png`.

    Args:
      folder: Folder to write to; what it holds already is gone on with.
      size: How much is done.
      bindings: Lines of gin that win over its file.

    Returns:
      What results.json holds.

    Raises:
      InputError: a setting is wrong, or a run was terminated.
    """
    from icl.analysis.inner_loop import draw
    from icl.config import load_runs
    from icl.training.setup import Setup

    runs: list[dict[str, Any]] = []
    setups = []
    for seed in size.seeds:
        own = seed_bindings(seed)
        (run,) = load_runs([str(Path(__file__).parent / size.gin)], [*own, *bindings])
        workdir = folder / f"seed_{seed}"
        train_to_end(run, workdir)
        setup = Setup(run)
        runs.append({"seed": seed} | measure_run(setup, workdir, size))
        setups.append(setup)
    first = setups[0]
    shown, losses = drawn_row(first, folder / f"seed_{size.seeds[0]}", (size.steps[0], size.steps[-1]))
    results = {"steps": list(size.steps), "components": list(first.components), "runs": runs}
    write_json(folder / "results.json", results)
    (folder / "inner_loop.png").write_bytes(draw(results, shown, losses, first.tokenizer))
    return results


def measure_run(setup: Any, workdir: Path, size: Size) -> dict[str, Any]:
    """Loss and exact match by demonstration, of held-out instances and of unseen training rows.

    The latter are the rows that would have come next, so no model has seen them.
    """
    from icl.analysis.inner_loop import by_demonstration
    from icl.data.loader import stack
    from icl.data.rows import Rows
    from icl.training.checkpoints import restore_params

    run = setup.run
    held_out = Rows(run.data, setup.tasks, setup.tokenizer, "held_out")
    first = run.ramp.first_row(run.train.steps)
    rows = {
        "held_out": stack([held_out[i] for i in range(size.episodes)]),
        "training": stack([setup.rows[first + i] for i in range(size.episodes)]),
    }
    found: dict[str, Any] = {name: [] for name in rows}
    for step in size.steps:
        params, description = restore_params(workdir, step)
        for name, batch in rows.items():
            found[name].append(
                by_demonstration(
                    description.model, params, batch, len(setup.rows.components), size.num_examples
                )
            )
    return found


def drawn_row(setup: Any, workdir: Path, steps: Sequence[int]) -> tuple[Any, dict[str, Any]]:
    """The first unseen training row of several tasks, and its losses at some steps."""
    import jax
    import numpy as np

    from icl.analysis.losses import token_scores
    from icl.training.checkpoints import restore_params

    first = setup.run.ramp.first_row(setup.run.train.steps)
    unseen = (setup.rows[first + i] for i in range(_SOUGHT))
    row = next((row for row in unseen if len(set(row.tasks_BT) - {-1}) >= _TASKS), setup.rows[first])
    batch = jax.tree.map(lambda x_T: np.asarray(x_T)[None], row)
    losses = {}
    for step in steps:
        params, description = restore_params(workdir, step)
        scores = token_scores(description.model, params, batch)
        losses[f"step {step:,}"] = np.asarray(scores.cross_entropy_BT)[0]
    return row, losses


def table(results: Mapping[str, Any]) -> Iterator[str]:
    """Lines that say what came out: means over seeds."""
    from icl.analysis.inner_loop import mean_over_seeds

    ks = (0, 1, 2, 4, 8, 16)
    yield f"{'rows':10} {'step':>7}  nats a token after K = " + " ".join(f"{k:>6}" for k in ks)
    for name in ("training", "held_out"):
        for i, step in enumerate(results["steps"]):
            mean = mean_over_seeds(results, name, i, "loss")
            shown = " ".join(f"{mean[k]:6.3f}" for k in ks if k < len(mean))
            yield f"{name:10} {step:7,}  {'':24}{shown}"


if __name__ == "__main__":
    experiment_command.run(experiment, table, SIZES)
