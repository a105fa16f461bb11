"""Test prompts: functions never trained on, at points as in training or from other distributions.

The shifts are those of Garg et al. 2022, section 4.

Shapes: B prompts, K points, d dimensions.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from icl.errors import InputError
from icl.functions.config import FunctionConfig
from icl.functions.prompts import draw, row_keys, stream_key

Floats = NDArray[np.float32]
TEST = "test"
"""The stream of prompts that models are measured on; `tune` is one to choose settings with."""


class Prompts(NamedTuple):
    """Prompts to measure on: `true_BK[:, k]` is asked at `query_BKd[:, k]`, after k points and shown values.

    Queries are the next points of the prompt unless the shift gives them a distribution of their own.
    """

    x_BKd: Floats
    shown_BK: Floats
    query_BKd: Floats
    true_BK: Floats

    @property
    def asks_next_points(self) -> bool:
        """Whether the queries are the next points of the prompt."""
        return bool(np.array_equal(self.x_BKd, self.query_BKd))


class Shift(NamedTuple):
    """How tests differ from training.

    Attributes:
      points: (key, points, dimension) -> points of the prompt and queries, [points, dimension] each.
      weights: What the functions' values are multiplied by.
      noise: What the standard deviation of the noise is multiplied by.
    """

    points: Callable[[jax.Array, int, int], tuple[jax.Array, jax.Array]]
    weights: float = 1.0
    noise: float = 1.0


def make_test(
    config: FunctionConfig, shift: str, number: int, *, seed: int = 0, stream: str = TEST
) -> Prompts:
    """So many test prompts; the same functions, noise and, but for their distribution, points for any shift.

    Args:
      config: The functions that were trained on.
      shift: A name of `SHIFTS`.
      number: How many prompts.
      seed: Of the prompts.
      stream: Independent of the training prompts, whatever their seed.

    Raises:
      InputError: there is no such shift.
    """
    if shift not in SHIFTS:
        raise InputError(f"shift {shift!r}: expected one of {', '.join(SHIFTS)}")
    how, count = SHIFTS[shift], config.points

    def prompt(key: jax.Array) -> tuple[jax.Array, ...]:
        points_key, function_key = jax.random.split(key)
        x_Kd, query_Kd = how.points(points_key, count, config.dimension)
        drawn = draw(config, function_key, jnp.concatenate([x_Kd, query_Kd]))
        noise_K = (drawn.shown - drawn.true)[:count]
        shown_K = how.weights * drawn.true[:count] + how.noise * noise_K
        return x_Kd, shown_K, query_Kd, how.weights * drawn.true[count:]

    keys_B = row_keys(stream_key(seed, stream), 0, number)
    return Prompts(*map(np.asarray, jax.jit(jax.vmap(prompt))(keys_B)))


def _as_in_training(key: jax.Array, count: int, dimension: int) -> tuple[jax.Array, jax.Array]:
    x_Kd = jax.random.normal(key, (count, dimension))
    return x_Kd, x_Kd


def _orthants(key: jax.Array, count: int, dimension: int) -> tuple[jax.Array, jax.Array]:
    """Points in one random orthant, queries in another, drawn by itself."""
    points_key, signs_key = jax.random.split(key)
    x_2Kd = jnp.abs(jax.random.normal(points_key, (2, count, dimension)))
    x_2Kd = x_2Kd * jax.random.rademacher(signs_key, (2, 1, dimension), jnp.float32)
    return x_2Kd[0], x_2Kd[1]


def _basis(key: jax.Array, dimension: int) -> jax.Array:
    """A random orthonormal basis, in columns."""
    return jnp.linalg.qr(jax.random.normal(key, (dimension, dimension)))[0]


def _subspace(key: jax.Array, count: int, dimension: int) -> tuple[jax.Array, jax.Array]:
    """Points and queries in a random subspace of half the dimensions, rounded up."""
    points_key, basis_key = jax.random.split(key)
    half = (dimension + 1) // 2
    x_Kd = jax.random.normal(points_key, (count, half)) @ _basis(basis_key, dimension)[:, :half].T
    return x_Kd, x_Kd


def _skewed(key: jax.Array, count: int, dimension: int) -> tuple[jax.Array, jax.Array]:
    """A covariance with eigenvalues in proportion to 1 / i^2, of the same trace, in a random basis."""
    points_key, basis_key = jax.random.split(key)
    scale_d = 1.0 / jnp.arange(1, dimension + 1)
    scale_d = scale_d * (dimension / jnp.sum(scale_d**2)) ** 0.5
    x_Kd = jax.random.normal(points_key, (count, dimension)) * scale_d[None]
    x_Kd = x_Kd @ _basis(basis_key, dimension).T
    return x_Kd, x_Kd


def _doubled(key: jax.Array, count: int, dimension: int) -> tuple[jax.Array, jax.Array]:
    x_Kd = 2 * jax.random.normal(key, (count, dimension))
    return x_Kd, x_Kd


SHIFTS = {
    "none": Shift(_as_in_training),
    "orthants": Shift(_orthants),
    "subspace": Shift(_subspace),
    "skewed": Shift(_skewed),
    "points_doubled": Shift(_doubled),
    "weights_doubled": Shift(_as_in_training, weights=2.0),
    "noise_doubled": Shift(_as_in_training, noise=2.0),
}
