"""A KV cache that is a plain value: extended by chunks, and cut by setting its lengths back.

Each row has its own length. Keys beyond it may hold anything: masks use positions, so nothing sees them
before they are overwritten.

Shapes: B batch, S capacity, G key/value heads, K head size, V vocab, T new positions.
"""

import flax.struct
import jax
import jax.numpy as jnp

from icl.errors import InputError
from icl.model.attention import Span
from icl.model.block import LayerCache, make_context
from icl.model.config import ModelConfig
from icl.model.transformer import Params, apply_cached_layers, embed, final_norm, unembed
from icl.parallel import Partitioner


class Cache(flax.struct.PyTreeNode):
    """The past of a batch of rows.

    `layers`: what each layer keeps. `lengths_B`: how many positions of each row count.
    """

    layers: tuple[LayerCache, ...]
    lengths_B: jax.Array

    @property
    def capacity(self) -> int:
        """Positions there is room for."""
        return self.layers[0].k_BGSK.shape[2]


def init_cache(config: ModelConfig, batch: int, capacity: int) -> Cache:
    """An empty cache; `capacity` covers all that will be appended, padding of the chunks included."""
    if config.positions == "learned" and capacity > config.max_length:
        raise InputError(f"a cache of {capacity} positions: the model was made for {config.max_length}")
    dtype = jnp.dtype(config.compute_dtype)
    kv = (batch, config.kv_heads, capacity, config.size_per_head)
    width = (config.num_heads + 2 * config.kv_heads) * config.size_per_head if config.conv_width else 0
    layers = tuple(
        LayerCache(jnp.zeros(kv, dtype), jnp.zeros(kv, dtype), jnp.zeros((batch, capacity, width), dtype))
        for _ in range(config.num_layers)
    )
    return Cache(layers, jnp.zeros(batch, jnp.int32))


def crop(cache: Cache, capacity: int) -> Cache:
    """The first positions of a cache in buffers of their own; what stood behind them is gone."""
    layers = tuple(
        LayerCache(k[:, :, :capacity], v[:, :, :capacity], inputs[:, :capacity])
        for k, v, inputs in cache.layers
    )
    return Cache(layers, jnp.minimum(cache.lengths_B, capacity))


def prefill(
    config: ModelConfig,
    params: Params,
    cache: Cache,
    tokens_BT: jax.Array,
    counts_B: jax.Array,
    partitioner: Partitioner | None = None,
) -> Cache:
    """As `extend` of an empty cache, without logits, and faster: no query looks at positions after it."""
    return _append(config, params, cache, tokens_BT, counts_B, partitioner, empty=True)[1]


def extend(
    config: ModelConfig,
    params: Params,
    cache: Cache,
    tokens_BT: jax.Array,
    counts_B: jax.Array,
    partitioner: Partitioner | None = None,
) -> tuple[jax.Array, Cache]:
    """Appends up to T tokens to each row; the same numbers as one full forward pass.

    Args:
        config: the model.
        params: its parameters.
        cache: the past; lengths + T must stay within its capacity, or earlier positions are overwritten.
        tokens_BT: token ids; what stands behind a row's count is padding.
        counts_B: how many of the T tokens of each row count.
        partitioner: holds activations to their shards; None on one device.

    Returns:
        Logits [batch, T, vocab] in float32 (those of padding mean nothing), and the longer cache.
    """
    x_BTD, cache = _append(config, params, cache, tokens_BT, counts_B, partitioner)
    return unembed(config, params, x_BTD), cache


def extend_to_last(
    config: ModelConfig,
    params: Params,
    cache: Cache,
    tokens_BT: jax.Array,
    counts_B: jax.Array,
    partitioner: Partitioner | None = None,
) -> tuple[jax.Array, Cache]:
    """As `extend`, with the logits [batch, vocab] after the last token of each row that counts."""
    x_BTD, cache = _append(config, params, cache, tokens_BT, counts_B, partitioner)
    last_B1D = jnp.take_along_axis(x_BTD, (counts_B - 1)[:, None, None], axis=1)
    return unembed(config, params, last_B1D)[:, 0], cache


def _append(
    config: ModelConfig,
    params: Params,
    cache: Cache,
    tokens_BT: jax.Array,
    counts_B: jax.Array,
    partitioner: Partitioner | None,
    *,
    empty: bool = False,
) -> tuple[jax.Array, Cache]:
    """Final hidden states [batch, T, embed] of the new tokens, and the longer cache."""
    batch, length = tokens_BT.shape
    positions_BT = cache.lengths_B[:, None] + jnp.arange(length, dtype=jnp.int32)[None]
    queries = Span(jnp.ones_like(positions_BT), positions_BT)
    key_positions = jnp.broadcast_to(
        jnp.arange(cache.capacity, dtype=jnp.int32)[None], (batch, cache.capacity)
    )
    keys = Span(jnp.ones_like(key_positions), key_positions)
    context = make_context(config, queries, keys, None if empty else cache.lengths_B)
    x_BTD = embed(config, params, tokens_BT, positions_BT, partitioner)
    x_BTD, layers = apply_cached_layers(config, params["layers"], x_BTD, context, cache.layers, partitioner)
    return final_norm(config, params, x_BTD), Cache(layers, cache.lengths_B + counts_B)
