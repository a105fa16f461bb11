"""All that a run needs before its first step, made from its settings: rows, model, mesh, compiled steps."""

import bisect
import contextlib
import dataclasses
import functools
import itertools
import time
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from icl import model
from icl.data.batch import Batch
from icl.data.config import DataConfig
from icl.data.loader import batches, host_rows
from icl.data.rows import Rows, Usage
from icl.data.tokenizer import Tokenizer, load_tokenizer, tokenizer_from_json
from icl.errors import InputError
from icl.model.config import ModelConfig
from icl.parallel.partition import Partitioner
from icl.tasks.registry import build_tasks, describe
from icl.tasks.task import Task
from icl.training.config import RunConfig
from icl.training.description import Description, as_json, git_revision, versions
from icl.training.fine_tuning_rows import FineTuningRows
from icl.training.step import TrainState, make_train_step
from icl.training.trainable import Trainable
from icl.training.workdir import check_model

_SHOWN = 20


class Setup(Trainable[RunConfig]):
    """A run over rows of tokens, ready to begin. Making one checks every setting."""

    def __init__(
        self,
        run: RunConfig,
        devices: Sequence[jax.Device] | None = None,
        num_components: int | None = None,
    ) -> None:
        """Reads the data; given `num_components`, reads none, nor a tokenizer where a vocabulary is set.

        Raises InputError where settings do not fit each other, the files or the devices (default: all).
        """
        self.run = run
        reads_tokenizer = num_components is None or run.model.vocab_size == 0
        count = len(self.rows.components) if num_components is None else num_components
        config = _with_vocabulary(run.model, self.tokenizer) if reads_tokenizer else run.model
        if run.start is not None:
            check_model(run.start.description.model, config, f"checkpoint {run.start.folder}")
        super().__init__(run, config, count, devices)
        _check_rows(run, self.partitioner)

    def logical_axes(self) -> Any:
        """Logical axis names of every parameter."""
        return model.logical_axes(self.model)

    def init_params(self, key: jax.Array) -> Any:
        """Fresh parameters."""
        return model.init_params(self.model, key)

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """Of the texts; that of the checkpoint that the run starts from, if it does."""
        if self.run.start is None:
            return load_tokenizer(self.run.data.tokenizer)
        found = tokenizer_from_json(self.run.start.description.tokenizer)
        named = self.run.data.tokenizer
        if named != DataConfig.tokenizer and load_tokenizer(named).fingerprint != found.fingerprint:
            raise InputError(
                f"DataConfig.tokenizer = {named!r}: is another one than that of checkpoint"
                f" {self.run.start.folder}; expected {DataConfig.tokenizer!r}, the default, to take that"
            )
        return found

    @functools.cached_property
    def tasks(self) -> Mapping[str, tuple[Task, ...]]:
        """The tasks of every family."""
        return build_tasks(self.run.families)

    @functools.cached_property
    def rows(self) -> Rows | FineTuningRows:
        """The training rows."""
        if self.run.fine_tune.examples:
            return FineTuningRows(self.run.fine_tune, self.run.data, self.tasks, self.tokenizer)
        return Rows(self.run.data, self.tasks, self.tokenizer)

    @property
    def components(self) -> Sequence[str]:
        """Tasks and corpora of the mixture."""
        return self.rows.components

    @property
    def fingerprint(self) -> str:
        """Of the rows trained on."""
        return self.rows.fingerprint

    def init_state(self) -> TrainState:
        """Fresh parameters, or those that the run starts from, and fresh moments, born in their shards."""
        if self.run.start is not None:
            return self.state_of(self.run.start.restore(self.shardings.params))
        return super().init_state()

    def compile_train_step(
        self, state: TrainState, batch: Batch, compiler_options: dict[str, str | bool] | None = None
    ) -> Any:
        """The compiled train step, of arrays or of what stands for them; its first argument is donated."""
        train = self.run.train
        step = make_train_step(
            self.model,
            self.optimizer,
            self.schedule,
            num_components=self.num_components,
            accumulation_steps=accumulation_steps(
                self.run, np.shape(batch.inputs_BT)[0], self.partitioner.batch_divisor
            ),
            scored_positions=self.run.data.scored_positions,
            z_loss=train.z_loss,
            skip_nonfinite=train.skip_nonfinite,
            partitioner=self.partitioner,
        )
        placed = (self.shardings, self.partitioner.replicated)
        jitted = jax.jit(step, donate_argnums=0, out_shardings=placed)
        return jitted.lower(state, batch).compile(compiler_options)

    def abstract_batch(self) -> Batch:
        """Shapes, types and shardings of a full batch."""
        shape, sharding = (self.run.batch_rows, self.run.data.row_length), self.partitioner.batch_sharding
        types = {name: jnp.int32 for name in Batch._fields} | {"weights_BT": jnp.float32}
        arrays: Any = {
            name: jax.ShapeDtypeStruct(shape, kind, sharding=sharding) for name, kind in types.items()
        }
        return Batch(**arrays)

    def batches(self, start_step: int) -> Generator[Batch, None, None]:
        """Batches on the devices, from a step on; close it when done."""
        ramp, train = self.run.ramp, self.run.train
        host = functools.partial(host_rows, self.partitioner.batch_sharding)
        local = batches(
            self.rows,
            ramp,
            start_step,
            host=host,
            num_threads=train.read_threads,
            num_workers=train.read_workers,
        )
        with contextlib.closing(local):
            for step in itertools.count(start_step):
                began = time.monotonic()
                batch = next(local, None)
                self.seconds_to_read = time.monotonic() - began
                if batch is None:
                    return
                yield self.place(batch, ramp.rows(step))

    def place(self, batch: Batch, num_rows: int) -> Batch:
        """A host's rows (`host_rows`) of a batch of `num_rows`, onto its devices."""
        sharding = self.partitioner.batch_sharding
        held = host_rows(sharding, num_rows)

        def put(local: Any) -> jax.Array:
            def part(index: tuple[slice, ...] | None) -> np.ndarray:
                rows, positions = index or (slice(None), slice(None))
                start, stop, _ = rows.indices(num_rows)
                first = bisect.bisect_left(held, start)
                found: np.ndarray = local[first : first + stop - start, positions]
                return found

            return jax.make_array_from_callback((num_rows, local.shape[1]), sharding, part)

        return Batch(*map(put, batch))

    def description(self) -> Description:
        """What checkpoints of this run say about themselves; step and checksums are those of a fresh one."""
        run = self.run
        return Description(
            model=self.model,
            data=as_json(run.data),
            tasks=describe(run.families),
            tokenizer=self.tokenizer.to_json(),
            optimizer=as_json(run.optimizer),
            train=as_json(run.train),
            rung=run.rung,
            step=0,
            tokens=0,
            params=model.num_params(self.model),
            train_seed=run.start.description.train_seed if run.start else run.train.seed,
            config_text=run.config_text,
            versions=versions(),
            git=git_revision(),
            data_fingerprint=self.fingerprint,
            trained_tasks=self._trained_tasks(),
            excluded=self.excluded(),
            checksums={},
            start=run.start.account | {"settings": as_json(run.fine_tune)} if run.start else {},
        )

    def _trained_tasks(self) -> tuple[str, ...]:
        """Tasks that fed training rows, before this run too."""
        before = self.run.start.description.trained_tasks if self.run.start else ()
        return tuple(dict.fromkeys((*before, *self.rows.trained_tasks)))

    def excluded(self, excluded_C: np.ndarray | None = None) -> dict[str, Any]:
        """What training is kept from seeing, counted.

        Args:
          excluded_C: examples passed over by component, from the state; zeros by default.
        """
        components = self.rows.components
        counts = zip(components, [0] * len(components) if excluded_C is None else excluded_C, strict=True)
        return {
            "identities": len(self.rows.exclusion),
            "examples": {name: int(count) for name, count in counts if count},
            "corpora": {name: dict(corpus.excluded) for name, corpus in self.rows.corpora.items()},
        }

    def data_report(self) -> dict[str, Any]:
        """How much there is, how much the run uses, what it was kept from seeing."""
        usage = {name: used._asdict() | {"repeats": used.repeats} for name, used in self.usage.items()}
        return {"usage": usage, "excluded": self.excluded()}

    @functools.cached_property
    def usage(self) -> dict[str, Usage]:
        """How often the whole run uses what there is of each task and corpus."""
        return self.rows.usage(self.run.ramp.first_row(self.run.train.steps))

    def flops_per_token(self) -> float:
        """Model FLOPs, forward and backward, of one trained token."""
        return model.flops_per_token(self.model, self.run.data.row_length)

    def summary(self) -> str:
        """The run in a few lines: size, length, cost, mesh."""
        train = self.run.train
        tokens = self.run.tokens(train.steps)
        params, inner = model.num_params(self.model), model.num_non_embedding_params(self.model)
        mesh = ", ".join(f"{axis} {size}" for axis, size in self.partitioner.axis_sizes().items())
        return "\n".join(
            [
                f"run         {self.run.rung or '(single)'}",
                f"parameters  {params:,} ({inner:,} without embeddings and head)",
                f"steps       {train.steps:,} of {train.batch_tokens:,} tokens: {tokens:,} tokens",
                f"rows        {self.run.batch_rows} a step of {self.run.data.row_length} positions,"
                f" in {train.accumulation_steps} microbatch(es)",
                *self._ramp_lines(),
                f"FLOPs       {tokens * self.flops_per_token():.3g} ({self.flops_per_token():.3g} a token)",
                f"optimizer   {self.run.optimizer.kind}, learning rate {self.run.optimizer.learning_rate:g},"
                f" {self.run.optimizer.schedule}",
                *self._usage_lines(),
                f"mesh        {mesh} ({jax.device_count()} {jax.devices()[0].platform} device(s))",
            ]
        )

    def _ramp_lines(self) -> list[str]:
        """How the batch grows, where it does."""
        stages = self.run.ramp.stages
        texts = [f"{stage.rows} rows from step {stage.first_step:,}" for stage in stages]
        return [f"ramp        {', '.join(texts)}"] if len(stages) > 1 else []

    def _usage_lines(self) -> list[str]:
        """The components, those first that repeat most."""
        lines: list[str] = []
        repeats = {name: usage.repeats or 0.0 for name, usage in self.usage.items()}
        for name in sorted(repeats, key=lambda name: -repeats[name]):
            used, size = self.usage[name]
            unit = "tokens" if name in self.rows.corpora else "examples"
            times = "" if size is None else f" of {size:,} different ones, {repeats[name]:.3g} times each"
            lines.append(f"{'data' if not lines else '':12}{name}: {used:,.0f} {unit}{times}")
        hidden = len(lines) - _SHOWN
        return lines[:_SHOWN] + ([f"{'':12}and {hidden} more"] if hidden > 0 else [])


