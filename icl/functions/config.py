"""Settings of functions and of a run that trains on them, checked when they are made."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from icl.data.ramp import Ramp, make_ramp
from icl.errors import InputError, check_types
from icl.model.config import ModelConfig
from icl.parallel.mesh import MeshConfig
from icl.tracking.config import TrackingConfig
from icl.training.config import TrainConfig
from icl.training.fine_tuning import FineTuneConfig, Start
from icl.training.optimizer import OptimizerConfig, require


@dataclasses.dataclass(frozen=True)
class FunctionConfig:
    """A class of functions, and the prompts that show one function each.

    Attributes:
      kind: `linear`; `sparse_linear`, all but `nonzero` weights zero; `tree`, a decision tree of `depth`;
        `network`, of one layer of `hidden` ReLU units.
      dimension: d, of the points, which are from N(0, I).
      points: Points of a prompt; the value of the k-th is predicted from the k - 1 before it.
      noise: Standard deviation of what is added to every value that is shown.
      seed: Of the training prompts.
      first_dimension: Coordinates that are not zero at first, where they grow; 0 for all from the start.
      first_points: Points of a prompt at first, where they grow; 0 for all from the start.
      grow_every: Steps after which there are one more coordinate and two more points (Garg et al. 2022,
        appendix A.2).
    """

    kind: Literal["linear", "sparse_linear", "tree", "network"] = "linear"
    dimension: int = 5
    points: int = 11
    noise: float = 0.0
    nonzero: int = 3
    depth: int = 4
    hidden: int = 100
    seed: int = 0
    first_dimension: int = 0
    first_points: int = 0
    grow_every: int = 2000

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("dimension", "points", "nonzero", "depth", "hidden", "grow_every"):
            require(self, name, getattr(self, name) >= 1, "at least 1")
        require(self, "seed", self.seed >= 0, "0 or more")
        require(self, "noise", 0 <= self.noise < float("inf"), "0 or a positive, finite number")
        require(self, "depth", self.depth <= 12, "at most 12")
        for name, whole in (("first_dimension", self.dimension), ("first_points", self.points)):
            require(self, name, 0 <= getattr(self, name) <= whole, f"between 0 and {whole}")
        if self.kind == "sparse_linear":
            least = self.first_dimension or self.dimension
            require(self, "nonzero", self.nonzero <= least, f"at most the {least} coordinates there are")

    @property
    def row_length(self) -> int:
        """Positions of a prompt: all points, and all values but the last, which nothing follows."""
        return 2 * self.points - 1

    @property
    def variance(self) -> float:
        """Of the functions' values at points from N(0, I): the squared error of always saying 0."""
        of_kind = {"linear": self.dimension, "sparse_linear": self.nonzero, "tree": 1}
        return float(of_kind.get(self.kind, self.dimension))

    def dimension_at(self, step: ArrayLike) -> jax.Array:
        """Coordinates that are not zero after so many steps."""
        return self._grown(self.first_dimension, self.dimension, 1, step)

    def points_at(self, step: ArrayLike) -> jax.Array:
        """Points of a prompt that count after so many steps."""
        return self._grown(self.first_points, self.points, 2, step)

    def _grown(self, first: int, whole: int, by: int, step: ArrayLike) -> jax.Array:
        grown = (first or whole) + by * (jnp.asarray(step) // self.grow_every)
        return jnp.minimum(grown, whole)


@dataclasses.dataclass(frozen=True)
class FunctionRun:
    """All that decides a training run on functions; one rung of a ladder, or a single run (rung "").

    What `icl.training.config.RunConfig` is for texts; `TrainConfig.batch_tokens` counts positions, of which a
    prompt has `FunctionConfig.row_length`.

    Attributes:
      config_text: Operative gin text, for the record only.
    """

    model: ModelConfig
    data: FunctionConfig
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()
    mesh: MeshConfig = MeshConfig()
    tracking: TrackingConfig = TrackingConfig()
    rung: str = ""
    config_text: str = ""

    def __post_init__(self) -> None:
        length = self.data.row_length
        if self.train.batch_tokens % length:
            raise InputError(
                f"TrainConfig.batch_tokens = {self.train.batch_tokens}: expected a multiple of the {length}"
                f" positions of a prompt of FunctionConfig.points = {self.data.points}"
            )
        if self.model.max_length < length:
            raise InputError(
                f"ModelConfig.max_length = {self.model.max_length}: expected at least the {length} positions"
                f" of a prompt of FunctionConfig.points = {self.data.points}"
            )
        warmup = self.optimizer.warmup_in_steps(self.train.batch_tokens)
        if warmup > self.train.steps:
            raise InputError(
                f"OptimizerConfig warm-up takes {warmup:g} steps, expected at most"
                f" TrainConfig.steps = {self.train.steps}"
            )
        for name, only in _ONLY.items():
            require(
                self.train, name, getattr(self.train, name) == only, f"{only} where functions are learned"
            )
        require(self.mesh, "sequence", self.mesh.sequence == 1, "1 where functions are learned")

    @property
    def batch_rows(self) -> int:
        """Prompts of one step over all devices."""
        return self.train.batch_tokens // self.data.row_length

    @functools.cached_property
    def ramp(self) -> Ramp:
        """The rows of every step: the same."""
        return make_ramp(self.batch_rows)

    @property
    def fine_tune(self) -> FineTuneConfig:
        """It learns no examples of a task."""
        return FineTuneConfig()

    @property
    def start(self) -> Start | None:
        """It starts afresh."""
        return None

    @property
    def families(self) -> Mapping[str, Any]:
        """Task families: none."""
        return {}

    def tokens(self, step: int) -> int:
        """Positions seen after so many steps."""
        return step * self.train.batch_tokens


_ONLY: dict[str, Any] = {
    "tokens": 0,
    "accumulation_steps": 1,
    "ramp_from": 0,
    "ramp_tokens": 0,
    "eval_every": 0,
    "z_loss": 0.0,
}
"""Settings of `TrainConfig` that mean nothing here, and the value that says so."""
