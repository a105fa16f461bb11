"""Attention on accelerators by fused kernels: splash on a TPU, cuDNN on a GPU; whole rows, no KV cache.

Each device attends for its rows and heads under `shard_map`. Where rows are split over devices, splash keeps
its part of the queries and gathers keys and values. Positions within a segment are contiguous, so a mask
by buffer index within a segment is the mask by logical position.

Shapes: B batch, T positions, H heads, G key/value heads, K head size.
"""

import math
from collections.abc import Callable
from typing import Literal, cast

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jax.sharding import NamedSharding, PartitionSpec

from icl.parallel import Partitioner, platform_of

LANES = 128
BLOCKS = (512, 256, LANES)
SAVED_NAME = "attention"
_PADDING = -1


def splash_attention(
    q_BTHK: jax.Array,
    k_BGTK: jax.Array,
    v_BGTK: jax.Array,
    segments_BT: jax.Array,
    *,
    band: int | None,
    partitioner: Partitioner | None,
) -> jax.Array:
    """Causal attention within segments by the splash kernel (Pallas), interpreted where the mesh is of CPUs.

    Output and log-sum-exp bear the name `attention`, so a remat policy that saves it runs the kernel once.

    Args:
        q_BTHK: queries [batch, length, heads, head size].
        k_BGTK: keys [batch, kv heads, length, head size].
        v_BGTK: values, as the keys.
        segments_BT: segment of each position, int32.
        band: how many positions, itself included, a query sees back; None sees all.
        partitioner: the mesh; None on one device.

    Returns:
        [batch, length, heads, head size] in the dtype of the queries.
    """
    length, heads, size = q_BTHK.shape[1:]
    shards = _devices(partitioner, "length")
    padded = -(-length // (LANES * shards)) * LANES * shards
    q_BHTK = _padded((q_BTHK * size**-0.5).transpose(0, 2, 1, 3), padded, axis=2)
    k_BGTK, v_BGTK = (_padded(x, padded, axis=2) for x in (k_BGTK, v_BGTK))
    segments_BT = _padded(segments_BT, padded, axis=1, value=_PADDING)
    kernel = _kernel(padded, heads // _devices(partitioner, "heads"), band, shards, partitioner)

    def attend(kernel: splash.SplashAttentionKernel, *arrays: jax.Array) -> jax.Array:
        q_BHTK, k_BGTK, v_BGTK, queries_BT, keys_BT = arrays
        segments = splash.SegmentIds(queries_BT, keys_BT)
        return cast(jax.Array, jax.vmap(kernel)(q_BHTK, k_BGTK, v_BGTK, segments))

    if partitioner is None:
        o_BHTK = attend(kernel, q_BHTK, k_BGTK, v_BGTK, segments_BT, segments_BT)
    else:
        queries = partitioner.spec(("batch", "heads", "length", None))
        keys = partitioner.spec(("batch", "kv_heads", None, None))
        rows = NamedSharding(partitioner.mesh, PartitionSpec(None, queries[2]))
        o_BHTK = jax.shard_map(
            attend,
            mesh=partitioner.mesh,
            in_specs=(
                *(kernel.manual_sharding_spec(rows), queries, keys, keys),
                *(PartitionSpec(queries[0], queries[2]), PartitionSpec(queries[0], None)),
            ),
            out_specs=queries,
            check_vma=False,
        )(kernel, q_BHTK, k_BGTK, v_BGTK, segments_BT, segments_BT)
    return o_BHTK[:, :, :length].transpose(0, 2, 1, 3)


def cudnn_attention(
    q_BTHK: jax.Array,
    k_BGTK: jax.Array,
    v_BGTK: jax.Array,
    seen_BTS: jax.Array,
    *,
    partitioner: Partitioner | None,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> jax.Array:
    """Attention by cuDNN's fused kernel; arguments as `splash_attention`, with who sees whom as a mask."""

    def attend(q_BTHK: jax.Array, k_BGTK: jax.Array, v_BGTK: jax.Array, seen_BTS: jax.Array) -> jax.Array:
        k_BTGK, v_BTGK = (x.transpose(0, 2, 1, 3) for x in (k_BGTK, v_BGTK))
        o_BTHK: jax.Array = jax.nn.dot_product_attention(
            q_BTHK, k_BTGK, v_BTGK, mask=seen_BTS[:, None], implementation=implementation
        )
        return o_BTHK

    if partitioner is None:
        return attend(q_BTHK, k_BGTK, v_BGTK, seen_BTS)
    queries = partitioner.spec(("batch", None, "heads", None))
    keys = partitioner.spec(("batch", "kv_heads", None, None))
    seen = PartitionSpec(queries[0], None, None)
    mapped: Callable[..., jax.Array] = jax.shard_map(
        attend,
        mesh=partitioner.mesh,
        in_specs=(queries, keys, keys, seen),
        out_specs=queries,
        check_vma=False,
    )
    return mapped(q_BTHK, k_BGTK, v_BGTK, seen_BTS)


def _kernel(
    length: int, heads: int, band: int | None, shards: int, partitioner: Partitioner | None
) -> splash.SplashAttentionKernel:
    """The kernel for a device's heads; its masks are of whole rows, cut in `shards` over the queries."""
    shape = (length, length)
    if band is None:
        mask: masks.Mask = masks.CausalMask(shape, shard_count=shards)
    else:
        mask = masks.LocalMask(shape, (band - 1, 0), 0, shard_count=shards)
    block = next(block for block in BLOCKS if length // shards % block == 0)
    return splash.make_splash_mha(
        masks.MultiHeadMask([mask] * heads),
        block_sizes=splash.BlockSizes(
            block_q=block,
            block_kv=block,
            block_q_dkv=block,
            block_kv_dkv=block,
            block_q_dq=block,
            block_kv_dq=block,
        ),
        head_shards=1,
        q_seq_shards=shards,
        residual_checkpoint_name=SAVED_NAME,
        interpret=platform_of(partitioner) == "cpu",
    )


def _devices(partitioner: Partitioner | None, logical: str) -> int:
    """Devices over which a logical axis is split."""
    if partitioner is None:
        return 1
    sizes = partitioner.axis_sizes()
    return math.prod(sizes[axis] for axis in partitioner.rules.mesh_axes(logical))


def _padded(x: jax.Array, length: int, axis: int, value: int = 0) -> jax.Array:
    missing = length - x.shape[axis]
    if not missing:
        return x
    widths = [(0, missing if i == axis else 0) for i in range(x.ndim)]
    return jnp.pad(x, widths, constant_values=value)
