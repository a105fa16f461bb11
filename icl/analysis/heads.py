"""What attention heads do on repeated random tokens: prefix matching, copying, previous token.

The evaluators of Olsson et al. 2022 (arXiv 2209.11895, "Head activation evaluators"). A head that matches
prefixes and copies is an induction head.

Shapes: L layers, B samples, T query positions, S key positions, D embed, H heads, G key/value heads,
K head size, V vocab, N tokens of a sample.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from icl.analysis.hooks import run_with_hooks, whole_rows, written_by_heads
from icl.data.batch import Batch
from icl.data.keys import generator
from icl.errors import InputError
from icl.model.config import ModelConfig
from icl.model.transformer import Params

LENGTH, REPEATS, SAMPLES = 25, 4, 10
"""Those of Olsson et al."""


class RepeatedTokens(NamedTuple):
    """Random tokens that repeat: `inputs_BT` is the start token, and `length` tokens `repeats` times."""

    inputs_BT: np.ndarray
    length: int
    repeats: int


class HeadScores(NamedTuple):
    """Scores of every head, float32 [layers, heads].

    `prefix_matching` and `previous_token` lie in 0..1, `copying` in -1..1.
    """

    prefix_matching: np.ndarray
    copying: np.ndarray
    previous_token: np.ndarray


def usual_tokens(counts_V: ArrayLike, left_out: float = 0.1) -> np.ndarray:
    """Token ids that occur, without the most and the least common of them.

    Args:
        counts_V: how often each token of the vocabulary occurs in the training data.
        left_out: the share of the tokens that occur to leave out at each end, below 0.5.

    Raises:
        InputError: that leaves none.
    """
    counts_V = np.asarray(counts_V)
    ids = np.argsort(counts_V, kind="stable")
    ids = ids[counts_V[ids] > 0]
    end = round(left_out * len(ids))
    if not 0 <= left_out < 0.5 or end * 2 >= len(ids):
        raise InputError(
            f"usual tokens: {left_out} of {len(ids)} tokens left out at each end; expected less than half"
        )
    return np.sort(ids[end : len(ids) - end])


def repeated_tokens(
    tokens: Sequence[int] | np.ndarray,
    start_id: int,
    *,
    length: int = LENGTH,
    repeats: int = REPEATS,
    samples: int = SAMPLES,
    seed: int = 0,
) -> RepeatedTokens:
    """Sequences of different random tokens, each repeated, after the start token.

    Args:
        tokens: ids to draw from (`usual_tokens`).
        start_id: the tokenizer's start token.
        length: tokens before they repeat; a token stands once among them, so that what went before is plain.
        repeats: how often the sequence stands.
        samples: how many sequences.
        seed: decides which.

    Raises:
        InputError: there are fewer than `length` tokens to draw from.
    """
    tokens = np.asarray(tokens, np.int32)
    if len(tokens) < length:
        raise InputError(f"repeated tokens: {len(tokens)} to draw from; expected at least {length}")
    rng = generator("repeated tokens", seed)
    rows = [np.tile(rng.permutation(tokens)[:length], repeats) for _ in range(samples)]
    return RepeatedTokens(
        np.stack([np.append(start_id, row) for row in rows]).astype(np.int32), length, repeats
    )


def head_scores(
    config: ModelConfig, params: Params, repeated: RepeatedTokens, text: Batch | None = None
) -> HeadScores:
    """All scores of every head.

    Args:
        config: the model.
        params: its parameters.
        repeated: what prefix matching and copying are measured on.
        text: rows of training data, which the previous-token score is measured on; None for `repeated`.

    Raises:
        InputError: the repeated tokens are longer than the learned positions.
    """
    prefix_LH, copying_LH = _on_repeated(
        config, params, repeated.inputs_BT, repeated.length, repeated.repeats
    )
    rows = whole_rows(config, repeated.inputs_BT)
    if text is not None:
        rows = jax.tree.map(jnp.asarray, (text.inputs_BT, text.segments_BT, text.positions_BT))
    previous_LH = _on_text(config, params, *rows)
    return HeadScores(*(np.asarray(score) for score in (prefix_LH, copying_LH, previous_LH)))


def prefix_matching(pattern_XTS: jax.Array, length: int, repeats: int) -> jax.Array:
    """How much each position of the later repeats attends to what came next after its token before, [...].

    For each such position the attention to all of those positions together, then the mean over positions: a
    head that attends nowhere else has 1. (Olsson et al. speak of the mean of all entries, in which a head
    that attends equally to what followed three earlier occurrences has 1/3, though it does nothing else.)

    Args:
        pattern_XTS: attention [..., 1 + length x repeats, the same], of the start token and the repeats.
        length: tokens before they repeat.
        repeats: how often they stand.
    """
    is_target_TS, queries = _prefix_targets(length, repeats)
    return jnp.einsum("...ts,ts->...", pattern_XTS, jnp.asarray(is_target_TS, jnp.float32)) / queries


def prefix_matching_chance(length: int = LENGTH, repeats: int = REPEATS, band: int | None = None) -> float:
    """The prefix-matching score of a head that attends equally to all it sees (the last `band` positions)."""
    is_target_TS, queries = _prefix_targets(length, repeats)
    size = len(is_target_TS)
    distance_TS = np.arange(size)[:, None] - np.arange(size)[None]
    seen_TS = (distance_TS >= 0) & (distance_TS < (band or size))
    return float(((is_target_TS & seen_TS).sum(axis=1) / seen_TS.sum(axis=1)).sum() / queries)


def previous_token(pattern_BHTS: jax.Array, segments_BT: jax.Array, positions_BT: jax.Array) -> jax.Array:
    """How much positions attend to the one before them in their segment: the mean over positions, [heads]."""
    counted_BT = ((segments_BT > 0) & (positions_BT > 0)).astype(jnp.float32)[:, 1:]
    to_previous_BHT = jnp.diagonal(pattern_BHTS[:, :, 1:], axis1=2, axis2=3)
    return jnp.einsum("bht,bt->h", to_previous_BHT, counted_BT) / jnp.maximum(counted_BT.sum(), 1)


def copying(config: ModelConfig, params: Params, values_LBSGK: jax.Array, tokens_BS: jax.Array) -> jax.Array:
    """Whether attending to a token makes each head raise that token's logit, [layers, heads] in -1..1.

    The direct path: the head's value at a position, through output projection, scale of the last norm and
    unembedding, as if attended to alone. Of the resulting logits the mean over the vocabulary is taken off,
    and what lies below zero is cut off. Let `own` be the sum over positions of what is left for the attended
    token, and `others` that of the mean over the other tokens of the sample: the score is

        (own - others) / (own + others).

    It is 1 where only attended tokens are raised, 0 where all tokens of the sample are raised alike (so for
    random weights), -1 where only others are; 0 also for a head that raises none. Olsson et al. 2022 tell the
    ratio own / (own + others) in words, and scale it to -1..1 too.

    Args:
        config: the model.
        params: its parameters.
        values_LBSGK: values as attention reads them, [layers, samples, length, kv heads, head size].
        tokens_BS: the token at each of those positions, each different from the others in its row.
    """
    repeats = config.num_heads // config.kv_heads
    values_LBSHK = jnp.repeat(values_LBSGK.astype(jnp.float32), repeats, axis=3)
    written_LBSHD = written_by_heads(config, params, values_LBSHK)
    if config.norm == "layer":
        written_LBSHD = written_LBSHD - written_LBSHD.mean(axis=-1, keepdims=True)
    scaled_LBSHD = written_LBSHD * params["final_norm"]["scale"].reshape(1, 1, 1, 1, -1)
    table_VD = params["embedding"]["tokens"] if config.tied_head else params["head"]["kernel"].T
    # Logits of the sample's tokens less the mean logit; those of the whole vocabulary are never made.
    directions_BND = table_VD[tokens_BS] - table_VD.mean(axis=0)[None, None]
    raised_LBSHN = jax.nn.relu(jnp.einsum("lbshd,bnd->lbshn", scaled_LBSHD, directions_BND))
    own_LH = jnp.einsum("lbshs->lh", raised_LBSHN)
    others_LH = (raised_LBSHN.sum(axis=(1, 2, 4)) - own_LH) / (tokens_BS.shape[1] - 1)
    total_LH = own_LH + others_LH
    return jnp.where(total_LH > 0, (own_LH - others_LH) / jnp.where(total_LH > 0, total_LH, 1), 0.0)


def _prefix_targets(length: int, repeats: int) -> tuple[np.ndarray, int]:
    """Which keys of which queries count, [length of the row, the same], and how many queries there are."""
    size = 1 + length * repeats
    is_target_TS = np.zeros((size, size), bool)
    for query in range(1 + length, size):
        for earlier in range(query - length, 0, -length):
            is_target_TS[query, earlier + 1] = True
    return is_target_TS, length * (repeats - 1)


@functools.partial(jax.jit, static_argnames=("config", "length", "repeats"))
def _on_repeated(
    config: ModelConfig, params: Params, inputs_BT: jax.Array, length: int, repeats: int
) -> tuple[jax.Array, jax.Array]:
    """Prefix-matching and copying scores [layers, heads]."""
    once = slice(1, 1 + length)

    def prefix_H(pattern_BHTS: jax.Array) -> jax.Array:
        return prefix_matching(pattern_BHTS, length, repeats).mean(axis=0)

    hooked = run_with_hooks(
        config,
        params,
        *whole_rows(config, inputs_BT),
        capture={"pattern": prefix_H, "values": lambda values_BSGK: values_BSGK[:, once]},
    )
    copying_LH = copying(config, params, hooked.activations["values"], inputs_BT[:, once])
    return hooked.activations["pattern"], copying_LH


@functools.partial(jax.jit, static_argnames=("config",))
def _on_text(
    config: ModelConfig, params: Params, inputs_BT: jax.Array, segments_BT: jax.Array, positions_BT: jax.Array
) -> jax.Array:
    """Previous-token scores [layers, heads]."""
    hooked = run_with_hooks(
        config,
        params,
        inputs_BT,
        segments_BT,
        positions_BT,
        capture={"pattern": lambda p_BHTS: previous_token(p_BHTS, segments_BT, positions_BT)},
    )
    return hooked.activations["pattern"]
