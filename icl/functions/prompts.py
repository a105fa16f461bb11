"""Prompts: points and the values of a function drawn for each, a pure function of the prompt's index.

The distributions are those of Garg et al. 2022, section 3 and appendix A.

Shapes: B prompts, K points, d dimensions, H hidden units, N inner nodes of a tree.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from icl.data.keys import generator
from icl.functions.config import FunctionConfig


class FunctionBatch(NamedTuple):
    """Prompts as they go through `jit`: x_1, y_1, x_2, y_2, ... of one function each.

    `x_BKd`      f32  the points.
    `y_BK`       f32  the values that the model sees: the function's, with noise.
    `weights_BK` f32  loss weight of predicting each value.
    """

    x_BKd: ArrayLike
    y_BK: ArrayLike
    weights_BK: ArrayLike


class Drawn(NamedTuple):
    """A function's values at points [..., points], without noise, and as they are shown, with it."""

    true: jax.Array
    shown: jax.Array


def stream_key(seed: int, stream: str) -> jax.Array:
    """The key of a stream of prompts; other streams and seeds are independent of it."""
    return jax.random.key(int(generator("functions", stream, seed).integers(2**32)))


def row_keys(key: jax.Array, first_row: ArrayLike, rows: int) -> jax.Array:
    """A key [rows] for each prompt, by its index in the stream alone."""
    indices_B = jnp.asarray(first_row, jnp.uint32) + jnp.arange(rows, dtype=jnp.uint32)
    return jax.vmap(functools.partial(jax.random.fold_in, key))(indices_B)


def training_batch(config: FunctionConfig, key: jax.Array, step: ArrayLike, rows: int) -> FunctionBatch:
    """The batch after so many steps; a pure function of its arguments, whatever devices make it.

    Args:
      config: The functions.
      key: Of the stream (`stream_key`).
      step: Steps done before.
      rows: Prompts of a batch.
    """
    step = jnp.asarray(step, jnp.int32)
    dimension, points = config.dimension_at(step), config.points_at(step)
    is_used_d = jnp.arange(config.dimension) < dimension

    def prompt(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        points_key, function_key = jax.random.split(key)
        x_Kd = jax.random.normal(points_key, (config.points, config.dimension))
        x_Kd = jnp.where(is_used_d[None], x_Kd, 0.0)
        return x_Kd, draw(config, function_key, x_Kd, dimension).shown

    x_BKd, y_BK = jax.vmap(prompt)(row_keys(key, step * rows, rows))
    weights_K = (jnp.arange(config.points) < points).astype(jnp.float32)
    return FunctionBatch(x_BKd, y_BK, jnp.broadcast_to(weights_K[None], (rows, config.points)))


def draw(
    config: FunctionConfig, key: jax.Array, x_Kd: jax.Array, dimension: ArrayLike | None = None
) -> Drawn:
    """Draws a function, and its values at points.

    Args:
      config: The class of functions, and the noise.
      key: Of this function.
      x_Kd: Points [points, dimension].
      dimension: Of how many first coordinates a function chooses, where it chooses some; all by default.
    """
    function_key, noise_key = jax.random.split(key)
    dimension = config.dimension if dimension is None else dimension
    true_K = _CLASSES[config.kind](config, function_key, x_Kd, jnp.asarray(dimension))
    noise_K = config.noise * jax.random.normal(noise_key, true_K.shape)
    return Drawn(true_K, true_K + noise_K)


def _linear(config: FunctionConfig, key: jax.Array, x_Kd: jax.Array, dimension: jax.Array) -> jax.Array:
    """The product w x, w from N(0, I)."""
    del dimension
    return x_Kd @ jax.random.normal(key, (config.dimension,))


def _sparse(config: FunctionConfig, key: jax.Array, x_Kd: jax.Array, dimension: jax.Array) -> jax.Array:
    """Linear, with all but `nonzero` coordinates of w set to zero, which ones being uniform."""
    weights_key, choice_key = jax.random.split(key)
    order_d = jax.random.uniform(choice_key, (config.dimension,))
    order_d = order_d + 2.0 * (jnp.arange(config.dimension) >= dimension)
    rank_d = jnp.sum(order_d[None] < order_d[:, None], axis=1)
    w_d = jax.random.normal(weights_key, (config.dimension,))
    return x_Kd @ jnp.where(rank_d < config.nonzero, w_d, 0.0)


def _tree(config: FunctionConfig, key: jax.Array, x_Kd: jax.Array, dimension: jax.Array) -> jax.Array:
    """A full binary tree whose inner nodes ask if a coordinate is positive; leaves are from N(0, 1)."""
    nodes_key, leaves_key = jax.random.split(key)
    inner = 2**config.depth - 1
    coordinate_N = jax.random.randint(nodes_key, (inner,), 0, dimension)
    leaves = jax.random.normal(leaves_key, (inner + 1,))
    node_K = jnp.zeros(x_Kd.shape[0], jnp.int32)
    for _ in range(config.depth):
        asked_K = jnp.take_along_axis(x_Kd, coordinate_N[node_K][:, None], axis=1)[:, 0]
        node_K = 2 * node_K + 1 + (asked_K > 0)
    return leaves[node_K - inner]


def _network(config: FunctionConfig, key: jax.Array, x_Kd: jax.Array, dimension: jax.Array) -> jax.Array:
    """Sum of a_i relu(w_i x) over hidden units, w_i from N(0, I) and a_i from N(0, 2 / units)."""
    del dimension
    inner_key, outer_key = jax.random.split(key)
    w_dH = jax.random.normal(inner_key, (config.dimension, config.hidden))
    a_H = jax.random.normal(outer_key, (config.hidden,)) * (2 / config.hidden) ** 0.5
    return jax.nn.relu(x_Kd @ w_dH) @ a_H


_CLASSES: dict[str, Callable[[FunctionConfig, jax.Array, jax.Array, jax.Array], jax.Array]] = {
    "linear": _linear,
    "sparse_linear": _sparse,
    "tree": _tree,
    "network": _network,
}
