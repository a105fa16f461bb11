"""Attention over packed segments: one function, several implementations.

A query sees a key of its own segment at its own or an earlier position, in a banded layer at most
`band` - 1 positions back. Masks use logical positions, never buffer indices, so packed rows and a KV
cache go through the same code.

Shapes: B batch, T query positions, S key positions, H heads, G key/value heads, R = H / G, K head size.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from icl.model.blocked import blocked_attention
from icl.model.kernels import cudnn_attention, splash_attention
from icl.model.spans import MASKED, Span, visible
from icl.parallel import Partitioner

Implementation = Literal["reference", "blocked", "splash", "cudnn"]


def attend(
    q_BTHK: jax.Array,
    k_BGSK: jax.Array,
    v_BGSK: jax.Array,
    *,
    queries: Span,
    keys: Span,
    band: int | None = None,
    implementation: Implementation = "reference",
    aligned: bool = False,
    partitioner: Partitioner | None = None,
) -> jax.Array:
    """Softmax attention, scores and softmax in float32.

    Args:
        q_BTHK: queries [batch, length, heads, head size].
        k_BGSK: keys [batch, kv heads, key length, head size]; heads is a multiple of kv heads.
        v_BGSK: values, as the keys.
        queries: segments and positions of the queries.
        keys: segments and positions of the keys.
        band: how many positions, itself included, a query sees back; None sees all.
        implementation: `reference` scores every pair; `blocked` cuts the queries of a row in a few
            blocks and leaves out the keys after each; `splash` and `cudnn` are the fused kernels of TPUs and
            GPUs. All but the first are for aligned keys and queries: others (a KV cache) are scored pair by
            pair whatever is said here.
        aligned: whether the i-th query and the i-th key are one position; there may be more keys.
        partitioner: the mesh, for the fused kernels; None on one device.

    Returns:
        [batch, length, heads, head size] in the dtype of the queries.
    """
    if implementation == "splash" and aligned:
        return splash_attention(
            q_BTHK, k_BGSK, v_BGSK, queries.segments_BT, band=band, partitioner=partitioner
        )
    if implementation == "cudnn" and aligned:
        seen_BTS = visible(queries, keys, band)
        return cudnn_attention(q_BTHK, k_BGSK, v_BGSK, seen_BTS, partitioner=partitioner)
    if implementation == "blocked" and aligned:
        length = q_BTHK.shape[1]
        return blocked_attention(q_BTHK, k_BGSK[:, :, :length], v_BGSK[:, :, :length], queries, band=band)
    return _softmax_attention(q_BTHK, k_BGSK, v_BGSK, visible(queries, keys, band))


def attend_beyond(
    q_BTHK: jax.Array,
    shared_k_GPK: jax.Array,
    shared_v_GPK: jax.Array,
    k_BGSK: jax.Array,
    v_BGSK: jax.Array,
    *,
    queries: Span,
    shared_keys: Span,
    keys: Span,
    band: int | None = None,
) -> jax.Array:
    """As `attend`, of rows that begin with the same keys: those stand once, and are one matmul for all rows.

    Args:
        q_BTHK: queries [batch, length, heads, head size].
        shared_k_GPK: keys [kv heads, shared length, head size] that the rows begin with.
        shared_v_GPK: values, as the shared keys.
        k_BGSK: each row's own keys, [batch, kv heads, key length, head size].
        v_BGSK: values, as the own keys.
        queries: segments and positions of the queries.
        shared_keys: segments and positions of the shared keys in each row.
        keys: segments and positions of the own keys.
        band: as of `attend`.

    Returns:
        [batch, length, heads, head size] in the dtype of the queries.
    """
    batch, length, heads, size = q_BTHK.shape
    kv_heads, shared_length = shared_k_GPK.shape[:2]
    repeats = heads // kv_heads
    q_BGRTK = q_BTHK.reshape(batch, length, kv_heads, repeats, size).transpose(0, 2, 3, 1, 4) * size**-0.5
    # All rows, heads of a group and positions one after the other: a plain matmul for each group.
    q_GNK = q_BGRTK.transpose(1, 0, 2, 3, 4).reshape(kv_heads, batch * repeats * length, size)
    scores_GNP = jnp.einsum("gnk,gpk->gnp", q_GNK, shared_k_GPK, preferred_element_type=jnp.float32)
    seen_BTP, seen_BTS = visible(queries, shared_keys, band), visible(queries, keys, band)
    scores_P = jnp.where(
        seen_BTP[None, :, None],
        scores_GNP.reshape(kv_heads, batch, repeats, length, shared_length),
        MASKED,
    )
    scores_S = jnp.einsum("bgrtk,bgsk->bgrts", q_BGRTK, k_BGSK, preferred_element_type=jnp.float32)
    scores_S = jnp.where(seen_BTS[:, None, None], scores_S, MASKED).transpose(1, 0, 2, 3, 4)
    highest = jnp.maximum(scores_P.max(axis=-1, keepdims=True), scores_S.max(axis=-1, keepdims=True))
    weights_P, weights_S = jnp.exp(scores_P - highest), jnp.exp(scores_S - highest)
    total = weights_P.sum(axis=-1, keepdims=True) + weights_S.sum(axis=-1, keepdims=True)
    flat_GNP = weights_P.astype(shared_v_GPK.dtype).reshape(kv_heads, -1, shared_length)
    o_GBRTK = jnp.einsum("gnp,gpk->gnk", flat_GNP, shared_v_GPK).reshape(
        kv_heads, batch, repeats, length, size
    )
    o_GBRTK = o_GBRTK + jnp.einsum("gbrts,bgsk->gbrtk", weights_S.astype(v_BGSK.dtype), v_BGSK)
    o_GBRTK = (o_GBRTK / total).astype(q_BTHK.dtype)
    return o_GBRTK.transpose(1, 3, 0, 2, 4).reshape(batch, length, heads, size)


def attention_pattern(q_BTHK: jax.Array, k_BGSK: jax.Array, seen_BTS: jax.Array) -> jax.Array:
    """The probabilities with which queries attend to keys, as of the implementation `reference`.

    Args:
        q_BTHK: queries [batch, length, heads, head size].
        k_BGSK: keys [batch, kv heads, key length, head size].
        seen_BTS: which keys a query sees.

    Returns:
        float32 [batch, heads, length, key length].
    """
    scores_BGRTS = _scores(q_BTHK, k_BGSK, seen_BTS)
    batch, _, _, length, key_length = scores_BGRTS.shape
    return jax.nn.softmax(scores_BGRTS, axis=-1).reshape(batch, q_BTHK.shape[2], length, key_length)


def apply_pattern(pattern_BHTS: jax.Array, v_BGSK: jax.Array) -> jax.Array:
    """The values weighed by an attention pattern: [batch, length, heads, head size], dtype of the values."""
    batch, heads, length, key_length = pattern_BHTS.shape
    kv_heads, size = v_BGSK.shape[1], v_BGSK.shape[-1]
    p_BGRTS = pattern_BHTS.reshape(batch, kv_heads, heads // kv_heads, length, key_length)
    o_BGRTK = jnp.einsum("bgrts,bgsk->bgrtk", p_BGRTS.astype(v_BGSK.dtype), v_BGSK)
    return o_BGRTK.transpose(0, 3, 1, 2, 4).reshape(batch, length, heads, size)


def _scores(q_BTHK: jax.Array, k_BGSK: jax.Array, seen_BTS: jax.Array) -> jax.Array:
    """Of every pair, float32 [batch, kv heads, heads of each, length, key length]."""
    batch, length, heads, size = q_BTHK.shape
    kv_heads = k_BGSK.shape[1]
    q_BGRTK = q_BTHK.reshape(batch, length, kv_heads, heads // kv_heads, size).transpose(0, 2, 3, 1, 4)
    scores = jnp.einsum("bgrtk,bgsk->bgrts", q_BGRTK * size**-0.5, k_BGSK, preferred_element_type=jnp.float32)
    return jnp.where(seen_BTS[:, None, None], scores, MASKED)


def _softmax_attention(
    q_BTHK: jax.Array, k_BGSK: jax.Array, v_BGSK: jax.Array, seen_BTS: jax.Array
) -> jax.Array:
    batch, length, heads, size = q_BTHK.shape
    scores = _scores(q_BTHK, k_BGSK, seen_BTS)
    # Normalised after the product with the values: one pass less over the scores than a plain softmax.
    highest = jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
    weights = jnp.exp(scores - highest)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    o_BGRTK = jnp.einsum("bgrts,bgsk->bgrtk", weights.astype(v_BGSK.dtype), v_BGSK)
    o_BGRTK = (o_BGRTK / total).astype(q_BTHK.dtype)
    return o_BGRTK.transpose(0, 3, 1, 2, 4).reshape(batch, length, heads, size)
