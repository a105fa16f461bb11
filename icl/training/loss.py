"""Cross-entropy over the vocabulary in chunks of positions: logits of all positions never stand in memory.

The gradient of the loss is made with the loss, chunk by chunk, so the logits are computed once. On a mesh
each device takes its rows and its part of the vocabulary; what travels is the output matrix over `fsdp`, a
few numbers a position, one sum of the hidden gradients over `tensor` and one of the matrix's gradient.

Shapes: B rows, T positions, N positions of a device, C chunks, D embed, V vocab (of a device, inside).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from icl.model.config import ModelConfig
from icl.parallel.partition import Partitioner

CHUNK = 1024
"""Positions of a device whose logits stand in memory together."""


class TokenScores(NamedTuple):
    """Per position: cross-entropy of the target in nats, log of the partition function, likeliest token."""

    cross_entropy_BT: jax.Array
    log_partition_BT: jax.Array
    best_BT: jax.Array


class _Matrix(NamedTuple):
    """The output projection: `kernel_VD` in the compute dtype's precision, `bias_V` where there is one."""

    kernel_VD: Any
    bias_V: Any


class _How(NamedTuple):
    """What is known when the program is traced."""

    dtype: Any
    chunk: int
    partitioner: Partitioner | None
    z_loss: float = 0.0


def score_targets(
    config: ModelConfig,
    params: Any,
    hidden_BTD: jax.Array,
    targets_BT: jax.Array,
    partitioner: Partitioner | None = None,
    chunk: int = CHUNK,
) -> TokenScores:
    """Scores every target under the model's output distribution, in float32; no gradient flows back.

    Args:
      config: the model.
      params: its parameters.
      hidden_BTD: hidden states after the last norm, [batch, length, embed].
      targets_BT: token ids [batch, length].
      partitioner: the mesh; None on one device.
      chunk: positions of a device that are scored together.
    """
    how = _How(jnp.dtype(config.compute_dtype), chunk, partitioner)
    weights_BT = jnp.ones(targets_BT.shape, jnp.float32)
    hidden_BTD, matrix = jax.lax.stop_gradient((hidden_BTD, _matrix(config, params)))
    return _on_mesh(how, hidden_BTD, matrix, targets_BT, weights_BT, _scores)


def weighted_loss(
    config: ModelConfig,
    params: Any,
    hidden_BTD: jax.Array,
    targets_BT: jax.Array,
    weights_BT: jax.Array,
    partitioner: Partitioner | None = None,
    *,
    z_loss: float = 0.0,
    chunk: int = CHUNK,
) -> tuple[jax.Array, jax.Array]:
    """The sum over positions of weight x (cross-entropy + z_loss x squared log-partition), in nats.

    Args:
      config: the model.
      params: its parameters.
      hidden_BTD: hidden states after the last norm, [batch, length, embed].
      targets_BT: token ids [batch, length].
      weights_BT: float32 [batch, length].
      partitioner: the mesh; None on one device.
      z_loss: weight of the squared log-partition (PaLM, arXiv 2204.02311, section 5).
      chunk: positions of a device that are scored together.

    Returns:
      The sum, and the cross-entropy of each position [batch, length], through which no gradient flows.
    """
    how = _How(jnp.dtype(config.compute_dtype), chunk, partitioner, z_loss)
    with jax.named_scope("loss"):
        loss, cross_entropy_BT = _loss(how, hidden_BTD, _matrix(config, params), targets_BT, weights_BT)
    return loss, jax.lax.stop_gradient(cross_entropy_BT)


def _matrix(config: ModelConfig, params: Any) -> _Matrix:
    kernel_VD = params["embedding"]["tokens"] if config.tied_head else params["head"]["kernel"].T
    return _Matrix(kernel_VD, params["head"]["bias"] if config.head_bias else None)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _loss(
    how: _How, hidden_BTD: jax.Array, matrix: _Matrix, targets_BT: jax.Array, weights_BT: jax.Array
) -> tuple[jax.Array, jax.Array]:
    scores = _on_mesh(how, hidden_BTD, matrix, targets_BT, weights_BT, _scores)
    penalty_BT = how.z_loss * jnp.square(scores.log_partition_BT) if how.z_loss else 0.0
    return jnp.sum(weights_BT * (scores.cross_entropy_BT + penalty_BT)), scores.cross_entropy_BT


