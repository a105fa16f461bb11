"""The optimizer: AdamW or Muon, its learning-rate schedule, and which parameters decay.

The learning rate is a function of the step alone, applied by the train step; the optimizer's own state
holds moments only. So a skipped update moves neither, and the schedule stays where the step is.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from jax.typing import ArrayLike

from icl.data.ramp import Ramp, make_ramp
from icl.errors import InputError, check_types

LogicalAxes = tuple[str | None, ...]
Schedule = Callable[[ArrayLike], jax.Array]


_SMALL: dict[str, Any] = {
    "kind": "adamw",
    "learning_rate": 3e-3,
    "schedule": "wsd",
    "warmup_steps": 60,
    "decay_share": 0.3,
    "final_ratio": 0.0,
    "b2": 0.98,
    "weight_decay": 0.05,
    "clip": 1.0,
}


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW, or Muon for hidden matrices beside AdamW for the rest.

    The learning rate rises linearly over the warm-up (given in steps or in tokens, not both), then falls
    to `final_ratio` of its peak: by a half cosine over the rest of the run (`cosine`), or linearly over
    the last `decay_share` of all steps (`wsd`: warm-up, stable, decay; arXiv 2404.06395). Where the batch
    grows, both go by the tokens seen.

    Attributes:
      learning_rate: Peak, for AdamW and, as updates have AdamW's size, for Muon too.
      decay_tokens: Tokens after which `cosine` has fallen, where that is before the run ends; 0 for its end.
      muon_learning_rate: Peak of the matrices under Muon; 0 takes `learning_rate`.
      weight_decay: Times the learning rate; of matrices and embeddings only, never of norms, biases and
        convolution kernels.
      clip: Largest global norm of the gradient; 0 does not clip.
    """

    kind: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 3e-4
    schedule: Literal["cosine", "wsd", "constant"] = "cosine"
    warmup_steps: int = 0
    warmup_tokens: int = 0
    decay_share: float = 0.2
    decay_tokens: int = 0
    final_ratio: float = 0.1
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip: float = 1.0
    muon_learning_rate: float = 0.0
    muon_momentum: float = 0.95

    def __post_init__(self) -> None:
        check_types(self)
        require(self, "learning_rate", 0 < self.learning_rate < float("inf"), "a positive, finite number")
        for name in (
            "warmup_steps",
            "warmup_tokens",
            "decay_tokens",
            "weight_decay",
            "clip",
            "muon_learning_rate",
        ):
            require(self, name, getattr(self, name) >= 0, "0 or more")
        if self.warmup_steps and self.warmup_tokens:
            require(self, "warmup_tokens", False, "0 where warmup_steps is given: one of the two")
        if self.decay_tokens and self.schedule != "cosine":
            require(self, "decay_tokens", False, "0 for any schedule but 'cosine'")
        for name in ("decay_share", "final_ratio"):
            require(self, name, 0 <= getattr(self, name) <= 1, "between 0 and 1")
        for name in ("b1", "b2", "muon_momentum"):
            require(self, name, 0 <= getattr(self, name) < 1, "at least 0 and less than 1")
        require(self, "eps", self.eps > 0, "a positive number")

    @classmethod
    def small(cls, **settings: Any) -> "OptimizerConfig":
        """The recipe for models below a million parameters, as `gin/train/small.gin` has it.

        For small batches and many steps. `settings` are fields, which win over those of the recipe.
        """
        return cls(**(_SMALL | settings))

    def warmup_in_steps(self, batch_tokens: int) -> float:
        """The warm-up in steps, however it was given."""
        return self.warmup_tokens / batch_tokens if self.warmup_tokens else float(self.warmup_steps)


