"""A KV cache that is a plain value: extended by chunks, and cut by setting its lengths back.

Each row has its own length. Keys beyond it may hold anything: masks use positions, so nothing sees them
before they are overwritten.

Shapes: B batch, S capacity, G key/value heads, K head size, V vocab, T new positions.
"""

import flax.struct
import jax
import jax.numpy as jnp

from icl.errors import InputError
from icl.model.block import LayerCache, make_context
from icl.model.config import ModelConfig
from icl.model.spans import Span
from icl.model.transformer import Params, apply_cached_layers, embed, final_norm, unembed
from icl.parallel import Partitioner


class Cache(flax.struct.PyTreeNode):
    """The past of a batch of rows.

    `layers`: what each layer keeps. `lengths_B`: how many positions of each row count. `shared`: what each
    layer keeps of a beginning that all rows have in common, a single row; none where each row has its own. Of
    it the first `starts_B` positions of each row count, and what the row keeps itself begins there.
    """

    layers: tuple[LayerCache, ...]
    lengths_B: jax.Array
    starts_B: jax.Array
    shared: tuple[LayerCache, ...] = ()

    @property
    def capacity(self) -> int:
        """Positions of its own that each row has room for."""
        return self.layers[0].k_BGSK.shape[2]

    @property
    def offsets_B(self) -> jax.Array:
        """Where the next position of each row stands in the buffers."""
        return self.lengths_B - self.starts_B

    def cut(self, starts_B: jax.Array) -> "Cache":
        """Rows that go on from their first positions of what is shared, with nothing of their own."""
        return self.replace(lengths_B=starts_B, starts_B=starts_B)

    def repeat(self, times: int) -> "Cache":
        """Each row so many times, one after the other; what is shared stays one."""
        layers, lengths_B, starts_B = jax.tree.map(
            lambda array: jnp.repeat(array, times, axis=0), (self.layers, self.lengths_B, self.starts_B)
        )
        return Cache(layers, lengths_B, starts_B, self.shared)


def init_cache(config: ModelConfig, batch: int, capacity: int) -> Cache:
    """An empty cache; `capacity` covers all that will be appended, padding of the chunks included."""
    if config.positions == "learned" and capacity > config.max_length:
        raise InputError(f"a cache of {capacity} positions: the model was made for {config.max_length}")
    layers = _empty_layers(config, batch, capacity)
    return Cache(layers, jnp.zeros(batch, jnp.int32), jnp.zeros(batch, jnp.int32))


def _empty_layers(config: ModelConfig, batch: int, capacity: int) -> tuple[LayerCache, ...]:
    dtype = jnp.dtype(config.compute_dtype)
    kv = (batch, config.kv_heads, capacity, config.size_per_head)
    width = (config.num_heads + 2 * config.kv_heads) * config.size_per_head if config.conv_width else 0
    return tuple(
        LayerCache(jnp.zeros(kv, dtype), jnp.zeros(kv, dtype), jnp.zeros((batch, capacity, width), dtype))
        for _ in range(config.num_layers)
    )


def crop(cache: Cache, capacity: int) -> Cache:
    """The first positions of a cache in buffers of their own; what stood behind them is gone.

    Where the rows share a beginning, that is cropped, and what they have of their own is gone.
    """
    if cache.shared:
        return cache.replace(shared=_first(cache.shared, capacity)).cut(jnp.zeros_like(cache.starts_B))
    lengths_B = jnp.minimum(cache.lengths_B, capacity)
    return Cache(_first(cache.layers, capacity), lengths_B, cache.starts_B)


def _first(layers: tuple[LayerCache, ...], capacity: int) -> tuple[LayerCache, ...]:
    return tuple(
        LayerCache(k[:, :, :capacity], v[:, :, :capacity], inputs[:, :capacity]) for k, v, inputs in layers
    )


def share(config: ModelConfig, cache: Cache, batch: int, capacity: int) -> Cache:
    """A cache of rows that all begin as the first row of `cache` does.

    Its keys and values stand once and are read once for all rows.

    Args:
        config: the model.
        cache: the beginning, with no shared one of its own.
        batch: number of rows.
        capacity: positions of its own that each row has room for.
    """
    empty = _empty_layers(config, batch, capacity)
    zeros_B = jnp.zeros(batch, jnp.int32)
    return Cache(empty, zeros_B, zeros_B, jax.tree.map(lambda array: array[:1], cache.layers))


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


