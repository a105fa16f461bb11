"""Continuing rows from a KV cache: greedy, sampled, or by beam search.

Where a row stops is told by an automaton over tokens (`icl.evaluation.stops`): int32 [states, vocab], the
state after each token; state 0 is the start, and a row stops in the last one. All rows stop at the budget.
Loops end when every row has stopped, and the last token of a row is not read by the model.

Shapes: B batch, V vocab, N new tokens, S states of the automaton, W beams, P cache positions.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from icl.model.block import append
from icl.model.cache import Cache, extend_to_last
from icl.model.config import ModelConfig
from icl.model.transformer import Params
from icl.parallel import Partitioner

LengthRule = Literal["gnmt", "hf"]


class Hypotheses(NamedTuple):
    """The best continuation of each row that beam search found.

    `tokens_BN`: its tokens, the one that stopped it included, then `end_id`. `log_likelihoods_B`: the sum
    over them in nats, float32. `counts_B`: how many they are.
    """

    tokens_BN: jax.Array
    log_likelihoods_B: jax.Array
    counts_B: jax.Array


def greedy(
    config: ModelConfig,
    params: Params,
    cache: Cache,
    last_logits_BV: jax.Array,
    *,
    max_new_tokens: int,
    transitions_SV: jax.Array,
    end_id: int,
    partitioner: Partitioner | None = None,
) -> tuple[Cache, jax.Array]:
    """The most likely continuation, token by token; ties take the lower id.

    Args:
        config: the model.
        params: its parameters.
        cache: the past of each row, with room for `max_new_tokens` - 1 more.
        last_logits_BV: logits after the last token of the cache.
        max_new_tokens: the budget, at least 1.
        transitions_SV: the automaton that stops a row.
        end_id: fills what follows the token that stopped a row.
        partitioner: holds activations to their shards; None on one device.

    Returns:
        The cache, whose rows are longer by what was read (to go on in the same buffers, set its lengths
        back), and int32 [batch, max_new_tokens]: the tokens, the one that stopped the row, then `end_id`.
    """
    state = _continue(
        config, params, cache, last_logits_BV, _likeliest, max_new_tokens, transitions_SV, end_id, partitioner
    )
    return state.cache, state.found.tokens_BN


def sample(
    config: ModelConfig,
    params: Params,
    cache: Cache,
    last_logits_BV: jax.Array,
    *,
    temperature: float | jax.Array,
    keys_B: jax.Array,
    max_new_tokens: int,
    transitions_SV: jax.Array,
    end_id: int,
    partitioner: Partitioner | None = None,
) -> tuple[Cache, jax.Array]:
    """A continuation drawn from softmax(logits / temperature), token by token; 0 is greedy decoding.

    A row's tokens depend on its own key alone, not on the other rows. Arguments and results as those of
    `greedy`, with `keys_B` a PRNG key a row.
    """
    vocab = last_logits_BV.shape[1]

    def choose(logits_BV: jax.Array, step: jax.Array) -> jax.Array:
        keys = jax.vmap(jax.random.fold_in, (0, None))(keys_B, step)
        noise_BV = jax.vmap(lambda key: jax.random.gumbel(key, (vocab,)))(keys)
        return jnp.argmax(logits_BV + temperature * noise_BV, axis=-1)

    state = _continue(
        config, params, cache, last_logits_BV, choose, max_new_tokens, transitions_SV, end_id, partitioner
    )
    return state.cache, state.found.tokens_BN


def beam_search(
    config: ModelConfig,
    params: Params,
    cache: Cache,
    last_logits_BV: jax.Array,
    *,
    width: int,
    length_penalty: float | jax.Array,
    length_rule: LengthRule,
    max_new_tokens: int,
    transitions_SV: jax.Array,
    end_id: int,
    partitioner: Partitioner | None = None,
) -> Hypotheses:
    """The continuation with the best score that a beam search finds.

    The score of n tokens, the one that stops included, is their summed log-likelihood over the penalty
    ((5 + n) / 6)^`length_penalty` (`gnmt`: Wu et al. 2016, arXiv 1609.08144, equation 14) or
    n^`length_penalty` (`hf`: `generate` of transformers, with early_stopping="never").

    At each step the continuations of all live beams are ranked by log-likelihood. The `width` best of those
    that do not stop live on. One that stops is finished if it ranks among the `width` best of all, and the
    finished one with the best score is kept. At the budget every continuation stops. A row is done when no
    live beam can win: a log-likelihood only falls, so a beam's score stays below what it has now over the
    largest penalty to come. Ties take the lower token, then the lower beam; of equal scores the shorter
    wins. A beam of width 1 is greedy decoding, whatever the penalty.

    Arguments as those of `greedy`. The caller's cache stays as it is: the search works on a copy of it for
    each beam, and after that moves no more of it than the positions it adds.
    """
    if width == 1:
        likeliest = _continue(
            config,
            params,
            cache,
            last_logits_BV,
            _likeliest,
            max_new_tokens,
            transitions_SV,
            end_id,
            partitioner,
        )
        return likeliest.found
    batch, vocab = last_logits_BV.shape
    transitions_SV = jnp.asarray(transitions_SV)
    starts_R = jnp.repeat(cache.offsets_B, width)

    def search(beams: _Beams, logits_BWV: jax.Array) -> _Beams:
        return _advance(beams, logits_BWV, length_penalty, length_rule, max_new_tokens, transitions_SV)

    def more(state: tuple[Cache, _Beams]) -> jax.Array:
        return (state[1].length < max_new_tokens) & ~jnp.all(state[1].done_B)

    def step(state: tuple[Cache, _Beams]) -> tuple[Cache, _Beams]:
        cache, beams = state
        cache = _reorder(cache, beams.parents_BW, starts_R, max_new_tokens - 1)
        last_R = jax.lax.dynamic_index_in_dim(beams.tokens_BWN, beams.length - 1, 2, keepdims=False).reshape(
            -1
        )
        logits_RV, cache = extend_to_last(
            config, params, cache, last_R[:, None], jnp.ones_like(starts_R), partitioner
        )
        return cache, search(beams, logits_RV.reshape(batch, width, vocab))

    empty = _no_beams(batch, width, max_new_tokens, end_id)
    beams = search(empty, jnp.broadcast_to(last_logits_BV[:, None], (batch, width, vocab)))
    return jax.lax.while_loop(more, step, (cache.repeat(width), beams))[1].best


def _likeliest(logits_BV: jax.Array, _: jax.Array) -> jax.Array:
    return jnp.argmax(logits_BV, axis=-1)


class _State(NamedTuple):
    """Rows that are continued by one token at a time; `states_B` are those of the automaton."""

    step: jax.Array
    cache: Cache
    next_B: jax.Array
    states_B: jax.Array
    found: Hypotheses


def _continue(
    config: ModelConfig,
    params: Params,
    cache: Cache,
    last_logits_BV: jax.Array,
    choose: Callable[[jax.Array, jax.Array], jax.Array],
    max_new_tokens: int,
    transitions_SV: jax.Array,
    end_id: int,
    partitioner: Partitioner | None,
) -> _State:
    """Continues each row by what `choose` makes of the logits [batch, vocab] and the number of the step."""
    batch = last_logits_BV.shape[0]
    transitions_SV = jnp.asarray(transitions_SV)
    stopped = transitions_SV.shape[0] - 1

    def take(state: _State, logits_BV: jax.Array) -> _State:
        done_B = state.states_B == stopped
        next_B = jnp.where(done_B, end_id, choose(logits_BV, state.step).astype(jnp.int32))
        chosen_B = jnp.take_along_axis(logits_BV, next_B[:, None], axis=1)[:, 0]
        log_likelihoods_B = chosen_B - jax.nn.logsumexp(logits_BV, axis=1)
        found = Hypotheses(
            jax.lax.dynamic_update_slice_in_dim(state.found.tokens_BN, next_B[:, None], state.step, axis=1),
            state.found.log_likelihoods_B + jnp.where(done_B, 0.0, log_likelihoods_B),
            state.found.counts_B + ~done_B,
        )
        states_B = jnp.where(done_B, stopped, transitions_SV[state.states_B, next_B])
        return _State(state.step + 1, state.cache, next_B, states_B, found)

    def more(state: _State) -> jax.Array:
        return (state.step < max_new_tokens) & ~jnp.all(state.states_B == stopped)

    def step(state: _State) -> _State:
        logits_BV, cache = extend_to_last(
            config, params, state.cache, state.next_B[:, None], jnp.ones(batch, jnp.int32), partitioner
        )
        return take(state._replace(cache=cache), logits_BV)

    zeros_B = jnp.zeros(batch, jnp.int32)
    nothing = Hypotheses(
        jnp.full((batch, max_new_tokens), end_id, jnp.int32), jnp.zeros(batch, jnp.float32), zeros_B
    )
    first = take(_State(jnp.zeros((), jnp.int32), cache, zeros_B, zeros_B, nothing), last_logits_BV)
    return jax.lax.while_loop(more, step, first)


class _Beams(NamedTuple):
    """Live beams of `length` tokens each, best first, and the best finished hypothesis of each row.

    `parents_BW`: the beam, of those one token shorter, that each goes on from. A beam that is none has a
    log-likelihood of minus infinity.
    """

    length: jax.Array
    tokens_BWN: jax.Array
    sums_BW: jax.Array
    states_BW: jax.Array
    parents_BW: jax.Array
    best: Hypotheses
    best_scores_B: jax.Array
    done_B: jax.Array


def _no_beams(batch: int, width: int, max_new_tokens: int, end_id: int) -> _Beams:
    """Before the first token: one beam a row, and nothing finished."""
    zeros_BW = jnp.zeros((batch, width), jnp.int32)
    tokens_BWN = jnp.full((batch, width, max_new_tokens), end_id, jnp.int32)
    lowest_B = jnp.full(batch, -jnp.inf, jnp.float32)
    sums_BW = jnp.broadcast_to(jnp.where(jnp.arange(width) == 0, 0.0, -jnp.inf)[None], (batch, width))
    best = Hypotheses(tokens_BWN[:, 0], lowest_B, zeros_BW[:, 0])
    nothing = jnp.zeros((), jnp.int32), tokens_BWN, sums_BW, zeros_BW, zeros_BW, best, lowest_B
    return _Beams(*nothing, jnp.zeros(batch, bool))


def _advance(
    beams: _Beams,
    logits_BWV: jax.Array,
    alpha: float | jax.Array,
    rule: LengthRule,
    max_new_tokens: int,
    transitions_SV: jax.Array,
) -> _Beams:
    """Beams longer by one token, given the logits after each."""
    width, vocab = logits_BWV.shape[1:]
    count, stopped = beams.length + 1, transitions_SV.shape[0] - 1
    stops_BWV = (transitions_SV == stopped)[beams.states_BW] | (count == max_new_tokens)
    totals_BW = jax.nn.logsumexp(logits_BWV, axis=2)
    # Of each beam by its logits, which are as exact as they come; what ranks high in all does so in its beam.
    going = _ranked(jnp.where(stops_BWV, -jnp.inf, logits_BWV), totals_BW, beams.sums_BW, min(width, vocab))
    ending = _ranked(jnp.where(stops_BWV, logits_BWV, -jnp.inf), totals_BW, beams.sums_BW, 1)
    first = _Continuations(*(x[:, 0] for x in ending))
    live = _Continuations(*(x[:, :width] for x in going))
    weakest = _Continuations(*(x[:, width - 1] for x in going))

    score_B = first.sums / _penalty(count, alpha, rule)
    is_better_B = _precedes(first, weakest) & (score_B > beams.best_scores_B) & ~beams.done_B
    tokens_BWN = jnp.take_along_axis(beams.tokens_BWN, live.beams[..., None], axis=1)
    finished_BN = jnp.take_along_axis(beams.tokens_BWN, first.beams[:, None, None], axis=1)[:, 0]
    at = beams.length
    finished = Hypotheses(
        jax.lax.dynamic_update_slice_in_dim(finished_BN, first.tokens[:, None], at, axis=1),
        first.sums,
        jnp.broadcast_to(count, first.sums.shape),
    )
    best = Hypotheses(
        *(
            jnp.where(is_better_B.reshape((-1,) + (1,) * (new.ndim - 1)), new, old)
            for new, old in zip(finished, beams.best, strict=True)
        )
    )
    best_scores_B = jnp.where(is_better_B, score_B, beams.best_scores_B)
    largest = jnp.maximum(_penalty(count + 1, alpha, rule), _penalty(max_new_tokens, alpha, rule))
    return _Beams(
        count,
        jax.lax.dynamic_update_slice_in_dim(tokens_BWN, live.tokens[..., None], at, axis=2),
        live.sums,
        transitions_SV[jnp.take_along_axis(beams.states_BW, live.beams, axis=1), live.tokens],
        live.beams,
        best,
        best_scores_B,
        beams.done_B | (best_scores_B >= live.sums[:, 0] / largest),
    )


class _Continuations(NamedTuple):
    """Beams with one more token, ranked: log-likelihood with that token, the token, and the beam."""

    sums: jax.Array
    tokens: jax.Array
    beams: jax.Array


def _ranked(logits_BWV: jax.Array, totals_BW: jax.Array, sums_BW: jax.Array, number: int) -> _Continuations:
    """The `number` likeliest tokens of each beam, all beams of a row together, best first."""
    batch, width, _ = logits_BWV.shape
    logits_BWM, tokens_BWM = jax.lax.top_k(logits_BWV, number)
    sums_BWM = sums_BW[..., None] + (logits_BWM - totals_BW[..., None])
    beams_BWM = jnp.broadcast_to(jnp.arange(width, dtype=jnp.int32)[None, :, None], tokens_BWM.shape)
    columns = (x.reshape(batch, width * number) for x in (-sums_BWM, tokens_BWM, beams_BWM))
    negated, tokens, beams = jax.lax.sort(tuple(columns), dimension=1, num_keys=3)
    return _Continuations(-negated, tokens, beams)


def _precedes(left: _Continuations, right: _Continuations) -> jax.Array:
    """Whether the one ranks before the other; what has no likelihood ranks before nothing."""
    is_lower = (left.tokens < right.tokens) | ((left.tokens == right.tokens) & (left.beams < right.beams))
    is_first = (left.sums > right.sums) | ((left.sums == right.sums) & is_lower)
    return is_first & (left.sums > -jnp.inf)


def _penalty(count: int | jax.Array, alpha: float | jax.Array, rule: LengthRule) -> jax.Array:
    length = jnp.asarray(count, jnp.float32)
    return (length if rule == "hf" else (5 + length) / 6) ** alpha


def _reorder(cache: Cache, parents_BW: jax.Array, starts_R: jax.Array, count: int) -> Cache:
    """Each beam gets its parent's `count` positions behind the prompt; the prompt itself stays in place."""
    batch, width = parents_BW.shape

    def moved(array: jax.Array, axis: int) -> jax.Array:
        def window(row: jax.Array, start: jax.Array) -> jax.Array:
            return jax.lax.dynamic_slice_in_dim(row, start, count, axis - 1)

        own = jax.vmap(window)(array, starts_R)
        by_row = own.reshape(batch, width, *own.shape[1:])
        index = parents_BW.reshape(batch, width, *(1,) * (own.ndim - 1))
        return append(array, jnp.take_along_axis(by_row, index, axis=1).reshape(own.shape), starts_R, axis)

    layers = tuple(
        layer._replace(
            k_BGSK=moved(layer.k_BGSK, 2),
            v_BGSK=moved(layer.v_BGSK, 2),
            inputs_BSE=moved(layer.inputs_BSE, 1) if layer.inputs_BSE.shape[2] else layer.inputs_BSE,
        )
        for layer in cache.layers
    )
    return cache.replace(layers=layers)
