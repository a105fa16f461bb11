"""The decoder-only transformer: initialisation, forward pass, and its size and cost.

A Flax Linen `Block` declares the parameters of a layer; here layers are stacked on a leading axis and
scanned, whatever the configuration, so a checkpoint does not depend on how it is run.

Shapes: B batch, T positions, D embed, V vocab, L layers.
"""

import functools
from collections.abc import Sequence
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from icl.errors import InputError
from icl.model.block import Block, Context, LayerCache, make_context
from icl.model.config import ModelConfig
from icl.model.layers import Norm, broadcast, declare, kernel_initializer
from icl.model.spans import Span
from icl.parallel import Partitioner, platform_of

Params = dict[str, Any]
SAVED_NAMES = ("attention", "mlp_up")


class Embedding(nn.Module):
    """Token table, and position table where positions are learned."""

    config: ModelConfig

    @nn.compact
    def __call__(self) -> dict[str, jax.Array]:
        config, init = self.config, nn.initializers.normal(self.config.embedding_init_std)
        tables = {
            "tokens": declare(self, "tokens", init, (config.vocab_size, config.embed_dim), ("vocab", "embed"))
        }
        if config.positions == "learned":
            shape = (config.max_length, config.embed_dim)
            tables["positions"] = declare(self, "positions", init, shape, (None, "embed"))
        return tables


class Head(nn.Module):
    """The untied output projection."""

    config: ModelConfig

    @nn.compact
    def __call__(self) -> dict[str, jax.Array]:
        config, init = self.config, kernel_initializer(self.config)
        tables = {
            "kernel": declare(self, "kernel", init, (config.embed_dim, config.vocab_size), ("embed", "vocab"))
        }
        if config.head_bias:
            tables["bias"] = declare(self, "bias", nn.initializers.zeros, (config.vocab_size,), ("vocab",))
        return tables


def _boxed_params(config: ModelConfig, key: jax.Array) -> Params:
    """Parameters still boxed with their logical axes."""
    if config.vocab_size < 1:
        raise InputError("ModelConfig.vocab_size = 0: expected the size of the tokenizer's vocabulary")
    embed_key, layer_key, head_key, norm_key = jax.random.split(key, 4)
    params = {"embedding": Embedding(config).init(embed_key)["params"]}
    params |= boxed_layers(config, layer_key, norm_key)
    if not config.tied_head:
        params["head"] = Head(config).init(head_key)["params"]
    return params


def boxed_layers(config: ModelConfig, layer_key: jax.Array, norm_key: jax.Array) -> Params:
    """The stacked layers and the norm after them, boxed with their logical axes; no table or head."""
    x_BTD = jnp.zeros((1, 1, config.embed_dim), jnp.dtype(config.compute_dtype))
    zeros_BT = jnp.zeros((1, 1), jnp.int32)
    context = make_context(config, Span(zeros_BT, zeros_BT))

    def layer(layer_key: jax.Array) -> Params:
        return Block(config).init(layer_key, x_BTD, context)["params"]

    stacked = jax.vmap(layer)(jax.random.split(layer_key, config.num_layers))
    return {
        "layers": jax.tree.map(
            lambda box: box.add_axis(0, {nn.PARTITION_NAME: "layers"}), stacked, is_leaf=is_box
        ),
        "final_norm": Norm(config).init(norm_key, x_BTD)["params"],
    }


def is_box(x: Any) -> bool:
    """Whether a node of a tree is a parameter with its logical axes."""
    return isinstance(x, nn.LogicallyPartitioned)


def init_params(config: ModelConfig, key: jax.Array) -> Params:
    """Fresh float32 parameters, a nested dict; arrays of layers are stacked on axis 0."""
    return nn.unbox(_boxed_params(config, key))


def abstract_params(config: ModelConfig) -> Params:
    """Shapes and dtypes of the parameters, without making them."""
    return jax.eval_shape(functools.partial(init_params, config), jax.random.key(0))


def logical_axes(config: ModelConfig) -> Params:
    """Logical axis names of every parameter: the tree of `init_params` with tuples for leaves."""
    boxed = jax.eval_shape(functools.partial(_boxed_params, config), jax.random.key(0))
    return jax.tree.map(lambda box: tuple(box.names), boxed, is_leaf=is_box)


def init_sharded(config: ModelConfig, key: jax.Array, partitioner: Partitioner) -> Params:
    """Fresh parameters that are born in their shards: no device ever holds more than its part."""
    shardings = param_shardings(config, partitioner)
    return jax.jit(functools.partial(init_params, config), out_shardings=shardings)(key)


