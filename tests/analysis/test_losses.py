"""Loss by position and demonstration against sums by hand, and heads that are known to be missed."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icl.analysis.heads import repeated_tokens
from icl.analysis.losses import (
    ablate_each_head,
    in_context_learning_score,
    loss_by_demonstration,
    loss_by_position,
    mean_head_outputs,
    token_scores,
)
from icl.data.batch import Batch
from icl.errors import InputError
from tests.analysis.hand_made import CONFIG, INDUCTION, PREVIOUS, START, VOCAB, induction_params

LENGTH, REPEATS = 8, 4


def rows() -> Batch:
    """Repeated random tokens: after each of a repeat's tokens the next is the answer of that example."""
    tokens_BT = repeated_tokens(range(START), START, length=LENGTH, repeats=REPEATS, samples=4).inputs_BT
    inputs_BT, targets_BT = tokens_BT[:, :-1], tokens_BT[:, 1:]
    shape = inputs_BT.shape
    positions_BT = np.broadcast_to(np.arange(shape[1]), shape)
    ones, zeros = np.ones(shape, np.int32), np.zeros(shape, np.int32)
    return Batch(
        inputs_BT, targets_BT, ones, positions_BT, ones * 1.0, (positions_BT - 1) // LENGTH, zeros, zeros
    )


def test_loss_by_position_is_the_mean_over_what_counts() -> None:
    loss_BT = np.array([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
    positions_BT = np.array([[0, 1, 0, 1], [0, 1, 2, 3]])
    weights_BT = np.array([[1.0, 0.5, 1.0, 0.0], [1.0, 2.0, 0.0, 1.0]])
    found = loss_by_position(loss_BT, positions_BT, weights_BT, 3)
    np.testing.assert_allclose(found.mean, [(1 + 3 + 5) / 3, (2 + 6) / 2, np.nan])
    assert found.number.tolist() == [3, 2, 0]


def test_loss_by_demonstration_is_the_mean_over_answers_tokens() -> None:
    loss_BT = np.array([[1.0, 2.0, 3.0], [5.0, 6.0, 7.0]])
    examples_BT = np.array([[-1, 0, 0], [0, 1, 2]])
    found = loss_by_demonstration(loss_BT, examples_BT, 2)
    np.testing.assert_allclose(found.mean, [(2 + 3 + 5) / 3, 6])
    assert found.number.tolist() == [3, 1]


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_means_by_position_make_up_the_mean_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    loss_BT, positions_BT = rng.normal(size=(3, 20)), rng.integers(0, 9, (3, 20))
    weights_BT = rng.integers(0, 2, (3, 20)).astype(float)
    mean_T, count_T = loss_by_position(loss_BT, positions_BT, weights_BT, 9)
    assert count_T.sum() == weights_BT.sum()
    np.testing.assert_allclose(np.nansum(mean_T * count_T), (loss_BT * weights_BT).sum(), atol=1e-9)


def test_the_in_context_learning_score_compares_two_tokens() -> None:
    loss_T = 3.0 - np.log(np.arange(1, 513))
    np.testing.assert_allclose(in_context_learning_score(loss_T), np.log(50) - np.log(500))
    np.testing.assert_allclose(
        in_context_learning_score(loss_T, late=3, early=2, around=1),
        loss_T[1:4].mean() - loss_T[0:3].mean(),
    )


@pytest.mark.parametrize(
    "places",
    [{}, {"late": 50, "early": 50}, {"late": 90, "early": 0}, {"late": 100, "early": 5, "around": 1}],
)
def test_positions_outside_the_context_are_refused(places: dict[str, int]) -> None:
    with pytest.raises(InputError, match="within the 100 tokens of the context"):
        in_context_learning_score(np.ones(100), **places)


def test_a_position_without_loss_is_refused() -> None:
    with pytest.raises(InputError, match="no loss at token 2 or 3"):
        in_context_learning_score(np.array([1.0, np.nan, 1.0]), late=3, early=2)


def test_losses_are_those_of_the_targets() -> None:
    scores = token_scores(CONFIG, induction_params(), rows())
    mean_K = loss_by_demonstration(scores.cross_entropy_BT, rows().examples_BT, REPEATS).mean
    # At first the model says the token that it has just read; from the second repeat on it knows.
    assert mean_K[0] > np.log(VOCAB)
    assert (mean_K[1:] < 0.2).all()


def test_each_head_is_missed_where_it_helps() -> None:
    found = ablate_each_head(CONFIG, induction_params(), [rows(), rows()], num_examples=REPEATS)
    assert found.count_K.tolist() == [2 * 4 * LENGTH] * (REPEATS - 1) + [2 * 4 * (LENGTH - 1)]
    assert found.effect_LHK.shape == (2, 2, REPEATS)
    for head in (PREVIOUS, INDUCTION):
        assert (found.effect_LHK[head][1:] > 2.5).all()
    for head in ((0, 1), (1, 0)):
        np.testing.assert_allclose(found.effect_LHK[head], 0, atol=1e-5)
    np.testing.assert_allclose(
        found.loss_K,
        loss_by_demonstration(
            token_scores(CONFIG, induction_params(), rows()).cross_entropy_BT, rows().examples_BT, REPEATS
        ).mean,
        rtol=1e-6,
    )


def test_a_head_without_a_say_is_replaced_by_its_mean() -> None:
    """The mean output of a head that always puts out the same is what it puts out: nothing changes."""
    params = induction_params()
    attention = params["layers"]["attention"]
    attention["value"]["kernel"] = attention["value"]["kernel"].at[1].set(0.0)
    means_LHK = mean_head_outputs(CONFIG, params, [rows()])
    np.testing.assert_allclose(means_LHK[INDUCTION], 0.0, atol=1e-7)
    found = ablate_each_head(CONFIG, params, [rows()], num_examples=REPEATS, means_LHK=means_LHK)
    np.testing.assert_allclose(found.effect_LHK[INDUCTION], 0.0, atol=1e-5)


def test_mean_outputs_are_over_segments_only() -> None:
    """A head that looks back reads the token before: its mean counts how often each token is one."""
    batch = rows()
    segments_BT = np.ones_like(batch.segments_BT)
    segments_BT[:, 5:] = 0
    means_LHK = mean_head_outputs(CONFIG, induction_params(), [batch._replace(segments_BT=segments_BT)])
    inputs_BT = np.asarray(batch.inputs_BT)
    read_BT = np.concatenate([inputs_BT[:, :1], inputs_BT[:, :4]], axis=1)
    share_V = np.bincount(read_BT.ravel(), minlength=VOCAB) / read_BT.size
    found_V = np.asarray(means_LHK[PREVIOUS])[:VOCAB]
    np.testing.assert_allclose(found_V / found_V.sum(), share_V, atol=1e-3)
    assert jnp.ndim(means_LHK) == 3
