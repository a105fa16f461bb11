"""A forward pass whose activations can be read and replaced: to look inside, to ablate, to patch.

The numbers come from the blocks that training runs; the pass goes over the layers itself, so a program
without hooks has no trace of them.

Shapes: L layers, B batch, T query positions, S key positions, D embed, H heads, G key/value heads,
K head size; X any of them.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from icl.errors import InputError
from icl.model.attention import apply_pattern, attention_pattern
from icl.model.block import Block, make_context
from icl.model.config import ModelConfig
from icl.model.spans import Span
from icl.model.transformer import Params, embed, final_norm, unroll_of
from icl.parallel import Partitioner

Site = Literal["residual", "pattern", "values", "heads", "attention", "mlp"]
"""Where activations can be read, each [layers, batch, ...]:

`residual`   what enters a layer, [length, embed].
`pattern`    how heads attend, [heads, length, key length], float32: of the implementation `reference`, from
             queries and keys after their short convolution.
`values`     the values as attention reads them, [key length, kv heads, head size]; to read only.
`heads`      outputs of the heads before the output projection, [length, heads, head size].
`attention`  the output of attention, [length, embed], with the projection's bias.
`mlp`        the output of the MLP, [length, embed].
"""
SITES: tuple[Site, ...] = get_args(Site)
Reduce = Callable[[jax.Array], jax.Array]


class Edit(NamedTuple):
    """What goes on in place of the activations of a site: kept * own + added.

    Both have as many axes as the activations, [layers, batch, ...], each of their length or 1.
    """

    kept: jax.Array
    added: jax.Array

    def then(self, other: "Edit") -> "Edit":
        """Both edits, `other` of what this one leaves."""
        return Edit(self.kept * other.kept, self.added * other.kept + other.added)


class Hooked(NamedTuple):
    """What a pass gave.

    `hidden_BTD` is the residual stream after the last norm, as `icl.model.hidden_states` gives it, and
    `residual_BTD` before that norm. `activations` has each captured site, [layers, batch, ...].
    """

    hidden_BTD: jax.Array
    residual_BTD: jax.Array
    activations: dict[Site, jax.Array]


def run_with_hooks(
    config: ModelConfig,
    params: Params,
    inputs_BT: jax.Array,
    segments_BT: jax.Array,
    positions_BT: jax.Array,
    *,
    capture: Sequence[Site] | Mapping[Site, Reduce] = (),
    edits: Mapping[Site, Edit] | None = None,
    partitioner: Partitioner | None = None,
) -> Hooked:
    """Runs the model, reads activations and replaces some.

    Without edits the hidden states are those of `icl.model.hidden_states`. What is captured is what goes on,
    so after an edit. The outputs of an edited pattern are made with it; those of others stay with the
    configured implementation of attention.

    Args:
        config: the model.
        params: its parameters.
        inputs_BT: token ids [batch, length].
        segments_BT: segment of each position.
        positions_BT: position within the segment, from 0.
        capture: the sites to keep whole, or what to keep of each layer's activation [batch, ...].
        edits: what to replace, by site.
        partitioner: holds activations to their shards; None on one device.

    Raises:
        InputError: a site is unknown or cannot be edited, or an edit does not have the shape of its site.
    """
    kept = dict(capture) if isinstance(capture, Mapping) else dict.fromkeys(capture, _whole)
    edits = dict(edits or {})
    _check(config, kept, edits, *inputs_BT.shape)
    config = dataclasses.replace(config, remat="none")  # nothing to save for: there is no backward pass
    pattern = config.layer_pattern
    blocks = [Block(config, kind == "banded", partitioner) for kind in pattern]
    context = make_context(config, Span(segments_BT, positions_BT))

    def group(
        x_BTD: jax.Array, stack: tuple[Params, dict[Site, Edit]]
    ) -> tuple[jax.Array, dict[Site, jax.Array]]:
        read = []
        for i, block in enumerate(blocks):
            own, changes = jax.tree.map(lambda leaf, i=i: leaf[i], stack)
            taps = _Taps(kept, changes)
            x_BTD = taps("residual", x_BTD)
            x_BTD, _ = block.apply({"params": own}, x_BTD, context._replace(taps=taps), None)
            read.append(taps.read)
        return x_BTD, jax.tree.map(lambda *each: jnp.stack(each), *read)

    def by_period(leaf: jax.Array) -> jax.Array:
        return leaf.reshape(config.num_layers // len(pattern), len(pattern), *leaf.shape[1:])

    of_layers = jax.tree.map(lambda leaf: _to_layers(config, leaf), edits)
    xs = jax.tree.map(by_period, (params["layers"], of_layers))
    x_BTD = embed(config, params, inputs_BT, positions_BT, partitioner)
    x_BTD, read = jax.lax.scan(group, x_BTD, xs, unroll=unroll_of(config, partitioner))
    activations = jax.tree.map(lambda leaf: leaf.reshape(config.num_layers, *leaf.shape[2:]), read)
    return Hooked(final_norm(config, params, x_BTD), x_BTD, activations)


def whole_rows(config: ModelConfig, inputs_BT: ArrayLike) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Inputs, segments and positions of rows that are one segment each.

    Raises:
        InputError: the rows are longer than the learned positions.
    """
    inputs_BT = jnp.asarray(inputs_BT)
    length = inputs_BT.shape[1]
    if config.positions == "learned" and length > config.max_length:
        raise InputError(f"rows of {length} tokens: the model was made for {config.max_length}")
    positions_BT = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32)[None], inputs_BT.shape)
    return inputs_BT, jnp.ones_like(positions_BT), positions_BT


