"""The optimizer: AdamW or Muon, its learning-rate schedule, and which parameters decay.

The learning rate is a function of the step alone, applied by the train step; the optimizer's own state
holds moments only. So a skipped update moves neither, and the schedule stays where the step is.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from icl.errors import InputError, check_types

LogicalAxes = tuple[str | None, ...]


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW, or Muon for hidden matrices beside AdamW for the rest.

    The learning rate rises linearly over the warm-up (given in steps or in tokens, not both), then falls
    to `final_ratio` of its peak: by a half cosine over the rest of the run (`cosine`), or linearly over
    the last `decay_share` of all steps (`wsd`: warm-up, stable, decay; arXiv 2404.06395).

    Attributes:
      learning_rate: Peak, for AdamW and, as updates have AdamW's size, for Muon too.
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
        for name in ("warmup_steps", "warmup_tokens", "weight_decay", "clip", "muon_learning_rate"):
            require(self, name, getattr(self, name) >= 0, "0 or more")
        if self.warmup_steps and self.warmup_tokens:
            require(self, "warmup_tokens", False, "0 where warmup_steps is given: one of the two")
        for name in ("decay_share", "final_ratio"):
            require(self, name, 0 <= getattr(self, name) <= 1, "between 0 and 1")
        for name in ("b1", "b2", "muon_momentum"):
            require(self, name, 0 <= getattr(self, name) < 1, "at least 0 and less than 1")
        require(self, "eps", self.eps > 0, "a positive number")

    def warmup_in_steps(self, batch_tokens: int) -> float:
        """The warm-up in steps, however it was given."""
        return self.warmup_tokens / batch_tokens if self.warmup_tokens else float(self.warmup_steps)


def require(settings: object, field: str, holds: bool, expected: str) -> None:
    """Raises InputError naming the field of a dataclass of settings, its value and what was expected."""
    if not holds:
        raise InputError(f"{type(settings).__name__}.{field} = {getattr(settings, field)!r}: expected {expected}")
