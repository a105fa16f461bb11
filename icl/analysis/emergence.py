"""When in-context learning appears: K-curve or loss by position, and the heads' scores, at every checkpoint.

Shapes: L layers, B rows, T positions, H heads, K demonstrations before an answer.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from icl.analysis.heads import RepeatedTokens, head_scores
from icl.analysis.losses import (
    exact_by_demonstration,
    in_context_learning_score,
    loss_by_demonstration,
    loss_by_position,
    token_scores,
)
from icl.data.batch import Batch
from icl.data.loader import Addressed
from icl.errors import InputError
from icl.training.checkpoints import restore_params
from icl.training.config import TrainConfig
from icl.training.workdir import write_whole


@dataclasses.dataclass(frozen=True)
class Probe:
    """What every checkpoint is measured on, the same for all.

    Attributes:
      rows: Held-out episodes, one a row; or unseen text, a document or a piece of a stream a row.
      repeated: What the heads are scored on.
      num_examples: Up to how many demonstrations to report, that number excluded; 0 for text.
      late: The later token of the in-context-learning score, counted from 1.
      early: The earlier one.
      around: How many tokens on each side of either are averaged with it.
    """

    rows: Batch
    repeated: RepeatedTokens
    num_examples: int
    late: int
    early: int
    around: int = 0


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A checkpoint, measured.

    Attributes:
      step: Optimizer steps done.
      tokens: Positions trained on.
      exact_match: Share of right answers after K = 0, 1, ... demonstrations.
      loss: Of an answer's tokens after as many, in nats.
      in_context_learning: Loss at the probe's late token less that at its early one, in nats.
      prefix_matching: By layer and head, 0..1.
      copying: By layer and head, -1..1.
      previous_token: By layer and head, 0..1; on the probe's repeated tokens.
      position_loss: Mean loss of the 1st token, the 2nd, the 3rd and 4th, the 5th to 8th, ..., in nats.
    """

    step: int
    tokens: int
    exact_match: list[float]
    loss: list[float]
    in_context_learning: float
    prefix_matching: list[list[float]]
    copying: list[list[float]]
    previous_token: list[list[float]]
    position_loss: list[float] = dataclasses.field(default_factory=list)

    def best_head(self) -> tuple[int, int]:
        """The head that matches prefixes best, as (layer, head)."""
        scores_LH = np.array(self.prefix_matching)
        layer, head = np.unravel_index(scores_LH.argmax(), scores_LH.shape)
        return int(layer), int(head)


def token_counts(rows: Addressed, number: int, vocab_size: int) -> np.ndarray:
    """How often each token is read in the first `number` rows, [vocab]."""
    counts_V = np.zeros(vocab_size, np.int64)
    for i in range(number):
        inputs_T, segments_T = np.asarray(rows[i].inputs_BT), np.asarray(rows[i].segments_BT)
        counts_V += np.bincount(inputs_T[segments_T > 0], minlength=vocab_size)
    return counts_V


def measure(workdir: Path, step: int, probe: Probe) -> Snapshot:
    """Measures one checkpoint of a run.

    Raises:
      InputError: there is no such checkpoint, it is damaged, or the probe does not fit the model.
    """
    params, description = restore_params(workdir, step)
    config, rows = description.model, probe.rows
    scores = jax.device_get(token_scores(config, params, rows))
    loss_T, number_T = loss_by_position(
        scores.cross_entropy_BT, rows.positions_BT, rows.weights_BT, np.asarray(rows.inputs_BT).shape[1]
    )
    exact = exact_by_demonstration(scores.best_BT, rows.targets_BT, rows.examples_BT, probe.num_examples)
    loss = loss_by_demonstration(scores.cross_entropy_BT, rows.examples_BT, probe.num_examples)
    heads = head_scores(config, params, probe.repeated)
    return Snapshot(
        step=step,
        tokens=description.tokens,
        exact_match=_rounded(exact.mean),
        loss=_rounded(loss.mean),
        in_context_learning=_rounded(
            in_context_learning_score(loss_T, late=probe.late, early=probe.early, around=probe.around)
        ),
        prefix_matching=_rounded(heads.prefix_matching),
        copying=_rounded(heads.copying),
        previous_token=_rounded(heads.previous_token),
        position_loss=_rounded(_by_doubling(loss_T, number_T)),
    )


def measure_run(workdir: Path, train: TrainConfig, probe: Probe) -> list[Snapshot]:
    """Measures every checkpoint of a run, or reads what was measured before (`DIR/snapshots.json`).

    Raises:
      InputError: a checkpoint is missing or damaged, or that file holds something else.
    """
    kept = workdir / "snapshots.json"
    if not kept.exists():
        steps = range(train.save_every, train.steps + 1, train.save_every)
        write_snapshots(kept, [measure(workdir, step, probe) for step in steps])
    return read_snapshots(kept)


def _by_doubling(loss_T: np.ndarray, number_T: np.ndarray) -> np.ndarray:
    """The mean over the tokens of each part of a context; NaN where a part has none."""
    starts = [0, *doublings(len(loss_T))]
    total_P = np.add.reduceat(np.where(number_T > 0, loss_T, 0.0) * number_T, starts)
    with np.errstate(invalid="ignore"):
        return total_P / np.add.reduceat(number_T, starts)


def doublings(length: int) -> list[int]:
    """Where the parts begin that a context of `length` tokens is cut into, each as long as all before it."""
    return [2**i for i in range((length - 1).bit_length())]


def half_rise(
    steps: Sequence[float], values: Sequence[float], *, least: float, last: int = 5
) -> float | None:
    """The step at which a curve has gone half of the way from its first value to its last ones.

    Interpolated between measurements; the last crossing from below, so what fades again before its end counts
    from its final rise.

    Args:
      steps: Rising.
      values: One a step.
      least: What the curve has to rise by; None is returned for less.
      last: How many last values make up its end, as their mean.

    Raises:
      InputError: the two are not as long as each other, or shorter than two.
    """
    if len(steps) != len(values) or len(steps) < 2:
        raise InputError(
            f"half rise: {len(steps)} steps and {len(values)} values; expected two or more of each"
        )
    end = float(np.mean(values[-last:]))
    if end - values[0] < least:
        return None
    middle = (values[0] + end) / 2
    below = [i for i in range(len(values) - 1) if values[i] < middle <= values[i + 1]]
    if not below:
        return None
    i = below[-1]
    share = (middle - values[i]) / (values[i + 1] - values[i])
    return float(steps[i] + share * (steps[i + 1] - steps[i]))


def write_snapshots(path: Path, snapshots: Sequence[Snapshot]) -> None:
    """Writes snapshots as JSON, whole or not at all."""
    write_whole(path, json.dumps([dataclasses.asdict(snapshot) for snapshot in snapshots]) + "\n")


def read_snapshots(path: Path) -> list[Snapshot]:
    """What `write_snapshots` wrote.

    Raises:
      InputError: the file holds something else.
    """
    try:
        return [Snapshot(**fields) for fields in json.loads(path.read_text())]
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: expected snapshots of a run, as this experiment writes them") from error


def _rounded(values: Any) -> Any:
    """Plain numbers of three digits after the point."""
    return np.round(np.asarray(values, np.float64), 3).tolist()
