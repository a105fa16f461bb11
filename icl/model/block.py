"""One transformer block: attention and MLP, sequential or parallel, with or without a KV cache.

Shapes: B batch, T positions, S cache positions, D embed, H heads, G key/value heads, K head size,
E = (H + 2 G) K, the queries, keys and values of a position side by side.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from icl.model.attention import Implementation, Span, attend
from icl.model.config import ModelConfig
from icl.model.layers import (
    MLP,
    Initializer,
    Norm,
    Projection,
    Weights,
    convolve,
    kernel_initializer,
    project,
    rotary_angles,
    rotate,
)
from icl.parallel import Partitioner

Angles = tuple[jax.Array, jax.Array]


class LayerCache(NamedTuple):
    """What one layer keeps of the past.

    `k_BSGK`, `v_BSGK`: keys and values as attention sees them. `inputs_BSE`: queries, keys and values before
    the short convolution (last axis 0 without one), all of them, so that a cache can be cut anywhere.
    """

    k_BSGK: jax.Array
    v_BSGK: jax.Array
    inputs_BSE: jax.Array


class Context(NamedTuple):
    """What all blocks share: spans of queries and keys, rotary angles, and where to append in a cache.

    `at_BA` is for the last block alone: the positions whose output is wanted. Keys and values come from all.
    """

    queries: Span
    keys: Span
    angles: Angles | None
    offset_B: jax.Array | None
    at_BA: jax.Array | None = None


class Attention(nn.Module):
    """Causal self-attention with grouped heads, rotary positions, QK norm and short convolution."""

    config: ModelConfig
    banded: bool
    out_initializer: Initializer
    partitioner: Partitioner | None

    @nn.compact
    def __call__(
        self, x_BTD: jax.Array, context: Context, cache: LayerCache | None
    ) -> tuple[jax.Array, LayerCache | None]:
        """[batch, length, embed] -> the same (or at `at_BA` only), and the cache with this chunk appended."""
        config, dtype = self.config, jnp.dtype(self.config.compute_dtype)
        batch, length, _ = x_BTD.shape
        size = config.size_per_head
        raw, mixed = self._queries_keys_values(x_BTD, context, cache)
        q, k, v = (
            self._constrain(x.reshape(batch, length, -1, size), axis)
            for x, axis in zip(mixed, ("heads", "kv_heads", "kv_heads"), strict=True)
        )
        if config.qk_norm:
            q, k = Norm(config, name="query_norm")(q), Norm(config, name="key_norm")(k)
        if context.angles is not None:
            q, k = rotate(q, context.angles), rotate(k, context.angles)
        if cache is not None:
            assert context.offset_B is not None
            inputs = jnp.concatenate(raw, axis=-1) if config.conv_width else cache.inputs_BSE[:, :length]
            cache = LayerCache(
                *(append(old, new, context.offset_B) for old, new in zip(cache, (k, v, inputs), strict=True))
            )
            k, v = cache.k_BSGK, cache.v_BSGK
        queries = context.queries
        if context.at_BA is not None:
            q = take(q, context.at_BA)
            queries = Span(*(take(x_BT, context.at_BA) for x_BT in queries))
        o_BTHK = attend(
            q,
            k,
            v,
            queries=queries,
            keys=context.keys,
            band=config.band_width if self.banded else None,
            implementation=attention_of(config, self.partitioner),
        )
        o_BTE = checkpoint_name(o_BTHK.reshape(batch, q.shape[1], -1), "attention")
        out = Projection(
            config,
            config.embed_dim,
            ("heads", "embed"),
            config.attention_out_bias,
            self.out_initializer,
            name="out",
        )
        return project(o_BTE, out(o_BTE.shape[-1]), dtype), cache

    def _queries_keys_values(
        self, x_BTD: jax.Array, context: Context, cache: LayerCache | None
    ) -> tuple[list[jax.Array], list[jax.Array]]:
        """Queries, keys and values, flat over heads: before and after the short convolution.

        Where heads are not split over devices the three are one matmul and one convolution.
        """
        config, dtype, size = self.config, jnp.dtype(self.config.compute_dtype), self.config.size_per_head
        widths = [heads * size for heads in (config.num_heads, config.kv_heads, config.kv_heads)]
        ends = [widths[0], widths[0] + widths[1]]
        init, bias, conv = kernel_initializer(config), config.qkv_bias, config.conv_width
        parts = [
            Projection(config, width, ("embed", axis), bias, init, conv, name=name)(config.embed_dim)
            for width, axis, name in zip(
                widths, ("heads", "kv_heads", "kv_heads"), ("query", "key", "value"), strict=True
            )
        ]
        past = None
        if conv and cache is not None:
            assert context.offset_B is not None
            past = last(cache.inputs_BSE, context.offset_B, conv - 1)

        def mix(raw: jax.Array, weights: Weights, past: jax.Array | None) -> jax.Array:
            if weights.convolution is None:
                return raw
            return convolve(raw, weights.convolution, context.queries.positions_BT, past)

        if self._heads_are_whole():
            whole = jax.tree.map(lambda *arrays: jnp.concatenate(arrays, axis=-1), *parts)
            raw = project(x_BTD, whole, dtype)
            return jnp.split(raw, ends, axis=-1), jnp.split(mix(raw, whole, past), ends, axis=-1)
        pasts = [None] * 3 if past is None else jnp.split(past, ends, axis=-1)
        raws = [project(x_BTD, weights, dtype) for weights in parts]
        return raws, [mix(*each) for each in zip(raws, parts, pasts, strict=True)]

    def _heads_are_whole(self) -> bool:
        if self.partitioner is None:
            return True
        sizes, rules = self.partitioner.axis_sizes(), self.partitioner.rules
        return all(sizes[axis] == 1 for name in ("heads", "kv_heads") for axis in rules.mesh_axes(name))

    def _constrain(self, x_BTHK: jax.Array, axis: str) -> jax.Array:
        if self.partitioner is None:
            return x_BTHK
        return self.partitioner.constrain(x_BTHK, ("batch", "length", axis, None))


class Block(nn.Module):
    """Norm, attention, norm, MLP; `parallel` adds both to the same residual (GPT-J, GPT-NeoX)."""

    config: ModelConfig
    banded: bool = False
    partitioner: Partitioner | None = None

    @nn.compact
    def __call__(
        self, x_BTD: jax.Array, context: Context, cache: LayerCache | None = None
    ) -> tuple[jax.Array, LayerCache | None]:
        """[batch, length, embed] -> the same, and the layer's cache with this chunk appended."""
        config = self.config
        # GPT-2, section 2.3: projections into the residual stream start 1/sqrt(number of them) smaller.
        out = kernel_initializer(config, scale=(2 * config.num_layers) ** -0.5)
        attention = Attention(config, self.banded, out, self.partitioner, name="attention")
        mlp = MLP(config, out, name="mlp")
        normed = Norm(config, name="attention_norm")(x_BTD)
        attended, cache = attention(normed, context, cache)
        if context.at_BA is not None:
            x_BTD = take(x_BTD, context.at_BA)
        if config.residual == "parallel":
            x_BTD = x_BTD + attended + mlp(Norm(config, name="mlp_norm")(x_BTD))
        else:
            x_BTD = x_BTD + attended
            x_BTD = x_BTD + mlp(Norm(config, name="mlp_norm")(x_BTD))
        if self.partitioner is not None:
            x_BTD = self.partitioner.constrain(x_BTD, ("batch", "length", "activation"))
        return x_BTD, cache