def param_shardings(config: ModelConfig, partitioner: Partitioner | None) -> Any:
    """Where each parameter belongs on a mesh; None without one. Raises InputError as `check_mesh` does."""
    if partitioner is None:
        return None
    check_mesh(config, partitioner)
    return partitioner.tree_shardings(logical_axes(config), abstract_params(config))


def check_mesh(config: ModelConfig, partitioner: Partitioner) -> None:
    """Raises InputError where heads, whose flat axis would divide anyway, would be cut in pieces."""
    sizes = partitioner.axis_sizes()
    if config.attention == "cudnn" and sizes["sequence"] > 1:
        raise InputError(
            f"MeshConfig.sequence = {sizes['sequence']}: expected 1 with ModelConfig.attention = 'cudnn'"
        )
    for field, logical, count in (
        ("num_heads", "heads", config.num_heads),
        ("num_kv_heads", "kv_heads", config.kv_heads),
    ):
        for axis in partitioner.rules.mesh_axes(logical):
            if count % sizes[axis]:
                raise InputError(
                    f"ModelConfig.{field} = {count}: expected a multiple of the {sizes[axis]} devices "
                    f"of mesh axis '{axis}'"
                )


def hidden_states(
    config: ModelConfig,
    params: Params,
    inputs_BT: jax.Array,
    segments_BT: jax.Array,
    positions_BT: jax.Array,
    partitioner: Partitioner | None = None,
    at_BA: jax.Array | None = None,
) -> jax.Array:
    """The residual stream after the last norm, [batch, length, embed], in the compute dtype.

    With `at_BA` only at those positions, [batch, positions, embed]: the last layer then does no more.

    Args:
        config: the model.
        params: its parameters.
        inputs_BT: token ids [batch, length].
        segments_BT: segment of each position; no position sees another segment.
        positions_BT: position within the segment, from 0.
        partitioner: holds activations to their shards; None on one device.
        at_BA: the positions of each row whose output is wanted; None for all.
    """
    context = make_context(config, Span(segments_BT, positions_BT))._replace(at_BA=at_BA)
    x_BTD = embed(config, params, inputs_BT, positions_BT, partitioner)
    x_BTD = apply_layers(config, params["layers"], x_BTD, context, partitioner)
    return final_norm(config, params, x_BTD)


def final_norm(config: ModelConfig, params: Params, x_BTD: jax.Array) -> jax.Array:
    """The norm before the output projection; shape and dtype stay."""
    return cast(jax.Array, Norm(config).apply({"params": params["final_norm"]}, x_BTD))


def logits(
    config: ModelConfig,
    params: Params,
    inputs_BT: jax.Array,
    segments_BT: jax.Array,
    positions_BT: jax.Array,
    partitioner: Partitioner | None = None,
) -> jax.Array:
    """Next-token logits, float32 [batch, length, vocab]; arguments as `hidden_states`."""
    x_BTD = hidden_states(config, params, inputs_BT, segments_BT, positions_BT, partitioner)
    logits_BTV = unembed(config, params, x_BTD)
    if partitioner is not None:
        logits_BTV = partitioner.constrain(logits_BTV, ("batch", "length", "vocab"))
    return logits_BTV


def unembed(config: ModelConfig, params: Params, x_XD: jax.Array) -> jax.Array:
    """Logits [..., vocab] in float32 of final hidden states [..., embed]."""
    dtype = jnp.dtype(config.compute_dtype)
    kernel = params["embedding"]["tokens"].T if config.tied_head else params["head"]["kernel"]
    y_XV = jnp.matmul(x_XD.astype(dtype), kernel.astype(dtype), preferred_element_type=jnp.float32)
    if config.head_bias:
        y_XV = y_XV + broadcast(params["head"]["bias"], y_XV)
    return y_XV


@jax.named_scope("embedding")
def embed(
    config: ModelConfig,
    params: Params,
    inputs_BT: jax.Array,
    positions_BT: jax.Array,
    partitioner: Partitioner | None,
) -> jax.Array:
    """Token (and learned position) embeddings [batch, length, embed] in the compute dtype."""
    tables = params["embedding"]
    if partitioner is not None:
        # Gathered over fsdp before the look-up: a gather from a table cut along the embedding would have
        # to be resharded from embedding to batch, which XLA does by replicating it.
        tables = {
            "tokens": partitioner.constrain(tables["tokens"], ("vocab", None)),
            **{k: partitioner.constrain(v, (None, None)) for k, v in tables.items() if k != "tokens"},
        }
    x_BTD = jnp.take(tables["tokens"], inputs_BT, axis=0)
    if config.positions == "learned":
        x_BTD = x_BTD + jnp.take(tables["positions"], positions_BT, axis=0)
    x_BTD = x_BTD.astype(config.compute_dtype)
    if partitioner is not None:
        x_BTD = partitioner.constrain(x_BTD, ("batch", "length", "activation"))
    return x_BTD


