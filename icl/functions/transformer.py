"""The transformer over functions: linear layers let points and values in, and predictions out.

Between them stand the stacked layers of `icl.model`. Values are predicted at the position of their point,
which comes before them.

Shapes: B prompts, K points, d dimensions, T positions (2 K - 1), D embed.
"""

import functools
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from icl.functions.config import FunctionConfig
from icl.model.block import make_context
from icl.model.config import ModelConfig
from icl.model.layers import Projection, declare, kernel_initializer, project
from icl.model.spans import Span
from icl.model.transformer import apply_layers, boxed_layers, final_norm, is_box
from icl.parallel.partition import Partitioner

Params = dict[str, Any]


class _ReadIn(nn.Module):
    """Of points and of values, each with a layer of its own; and positions where they are learned."""

    config: ModelConfig
    functions: FunctionConfig

    @nn.compact
    def __call__(self) -> Params:
        config, width = self.config, self.config.embed_dim
        init, axes = nn.initializers.normal(config.embedding_init_std), (None, "embed")
        weights: Params = {
            "points": Projection(config, width, axes, True, init, name="points")(self.functions.dimension),
            "values": Projection(config, width, axes, True, init, name="values")(1),
        }
        if config.positions == "learned":
            weights["positions"] = declare(self, "positions", init, (config.max_length, width), axes)
        return weights


class _ReadOut(nn.Module):
    """A number for each position."""

    config: ModelConfig

    @nn.compact
    def __call__(self) -> Any:
        return Projection(
            self.config, 1, ("embed", None), True, kernel_initializer(self.config), name="values"
        )(self.config.embed_dim)


def _boxed_params(config: ModelConfig, functions: FunctionConfig, key: jax.Array) -> Params:
    """Parameters still boxed with their logical axes."""
    layers_key, norm_key, in_key, out_key = jax.random.split(key, 4)
    return boxed_layers(config, layers_key, norm_key) | {
        "read_in": _ReadIn(config, functions).init(in_key)["params"],
        "read_out": _ReadOut(config).init(out_key)["params"],
    }


def init_params(config: ModelConfig, functions: FunctionConfig, key: jax.Array) -> Params:
    """Fresh float32 parameters, a nested dict; arrays of layers are stacked on axis 0."""
    return nn.unbox(_boxed_params(config, functions, key))


def abstract_params(config: ModelConfig, functions: FunctionConfig) -> Params:
    """Shapes and dtypes of the parameters, without making them."""
    return jax.eval_shape(functools.partial(init_params, config, functions), jax.random.key(0))


def logical_axes(config: ModelConfig, functions: FunctionConfig) -> Params:
    """Logical axis names of every parameter: the tree of `init_params` with tuples for leaves."""
    boxed = jax.eval_shape(functools.partial(_boxed_params, config, functions), jax.random.key(0))
    return jax.tree.map(lambda box: tuple(box.names), boxed, is_leaf=is_box)


def num_params(config: ModelConfig, functions: FunctionConfig) -> int:
    """Number of all parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(abstract_params(config, functions)))


def predict(
    config: ModelConfig,
    functions: FunctionConfig,
    params: Params,
    x_BKd: jax.Array,
    y_BK: jax.Array,
    partitioner: Partitioner | None = None,
) -> jax.Array:
    """What the model takes each value to be, from its point and from the points and values before it.

    Args:
      config: The model.
      functions: What it was made for.
      params: Its parameters.
      x_BKd: Points, float32 [prompts, points, dimension].
      y_BK: Values, float32 [prompts, points]; the last one is not used.
      partitioner: Holds activations to their shards; None on one device.

    Returns:
      float32 [prompts, points].
    """
    x_BTD = _embed(config, functions, params, x_BKd, y_BK, partitioner)
    batch, length, _ = x_BTD.shape
    positions_BT = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32)[None], (batch, length))
    context = make_context(config, Span(jnp.ones_like(positions_BT), positions_BT))
    x_BTD = apply_layers(config, params["layers"], x_BTD, context, partitioner)
    x_BKD = final_norm(config, params, x_BTD[:, ::2])
    read_out = _ReadOut(config).apply({"params": params["read_out"]})
    predicted_BK = project(x_BKD, cast(Any, read_out), jnp.float32)[..., 0]
    return predicted_BK


def _embed(
    config: ModelConfig,
    functions: FunctionConfig,
    params: Params,
    x_BKd: jax.Array,
    y_BK: jax.Array,
    partitioner: Partitioner | None,
) -> jax.Array:
    """[prompts, positions, embed] in the compute dtype; points and values in turn."""
    read_in: Any = _ReadIn(config, functions).apply({"params": params["read_in"]})
    points_BKD = project(x_BKd, read_in["points"], jnp.float32)
    values_BKD = project(y_BK[..., None], read_in["values"], jnp.float32)
    batch, number, width = points_BKD.shape
    x_BTD = jnp.stack([points_BKD, values_BKD], axis=2).reshape(batch, 2 * number, width)[:, :-1]
    if config.positions == "learned":
        x_BTD = x_BTD + read_in["positions"][None, : x_BTD.shape[1]]
    x_BTD = x_BTD.astype(config.compute_dtype)
    if partitioner is not None:
        x_BTD = partitioner.constrain(x_BTD, ("batch", None, "activation"))
    return x_BTD