def _loss_forward(
    how: _How, hidden_BTD: jax.Array, matrix: _Matrix, targets_BT: jax.Array, weights_BT: jax.Array
) -> tuple[tuple[jax.Array, jax.Array], Any]:
    loss, cross_entropy_BT, gradients = _on_mesh(how, hidden_BTD, matrix, targets_BT, weights_BT, _gradients)
    return (loss, cross_entropy_BT), gradients


def _loss_backward(how: _How, gradients: Any, cotangents: tuple[jax.Array, jax.Array]) -> Any:
    del how
    scaled = jax.tree.map(lambda x: (x * cotangents[0]).astype(x.dtype), gradients)
    return (*scaled, None, None)


_loss.defvjp(_loss_forward, _loss_backward)


class _Axes(NamedTuple):
    """Mesh axes over which a device's part has to be summed up, or gathered; none off a mesh."""

    vocab: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    embed: tuple[str, ...] = ()


def _on_mesh(
    how: _How,
    hidden_BTD: jax.Array,
    matrix: _Matrix,
    targets_BT: jax.Array,
    weights_BT: jax.Array,
    function: Callable[..., Any],
) -> Any:
    """Runs `function` on each device's rows and part of the vocabulary; `_scores` or `_gradients`."""
    if how.partitioner is None:
        return function(how, _Axes(), hidden_BTD, matrix, targets_BT, weights_BT)
    partitioner, rules = how.partitioner, how.partitioner.rules
    sizes = partitioner.axis_sizes()
    length = sum(sizes[axis] > 1 for axis in rules.mesh_axes("length")) and _divides(
        targets_BT.shape[1], partitioner
    )
    rows = partitioner.spec(("batch", "length" if length else None))
    kernel = partitioner.spec(("vocab", "embed"))
    axes = _Axes(rules.mesh_axes("vocab"), _names(rows), rules.mesh_axes("embed"))
    if not set(axes.embed) <= set(axes.rows):
        # Gathered by the partitioner before, and cut by it after.
        axes, kernel = axes._replace(embed=()), PartitionSpec(kernel[0], None)
    placed = _Matrix(kernel, None if matrix.bias_V is None else PartitionSpec(kernel[0]))
    hidden = PartitionSpec(*rows, None)
    if function is _gradients:
        outputs: Any = (PartitionSpec(), rows, (hidden, placed))
    else:
        outputs = rows
    return jax.shard_map(
        functools.partial(function, how, axes),
        mesh=partitioner.mesh,
        in_specs=(hidden, placed, rows, rows),
        out_specs=outputs,
        check_vma=False,
    )(hidden_BTD, matrix, targets_BT, weights_BT)


def _divides(length: int, partitioner: Partitioner) -> bool:
    size = 1
    for axis in partitioner.rules.mesh_axes("length"):
        size *= partitioner.axis_sizes()[axis]
    return length % size == 0


def _names(spec: PartitionSpec) -> tuple[str, ...]:
    """The mesh axes that a spec names."""
    return tuple(
        axis for part in spec if part is not None for axis in ((part,) if isinstance(part, str) else part)
    )


