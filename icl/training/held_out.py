"""What a run measures on held-out episodes while it trains: the K-curve, and sample prompts with answers.

Both come from one teacher-forced pass over the same rows, so the samples cost nothing of their own.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from icl.data.batch import Batch, empty_row
from icl.data.loader import host_rows, stack
from icl.data.rows import Rows
from icl.data.tokenizer import Tokenizer
from icl.tracking.tracker import Sample
from icl.training.setup import Setup
from icl.training.step import CurveSums, make_curve_step

WORDINGS = {"without": False, "with_instruction": True}
"""The curves by whether the episodes begin with their instruction."""
MAX_SAMPLES = 8
"""Tasks of which prompts are shown."""


class HeldOut(NamedTuple):
    """What was measured.

    `curve` has, by wording, task and metric, one number for each K; `samples` has prompts by task, no two
    steps others.
    """

    curve: dict[str, dict[str, dict[str, Any]]]
    samples: dict[str, list[Sample]]


class HeldOutRows:
    """The held-out rows of a run, with and without instruction; they are made at the first use."""

    def __init__(self, setup: Setup) -> None:
        """Builds no rows yet."""
        self._setup = setup
        run = setup.run
        self._size = run.batch_rows // run.train.accumulation_steps
        self._num_samples = min(self._size, run.train.eval_rows, MAX_SAMPLES, len(setup.rows.components))

    def measure(self, params: Any) -> HeldOut:
        """The K-curve of a model, and its answers to some of the prompts; all hosts measure together."""
        curve: dict[str, dict[str, dict[str, Any]]] = {}
        samples: dict[str, list[Sample]] = {}
        for wording, batches in self._batches.items():
            sums, best = zip(*(self._step(params, batch) for batch in batches), strict=True)
            first, best_BT = jax.device_get((sums, best[0]))
            totals = CurveSums(*(np.sum(parts, axis=0) for parts in zip(*first, strict=True)))
            curve[wording] = self._by_task(totals)
            for number, row in enumerate(self._rows[wording][: self._num_samples]):
                if (found := _sample(self._setup.tokenizer, row, best_BT[number], wording)) is not None:
                    task = self._setup.rows.components[int(np.max(row.tasks_BT))]
                    samples.setdefault(task, []).append(found)
        return HeldOut(curve, samples)

    def _by_task(self, sums: CurveSums) -> dict[str, dict[str, Any]]:
        curves = {}
        for number, task in enumerate(self._setup.rows.components):
            answers = sums.answers_CK[number]
            if not answers.any():
                continue
            with np.errstate(invalid="ignore", divide="ignore"):
                curves[task] = {
                    "exact_match": sums.exact_CK[number] / answers,
                    "token_accuracy": sums.correct_CK[number] / sums.tokens_CK[number],
                    "loss": sums.loss_CK[number] / sums.tokens_CK[number],
                    "answers": answers.astype(np.int32),
                }
        return curves

    @functools.cached_property
    def _rows(self) -> dict[str, list[Batch]]:
        setup = self._setup
        made: dict[str, list[Batch]] = {}
        padding = empty_row(setup.run.data.row_length, setup.tokenizer.pad_id)
        for wording, instruction in WORDINGS.items():
            rows = Rows(setup.run.data, setup.tasks, setup.tokenizer, "held_out", instruction=instruction)
            every = [rows[i] for i in range(setup.run.train.eval_rows)]
            made[wording] = every + [padding] * (-len(every) % self._size)
        return made

    @functools.cached_property
    def _batches(self) -> dict[str, list[Batch]]:
        size = self._size
        held = host_rows(self._setup.partitioner.batch_sharding, size)
        return {
            wording: [
                self._setup.place(stack([every[start + row] for row in held]), size)
                for start in range(0, len(every), size)
            ]
            for wording, every in self._rows.items()
        }

    @functools.cached_property
    def _step(self) -> Any:
        setup = self._setup
        longest = max(int(jnp.max(batch.examples_BT)) for of in self._batches.values() for batch in of)
        step = make_curve_step(
            setup.model,
            num_components=len(setup.rows.components),
            num_examples=longest + 1,
            partitioner=setup.partitioner,
        )
        return jax.jit(step, out_shardings=setup.partitioner.replicated)


def _sample(tokenizer: Tokenizer, row: Batch, best_T: np.ndarray, wording: str) -> Sample | None:
    """The last query of a held-out episode, with the answer up to its first wrong token; None without one.

    Up to there the likeliest tokens are what greedy decoding gives, though the row holds the gold answer.
    """
    inputs_T, targets_T, examples_T = map(np.asarray, (row.inputs_BT, row.targets_BT, row.examples_BT))
    k = int(examples_T.max())
    if k < 0:
        return None
    at = np.flatnonzero(examples_T == k)
    gold, said = targets_T[at], best_T[at]
    wrong = np.flatnonzero(said != gold)
    kept = said[: wrong[0] + 1] if wrong.size else said
    title = f"K = {k}, {wording.replace('_', ' ')}" + (" instruction" if wording == "without" else "")
    return Sample(
        title=f"{title}; answer up to its first wrong token",
        prompt=tokenizer.decode(inputs_T[: at[0] + 1].tolist()),
        answer=tokenizer.decode([token for token in kept.tolist() if token < tokenizer.vocab_size]),
        gold=tokenizer.decode(gold.tolist()),
        is_right=not wrong.size,
    )