def apply_layers(
    config: ModelConfig,
    stacked: Params,
    x_BTD: jax.Array,
    context: Context,
    partitioner: Partitioner | None,
) -> jax.Array:
    """Scans the layers, one period of `layer_pattern` a step.

    Where only some positions are wanted, the last period stands outside the scan.
    """
    pattern = config.layer_pattern
    applies = [_rematerialised(config, block, partitioner) for block in _blocks(config, partitioner)]

    def group(x_BTD: jax.Array, stack: Params, at_BA: jax.Array | None = None) -> tuple[jax.Array, None]:
        for i, apply in enumerate(applies):
            params = jax.tree.map(lambda leaf, i=i: leaf[i], stack)
            own = context._replace(at_BA=at_BA if i == len(pattern) - 1 else None)
            x_BTD, _ = apply({"params": params}, x_BTD, own, None)
        return x_BTD, None

    xs = jax.tree.map(
        lambda leaf: leaf.reshape(config.num_layers // len(pattern), len(pattern), *leaf.shape[1:]), stacked
    )
    if context.at_BA is None:
        return jax.lax.scan(group, x_BTD, xs, unroll=unroll_of(config, partitioner))[0]
    before, last = (jax.tree.map(lambda leaf, part=part: leaf[part], xs) for part in (slice(-1), -1))
    x_BTD, _ = jax.lax.scan(group, x_BTD, before, unroll=unroll_of(config, partitioner))
    return group(x_BTD, last, context.at_BA)[0]


def apply_cached_layers(
    config: ModelConfig,
    stacked: Params,
    x_BTD: jax.Array,
    context: Context,
    caches: Sequence[LayerCache],
    partitioner: Partitioner | None,
    shared: Sequence[LayerCache] = (),
) -> tuple[jax.Array, tuple[LayerCache, ...]]:
    """Applies the layers one by one, each to a cache of its own.

    Not a scan: that would copy every layer's cache for every token, several times the work of decoding it.
    """
    blocks = _blocks(config, partitioner)
    updated: list[LayerCache] = []
    for i, cache in enumerate(caches):
        params = jax.tree.map(lambda leaf, i=i: leaf[i], stacked)
        block: Any = blocks[i % len(blocks)]
        own = context._replace(shared=shared[i]) if shared else context
        x_BTD, new_cache = block.apply({"params": params}, x_BTD, own, cache)
        updated.append(new_cache)
    return x_BTD, tuple(updated)


def _blocks(config: ModelConfig, partitioner: Partitioner | None) -> list[Block]:
    """The blocks of one period of the pattern."""
    return [Block(config, kind == "banded", partitioner) for kind in config.layer_pattern]


def _rematerialised(config: ModelConfig, block: Block, partitioner: Partitioner | None) -> Any:
    if config.remat == "none":
        return block.apply
    policy = None
    if config.remat == "names":
        policy = jax.checkpoint_policies.save_only_these_names(*SAVED_NAMES)
    return jax.checkpoint(block.apply, policy=policy, prevent_cse=unroll_of(config, partitioner) > 1)


def unroll_of(config: ModelConfig, partitioner: Partitioner | None) -> int:
    """Scan steps unrolled: the setting; 0 unrolls up to 16 on a CPU, where a loop halves the speed."""
    steps = config.num_layers // len(config.layer_pattern)
    if config.scan_unroll:
        return min(config.scan_unroll, steps)
    return steps if platform_of(partitioner) == "cpu" and steps <= 16 else 1


def num_params(config: ModelConfig) -> int:
    """Number of all parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(abstract_params(config)))


def num_non_embedding_params(config: ModelConfig) -> int:
    """Parameters without tables of tokens and positions and an untied head (Kaplan et al. 2020, table 1)."""
    key = jax.random.key(0)
    params = jax.eval_shape(functools.partial(boxed_layers, config), key, key)
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def flops_per_token(config: ModelConfig, length: int) -> float:
    """Model FLOPs, forward and backward, of training on one token in rows of `length`.

    6 N for the matmuls (N with the output projection, without look-ups) and 12 L H K T for attention scores
    and values, the causal half not discounted (PaLM, arXiv 2204.02311, appendix B). A banded layer counts its
    band. Recomputation is not counted.
    """
    matmul_params = num_non_embedding_params(config) + config.vocab_size * config.embed_dim
    per_layer = 12 * config.num_heads * config.size_per_head
    repeats = config.num_layers // len(config.layer_pattern)
    seen = sum(
        min(length, config.band_width) if kind == "banded" else length for kind in config.layer_pattern
    )
    return 6.0 * matmul_params + float(per_layer * seen * repeats)