def _scores(
    how: _How, axes: _Axes, hidden_BTD: jax.Array, matrix: _Matrix, targets_BT: jax.Array, _: jax.Array
) -> TokenScores:
    """Scores of a device's positions."""
    kernel_VD = _whole(how, axes, matrix.kernel_VD)

    def scores_of(hidden_ND: jax.Array, targets_N: jax.Array) -> TokenScores:
        logits_NV = _logits(how, hidden_ND, kernel_VD, matrix.bias_V)
        highest_N, total_N, target_logit_N = _partition(logits_NV, targets_N, axes)
        log_partition_N = jnp.log(total_N) + highest_N
        size = logits_NV.shape[1]
        best_N = jnp.argmax(logits_NV, axis=-1) + _first(axes, size)
        if axes.vocab:
            # The first of several that are equally likely, as `argmax` says without a mesh.
            here_N = jnp.max(logits_NV, axis=-1) == highest_N
            best_N = jax.lax.pmin(jnp.where(here_N, best_N, jnp.iinfo(jnp.int32).max), axes.vocab)
        return TokenScores(log_partition_N - target_logit_N, log_partition_N, best_N)

    hidden_CND, targets_CN = _chunks(how, hidden_BTD, targets_BT)
    if len(hidden_CND) == 1:
        scores = scores_of(hidden_CND[0], targets_CN[0])
    else:
        scores = jax.lax.map(lambda part: scores_of(*part), (hidden_CND, targets_CN))
    return TokenScores(*(_unchunked(x, targets_BT.shape) for x in scores))


def _gradients(
    how: _How,
    axes: _Axes,
    hidden_BTD: jax.Array,
    matrix: _Matrix,
    targets_BT: jax.Array,
    weights_BT: jax.Array,
) -> tuple[jax.Array, jax.Array, tuple[jax.Array, _Matrix]]:
    """The loss over all devices, cross-entropies of a device's positions, and what it gives of gradients."""
    kernel_VD = _whole(how, axes, matrix.kernel_VD)

    def add(total: tuple[jax.Array, _Matrix], part: tuple[jax.Array, ...]) -> Any:
        loss, grad = total
        hidden_ND, targets_N, weights_N = part
        logits_NV = _logits(how, hidden_ND, kernel_VD, matrix.bias_V)
        highest_N, total_N, target_logit_N = _partition(logits_NV, targets_N, axes)
        log_partition_N = jnp.log(total_N) + highest_N
        cross_entropy_N = log_partition_N - target_logit_N
        penalty_N = how.z_loss * jnp.square(log_partition_N) if how.z_loss else 0.0
        loss = loss + jnp.sum(weights_N * (cross_entropy_N + penalty_N))

        scale_N = weights_N * (1 + 2 * how.z_loss * log_partition_N) if how.z_loss else weights_N
        index_N, vocab_V = _target_index(targets_N, axes, logits_NV.shape[1]), jnp.arange(logits_NV.shape[1])
        is_target_NV = index_N[:, None] == vocab_V[None]
        d_logits_NV = jnp.exp(logits_NV - highest_N[:, None]) * (scale_N / total_N)[:, None]
        d_logits_NV = d_logits_NV - jnp.where(is_target_NV, weights_N[:, None], 0.0)
        bias = None if grad.bias_V is None else grad.bias_V + jnp.sum(d_logits_NV, axis=0)
        d_logits_NV = d_logits_NV.astype(how.dtype)
        d_hidden_ND = jnp.matmul(d_logits_NV, kernel_VD, preferred_element_type=jnp.float32)
        d_kernel_VD = jax.lax.dot_general(
            d_logits_NV, hidden_ND, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32
        )
        grad = _Matrix(d_kernel_VD if grad.kernel_VD is None else grad.kernel_VD + d_kernel_VD, bias)
        return (loss, grad), (cross_entropy_N, d_hidden_ND.astype(hidden_BTD.dtype))

    parts = _chunks(how, hidden_BTD, targets_BT, weights_BT)
    no_bias = None if matrix.bias_V is None else jnp.zeros(matrix.bias_V.shape, jnp.float32)
    if len(parts[0]) == 1:
        zero = (jnp.zeros((), jnp.float32), _Matrix(None, no_bias))
        (loss, grad), each = add(zero, tuple(x[0] for x in parts))
    else:
        zero = (jnp.zeros((), jnp.float32), _Matrix(jnp.zeros(kernel_VD.shape, jnp.float32), no_bias))
        (loss, grad), each = jax.lax.scan(add, zero, parts)
    cross_entropy_BT = _unchunked(each[0], targets_BT.shape)
    d_hidden_BTD = _unchunked(each[1], hidden_BTD.shape)
    if axes.vocab:
        d_hidden_BTD = jax.lax.psum(d_hidden_BTD, axes.vocab)
    if axes.rows:
        loss = jax.lax.psum(loss, axes.rows)
        grad = _summed(grad, axes)
    return loss, cross_entropy_BT, (d_hidden_BTD, grad)


