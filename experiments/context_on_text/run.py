"""Context on text: loss by position and in-context-learning score through training, of one layer and more.

    python -m experiments.context_on_text.run --experiment_dir DIR --gin_bindings "text = ['books']"

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
      gin: The models and their text, in a file beside this one.
      seeds: Training seeds: of the first weights and of the order of the text.
      rows: Unseen rows that every checkpoint is measured on.
    """

    gin: str
    seeds: tuple[int, ...]
    rows: int


SIZES = {
    "smoke": Size("smoke.gin", (0,), 8),
    "cpu": Size("cpu.gin", (0, 1), 512),
    "gpu": Size("gpu.gin", (0, 1, 2), 4096),
}
LATE, EARLY, AROUND = 500, 50, 8
"""Tokens of the in-context-learning score, and how many on each side are averaged with them."""
COUNTED_ROWS = 500


def experiment(folder: Path, size: Size, bindings: Sequence[str]) -> dict[str, Any]:
    """Trains every model with every seed, measures all checkpoints, writes results.json and context.png.

    Args:
      folder: Folder to write to; what it holds already is gone on with.
      size: How much is done.
      bindings: Lines of gin that win over its file; they name the text.

    Returns:
      What results.json holds.

    Raises:
      InputError: a setting is wrong, the text is too short for all of it to be read once, or a run was
        terminated.
    """
    from icl.analysis.emergence import measure_run
    from icl.analysis.emergence_figures import draw_on_text
    from icl.analysis.heads import prefix_matching_chance
    from icl.config import load_runs

    found: dict[str, list[Any]] = {}
    for seed in size.seeds:
        own = seed_bindings(seed)
        for run in load_runs([str(Path(__file__).parent / size.gin)], [*own, *bindings]):
            workdir = folder / run.rung / f"seed_{seed}"
            probe = make_probe(run, size.rows)
            train_to_end(run, workdir)
            found.setdefault(run.rung, []).append(measure_run(workdir, run.train, probe))
    results = {
        "score": {"late": LATE, "early": EARLY, "around": AROUND},
        "chance": {"prefix_matching": prefix_matching_chance()},
        "runs": {
            name: [
                {"seed": seed, "snapshots": [dataclasses.asdict(snapshot) for snapshot in run]}
                for seed, run in zip(size.seeds, runs, strict=True)
            ]
            for name, runs in found.items()
        },
    }
    write_json(folder / "results.json", results)
    titled = {name.replace("_", " "): runs for name, runs in found.items()}
    (folder / "context.png").write_bytes(draw_on_text(titled, chance=prefix_matching_chance()))
    return results


def make_probe(run: Any, rows: int) -> Any:
    """Unseen text from the stream of a run, and repeated tokens that are usual in it."""
    from icl.analysis import emergence
    from icl.analysis.heads import repeated_tokens, usual_tokens
    from icl.analysis.text_loss import rows_after
    from icl.data.loader import stack
    from icl.training.setup import Setup

    setup = Setup(run)
    unseen = rows_after(setup, run.ramp.first_row(run.train.steps), rows)
    counts = emergence.token_counts(setup.rows, COUNTED_ROWS, setup.model.vocab_size)
    return emergence.Probe(
        rows=stack([setup.rows[row] for row in unseen]),
        repeated=repeated_tokens(usual_tokens(counts), setup.tokenizer.start_id),
        num_examples=0,
        late=LATE,
        early=EARLY,
        around=AROUND,
    )


def table(results: Mapping[str, Any]) -> Iterator[str]:
    """Lines that say what came out."""
    yield f"{'model':12} {'seed':>4} {'step':>6} {'ICL score':>9} {'prefix matching':>15}  loss by position"
    for name, runs in results["runs"].items():
        for run in runs:
            for one in (run["snapshots"][0], run["snapshots"][-1]):
                best = max(max(heads) for heads in one["prefix_matching"])
                losses = " ".join(f"{loss:.2f}" for loss in one["position_loss"])
                yield (
                    f"{name:12} {run['seed']:4} {one['step']:6} {one['in_context_learning']:9.3f}"
                    f" {best:15.2f}  {losses}"
                )


if __name__ == "__main__":
    experiment_command.run(experiment, table, SIZES)