_FLOATS = 2**27
"""So many logits, and so many attention scores of a layer, may stand in memory while tokens are scored."""


def extend_and_score(
    config: ModelConfig,
    params: Params,
    cache: Cache,
    tokens_BU: jax.Array,
    partitioner: Partitioner | None = None,
) -> tuple[jax.Array, jax.Array, Cache]:
    """Appends all tokens of each row but the last, and says of each but the first how likely it was.

    Many tokens are read in pieces, one after the other, so that the memory for logits and attention scores
    does not grow with their number.

    Args:
        config: the model.
        params: its parameters.
        cache: the past; lengths + U - 1 must stay within its capacity.
        tokens_BU: token ids, two a row at least.
        partitioner: holds activations to their shards; None on one device.

    Returns:
        Log-likelihoods in nats, float32 [batch, U - 1], of the tokens from the second on; the likeliest
        token at each of their places, int32; and the longer cache.
    """
    rows, length = tokens_BU.shape[0], tokens_BU.shape[1] - 1
    keys = cache.capacity + (cache.shared[0].k_BGSK.shape[2] if cache.shared else 0)
    most = max(1, _FLOATS // (rows * max(config.vocab_size, config.num_heads * keys)))
    pieces = -(-length // most)
    size = -(-length // pieces)
    lengths_B = cache.lengths_B

    def score(cache: Cache, start: jax.Array | int) -> tuple[Cache, tuple[jax.Array, jax.Array]]:
        piece_BT = jax.lax.dynamic_slice_in_dim(tokens_BU, start, size + 1, axis=1)
        logits_BTV, cache = extend(
            config,
            params,
            cache.replace(lengths_B=lengths_B + start),
            piece_BT[:, :-1],
            jnp.full(rows, size, jnp.int32),
            partitioner,
        )
        chosen_BT = jnp.take_along_axis(logits_BTV, piece_BT[:, 1:, None], axis=2)[..., 0]
        log_likelihoods_BT = chosen_BT - jax.nn.logsumexp(logits_BTV, axis=2)
        return cache, (log_likelihoods_BT, jnp.argmax(logits_BTV, axis=2).astype(jnp.int32))

    if pieces == 1:
        cache, found = score(cache, 0)
        return *found, cache
    # The last piece ends with the row and reads again what the one before it has read: there may be no room
    # in the cache for padding.
    starts = jnp.minimum(jnp.arange(pieces) * size, length - size)
    cache, found_PBT = jax.lax.scan(score, cache, starts)
    again = pieces * size - length
    log_likelihoods, argmax = (
        jnp.concatenate([x_PBT[:-1].swapaxes(0, 1).reshape(rows, -1), x_PBT[-1, :, again:]], axis=1)
        for x_PBT in found_PBT
    )
    return log_likelihoods, argmax, cache


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
    own_BS = cache.starts_B[:, None] + jnp.arange(cache.capacity, dtype=jnp.int32)[None]
    keys = Span(jnp.ones_like(own_BS), own_BS)
    context = make_context(config, queries, keys, None if empty else cache.offsets_B)
    if cache.shared:
        shared_BS = jnp.broadcast_to(
            jnp.arange(cache.shared[0].k_BGSK.shape[2], dtype=jnp.int32)[None],
            (batch, cache.shared[0].k_BGSK.shape[2]),
        )
        counts_BS = (shared_BS < cache.starts_B[:, None]).astype(jnp.int32)
        context = context._replace(shared_keys=Span(counts_BS, shared_BS))
    # Padding behind the context has no learned position; what is looked up for it is never read.
    known_BT = positions_BT
    if config.positions == "learned":
        known_BT = jnp.minimum(positions_BT, config.max_length - 1)
    x_BTD = embed(config, params, tokens_BT, known_BT, partitioner)
    x_BTD, layers = apply_cached_layers(
        config, params["layers"], x_BTD, context, cache.layers, partitioner, cache.shared
    )
    longer = cache.replace(layers=layers, lengths_B=cache.lengths_B + counts_B)
    return final_norm(config, params, x_BTD), longer
