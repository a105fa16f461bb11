"""One transformer block: attention and MLP, sequential or parallel, with or without a KV cache.

Shapes: B batch, T positions, S cache positions, D embed, H heads, G key/value heads, K head size,
E = (H + 2 G) K, the queries, keys and values of a position side by side.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from icl.model.attention import Implementation, attend, attend_beyond
from icl.model.config import ModelConfig
from icl.model.kernels import SAVED_NAME
from icl.model.layers import (
    MLP,
    Initializer,
    Norm,
    Projection,
    convolve,
    kernel_initializer,
    project,
    rotary_angles,
    rotate,
)
from icl.model.spans import Span, visible
from icl.model.taps import Output, Taps
from icl.parallel import Partitioner, platform_of

Angles = tuple[jax.Array, jax.Array]


class LayerCache(NamedTuple):
    """What one layer keeps of the past; buffers of its own, in which a chunk is written in place.

    `k_BGSK`, `v_BGSK`: keys and values as attention sees them. `inputs_BSE`: queries, keys and values before
    the short convolution (last axis 0 without one), all of them, so that a cache can be cut anywhere.
    """

    k_BGSK: jax.Array
    v_BGSK: jax.Array
    inputs_BSE: jax.Array


class Context(NamedTuple):
    """What all blocks share: spans of queries and keys, rotary angles, and where to append in a cache.

    `at_BA` is for the last block alone: the positions whose output is wanted. Keys and values come from all.
    Without a cache, or with an empty one, `offset_B` is None: the i-th key stands where the i-th query does.
    `shared` is what the layer keeps of a beginning that all rows have in common, and `shared_keys` says with
    which of its positions each row begins (segment 1).
    `taps` reads and changes activations on their way; None adds nothing to the program.
    """

    queries: Span
    keys: Span
    angles: Angles | None
    offset_B: jax.Array | None
    at_BA: jax.Array | None = None
    shared: LayerCache | None = None
    shared_keys: Span | None = None
    taps: Taps | None = None

    def tap(self, site: Output, value: jax.Array) -> jax.Array:
        """What goes on in place of an output: itself, where nothing taps it."""
        return value if self.taps is None else self.taps(site, value)


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
        mixed, cache = self._queries_keys_values(x_BTD, context, cache)
        q, k, v = (
            self._constrain(x.reshape(batch, length, -1, size), axis)
            for x, axis in zip(mixed, ("heads", "kv_heads", "kv_heads"), strict=True)
        )
        if config.qk_norm:
            q, k = Norm(config, name="query_norm")(q), Norm(config, name="key_norm")(k)
        if context.angles is not None:
            q, k = rotate(q, context.angles), rotate(k, context.angles)
        k, v = k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)
        if cache is not None:
            k = append(cache.k_BGSK, k, context.offset_B, axis=2)
            v = append(cache.v_BGSK, v, context.offset_B, axis=2)
            cache = cache._replace(k_BGSK=k, v_BGSK=v)
        queries = context.queries
        implementation = attention_of(config, self.partitioner)
        fused = implementation in ("splash", "cudnn") and context.offset_B is None
        if context.at_BA is not None and not fused:
            q = take(q, context.at_BA)
            queries = Span(*(take(x_BT, context.at_BA) for x_BT in queries))
        aligned = context.offset_B is None and (fused or context.at_BA is None)
        band = config.band_width if self.banded else None
        if context.shared is not None and context.shared_keys is not None:
            o_BTHK = attend_beyond(
                q,
                context.shared.k_BGSK[0],
                context.shared.v_BGSK[0],
                k,
                v,
                queries=queries,
                shared_keys=context.shared_keys,
                keys=context.keys,
                band=band,
            )
        else:
            o_BTHK = attend(
                q,
                k,
                v,
                queries=queries,
                keys=context.keys,
                band=band,
                implementation=implementation,
                aligned=aligned,
                partitioner=self.partitioner,
            )
        if context.taps is not None:
            o_BTHK = context.taps.attend(o_BTHK, q, k, v, visible(queries, context.keys, band))
        if context.at_BA is not None and fused:
            o_BTHK = take(o_BTHK, context.at_BA)
        o_BTE = o_BTHK.reshape(batch, o_BTHK.shape[1], -1)
        if self.partitioner is not None:
            # Or XLA takes heads apart in the projection's gradient too, and sums it instead of scattering it.
            o_BTE = self.partitioner.constrain(o_BTE, ("batch", "length", "heads"))
        if implementation not in ("splash", "blocked") or not aligned:
            # Those two name what their backward passes need themselves.
            o_BTE = checkpoint_name(o_BTE, SAVED_NAME)
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
    ) -> tuple[list[jax.Array], LayerCache | None]:
        """Queries, keys and values, flat over heads; what goes into the short convolution is cached.

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
        if self._heads_are_whole():
            parts = [jax.tree.map(lambda *arrays: jnp.concatenate(arrays, axis=-1), *parts)]
        raws = [project(x_BTD, weights, dtype) for weights in parts]
        pasts: list[jax.Array | None] = [None] * len(parts)
        if conv and cache is not None:
            # Written before it is read: the other order would make XLA copy the buffer.
            inputs = append(cache.inputs_BSE, jnp.concatenate(raws, axis=-1), context.offset_B, axis=1)
            cache = cache._replace(inputs_BSE=inputs)
            if context.offset_B is not None:
                past = last(inputs, context.offset_B, conv - 1)
                if context.shared is not None and context.shared_keys is not None:
                    starts_B = context.shared_keys.segments_BT.sum(axis=1)
                    before = last(context.shared.inputs_BSE, starts_B + context.offset_B, conv - 1)
                    is_own_BW = context.offset_B[:, None] > jnp.arange(conv - 1, 0, -1)[None] - 1
                    past = jnp.where(is_own_BW[..., None], past, before)
                pasts = [past] if len(parts) == 1 else list(jnp.split(past, ends, axis=-1))
        mixed = [
            raw
            if weights.convolution is None
            else convolve(raw, weights.convolution, context.queries.positions_BT, past)
            for raw, weights, past in zip(raws, parts, pasts, strict=True)
        ]
        return list(jnp.split(mixed[0], ends, axis=-1)) if len(parts) == 1 else mixed, cache

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
        attended = context.tap("attention", attended)
        if context.at_BA is not None:
            x_BTD = take(x_BTD, context.at_BA)
        if config.residual == "parallel":
            x_BTD = x_BTD + attended + context.tap("mlp", mlp(Norm(config, name="mlp_norm")(x_BTD)))
        else:
            x_BTD = x_BTD + attended
            x_BTD = x_BTD + context.tap("mlp", mlp(Norm(config, name="mlp_norm")(x_BTD)))
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
    """The attention that a configuration means on a mesh.

    `auto` is `splash` on a TPU; `cudnn` on a GPU in bfloat16 and `blocked` on a CPU, with whole rows; else
    `reference`.
    """
    if config.attention != "auto":
        return config.attention
    platform = platform_of(partitioner)
    if platform == "tpu":
        return "splash"
    if partitioner is not None and partitioner.axis_sizes()["sequence"] > 1:
        return "reference"
    if platform == "cpu":
        return "blocked"
    return "cudnn" if config.compute_dtype == "bfloat16" else "reference"


