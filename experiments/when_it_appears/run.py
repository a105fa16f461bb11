"""When it appears: K-curves and heads through training, of one layer and of two.

    python -m experiments.when_it_appears.run --experiment_dir DIR

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
      gin: The models and what they are trained on, in a file beside this one.
      seeds: Training seeds: of the first weights and of the rows.
      rows: Held-out episodes that every checkpoint is measured on.
    """

    gin: str
    seeds: tuple[int, ...]
    rows: int


SIZES = {
    "smoke": Size("smoke.gin", (0,), 32),
    "cpu": Size("cpu.gin", (0, 1, 2), 256),
    "gpu": Size("gpu.gin", (0, 1, 2, 3, 4), 2048),
}
KS = (0, 1, 4, 16)
LATE, EARLY = 62, 5
"""Tokens of the in-context-learning score: the values after 20 demonstrations, and after one."""
COUNTED_ROWS = 200
LEAST = {"exact_match": 0.5, "prefix_matching": 0.2}
"""What counts as a rise: of exact match, more than guessing among the values shown brings."""


def experiment(workdir: Path, size: Size, bindings: Sequence[str]) -> dict[str, Any]:
    """Trains every model with every seed, measures all checkpoints, writes results.json and emergence.png.

    Args:
      workdir: Folder to write to; what it holds already is gone on with.
      size: How much is done.
      bindings: Lines of gin that win over its file.

    Returns:
      What results.json holds.

    Raises:
      InputError: a setting is wrong, or a run was terminated.
    """
    from icl.analysis.emergence_figures import draw
    from icl.analysis.heads import prefix_matching_chance
    from icl.config import load_runs

    found: dict[str, list[Any]] = {}
    measured: dict[str, list[dict[str, Any]]] = {}
    for seed in size.seeds:
        own = seed_bindings(seed)
        for run in load_runs([str(Path(__file__).parent / size.gin)], [*own, *bindings]):
            folder = workdir / run.rung / f"seed_{seed}"
            train_to_end(run, folder)
            snapshots, ablated = measure_run(run, folder, size.rows)
            found.setdefault(run.rung, []).append(snapshots)
            measured.setdefault(run.rung, []).append(
                {"seed": seed} | summary(snapshots) | {"ablated": ablated}
            )
    results = {
        "chance": {"prefix_matching": prefix_matching_chance(), "copying": 0.0},
        "in_context_learning": {"late": LATE, "early": EARLY},
        "runs": measured,
    }
    write_json(workdir / "results.json", results)
    rises = {name: [run["half_rise"]["exact_match"] for run in runs] for name, runs in measured.items()}
    titled = {name.replace("_", " "): runs for name, runs in found.items()}
    (workdir / "emergence.png").write_bytes(
        draw(
            titled,
            {name.replace("_", " "): steps for name, steps in rises.items()},
            ks=KS,
            chance=prefix_matching_chance(),
        )
    )
    return results


def measure_run(run: Any, folder: Path, rows: int) -> tuple[list[Any], list[dict[str, Any]]]:
    """The snapshots of a run's checkpoints, and what its last one loses without each head."""
    from icl.analysis import emergence
    from icl.analysis.heads import repeated_tokens, usual_tokens
    from icl.analysis.losses import ablate_each_head
    from icl.data.loader import stack
    from icl.data.rows import Rows
    from icl.training.checkpoints import restore_params
    from icl.training.setup import Setup

    setup = Setup(run)
    held_out = Rows(run.data, setup.tasks, setup.tokenizer, "held_out")
    episodes = stack([held_out[i] for i in range(rows)])
    counts = emergence.token_counts(setup.rows, COUNTED_ROWS, setup.model.vocab_size)
    probe = emergence.Probe(
        rows=episodes,
        repeated=repeated_tokens(usual_tokens(counts), setup.tokenizer.start_id),
        num_examples=max(KS) + 1,
        late=LATE,
        early=EARLY,
    )
    snapshots = emergence.measure_run(folder, run.train, probe)
    params, description = restore_params(folder)
    ablations = ablate_each_head(description.model, params, [episodes], num_examples=probe.num_examples)
    last = snapshots[-1]
    ablated = [
        {
            "layer": layer + 1,
            "head": head + 1,
            "prefix_matching": last.prefix_matching[layer][head],
            "copying": last.copying[layer][head],
            "previous_token": last.previous_token[layer][head],
            "loss": {f"K={k}": round(float(ablations.without_LHK[layer, head, k]), 4) for k in KS},
        }
        for layer in range(description.model.num_layers)
        for head in range(description.model.num_heads)
    ]
    return snapshots, ablated


def summary(snapshots: Sequence[Any]) -> dict[str, Any]:
    """A run in numbers: where it rises, and where it ends; and its curves."""
    from icl.analysis.emergence import half_rise

    steps = [snapshot.step for snapshot in snapshots]
    layer, head = snapshots[-1].best_head()
    exact = {f"K={k}": [snapshot.exact_match[k] for snapshot in snapshots] for k in KS}
    curves = {
        "exact_match": exact,
        "loss": {f"K={k}": [snapshot.loss[k] for snapshot in snapshots] for k in KS},
        "in_context_learning": [snapshot.in_context_learning for snapshot in snapshots],
        **{
            score: [getattr(snapshot, score) for snapshot in snapshots]
            for score in ("prefix_matching", "copying")
        },
    }
    of_best = [snapshot.prefix_matching[layer][head] for snapshot in snapshots]
    rises = {
        "exact_match": half_rise(steps, exact[f"K={max(KS)}"], least=LEAST["exact_match"]),
        "prefix_matching": half_rise(steps, of_best, least=LEAST["prefix_matching"]),
    }
    return {"best_head": [layer + 1, head + 1], "half_rise": rises, "steps": steps, "curves": curves}


def table(results: Mapping[str, Any]) -> Iterator[str]:
    """Lines that say what came out."""
    columns = [*(f"K={k}" for k in KS), "ICL score", "prefix", "copying", "rise K", "rise head"]
    yield f"{'model':28} {'seed':>4} " + " ".join(f"{column:>9}" for column in columns)
    for name, runs in results["runs"].items():
        for run in runs:
            curves, (layer, head) = run["curves"], run["best_head"]
            cells = [f"{100 * curves['exact_match'][f'K={k}'][-1]:.1f}" for k in KS]
            cells.append(f"{curves['in_context_learning'][-1]:.3f}")
            cells += [
                f"{curves[score][-1][layer - 1][head - 1]:.2f}" for score in ("prefix_matching", "copying")
            ]
            cells += ["none" if step is None else f"{step:.0f}" for step in run["half_rise"].values()]
            yield f"{name:28} {run['seed']:4} " + " ".join(f"{cell:>9}" for cell in cells)


if __name__ == "__main__":
    experiment_command.run(experiment, table, SIZES)
