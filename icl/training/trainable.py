"""A run as the loop trains it, whatever it learns from: model, mesh, optimizer, compiled step and batches.

`icl.training.setup.Setup` is that of rows of tokens, `icl.functions.setup.FunctionSetup` that of functions.
"""

import abc
from collections.abc import Generator, Sequence
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from icl import model
from icl.model.attention import Implementation
from icl.model.block import attention_of
from icl.model.config import ModelConfig
from icl.parallel.mesh import make_mesh
from icl.parallel.partition import Partitioner
from icl.training.checkpoints import abstract
from icl.training.config import Run
from icl.training.description import Description
from icl.training.optimizer import Schedule, make_optimizer, make_schedule, optimizer_shardings
from icl.training.step import TrainState

Settings = TypeVar("Settings", bound=Run)


class Trainable(abc.ABC, Generic[Settings]):
    """A run, ready to begin; nothing is written or trained yet.

    `seconds_to_read` tells how long the last batch was waited for, before it was placed.
    """

    seconds_to_read: float = 0.0

    def __init__(
        self,
        run: Settings,
        config: ModelConfig,
        num_components: int,
        devices: Sequence[jax.Device] | None = None,
    ) -> None:
        """Plans the mesh, the optimizer and where everything lies; subclasses know the parameters.

        Raises InputError where settings do not fit each other or the devices (default: all).
        """
        self.run = run
        self.model = config
        self.num_components = num_components
        self.partitioner = Partitioner(make_mesh(run.mesh, devices))
        model.check_mesh(config, self.partitioner)
        axes = self.logical_axes()
        self.optimizer: optax.GradientTransformation = make_optimizer(run.optimizer, axes)
        self.schedule: Schedule = make_schedule(
            run.optimizer, run.train.steps, run.train.batch_tokens, run.ramp
        )
        params = jax.eval_shape(self.init_params, jax.random.key(0))
        replicated = self.partitioner.replicated
        param_shardings = self.partitioner.tree_shardings(axes, params)
        self.shardings = TrainState(
            step=replicated,
            params=param_shardings,
            moments=optimizer_shardings(self.optimizer, params, param_shardings, replicated),
            skipped=replicated,
            excluded_C=replicated,
        )

    @abc.abstractmethod
    def logical_axes(self) -> Any:
        """Logical axis names of every parameter."""

    @abc.abstractmethod
    def init_params(self, key: jax.Array) -> Any:
        """Fresh parameters."""

    @property
    @abc.abstractmethod
    def components(self) -> Sequence[str]:
        """Names of what the loss is told apart by."""

    @property
    @abc.abstractmethod
    def fingerprint(self) -> str:
        """Of the batches: a run goes on only with the same."""

    @abc.abstractmethod
    def batches(self, start_step: int) -> Generator[Any, None, None]:
        """Batches on the devices, from a step on; close it when done."""

    @abc.abstractmethod
    def compile_train_step(self, state: TrainState, batch: Any) -> Any:
        """The compiled train step, of arrays or of what stands for them; its first argument is donated."""

    @abc.abstractmethod
    def description(self) -> Description:
        """What checkpoints of this run say about themselves; step and checksums are those of a fresh one."""

    @abc.abstractmethod
    def excluded(self, excluded_C: np.ndarray | None = None) -> dict[str, Any]:
        """What training is kept from seeing, counted; examples passed over are under "examples"."""

    @abc.abstractmethod
    def data_report(self) -> dict[str, Any]:
        """What the run is trained on, as data.json holds it."""

    @abc.abstractmethod
    def flops_per_token(self) -> float:
        """Model FLOPs, forward and backward, of one trained position."""

    @property
    def attention(self) -> Implementation:
        """Which attention the train step computes."""
        return attention_of(self.model, self.partitioner)

    def init_state(self) -> TrainState:
        """Fresh parameters and moments, born in their shards."""
        init = jax.jit(self._init, out_shardings=self.shardings)
        return init(jax.random.key(self.run.train.seed))

    def abstract_state(self) -> TrainState:
        """Shapes, types and shardings of the state."""
        state = jax.eval_shape(self._init, jax.random.key(0))
        target: TrainState = abstract(state, self.shardings)
        return target

    def state_of(self, params: Any) -> TrainState:
        """Parameters, in their shards, with fresh moments at step 0."""
        fresh = jax.jit(self._fresh, out_shardings=self.shardings._replace(params=None))(params)
        return fresh._replace(params=params)

    def _init(self, key: jax.Array) -> TrainState:
        params = self.init_params(key)
        return self._fresh(params)._replace(params=params)

    def _fresh(self, params: Any) -> TrainState:
        """All of a state at step 0 but the parameters."""
        zero = jnp.zeros((), jnp.int32)
        excluded_C = jnp.zeros(self.num_components, jnp.int32)
        return TrainState(zero, None, self.optimizer.init(params), zero, excluded_C)