def take(x_BTX: jax.Array, at_BA: jax.Array) -> jax.Array:
    """The entries of each row at its positions: [batch, length, ...] -> [batch, positions, ...]."""
    index = at_BA.reshape(at_BA.shape + (1,) * (x_BTX.ndim - 2))
    return jnp.take_along_axis(x_BTX, index, axis=1)


def append(old: jax.Array, new: jax.Array, offset_B: jax.Array | None, axis: int) -> jax.Array:
    """Writes a chunk of each row, along `axis`, at its offset (None: 0); the caller leaves room for it."""
    if offset_B is None:
        return jax.lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), 0, axis)
    starts_B2 = jnp.stack([jnp.arange(len(offset_B)), offset_B], axis=1)
    return jax.lax.scatter(
        old,
        starts_B2,
        new.astype(old.dtype),
        jax.lax.ScatterDimensionNumbers(
            update_window_dims=tuple(range(1, new.ndim)),
            inserted_window_dims=(0,),
            scatter_dims_to_operand_dims=(0, axis),
        ),
        indices_are_sorted=True,
        unique_indices=True,
        mode=jax.lax.GatherScatterMode.CLIP,
    )


def last(inputs_BSE: jax.Array, offset_B: jax.Array, count: int) -> jax.Array:
    """The `count` inputs before each row's offset, [batch, count, width]; zeros before the start.

    Of a single row of inputs where all rows have the same.
    """
    inputs_BSE = jnp.broadcast_to(inputs_BSE, (len(offset_B), *inputs_BSE.shape[1:]))
    index_BW = offset_B[:, None] - count + jnp.arange(count)[None]
    taken = jnp.take_along_axis(inputs_BSE, jnp.maximum(index_BW, 0)[..., None], axis=1)
    return jnp.where((index_BW >= 0)[..., None], taken, 0)
