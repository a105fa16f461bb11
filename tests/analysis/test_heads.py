"""Scores of heads: one for an induction head written by hand, chance for heads that know nothing."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from icl.analysis.heads import (
    HeadScores,
    RepeatedTokens,
    copying,
    head_scores,
    prefix_matching,
    prefix_matching_chance,
    previous_token,
    repeated_tokens,
    usual_tokens,
)
from icl.analysis.hooks import ablate_heads, only, run_with_hooks
from icl.data.batch import Batch
from icl.errors import InputError
from icl.model import ModelConfig, abstract_params, unembed
from tests.analysis.hand_made import CONFIG, INDUCTION, PREVIOUS, START, VOCAB, induction_params

TOKENS = np.arange(START)
REST = [(0, 1), (1, 0)]


@pytest.fixture(scope="module")
def repeated() -> RepeatedTokens:
    return repeated_tokens(TOKENS, START)


@pytest.fixture(scope="module")
def scores(repeated: RepeatedTokens) -> HeadScores:
    return head_scores(CONFIG, induction_params(), repeated)


def test_the_hand_made_induction_head_matches_prefixes_and_copies(scores: HeadScores) -> None:
    assert scores.prefix_matching[INDUCTION] >= 0.99
    assert scores.copying[INDUCTION] >= 0.99
    assert scores.previous_token[PREVIOUS] >= 0.99
    assert scores.prefix_matching[PREVIOUS] <= 0.01
    assert scores.previous_token[INDUCTION] <= 0.05


def test_a_head_that_attends_equally_to_all_scores_chance_exactly(scores: HeadScores) -> None:
    for head in REST:
        np.testing.assert_allclose(scores.prefix_matching[head], prefix_matching_chance(), rtol=1e-5)
        assert scores.copying[head] == 0
        # One over the positions seen, at the 100 positions that have one before them.
        np.testing.assert_allclose(scores.previous_token[head], np.mean(1 / np.arange(2, 102)), rtol=1e-5)


def test_chance_by_counting() -> None:
    """Two tokens three times: from the third position on, one and then two of what is seen are targets."""
    by_hand = np.mean([1 / 4, 1 / 5, 2 / 6, 2 / 7])
    np.testing.assert_allclose(prefix_matching_chance(2, 3), by_hand)
    # Of the last three positions the target is the second last.
    np.testing.assert_allclose(prefix_matching_chance(2, 3, band=3), 1 / 3)
    assert prefix_matching_chance(5, 2, band=3) == 0


def test_prefix_matching_reads_the_position_after_the_token_before() -> None:
    """a b a b: the second a looks at the first b, the second b at the second a."""
    pattern_TS = np.zeros((5, 5))
    pattern_TS[3, 2], pattern_TS[4, 3] = 1.0, 0.5
    np.testing.assert_allclose(prefix_matching(jnp.asarray(pattern_TS), 2, 2), 0.75)
    pattern_TS = np.zeros((5, 5))
    pattern_TS[3, 1], pattern_TS[4, 2] = 1.0, 1.0
    assert float(prefix_matching(jnp.asarray(pattern_TS), 2, 2)) == 0


@pytest.mark.parametrize("conv_width", [0, 3])
def test_random_weights_score_chance(conv_width: int) -> None:
    config = ModelConfig(
        vocab_size=VOCAB,
        max_length=128,
        num_layers=1,
        embed_dim=32,
        num_heads=32,
        num_kv_heads=16,
        head_dim=8,
        conv_width=conv_width,
        tied_head=False,
        positions="rotary",
    )
    # Weights large enough for patterns that are far from even: chance holds on average only.
    rng = np.random.default_rng(conv_width)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(0.0, 0.35, leaf.shape), jnp.float32), abstract_params(config)
    )
    found = head_scores(config, params, repeated_tokens(TOKENS, START, samples=4))
    chance = prefix_matching_chance()
    for score, expected in ((found.prefix_matching, chance), (found.copying, 0.0)):
        error = score.std() / score.size**0.5
        assert error > 0
        assert abs(score.mean() - expected) < 4 * error
    assert found.prefix_matching.max() < 0.5
    assert np.abs(found.copying).max() < 0.9


def test_without_the_head_that_looks_back_there_is_no_induction(repeated: RepeatedTokens) -> None:
    """Prefix matching needs the head before; what is said needs the induction head itself."""
    inputs_BT = jnp.asarray(repeated.inputs_BT)
    positions_BT = jnp.broadcast_to(jnp.arange(inputs_BT.shape[1])[None], inputs_BT.shape)
    params = induction_params()

    @jax.jit
    def measure(heads_LH: jax.Array) -> tuple[jax.Array, jax.Array]:
        hooked = run_with_hooks(
            CONFIG,
            params,
            inputs_BT,
            jnp.ones_like(positions_BT),
            positions_BT,
            capture={
                "pattern": lambda p_BHTS: prefix_matching(p_BHTS, repeated.length, repeated.repeats).mean(0)
            },
            edits={"heads": ablate_heads(heads_LH)},
        )
        said_BT = unembed(CONFIG, params, hooked.hidden_BTD).argmax(axis=-1)
        right_BT = (said_BT[:, :-1] == inputs_BT[:, 1:])[:, repeated.length :]
        return hooked.activations["pattern"][INDUCTION], right_BT.mean()

    matching, right = measure(only(CONFIG, []))
    assert matching >= 0.99
    assert right > 0.98
    matching, right = measure(only(CONFIG, [PREVIOUS]))
    assert matching < 0.1
    assert right < 0.1
    matching, right = measure(only(CONFIG, [INDUCTION]))
    assert matching >= 0.99
    assert right < 0.05
    matching, right = measure(only(CONFIG, REST))
    assert matching >= 0.99
    assert right > 0.98


def test_a_head_that_says_any_other_token_copies_less_than_nothing(repeated: RepeatedTokens) -> None:
    params = induction_params()
    out = params["layers"]["attention"]["out"]
    out["kernel"] = out["kernel"].at[1].multiply(-1.0)
    assert head_scores(CONFIG, params, repeated).copying[INDUCTION] <= -0.99


def test_copying_is_the_ratio_that_it_says() -> None:
    """One head, two tokens of four: logits, their mean taken off and cut at zero, by hand."""
    config = ModelConfig(
        vocab_size=4, num_layers=1, embed_dim=4, num_heads=1, norm="rms", tied_head=False, max_length=4
    )
    written_SV = np.array([[3.0, 1.0, 0.0, 0.0], [1.0, 2.0, 0.0, 1.0]])
    params: Any = {
        "layers": {"attention": {"out": {"kernel": jnp.eye(4)[None]}}},
        "final_norm": {"scale": jnp.ones(4)},
        "head": {"kernel": jnp.eye(4)},
    }
    values = jnp.asarray(written_SV)[None, None, :, None]
    # Each row's mean is 1: raised are 2 for its own token, and 0; 1 for its own, and 0.
    assert float(copying(config, params, values, jnp.array([[0, 1]]))[0, 0]) == 1.0
    # Token 3 instead of 0: the first raises the other by 0 and itself by 0, the second itself by 1.
    # Token 1 first and 0 second: own 0 and 0, others 2 and 1.
    assert float(copying(config, params, values, jnp.array([[1, 0]]))[0, 0]) == -1.0
    written_SV[1, 0] = 1.8
    written_SV[1, 1] = 2.2
    values = jnp.asarray(written_SV)[None, None, :, None]
    # Means 1 and 1.25: own 2 + 0.95, others 0 + 0.55.
    np.testing.assert_allclose(
        copying(config, params, values, jnp.array([[0, 1]]))[0, 0], (2.95 - 0.55) / (2.95 + 0.55), rtol=1e-5
    )


def test_previous_token_counts_within_segments() -> None:
    pattern_TS = np.zeros((5, 5))
    pattern_TS[[1, 2, 3, 4], [0, 1, 2, 3]] = [0.5, 0.7, 0.9, 0.3]
    segments_BT, positions_BT = jnp.array([[1, 1, 2, 2, 0]]), jnp.array([[0, 1, 0, 1, 2]])
    found_H = previous_token(jnp.asarray(pattern_TS)[None, None], segments_BT, positions_BT)
    np.testing.assert_allclose(found_H, [(0.5 + 0.9) / 2], rtol=1e-6)


def test_the_previous_token_score_is_measured_on_the_text_given(repeated: RepeatedTokens) -> None:
    inputs_BT = repeated.inputs_BT[:1, :4]
    zeros = np.zeros_like(inputs_BT)
    text = Batch(inputs_BT, zeros, zeros + 1, np.arange(4)[None], zeros, zeros, zeros, zeros)
    found = head_scores(CONFIG, induction_params(), repeated, text)
    np.testing.assert_allclose(found.previous_token[REST[0]], np.mean([1 / 2, 1 / 3, 1 / 4]), rtol=1e-5)
    assert found.previous_token[PREVIOUS] >= 0.99


def test_repeated_tokens_stand_once_in_each_repeat() -> None:
    found = repeated_tokens([3, 5, 7, 9, 11], 1, length=4, repeats=3, samples=20)
    assert found.inputs_BT.shape == (20, 13)
    assert (found.inputs_BT[:, 0] == 1).all()
    for row in found.inputs_BT:
        first, second, third = row[1:].reshape(3, 4)
        assert first.tolist() == second.tolist() == third.tolist()
        assert len(set(first.tolist())) == 4
    assert len({tuple(row) for row in found.inputs_BT.tolist()}) > 10
    other = repeated_tokens([3, 5, 7, 9, 11], 1, length=4, repeats=3, samples=20, seed=1)
    assert (other.inputs_BT != found.inputs_BT).any()


def test_tokens_that_are_too_few_or_too_many_are_refused(repeated: RepeatedTokens) -> None:
    with pytest.raises(InputError, match="5 to draw from; expected at least 25"):
        repeated_tokens([3, 5, 7, 9, 11], 1)
    with pytest.raises(InputError, match="rows of 101 tokens: the model was made for 100"):
        head_scores(dataclasses.replace(CONFIG, max_length=100), induction_params(), repeated)


def test_usual_tokens_are_neither_the_most_nor_the_least_common() -> None:
    counts_V = np.array([0, 1, 50, 2, 1000, 3, 4, 5, 6, 7, 8])
    assert usual_tokens(counts_V).tolist() == [2, 3, 5, 6, 7, 8, 9, 10]
    assert usual_tokens(counts_V, 0.2).tolist() == [5, 6, 7, 8, 9, 10]
    with pytest.raises(InputError, match="less than half"):
        usual_tokens(counts_V, 0.5)


def test_scores_do_not_depend_on_how_attention_is_computed(
    repeated: RepeatedTokens, scores: HeadScores
) -> None:
    config = dataclasses.replace(CONFIG, attention="reference")
    for ours, theirs in zip(head_scores(config, induction_params(), repeated), scores, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
