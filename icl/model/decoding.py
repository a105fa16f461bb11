"""Greedy decoding from a KV cache.

Shapes: B batch, V vocab, N new tokens.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from icl.model.cache import Cache, extend
from icl.model.config import ModelConfig
from icl.model.transformer import Params


class _State(NamedTuple):
    step: jax.Array
    cache: Cache
    next_B: jax.Array
    done_B: jax.Array
    tokens_BN: jax.Array


def greedy(
    config: ModelConfig,
    params: Params,
    cache: Cache,
    last_logits_BV: jax.Array,
    *,
    max_new_tokens: int,
    stop_ids: tuple[int, ...],
) -> tuple[Cache, jax.Array]:
    """The most likely continuation, token by token; ties take the lower id.

    Args:
        config: the model.
        params: its parameters.
        cache: the past of each row, with room for `max_new_tokens` more.
        last_logits_BV: logits after the last token of the cache.
        max_new_tokens: the budget.
        stop_ids: ids that end a row; the first of them fills what follows.

    Returns:
        The cache, whose rows are longer by what was decoded (to go on in the same buffers, set its lengths
        back), and int32 [batch, max_new_tokens]: the tokens, the stop token that ended the row, then
        stop_ids[0].
    """
    batch = last_logits_BV.shape[0]
    fill, stops = stop_ids[0], jnp.asarray(stop_ids, jnp.int32)

    def more(state: _State) -> jax.Array:
        return (state.step < max_new_tokens) & ~jnp.all(state.done_B)

    def step(state: _State) -> _State:
        tokens_BN = jax.lax.dynamic_update_slice_in_dim(
            state.tokens_BN, state.next_B[:, None], state.step, axis=1
        )
        done_B = state.done_B | jnp.any(state.next_B[:, None] == stops[None], axis=1)
        logits_B1V, cache = extend(
            config, params, state.cache, state.next_B[:, None], jnp.ones(batch, jnp.int32)
        )
        chosen_B = jnp.argmax(logits_B1V[:, 0], axis=-1).astype(jnp.int32)
        return _State(state.step + 1, cache, jnp.where(done_B, fill, chosen_B), done_B, tokens_BN)

    first_B = jnp.argmax(last_logits_BV, axis=-1).astype(jnp.int32)
    empty_BN = jnp.full((batch, max_new_tokens), fill, jnp.int32)
    state = _State(jnp.zeros((), jnp.int32), cache, first_B, jnp.zeros(batch, bool), empty_BN)
    state = jax.lax.while_loop(more, step, state)
    return state.cache, state.tokens_BN
