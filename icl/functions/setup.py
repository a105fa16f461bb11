"""All that a run on functions needs before its first step, made from its settings; and the run itself."""

import functools
import itertools
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from icl import model
from icl.data.keys import digest
from icl.errors import InputError
from icl.functions import transformer
from icl.functions.config import FunctionConfig, FunctionRun
from icl.functions.prompts import FunctionBatch, stream_key, training_batch
from icl.training.checkpoints import read_description, restore_params
from icl.training.description import Description, as_json, git_revision, versions
from icl.training.loop import train_prepared
from icl.training.step import StepMetrics, TrainState, apply_gradients
from icl.training.trainable import Trainable
from icl.training.workdir import check_model

TRAINING = "training"
"""The stream of prompts that models are trained on."""


def train(run: FunctionRun, workdir: str | Path) -> bool:
    """Trains a run in a folder, from its newest checkpoint if it has one; as `icl.training.loop.train` does.

    Returns:
      Whether it ended by itself; False when SIGTERM ended it, with its state saved.

    Raises:
      InputError: settings do not fit, the folder holds another run, or its checkpoint is damaged.
    """
    return train_prepared(run, lambda: FunctionSetup(run), workdir)


def restore(workdir: str | Path, run: FunctionRun) -> tuple[Any, Description]:
    """Parameters of a run's newest checkpoint, verified; InputError where it is damaged or of another run."""
    description = read_description(workdir)
    check_model(description.model, run.model, f"checkpoint {workdir}")
    if description.data_fingerprint != fingerprint(run.data):
        raise InputError(f"checkpoint {workdir}: was trained on other functions than these settings give")
    return restore_params(workdir, target=transformer.abstract_params(run.model, run.data))


def fingerprint(functions: FunctionConfig) -> str:
    """Names the training prompts."""
    return digest(*(f"{name}={value!r}" for name, value in as_json(functions).items()))


class FunctionSetup(Trainable[FunctionRun]):
    """A run on functions, ready to begin. Making one checks every setting."""

    def __init__(self, run: FunctionRun, devices: Sequence[jax.Device] | None = None) -> None:
        """Raises InputError where settings do not fit each other or the devices (default: all)."""
        self.run = run
        super().__init__(run, run.model, len(self.components), devices)
        divisor = self.partitioner.batch_divisor
        if run.batch_rows % divisor:
            raise InputError(
                f"TrainConfig.batch_tokens = {run.train.batch_tokens}: its {run.batch_rows} prompts do not"
                f" divide among the {divisor} devices along the mesh axes data and fsdp"
            )

    def logical_axes(self) -> Any:
        """Logical axis names of every parameter."""
        return transformer.logical_axes(self.run.model, self.run.data)

    def init_params(self, key: jax.Array) -> Any:
        """Fresh parameters."""
        return transformer.init_params(self.run.model, self.run.data, key)

    @property
    def components(self) -> Sequence[str]:
        """The class of functions."""
        return (self.run.data.kind,)

    @property
    def fingerprint(self) -> str:
        """Names the training prompts."""
        return fingerprint(self.run.data)

    def batches(self, start_step: int) -> Generator[FunctionBatch, None, None]:
        """Batches, made on the devices, from a step on."""
        run = self.run
        rows = self.partitioner.spec(("batch",))
        sharding = NamedSharding(self.partitioner.mesh, PartitionSpec(*rows))
        make = jax.jit(
            functools.partial(training_batch, run.data, rows=run.batch_rows), out_shardings=sharding
        )
        key = jax.device_put(stream_key(run.data.seed, TRAINING), self.partitioner.replicated)
        for step in itertools.count(start_step):
            yield make(key, np.int32(step))

    def compile_train_step(self, state: TrainState, batch: Any) -> Any:
        """The compiled train step, of arrays or of what stands for them; its first argument is donated."""
        placed = (self.shardings, self.partitioner.replicated)
        jitted = jax.jit(self.train_step, donate_argnums=0, out_shardings=placed)
        return jitted.lower(state, batch).compile()

    def train_step(self, state: TrainState, batch: FunctionBatch) -> tuple[TrainState, StepMetrics]:
        """One optimizer step on the weighted squared error, in units of the functions' variance."""
        run = self.run
        x_BKd, y_BK, weights_BK = map(jnp.asarray, batch)

        def loss_of(params: Any) -> jax.Array:
            predicted_BK = transformer.predict(run.model, run.data, params, x_BKd, y_BK, self.partitioner)
            total = jnp.sum(weights_BK * jnp.square(predicted_BK - y_BK))
            return total / (jnp.sum(weights_BK) * run.data.variance)

        loss, grads = jax.value_and_grad(loss_of)(state.params)
        after, update = apply_gradients(
            state, grads, loss, self.optimizer, self.schedule, skip_nonfinite=run.train.skip_nonfinite
        )
        return after, StepMetrics(loss, *update, after.skipped, loss[None], after.excluded_C)

    def description(self) -> Description:
        """What checkpoints of this run say about themselves; step and checksums are those of a fresh one."""
        run = self.run
        return Description(
            model=run.model,
            data=as_json(run.data),
            tasks={},
            tokenizer={},
            optimizer=as_json(run.optimizer),
            train=as_json(run.train),
            rung=run.rung,
            step=0,
            tokens=0,
            params=transformer.num_params(run.model, run.data),
            train_seed=run.train.seed,
            config_text=run.config_text,
            versions=versions(),
            git=git_revision(),
            data_fingerprint=self.fingerprint,
            trained_tasks=self.components,
            excluded=self.excluded(),
            checksums={},
        )

    def excluded(self, excluded_C: np.ndarray | None = None) -> dict[str, Any]:
        """Nothing: functions are drawn from a continuum, and those of a test are never met in training."""
        del excluded_C
        return {"examples": {}}

    def data_report(self) -> dict[str, Any]:
        """How many functions the run sees, each once."""
        return {"functions": self.run.train.steps * self.run.batch_rows}

    def flops_per_token(self) -> float:
        """Model FLOPs, forward and backward, of one position, but for the linear layers at the ends."""
        return model.flops_per_token(self.run.model, self.run.data.row_length)