def _with_vocabulary(config: ModelConfig, tokenizer: Tokenizer) -> ModelConfig:
    if config.vocab_size == 0:
        return dataclasses.replace(config, vocab_size=tokenizer.vocab_size)
    if config.vocab_size < tokenizer.vocab_size:
        raise InputError(
            f"ModelConfig.vocab_size = {config.vocab_size}: expected at least the tokenizer's"
            f" {tokenizer.vocab_size}, or 0 to take it"
        )
    return config


def accumulation_steps(run: RunConfig, rows: int, divisor: int) -> int:
    """Microbatches of a step of so many rows: the fewest equal ones no larger than those of a full step.

    Their rows are a multiple of `divisor`, where that can be.
    """
    fewest = -(-rows // (run.batch_rows // run.train.accumulation_steps))
    equal = [parts for parts in range(fewest, rows + 1) if rows % parts == 0]
    return next((parts for parts in equal if rows // parts % divisor == 0), equal[0])


def _check_rows(run: RunConfig, partitioner: Partitioner) -> None:
    for stage in run.ramp.stages:
        rows = stage.rows // accumulation_steps(run, stage.rows, partitioner.batch_divisor)
        if rows % partitioner.batch_divisor:
            whole = stage.rows == run.batch_rows
            field = "batch_tokens" if whole else "ramp_from"
            raise InputError(
                f"TrainConfig.{field} = {getattr(run.train, field)}: a microbatch of {rows} rows does not"
                f" divide among the {partitioner.batch_divisor} devices along the mesh axes data and fsdp"
            )
