"""A KV cache gives the numbers of a full forward pass, however it was filled, cut and branched."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icl.errors import InputError
from icl.model import ModelConfig, extend, extend_and_score, hidden_states, init_cache
from icl.model import cache as cache_module
from tests.model.test_transformer import VARIANTS, packed, random_params, run, variant

TOLERANCE = 1e-4
PADDED = 40  # one shape for all: what stands behind is not seen


def full_logits(config: ModelConfig, params: Any, tokens: np.ndarray) -> np.ndarray:
    """Logits [length, vocab] of one row computed whole."""
    padded = np.zeros((1, PADDED), np.int32)
    padded[0, : len(tokens)] = tokens
    positions = np.arange(PADDED, dtype=np.int32)[None]
    return np.asarray(run(config, params, padded, np.ones_like(positions), positions))[0, : len(tokens)]


step = jax.jit(extend, static_argnums=0)


@pytest.mark.parametrize("name", VARIANTS)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_chunks_of_any_length_equal_the_full_forward(name: str, data: st.DataObject) -> None:
    config = variant(name)
    params = random_params(config)
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    tokens = rng.integers(0, config.vocab_size, (2, 24)).astype(np.int32)
    cache = init_cache(config, 2, 40)
    got: list[list[np.ndarray]] = [[], []]
    for _ in range(3):
        counts = [data.draw(st.integers(0, 8)) for _ in range(2)]
        chunk = np.zeros((2, 8), np.int32)
        done = np.asarray(cache.lengths_B)
        for row, count in enumerate(counts):
            chunk[row, :count] = tokens[row, done[row] : done[row] + count]
            chunk[row, count:] = 39  # padding must leave no trace
        out, cache = step(config, params, cache, chunk, np.asarray(counts, np.int32))
        for row, count in enumerate(counts):
            got[row].extend(np.asarray(out)[row, :count])
    for row in range(2):
        length = int(cache.lengths_B[row])
        if length:
            want = full_logits(config, params, tokens[row, :length])
            np.testing.assert_allclose(np.stack(got[row]), want, atol=TOLERANCE)


@pytest.mark.parametrize("name", VARIANTS)
def test_tokens_scored_in_pieces_have_the_likelihoods_of_the_full_forward(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = variant(name)
    params = random_params(config)
    tokens = np.random.default_rng(1).integers(0, config.vocab_size, (2, 24)).astype(np.int32)
    starts, length, capacity = np.array([3, 9], np.int32), 14, 23
    each = 2 * max(config.vocab_size, config.num_heads * capacity)
    monkeypatch.setattr(cache_module, "_FLOATS", each * 4)
    _, cache = step(config, params, init_cache(config, 2, capacity), tokens[:, :9], starts)
    asked = np.stack([row[at : at + length + 1] for row, at in zip(tokens, starts, strict=True)])
    score = jax.jit(lambda *arrays: extend_and_score(config, *arrays))
    assert "length=4\n" in str(jax.make_jaxpr(score)(params, cache, asked))
    found, argmax, longer = score(params, cache, asked)
    assert np.array_equal(longer.lengths_B, starts + length)
    for row, at in enumerate(starts):
        logits = full_logits(config, params, tokens[row, : at + length])[at:]
        wanted = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        chosen = wanted[np.arange(length), asked[row, 1:]]
        np.testing.assert_allclose(found[row], chosen, atol=TOLERANCE)
        assert np.array_equal(argmax[row], logits.argmax(axis=1))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_branch_equals_its_own_prompt_computed_alone(name: str) -> None:
    config = variant(name)
    params = random_params(config)
    rng = np.random.default_rng(5)
    prefix = rng.integers(0, config.vocab_size, (2, 20)).astype(np.int32)
    _, cache = step(config, params, init_cache(config, 2, 32), prefix, np.full(2, 20))
    lengths = np.array([3, 11], np.int32)
    suffix = rng.integers(0, config.vocab_size, (2, 6)).astype(np.int32)
    got, _ = step(config, params, cache.replace(lengths_B=lengths), suffix, np.full(2, 6))
    for row, length in enumerate(lengths):
        alone = np.concatenate([prefix[row, :length], suffix[row]])
        np.testing.assert_allclose(got[row], full_logits(config, params, alone)[length:], atol=TOLERANCE)


def test_a_branch_cut_one_position_off_is_far_from_the_truth() -> None:
    """The tolerance above can fail: the wrong cut exceeds it by far more than ten times."""
    config = variant("convolution")
    params = random_params(config)
    rng = np.random.default_rng(5)
    prefix = rng.integers(0, config.vocab_size, (1, 20)).astype(np.int32)
    suffix = rng.integers(0, config.vocab_size, (1, 6)).astype(np.int32)
    _, cache = step(config, params, init_cache(config, 1, 32), prefix, np.full(1, 20))
    wrong = cache.replace(lengths_B=np.array([10], np.int32))
    got, _ = step(config, params, wrong, suffix, np.full(1, 6))
    want = full_logits(config, params, np.concatenate([prefix[0, :11], suffix[0]]))[11:]
    assert np.abs(got[0] - want).max() > 10 * TOLERANCE


@pytest.mark.parametrize("attention", ["reference", "blocked"])
@pytest.mark.parametrize("name", ["gpt2", "convolution"])
def test_outputs_at_some_positions_are_those_of_all(name: str, attention: Any) -> None:
    config = dataclasses.replace(variant(name), attention=attention, max_length=160)
    params = random_params(config)
    tokens, segments, positions = packed(np.random.default_rng(0), 2, [90, 50, 20])
    at_BA = np.random.default_rng(1).integers(0, 160, (2, 40))
    hidden = jax.jit(hidden_states, static_argnums=0)
    whole = hidden(dataclasses.replace(config, attention="reference"), params, tokens, segments, positions)
    found = hidden(config, params, tokens, segments, positions, None, at_BA)
    want = np.take_along_axis(np.asarray(whole), at_BA[..., None], axis=1)
    np.testing.assert_allclose(found, want, atol=1e-5)


def test_a_cache_longer_than_the_learned_positions_is_refused() -> None:
    with pytest.raises(InputError, match="48"):
        init_cache(variant("gpt2"), 1, 49)
    assert init_cache(variant("neox"), 1, 49).capacity == 49
    assert jax.tree.leaves(init_cache(variant("llama"), 1, 4))[0].shape[1] == 2
