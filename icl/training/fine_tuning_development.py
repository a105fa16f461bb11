"""When fine-tuning stops, and which step it keeps: measured on the development examples, before and after.

Dimension letters: B rows, T positions, M examples of a row.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from icl.data.batch import Batch
from icl.data.loader import host_rows, stack
from icl.parallel.hosts import from_first
from icl.tasks.task import Example
from icl.training.checkpoints import Checkpoints
from icl.training.description import Description
from icl.training.fine_tuning import BEST
from icl.training.fine_tuning_rows import ExampleWriter, FineTuningRows
from icl.training.setup import Setup
from icl.training.step import score
from icl.training.workdir import write_whole

HISTORY = "development.jsonl"


class Answered(NamedTuple):
    """Examples answered by a model, teacher-forced, as arrays [examples].

    `right`: whether each token, delimiter included, is the likeliest, so that greedy decoding gives it;
    `loss`: of the answer, in nats; `tokens`: how many it has.
    """

    right: np.ndarray
    loss: np.ndarray
    tokens: np.ndarray


class Measured(NamedTuple):
    """A model on the development examples: how many answers are right, and the mean loss a token in nats."""

    right: int
    loss: float

    def is_better_than(self, other: "Measured") -> bool:
        """More right answers; or as many, at a lower loss."""
        return (self.right, -self.loss) > (other.right, -other.loss)


class ExampleScorer:
    """Answers examples, each alone in its segment; compiled once for any number of them."""

    def __init__(self, setup: Setup, writer: ExampleWriter) -> None:
        """Compiles nothing yet."""
        self._setup = setup
        self._writer = writer
        self._rows = setup.run.batch_rows // setup.run.train.accumulation_steps
        self._step = jax.jit(self._answer, out_shardings=setup.partitioner.replicated)

    def batches(self, examples: Sequence[Example]) -> list[Batch]:
        """The examples on the devices, in batches of equal shape."""
        size = self._rows
        rows = [self._writer.row(together) for together in self._writer.fill(examples)]
        rows += [self._writer.row(())] * (-len(rows) % size)
        held = host_rows(self._setup.partitioner.batch_sharding, size)
        return [
            self._setup.place(stack([rows[start + row] for row in held]), size)
            for start in range(0, len(rows), size)
        ]

    def answers(self, params: Any, batches: Sequence[Batch]) -> Answered:
        """What a model answers to the examples of `batches`, in their order, as arrays [examples]."""
        found = jax.device_get([self._step(params, batch) for batch in batches])
        right, loss, tokens = (
            np.concatenate([each.ravel() for each in arrays]) for arrays in zip(*found, strict=True)
        )
        there = tokens > 0
        return Answered(right[there], loss[there], tokens[there])

    def _answer(self, params: Any, batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Right answers, losses and tokens [rows, examples]."""
        scores = score(self._setup.model, params, batch, self._setup.partitioner)
        numbers_M = jnp.arange(self._writer.per_row)
        of_example_BTM = jnp.asarray(batch.examples_BT)[..., None] == numbers_M[None, None]
        is_right_BT = scores.best_BT == jnp.asarray(batch.targets_BT)
        tokens_BM = jnp.sum(of_example_BTM, axis=1)
        correct_BM = jnp.sum(of_example_BTM & is_right_BT[..., None], axis=1)
        loss_BM = jnp.sum(jnp.where(of_example_BTM, scores.cross_entropy_BT[..., None], 0.0), axis=1)
        return (tokens_BM > 0) & (correct_BM == tokens_BM), loss_BM, tokens_BM


class EarlyStopping:
    """The best of the measurements so far, and how long ago it was."""

    def __init__(self, patience: int) -> None:
        """Has seen none; over after `patience` measurements in a row that are no better."""
        self._patience = patience
        self.best: Measured | None = None
        self.best_step = 0
        self._since = 0

    def add(self, step: int, measured: Measured) -> bool:
        """Takes a measurement; returns whether it is the best."""
        if self.best is not None and not measured.is_better_than(self.best):
            self._since += 1
            return False
        self.best, self.best_step, self._since = measured, step, 0
        return True

    @property
    def is_over(self) -> bool:
        """Whether patience has run out."""
        return self._since >= self._patience