def make_context(
    config: ModelConfig, queries: Span, keys: Span | None = None, offset_B: jax.Array | None = None
) -> Context:
    """The context of a forward pass; keys are the queries themselves where there is no cache."""
    angles = rotary_angles(config, queries.positions_BT) if config.positions == "rotary" else None
    return Context(queries, queries if keys is None else keys, angles, offset_B)


def attention_of(config: ModelConfig, partitioner: Partitioner | None) -> Implementation:
    """The attention that a configuration means: `auto` is `blocked` on a CPU with whole rows."""
    if config.attention != "auto":
        return config.attention
    whole_rows = partitioner is None or partitioner.axis_sizes()["sequence"] == 1
    return "blocked" if jax.default_backend() == "cpu" and whole_rows else "reference"


def take(x_BTX: jax.Array, at_BA: jax.Array) -> jax.Array:
    """The entries of each row at its positions: [batch, length, ...] -> [batch, positions, ...]."""
    index = at_BA.reshape(at_BA.shape + (1,) * (x_BTX.ndim - 2))
    return jnp.take_along_axis(x_BTX, index, axis=1)


def append(old_BSX: jax.Array, new_BTX: jax.Array, offset_B: jax.Array) -> jax.Array:
    """Writes a chunk of each row at that row's offset; the caller leaves room for it."""

    def one(old: jax.Array, new: jax.Array, offset: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), offset, axis=0)

    return jax.vmap(one)(old_BSX, new_BTX, offset_B)


def last(inputs_BSE: jax.Array, offset_B: jax.Array, count: int) -> jax.Array:
    """The `count` inputs before each row's offset, [batch, count, width]; zeros before the start."""
    index_BW = offset_B[:, None] - count + jnp.arange(count)[None]
    taken = jnp.take_along_axis(inputs_BSE, jnp.maximum(index_BW, 0)[..., None], axis=1)
    return jnp.where((index_BW >= 0)[..., None], taken, 0)
