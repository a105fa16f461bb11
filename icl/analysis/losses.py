"""Loss by position in the context and by demonstration, and what single heads contribute to it.

Shapes: L layers, B rows, T positions, H heads, K demonstrations before an answer; sums and means are float64
NumPy arrays.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from icl.analysis.hooks import Edit, Site, ablate_heads, run_with_hooks
from icl.data.batch import Batch
from icl.errors import InputError
from icl.model.config import ModelConfig
from icl.model.transformer import Params
from icl.training.loss import TokenScores, score_targets


class Means(NamedTuple):
    """A mean in each of several groups, NaN for an empty one, and the number of values that it is of."""

    mean: np.ndarray
    number: np.ndarray


class Ablations(NamedTuple):
    """Loss of the answers after K demonstrations, in nats a token: of the whole model and without each head.

    `count_K` is how many tokens each mean is of.
    """

    loss_K: np.ndarray
    without_LHK: np.ndarray
    count_K: np.ndarray

    @property
    def effect_LHK(self) -> np.ndarray:
        """What the loss gains when a head is taken away: positive where the head helps."""
        return self.without_LHK - self.loss_K


@functools.partial(jax.jit, static_argnames=("config",))
def token_scores(
    config: ModelConfig, params: Params, batch: Batch, edits: dict[Site, Edit] | None = None
) -> TokenScores:
    """Loss of every target in nats and the likeliest token, [rows, length], with some activations replaced.

    Args:
        config: the model.
        params: its parameters.
        batch: rows; what is no target of the analysis is left out by the aggregations below.
        edits: as of `icl.analysis.hooks.run_with_hooks`.
    """
    inputs_BT, segments_BT, positions_BT = map(
        jnp.asarray, (batch.inputs_BT, batch.segments_BT, batch.positions_BT)
    )
    hooked = run_with_hooks(config, params, inputs_BT, segments_BT, positions_BT, edits=edits)
    return score_targets(config, params, hooked.hidden_BTD, jnp.asarray(batch.targets_BT))


def loss_by_position(
    loss_BT: ArrayLike, positions_BT: ArrayLike, weights_BT: ArrayLike, length: int
) -> Means:
    """Mean loss at each position of a segment, [length]; every position with a weight counts once.

    A segment begins with the start token, so entry n - 1 is the loss of its n-th token of text.

    Args:
        loss_BT: loss of the target at each position, in nats.
        positions_BT: position within the segment.
        weights_BT: above 0 where the target counts.
        length: how many positions to report; later ones are left out.
    """
    return _mean_by(loss_BT, positions_BT, np.asarray(weights_BT) > 0, length)


def loss_by_demonstration(loss_BT: ArrayLike, examples_BT: ArrayLike, num_examples: int) -> Means:
    """Mean loss of the answers' tokens after K = 0, 1, ... demonstrations, [num_examples].

    Args:
        loss_BT: loss of the target at each position, in nats.
        examples_BT: the example that the target answers, -1 where it answers none.
        num_examples: how many to report; later ones are left out.
    """
    return _mean_by(loss_BT, examples_BT, np.asarray(examples_BT) >= 0, num_examples)


def exact_by_demonstration(
    best_BT: ArrayLike, targets_BT: ArrayLike, examples_BT: ArrayLike, num_examples: int
) -> Means:
    """Share of answers whose tokens all are the likeliest, after K = 0, 1, ... examples, [num_examples].

    Args:
        best_BT: likeliest token at each position.
        targets_BT: the right one.
        examples_BT: the example that the target answers, -1 where it answers none; a row holds one episode.
        num_examples: how many to report; later ones are left out.
    """
    exact_BK = exact_answers(best_BT, targets_BT, examples_BT, num_examples)
    number_K = present_answers(examples_BT, num_examples).sum(axis=0).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return Means(exact_BK.sum(axis=0) / number_K, number_K)


def exact_answers(
    best_BT: ArrayLike, targets_BT: ArrayLike, examples_BT: ArrayLike, num_examples: int
) -> np.ndarray:
    """Whether every token of an answer is the likeliest, [rows, num_examples]; false where there is none.

    Arguments as of `exact_by_demonstration`.
    """
    wrong_BT = np.asarray(best_BT) != np.asarray(targets_BT)
    in_answer_BTK = np.asarray(examples_BT)[..., None] == np.arange(num_examples)
    return in_answer_BTK.any(axis=1) & ~(in_answer_BTK & wrong_BT[..., None]).any(axis=1)


def present_answers(examples_BT: ArrayLike, num_examples: int) -> np.ndarray:
    """Whether a row has an answer after so many demonstrations, [rows, num_examples]."""
    return (np.asarray(examples_BT)[..., None] == np.arange(num_examples)).any(axis=1)


def in_context_learning_score(
    loss_T: ArrayLike, *, late: int = 500, early: int = 50, around: int = 0
) -> float:
    """Loss of the 500th token of a context less that of the 50th, in nats; negative where context helps.

    Olsson et al. 2022 (arXiv 2209.11895), "In-context learning score". Shorter contexts take other positions,
    and few rows a mean of `around` positions on each side.

    Args:
        loss_T: mean loss by position, entry n - 1 of the n-th token.
        late: the later token, counted from 1.
        early: the earlier token.
        around: how many positions on each side are averaged with it.

    Raises:
        InputError: the positions do not stand in that order within the context, or have no loss.
    """
    loss_T = np.asarray(loss_T, np.float64)
    if not around < early < late <= len(loss_T) - around:
        raise InputError(
            f"in-context-learning score between tokens {early} and {late}, {around} around each: expected"
            f" early < late, both within the {len(loss_T)} tokens of the context"
        )
    at_late, at_early = (float(loss_T[n - 1 - around : n + around].mean()) for n in (late, early))
    if not np.isfinite(at_late - at_early):
        raise InputError(f"in-context-learning score: no loss at token {early} or {late}")
    return at_late - at_early


def ablate_each_head(
    config: ModelConfig,
    params: Params,
    batches: Sequence[Batch],
    *,
    num_examples: int,
    means_LHK: jax.Array | None = None,
) -> Ablations:
    """Loss by demonstration without each head in turn: one pass a head and batch.

    Args:
        config: the model.
        params: its parameters.
        batches: rows with answers, as held-out episodes have them.
        num_examples: up to how many demonstrations to report, that number excluded.
        means_LHK: what an ablated head puts out (`mean_head_outputs`); None for zeros.
    """
    count = config.num_layers * config.num_heads
    loss_K, tokens_K = np.zeros(num_examples), np.zeros(num_examples)
    without_NK = np.zeros((count, num_examples))
    for batch in batches:
        whole_BT = token_scores(config, params, batch).cross_entropy_BT
        sums_K, counts_K = _sums_by_example(whole_BT, batch.examples_BT, num_examples)
        loss_K, tokens_K = loss_K + sums_K, tokens_K + counts_K
        for number in range(count):
            edits = _without(config, number, means_LHK)
            loss_BT = token_scores(config, params, batch, edits).cross_entropy_BT
            without_NK[number] += _sums_by_example(loss_BT, batch.examples_BT, num_examples)[0]
    with np.errstate(invalid="ignore", divide="ignore"):
        shape = (config.num_layers, config.num_heads, num_examples)
        return Ablations(loss_K / tokens_K, (without_NK / tokens_K).reshape(shape), tokens_K)


def mean_head_outputs(config: ModelConfig, params: Params, batches: Sequence[Batch]) -> jax.Array:
    """The mean output of each head over all positions of all segments, float32 [layers, heads, head size]."""
    parts = [_head_sums(config, params, batch) for batch in batches]
    total_LHK, count = jax.tree.map(lambda *each: sum(each), *parts)
    return total_LHK / count


@functools.partial(jax.jit, static_argnames=("config",))
def _head_sums(config: ModelConfig, params: Params, batch: Batch) -> tuple[jax.Array, jax.Array]:
    inputs_BT, segments_BT, positions_BT = map(
        jnp.asarray, (batch.inputs_BT, batch.segments_BT, batch.positions_BT)
    )
    real_BT = (segments_BT > 0).astype(jnp.float32)

    def summed(o_BTHK: jax.Array) -> jax.Array:
        return jnp.einsum("bthk,bt->hk", o_BTHK.astype(jnp.float32), real_BT)

    hooked = run_with_hooks(config, params, inputs_BT, segments_BT, positions_BT, capture={"heads": summed})
    return hooked.activations["heads"], real_BT.sum()


def _without(config: ModelConfig, number: int, means_LHK: jax.Array | None) -> dict[Site, Edit]:
    heads_N = jnp.arange(config.num_layers * config.num_heads) == number
    return {"heads": ablate_heads(heads_N.reshape(config.num_layers, config.num_heads), means_LHK)}


def _sums_by_example(
    loss_BT: ArrayLike, examples_BT: ArrayLike, num_examples: int
) -> tuple[np.ndarray, np.ndarray]:
    mean_K, count_K = loss_by_demonstration(loss_BT, examples_BT, num_examples)
    return np.where(count_K > 0, mean_K, 0.0) * count_K, count_K


def _mean_by(loss_BT: ArrayLike, groups_BT: ArrayLike, counted_BT: np.ndarray, size: int) -> Means:
    groups_BT, loss_BT = np.asarray(groups_BT), np.asarray(loss_BT, np.float64)
    taken = counted_BT & (groups_BT < size)
    count = np.bincount(groups_BT[taken], minlength=size).astype(np.float64)
    total = np.bincount(groups_BT[taken], weights=loss_BT[taken], minlength=size)
    with np.errstate(invalid="ignore", divide="ignore"):
        return Means(total / count, count)