class Development:
    """The development side of a fine-tuning run: measures, keeps the best step, says when to end.

    `DIR/development.jsonl` has every measurement and `DIR/best` the checkpoint of the best step. Both are on
    the disk before the run's own checkpoint commits, so a run that goes on knows what it had found.
    """

    def __init__(self, setup: Setup, rows: FineTuningRows, workdir: Path, start: int) -> None:
        """Reads what was measured up to step `start`; drops what a killed run wrote after it."""
        self._setup = setup
        self._config = setup.run.fine_tune
        self._examples = rows.drawn.development
        self._scorer = ExampleScorer(setup, rows.writer)
        self._batches: list[Batch] | None = None
        self._path = workdir / HISTORY
        self._checkpoints = Checkpoints(workdir / BEST, keep_last=2)
        self._checkpoints.drop_after(start if start else -1)
        self._history = _read_history(self._path, start)
        self._stopping = EarlyStopping(self._config.patience)
        for step, measured in self._history:
            self._stopping.add(step, measured)
        self._params: Any = None

    def __enter__(self) -> "Development":
        return self

    def __exit__(self, *args: object) -> None:
        self._checkpoints.__exit__(*args)

    @property
    def is_over(self) -> bool:
        """Whether patience has run out."""
        return self._stopping.is_over

    @property
    def summary(self) -> str:
        """The best measurement in a line."""
        best, number = self._stopping.best, len(self._examples)
        right = "none" if best is None else f"{best.right} of {number} right, loss {best.loss:.4f}"
        return f"best on the development examples: step {self._stopping.best_step}, {right}"

    def is_due(self, step: int, last: int) -> bool:
        """Whether to measure after a step."""
        return step % self._config.eval_every == 0 or step == last

    def measure(self, step: int, params: Any) -> dict[str, Any]:
        """Measures the parameters of a step, and copies them if they are the best; returns numbers to log."""
        if self._batches is None:
            self._batches = self._scorer.batches(self._examples)
        measured = summarise(self._scorer.answers(params, self._batches))
        self._history.append((step, measured))
        if self._stopping.add(step, measured):
            self._params = jax.tree.map(jnp.copy, params)
        return {"exact_match": measured.right / len(self._examples), "loss": measured.loss}

    def save(self, description: Description) -> None:
        """Writes the measurements, and the best parameters where they are new. All hosts call it together."""
        if jax.process_index() == 0:
            lines = (json.dumps({"step": step, **found._asdict()}) for step, found in self._history)
            write_whole(self._path, "".join(f"{line}\n" for line in lines))
        if self._params is not None:
            tokens = self._setup.run.tokens(self._stopping.best_step)
            description = dataclasses.replace(description, tokens=tokens)
            self._checkpoints.save_params(self._stopping.best_step, self._params, description)
            self._params = None


def summarise(answered: Answered) -> Measured:
    """Right answers and mean loss; in double precision, whose sums do not depend on the rows' order."""
    loss = answered.loss.astype(np.float64).sum() / answered.tokens.sum()
    return Measured(int(answered.right.sum()), float(np.float32(loss)))


def _read_history(path: Path, start: int) -> list[tuple[int, Measured]]:
    """The measurements up to step `start`, as the first host reads them; none where the run begins anew."""
    lines = path.read_text(encoding="utf-8").splitlines() if start and path.exists() else []
    read = [json.loads(line) for line in lines]
    kept = [(each["step"], each["right"], each["loss"]) for each in read if each["step"] <= start]
    count = int(from_first(np.array(len(kept), np.int32)))
    kept = (kept + [(0, 0, 0.0)] * count)[:count]
    whole = from_first(np.array([each[:2] for each in kept], np.int32).reshape(count, 2))
    losses = from_first(np.array([each[2] for each in kept], np.float32))
    return [
        (int(step), Measured(int(right), float(loss)))
        for (step, right), loss in zip(whole, losses, strict=True)
    ]