def patch(values: jax.Array, where: jax.Array) -> Edit:
    """Puts `values` where `where` is true; both [layers, batch, ...], each axis of full length or 1."""
    return Edit(1.0 - where.astype(jnp.float32), jnp.where(where, values, 0).astype(jnp.float32))


def add(values: jax.Array) -> Edit:
    """Adds `values`, [layers, batch, ...], each axis of full length or 1."""
    return Edit(jnp.ones((1,) * values.ndim, jnp.float32), values.astype(jnp.float32))


def ablate_heads(heads_LH: jax.Array, means_LHK: jax.Array | None = None) -> Edit:
    """An edit of `heads` that takes some away everywhere.

    Args:
        heads_LH: true for those to ablate, [layers, heads].
        means_LHK: what they put out instead, [layers, heads, head size]; None for zeros.
    """
    where = heads_LH[:, None, None, :, None]
    values = jnp.zeros((1, 1, 1, 1, 1)) if means_LHK is None else means_LHK[:, None, None]
    return patch(values, where)


def only(config: ModelConfig, heads: Sequence[tuple[int, int]]) -> jax.Array:
    """True for these heads, given as (layer, head): bool [layers, heads].

    Raises:
        InputError: the model has no such head.
    """
    heads_LH = jnp.zeros((config.num_layers, config.num_heads), bool)
    for layer, head in heads:
        if not (0 <= layer < config.num_layers and 0 <= head < config.num_heads):
            raise InputError(
                f"head ({layer}, {head}): expected a layer below {config.num_layers} and a head below"
                f" {config.num_heads}"
            )
        heads_LH = heads_LH.at[layer, head].set(True)
    return heads_LH


def written_by_heads(config: ModelConfig, params: Params, heads_LXHK: jax.Array) -> jax.Array:
    """What each head adds to the residual stream, float32 [layers, ..., heads, embed].

    Attention's output is their sum, and the projection's bias, which is no head's.
    """
    kernel = params["layers"]["attention"]["out"]["kernel"]
    kernel_LHKD = kernel.reshape(config.num_layers, config.num_heads, config.size_per_head, -1)
    return jnp.einsum("l...hk,lhkd->l...hd", heads_LXHK.astype(jnp.float32), kernel_LHKD)


class _Taps:
    """Reads and replaces the activations of one layer while its block is traced."""

    def __init__(self, kept: Mapping[Site, Reduce], edits: Mapping[Site, Edit]) -> None:
        self._kept = kept
        self._edits = edits
        self.read: dict[Site, jax.Array] = {}

    def __call__(self, site: Site, value: jax.Array) -> jax.Array:
        edit = self._edits.get(site)
        if edit is not None:
            value = (edit.kept * value.astype(jnp.float32) + edit.added).astype(value.dtype)
        if site in self._kept:
            self.read[site] = self._kept[site](value)
        return value

    def attend(
        self,
        o_BTHK: jax.Array,
        q_BTHK: jax.Array,
        k_BGSK: jax.Array,
        v_BGSK: jax.Array,
        seen_BTS: jax.Array,
    ) -> jax.Array:
        self("values", v_BGSK.transpose(0, 2, 1, 3))
        if "pattern" in self._kept or "pattern" in self._edits:
            pattern_BHTS = self("pattern", attention_pattern(q_BTHK, k_BGSK, seen_BTS))
            if "pattern" in self._edits:
                o_BTHK = apply_pattern(pattern_BHTS, v_BGSK).astype(o_BTHK.dtype)
        return self("heads", o_BTHK)


def _whole(value: jax.Array) -> jax.Array:
    return value


def _to_layers(config: ModelConfig, leaf: jax.Array) -> jax.Array:
    return jnp.broadcast_to(leaf, (config.num_layers, *leaf.shape[1:]))


def _check(
    config: ModelConfig, kept: Mapping[Site, Reduce], edits: Mapping[Site, Edit], batch: int, length: int
) -> None:
    for site in [*kept, *edits]:
        if site not in SITES:
            raise InputError(f"site {site!r}: expected one of {', '.join(SITES)}")
    if "values" in edits:
        raise InputError("an edit of 'values': expected one of 'pattern' or 'heads', which follow from them")
    heads, embedding = (config.num_heads, config.size_per_head), (length, config.embed_dim)
    shapes = {"pattern": (heads[0], length, length), "heads": (length, *heads)}
    for site, edit in edits.items():
        full = (config.num_layers, batch, *shapes.get(site, embedding))
        for name, array in edit._asdict().items():
            fits = array.ndim == len(full) and all(
                n in (1, m) for n, m in zip(array.shape, full, strict=False)
            )
            if not fits:
                raise InputError(
                    f"an edit of {site!r}: {name} has shape {array.shape}, expected {full}, each axis of that"
                    " length or 1"
                )
