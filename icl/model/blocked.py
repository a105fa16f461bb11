"""Causal attention in blocks of queries, each with the keys up to its end, with a backward pass of its own.

For CPUs. The probabilities of a block are made again in the backward pass from the log of their sum, so
they are never written to memory from the forward to the backward pass (as in FlashAttention, arXiv
2205.14135, section 3.1 and appendix B, but with whole rows of keys at a time).

Shapes: B batch, T positions, S key positions of a block, H heads, G key/value heads, R = H / G, K head size,
N = R T queries of a group one after the other.
"""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from icl.model.kernels import SAVED_NAME
from icl.model.spans import MASKED, Span, visible

_SIZES = ((4, 64), (8, 128))
"""Up to so many blocks of at least so many queries: more cost more to compile, and save little."""

Saved = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array, Span]


def blocked_attention(
    q_BTHK: jax.Array, k_BGTK: jax.Array, v_BGTK: jax.Array, span: Span, *, band: int | None = None
) -> jax.Array:
    """Causal attention within segments, in up to eight blocks of queries; scores and softmax in float32.

    Output and log-sum-exp bear the name `attention`, so a remat policy that saves it scores once.

    Args:
        q_BTHK: queries [batch, length, heads, head size].
        k_BGTK: keys [batch, kv heads, length, head size].
        v_BGTK: values, as the keys.
        span: segments and positions; a segment's positions stand in order.
        band: how many positions, itself included, a query sees back; None sees all.

    Returns:
        [batch, length, heads, head size] in the dtype of the queries.
    """
    batch, length, heads, size = q_BTHK.shape
    kv_heads = k_BGTK.shape[1]
    q_BGRTK = q_BTHK.reshape(batch, length, kv_heads, heads // kv_heads, size).transpose(0, 2, 3, 1, 4)
    o_BGRTK = _attend(band, q_BGRTK * size**-0.5, k_BGTK, v_BGTK, span)
    return o_BGRTK.transpose(0, 3, 1, 2, 4).reshape(batch, length, heads, size)


def cuts(length: int) -> Iterator[tuple[int, int]]:
    """Where the blocks of a row begin and end."""
    count = max(1, *(min(most, length // size) for most, size in _SIZES))
    for i in range(count):
        yield round(i * length / count), round((i + 1) * length / count)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(
    band: int | None, q_BGRTK: jax.Array, k_BGTK: jax.Array, v_BGTK: jax.Array, span: Span
) -> jax.Array:
    return _forward(band, q_BGRTK, k_BGTK, v_BGTK, span)[0]


def _forward(
    band: int | None, q_BGRTK: jax.Array, k_BGTK: jax.Array, v_BGTK: jax.Array, span: Span
) -> tuple[jax.Array, Saved]:
    outputs, log_sums = [], []
    for start, end in cuts(q_BGRTK.shape[3]):
        scores_BGRTS = _scores(band, q_BGRTK, k_BGTK, span, start, end)
        highest = jnp.max(scores_BGRTS, axis=-1, keepdims=True)
        weights_BGRTS = jnp.exp(scores_BGRTS - highest)
        total = jnp.sum(weights_BGRTS, axis=-1, keepdims=True)
        # Normalised after the product with the values: one pass less over the scores than a plain softmax.
        o_BGRTK = _grouped(weights_BGRTS.astype(v_BGTK.dtype), v_BGTK[:, :, :end]) / total
        outputs.append(o_BGRTK.astype(q_BGRTK.dtype))
        log_sums.append(highest + jnp.log(total))
    o_BGRTK = checkpoint_name(jnp.concatenate(outputs, axis=3), SAVED_NAME)
    log_sum_BGRT1 = checkpoint_name(jnp.concatenate(log_sums, axis=3), SAVED_NAME)
    return o_BGRTK, (q_BGRTK, k_BGTK, v_BGTK, o_BGRTK, log_sum_BGRT1, span)


def _backward(
    band: int | None, saved: Saved, d_o_BGRTK: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    q_BGRTK, k_BGTK, v_BGTK, o_BGRTK, log_sum_BGRT1, span = saved
    dtype, length = q_BGRTK.dtype, q_BGRTK.shape[3]
    # What all probabilities of a query share in the gradient of its scores.
    shared_BGRT1 = jnp.sum(
        d_o_BGRTK.astype(jnp.float32) * o_BGRTK.astype(jnp.float32), axis=-1, keepdims=True
    )
    d_q, d_k, d_v = [], jnp.zeros(k_BGTK.shape, jnp.float32), jnp.zeros(v_BGTK.shape, jnp.float32)
    for start, end in cuts(length):
        d_o, shared = d_o_BGRTK[:, :, :, start:end], shared_BGRT1[:, :, :, start:end]
        scores_BGRTS = _scores(band, q_BGRTK, k_BGTK, span, start, end)
        p_BGRTS = jnp.exp(scores_BGRTS - log_sum_BGRT1[:, :, :, start:end])
        d_p_BGRTS = _grouped(d_o, v_BGTK[:, :, :end].swapaxes(2, 3))
        d_scores_BGRTS = (p_BGRTS * (d_p_BGRTS - shared)).astype(dtype)
        d_q.append(_grouped(d_scores_BGRTS, k_BGTK[:, :, :end]).astype(dtype))
        rest = ((0, 0), (0, 0), (0, length - end), (0, 0))
        d_k += jnp.pad(_over_queries(d_scores_BGRTS, q_BGRTK[:, :, :, start:end]), rest)
        d_v += jnp.pad(_over_queries(p_BGRTS.astype(dtype), d_o), rest)
    return jnp.concatenate(d_q, axis=3), d_k.astype(k_BGTK.dtype), d_v.astype(v_BGTK.dtype), None


_attend.defvjp(_forward, _backward)


def _scores(
    band: int | None, q_BGRTK: jax.Array, k_BGTK: jax.Array, span: Span, start: int, end: int
) -> jax.Array:
    """Of the queries from `start` to `end` with the keys before `end`."""
    scores_BGRTS = _grouped(q_BGRTK[:, :, :, start:end], k_BGTK[:, :, :end].swapaxes(2, 3))
    seen_BTS = visible(span.cut(start, end), span.cut(0, end), band)
    return jnp.where(seen_BTS[:, None, None], scores_BGRTS, MASKED)


def _grouped(x_BGRTX: jax.Array, y_BGXY: jax.Array) -> jax.Array:
    """The product of all queries of a group with one matrix, in float32: [batch, kv heads, R, length, Y]."""
    *sizes, inner = x_BGRTX.shape
    x_BGNX = x_BGRTX.reshape(*sizes[:2], -1, inner)
    product = jnp.matmul(x_BGNX, y_BGXY, preferred_element_type=jnp.float32)
    return product.reshape(*sizes, y_BGXY.shape[-1])


def _over_queries(x_BGRTS: jax.Array, y_BGRTK: jax.Array) -> jax.Array:
    """Sums of the products over all queries of a group, in float32: [batch, kv heads, key length, K]."""
    x_BGNS, y_BGNK = (x.reshape(*x.shape[:2], -1, x.shape[-1]) for x in (x_BGRTS, y_BGRTK))
    return jnp.einsum("bgns,bgnk->bgsk", x_BGNS, y_BGNK, preferred_element_type=jnp.float32)