def _summed(grad: _Matrix, axes: _Axes) -> _Matrix:
    """The matrix's gradient summed over the rows of all devices; each keeps its part of the width."""
    rest = tuple(axis for axis in axes.rows if axis not in axes.embed)
    kernel, bias = grad
    if axes.embed:
        kernel = jax.lax.psum_scatter(kernel, axes.embed, scatter_dimension=1, tiled=True)
    if rest:
        kernel = jax.lax.psum(kernel, rest)
    return _Matrix(kernel, None if bias is None else jax.lax.psum(bias, axes.rows))


def _whole(how: _How, axes: _Axes, kernel_VD: jax.Array) -> jax.Array:
    """The matrix of a device's part of the vocabulary, whole in its width and in the compute dtype."""
    kernel_VD = kernel_VD.astype(how.dtype)
    return jax.lax.all_gather(kernel_VD, axes.embed, axis=1, tiled=True) if axes.embed else kernel_VD


def _logits(how: _How, hidden_ND: jax.Array, kernel_VD: jax.Array, bias_V: jax.Array | None) -> jax.Array:
    logits_NV = jnp.matmul(hidden_ND.astype(how.dtype), kernel_VD.T, preferred_element_type=jnp.float32)
    return logits_NV if bias_V is None else logits_NV + bias_V[None]


def _partition(
    logits_NV: jax.Array, targets_N: jax.Array, axes: _Axes
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Of each position over the whole vocabulary: highest logit, sum of exp beneath it, target's logit."""
    highest_N = jnp.max(logits_NV, axis=-1)
    if axes.vocab:
        highest_N = jax.lax.pmax(highest_N, axes.vocab)
    total_N = jnp.sum(jnp.exp(logits_NV - highest_N[:, None]), axis=-1)
    index_N = _target_index(targets_N, axes, logits_NV.shape[1])
    target_logit_N = jnp.take_along_axis(logits_NV, index_N[:, None], axis=1, mode="clip")[:, 0]
    if axes.vocab:
        is_here_N = (index_N >= 0) & (index_N < logits_NV.shape[1])
        target_logit_N = jnp.where(is_here_N, target_logit_N, 0.0)
        total_N, target_logit_N = jax.lax.psum((total_N, target_logit_N), axes.vocab)
    return highest_N, total_N, target_logit_N


def _first(axes: _Axes, size: int) -> jax.Array | int:
    """The first token of a device's part of the vocabulary."""
    return jax.lax.axis_index(axes.vocab) * size if axes.vocab else 0


def _target_index(targets_N: jax.Array, axes: _Axes, size: int) -> jax.Array:
    """Where targets stand in a device's part of the vocabulary; outside of it for those of others."""
    return targets_N - _first(axes, size)


def _chunks(how: _How, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    """[rows, positions, ...] -> [chunks, positions of a chunk, ...], the last one filled up with zeros."""
    count = arrays[1].size
    chunks = -(-count // how.chunk)
    size = -(-count // chunks)

    def cut(x: jax.Array) -> jax.Array:
        flat = x.reshape(count, *x.shape[2:])
        if chunks * size > count:
            flat = jnp.pad(flat, ((0, chunks * size - count), *((0, 0) for _ in x.shape[2:])))
        return flat.reshape(chunks, size, *x.shape[2:])

    return tuple(map(cut, arrays))


def _unchunked(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The inverse of `_chunks`, to [rows, positions, ...]."""
    count = shape[0] * shape[1]
    return x.reshape(-1, *shape[2:])[:count].reshape(shape)
