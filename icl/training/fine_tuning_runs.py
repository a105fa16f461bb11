"""Fine-tuning in memory: many sets of examples of many tasks, one after the other, with one compiled step.

`icl.training.train` does the same in a folder of its own, and can be killed; here nothing is written.
"""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from icl import model
from icl.data.loader import stack
from icl.errors import InputError
from icl.tasks.task import Example, Task
from icl.training.config import RunConfig
from icl.training.fine_tuning import FineTuneConfig
from icl.training.fine_tuning_development import (
    Answered,
    EarlyStopping,
    ExampleScorer,
    Measured,
    summarise,
)
from icl.training.fine_tuning_rows import ExampleWriter, FineTuningRows, fine_tuned_task
from icl.training.setup import Setup


class Tuned(NamedTuple):
    """What came of one fine-tuning: the parameters of its best step, and what it took.

    `seconds` are of the clock, `cpu_seconds` of the process's processor time, both without compiling. `flops`
    are of the model, of steps and measurements: forward once, backward twice, padding left out.
    """

    params: Any
    best_step: int
    steps: int
    development: Measured
    seconds: float
    cpu_seconds: float
    flops: float


class FineTuner:
    """A checkpoint, ready to be fine-tuned again and again; the rows of all tasks have one shape."""

    def __init__(self, run: RunConfig) -> None:
        """Opens the checkpoint and compiles the step.

        Args:
          run: Starts from a checkpoint, with `fine_tune.examples` and a mixture of all tasks to be tuned on.

        Raises:
          InputError: it does not.
        """
        if run.start is None or not run.fine_tune.examples:
            raise InputError("FineTuneConfig.checkpoint, examples: expected both, to fine-tune")
        self._setup = Setup(run)
        self.params = run.start.restore(self._setup.shardings.params)
        self._step = self._setup.compile_train_step(
            self._setup.abstract_state(), self._setup.abstract_batch()
        )
        self._scorers: dict[str, tuple[ExampleWriter, ExampleScorer]] = {}

    def task(self, name: str) -> Task:
        """A task of the mixture; InputError where there is none of the name."""
        return fine_tuned_task(FineTuneConfig(task=name), self._setup.tasks)

    def tune(self, settings: FineTuneConfig) -> Tuned:
        """Fine-tunes on `settings.examples` of `settings.task`, until patience or `TrainConfig.steps` ends.

        Raises:
          InputError: the task has too few inputs.
        """
        setup = self._setup
        writer, scorer = self._of(self.task(settings.task))
        rows = FineTuningRows(settings, setup.run.data, setup.tasks, setup.tokenizer, writer)
        development = scorer.batches(rows.drawn.development)
        scorer.answers(self.params, development[:1])  # compiles
        state = setup.state_of(jax.tree.map(jnp.copy, self.params))
        stopping = EarlyStopping(settings.patience)
        began, cpu_began = time.monotonic(), time.process_time()
        best = self.params
        stopping.add(0, summarise(scorer.answers(state.params, development)))
        step = 0
        measurements = 1
        while step < setup.run.train.steps and not stopping.is_over:
            size = setup.run.batch_rows
            batch = stack([rows[step * size + i] for i in range(size)])
            state, _ = self._step(state, setup.place(batch, size))
            step += 1
            if step % settings.eval_every == 0 or step == setup.run.train.steps:
                measurements += 1
                if stopping.add(step, summarise(scorer.answers(state.params, development))):
                    best = jax.tree.map(jnp.copy, state.params)
        jax.block_until_ready(best)
        assert stopping.best is not None
        lengths = [writer.length(example) for example in rows.drawn.train]
        epochs = step * setup.run.batch_rows / rows.rows_of_an_epoch
        measured = [writer.length(example) for example in rows.drawn.development]
        return Tuned(
            best,
            stopping.best_step,
            step,
            stopping.best,
            time.monotonic() - began,
            time.process_time() - cpu_began,
            3 * epochs * self.reading_flops(lengths) + measurements * self.reading_flops(measured),
        )

    def answers(self, params: Any, task: str, examples: Sequence[Example]) -> Answered:
        """What parameters answer to examples of a task, each alone."""
        _, scorer = self._of(self.task(task))
        return scorer.answers(params, scorer.batches(examples))

    def seconds_to_read(self, length: int, number: int = 1000) -> float:
        """Processor seconds to read `number` texts of `length` positions, in batches of 20, none padded."""
        tokens_BT = jnp.zeros((20, length), jnp.int32)
        ones_BT, at_BT = jnp.ones_like(tokens_BT), jnp.broadcast_to(jnp.arange(length), (20, length))
        config, partitioner = self._setup.model, self._setup.partitioner

        def read(params: Any) -> Any:
            return model.hidden_states(config, params, tokens_BT, ones_BT, at_BT, partitioner)

        compiled = jax.jit(read).lower(self.params).compile()
        jax.block_until_ready(compiled(self.params))
        began = time.process_time()
        for _ in range(5):
            jax.block_until_ready(compiled(self.params))
        return (time.process_time() - began) * number / 100

    def reading_flops(self, lengths: Sequence[int], seen: int = 0) -> float:
        """Model FLOPs, forward, of texts of so many positions, each after `seen` positions that are cached.

        2 N for the matmuls without embeddings and head, and 4 L H K for each key that a position sees, as
        `icl.evaluation.savings` counts.
        """
        config = self._setup.model
        per_token = 2.0 * model.num_non_embedding_params(config)
        per_key = 4.0 * config.num_layers * config.num_heads * config.size_per_head
        return sum(n * per_token + per_key * (n * seen + n * (n + 1) / 2) for n in lengths)

    def _of(self, task: Task) -> tuple[ExampleWriter, ExampleScorer]:
        """The writer and the scorer of a task."""
        if task.name not in self._scorers:
            setup = self._setup
            instructed = setup.run.fine_tune.instruction
            writer = ExampleWriter(setup.run.data, task, setup.tokenizer, instruction=instructed)
            self._scorers[task.name] = writer, ExampleScorer(setup, writer)
        return self._scorers[task.name]