def make_optimizer(config: OptimizerConfig, axes_tree: Any) -> optax.GradientTransformation:
    """The optimizer for parameters with these logical axes; its updates are for a learning rate of 1.

    Which parameters decay, and which Muon takes, follows from their logical axes: what has two named axes
    besides `layers` is a matrix; norms, biases, depthwise convolutions and position tables have one.
    """

    def label(axes: LogicalAxes) -> str:
        return "muon" if is_matrix(axes) and axes[0] == "layers" else "adam"

    adam = optax.scale_by_adam(config.b1, config.b2, config.eps)
    if config.kind == "muon":
        direction = optax.partition({"muon": _muon(config), "adam": adam}, _map_axes(label, axes_tree))
    else:
        direction = adam
    return optax.chain(
        optax.clip_by_global_norm(config.clip) if config.clip else optax.identity(),
        direction,
        optax.add_decayed_weights(config.weight_decay, mask=_map_axes(is_matrix, axes_tree)),
        optax.scale(-1.0),
    )


def is_matrix(axes: LogicalAxes) -> bool:
    """Whether a parameter with these logical axes is a matrix (of every layer) or an embedding."""
    return sum(axis not in (None, "layers") for axis in axes) >= 2


def make_schedule(
    config: OptimizerConfig, steps: int, batch_tokens: int, ramp: Ramp | None = None
) -> Schedule:
    """Learning rate as a function of the number of optimizer steps done before this one.

    Times are counted in full batches of tokens seen: in steps, but for a batch that grows.
    """
    ramp = ramp or make_ramp(1)
    end = ramp.first_row(steps) / ramp.stages[-1].rows
    if config.decay_tokens:
        end = min(end, config.decay_tokens / batch_tokens)
    warmup = config.warmup_in_steps(batch_tokens)
    lengths = {"cosine": end - warmup, "wsd": config.decay_share * end, "constant": 0.0}
    decay = lengths[config.schedule]

    def schedule(step: ArrayLike) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        after = ramp.full_steps(step + 1) if config.warmup_tokens else step + 1
        rise = jnp.minimum(1.0, after / max(warmup, 1.0))
        progress = jnp.clip((ramp.full_steps(step) - (end - decay)) / max(decay, 1.0), 0.0, 1.0)
        fall = 0.5 * (1 + jnp.cos(jnp.pi * progress)) if config.schedule == "cosine" else 1 - progress
        return config.learning_rate * rise * (config.final_ratio + (1 - config.final_ratio) * fall)

    return schedule


def optimizer_shardings(
    optimizer: optax.GradientTransformation,
    params: Any,
    param_shardings: Any,
    replicated: jax.sharding.Sharding,
) -> Any:
    """Shardings of the optimizer's state: each moment as its parameter, the rest replicated."""
    state = jax.eval_shape(optimizer.init, params)

    def is_masked(node: Any) -> bool:
        return isinstance(node, optax.MaskedNode)

    return optax.tree_utils.tree_map_params(
        optimizer,
        lambda moment, sharding: moment if is_masked(moment) else sharding,
        state,
        param_shardings,
        transform_non_params=lambda _: replicated,
        is_leaf=is_masked,
    )


def _muon(config: OptimizerConfig) -> optax.GradientTransformation:
    """Muon for stacked matrices [layers, in, out], each layer orthogonalised on its own.

    Updates have AdamW's root mean square of 0.2 (Moonlight, arXiv 2502.16982, section 2.2), so learning
    rate and weight decay mean the same under both.
    """

    def dimensions(updates: Any) -> Any:
        return jax.tree.map(lambda _: optax.contrib.MuonDimensionNumbers(-2, -1), updates)

    ratio = config.muon_learning_rate / config.learning_rate if config.muon_learning_rate else 1.0

    def scale(updates: Any, params: Any) -> Any:
        del params
        return jax.tree.map(lambda x: 0.2 * ratio * max(x.shape[-2:]) ** 0.5 * x, updates)

    return optax.chain(
        optax.contrib.scale_by_muon(beta=config.muon_momentum, weight_dimension_numbers=dimensions),
        optax.stateless(scale),
    )


def _map_axes(function: Callable[[LogicalAxes], Any], axes_tree: Any) -> Any:
    return jax.tree.map(function, axes_tree, is_leaf=lambda node: isinstance(node, tuple))


def require(settings: object, field: str, holds: bool, expected: str) -> None:
    """Raises InputError naming the field of a dataclass of settings, its value and what was expected."""
    if not holds:
        name = f"{type(settings).__name__}.{field}"
        raise InputError(f"{name} = {getattr(settings, field)!r}: expected {expected}")
