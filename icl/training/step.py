"""The two compiled functions of training: one optimizer step, and the K-curve of held-out episodes.

Shapes: B rows, T positions, D embed, V vocab, C components of the mixture, K examples of an episode.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from icl import model
from icl.data.batch import Batch
from icl.model.config import ModelConfig
from icl.parallel.partition import Partitioner
from icl.training.loss import TokenScores, score_targets, weighted_loss
from icl.training.optimizer import Schedule

Params = Any


class TrainState(NamedTuple):
    """What a step changes, and a checkpoint holds: arrays, or what stands for them (shardings, shapes).

    `step` counts batches seen, `skipped` those among them whose update was not finite and left undone,
    `excluded_C` the held-out examples passed over in making their rows.
    """

    step: Any
    params: Params
    moments: Any
    skipped: Any
    excluded_C: Any


class StepMetrics(NamedTuple):
    """What a step reports.

    Its mean loss per unit of weight in nats (by component: NaN for one that the batch does not hold), the
    global gradient norm before clipping, its learning rate, and the skipped updates and excluded examples
    so far.
    """

    loss: jax.Array
    grad_norm: jax.Array
    learning_rate: jax.Array
    finite: jax.Array
    skipped: jax.Array
    task_loss_C: jax.Array
    excluded_C: jax.Array


class CurveSums(NamedTuple):
    """Sums over held-out answers by component and number of demonstrations before them."""

    answers_CK: jax.Array
    exact_CK: jax.Array
    tokens_CK: jax.Array
    correct_CK: jax.Array
    loss_CK: jax.Array


def make_train_step(
    config: ModelConfig,
    optimizer: optax.GradientTransformation,
    schedule: Schedule,
    *,
    num_components: int,
    accumulation_steps: int = 1,
    scored_positions: int | None = None,
    z_loss: float = 0.0,
    skip_nonfinite: bool = True,
    partitioner: Partitioner | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]:
    """A pure function (state, batch) -> (state, metrics), to be compiled with the state donated.

    The loss of a step is the mean over its weights, whatever rows and microbatches they lie in. Rows weigh
    at most `scored_positions` positions (None: any number); the last layer and the logits are computed there.
    """

    def loss_of(params: Params, batch: Batch, total_weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        at_BA = weighed(batch, scored_positions)
        weights_BA, tasks_BA = at(batch.weights_BT, at_BA), at(batch.tasks_BT, at_BA)
        objective, cross_entropy_BA = weighted_loss(
            config,
            params,
            hidden(config, params, batch, partitioner, at_BA),
            at(batch.targets_BT, at_BA),
            weights_BA / total_weight,
            partitioner,
            z_loss=z_loss,
        )
        loss_BA = weights_BA * cross_entropy_BA
        task_loss_C = by_component(loss_BA, tasks_BA, num_components)
        return objective, jnp.append(task_loss_C, jnp.sum(loss_BA) / total_weight)

    def gradients(params: Params, batch: Batch, total_weight: jax.Array) -> tuple[Params, jax.Array]:
        gradient = jax.grad(loss_of, has_aux=True)
        if accumulation_steps == 1:
            return gradient(params, batch, total_weight)

        def add(total: Any, microbatch: Batch) -> tuple[Any, None]:
            grads, losses = gradient(params, microbatch, total_weight)
            return jax.tree.map(jnp.add, total, (held(grads), losses)), None

        zeros = jax.tree.map(jnp.zeros_like, (params, jnp.zeros(num_components + 1)))
        zeros = (held(zeros[0]), zeros[1])
        total, _ = jax.lax.scan(add, zeros, split_rows(batch, accumulation_steps, partitioner))
        return total

    def held(grads: Params) -> Params:
        """Gradients in the shards of their parameters: a sum of microbatches would lose them."""
        if partitioner is None:
            return grads
        return jax.lax.with_sharding_constraint(
            grads, partitioner.tree_shardings(model.logical_axes(config), grads)
        )

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        total_weight = jnp.sum(batch.weights_BT)
        total_weight = jnp.where(total_weight > 0, total_weight, 1.0)
        grads, losses = gradients(state.params, batch, total_weight)
        loss = losses[-1]
        after, update = apply_gradients(
            state, grads, loss, optimizer, schedule, skip_nonfinite=skip_nonfinite
        )
        weight_C = by_component(batch.weights_BT, batch.tasks_BT, num_components)
        excluded_C = state.excluded_C + by_component(batch.excluded_BT, batch.tasks_BT, num_components)
        metrics = StepMetrics(loss, *update, after.skipped, losses[:-1] / weight_C, excluded_C)
        return after._replace(excluded_C=excluded_C), metrics

    return train_step


class Update(NamedTuple):
    """Of one step: the gradient's norm before clipping, the learning rate, and whether all was finite."""

    grad_norm: jax.Array
    learning_rate: jax.Array
    finite: jax.Array


def apply_gradients(
    state: TrainState,
    grads: Params,
    loss: jax.Array,
    optimizer: optax.GradientTransformation,
    schedule: Schedule,
    *,
    skip_nonfinite: bool = True,
) -> tuple[TrainState, Update]:
    """The state after one more step; parameters and moments stay where loss or gradient is not finite."""
    grad_norm = _norm(grads)
    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    learning_rate = schedule(state.step)
    with jax.named_scope("optimizer"):
        updates, moments = optimizer.update(grads, state.moments, state.params)
        params = jax.tree.map(lambda p, u: p + learning_rate * u, state.params, updates)
        apply = finite | (not skip_nonfinite)
        params, moments = jax.tree.map(
            lambda new, old: jnp.where(apply, new, old), (params, moments), (state.params, state.moments)
        )
    skipped = state.skipped + jnp.where(apply, 0, 1)
    after = state._replace(step=state.step + 1, params=params, moments=moments, skipped=skipped)
    return after, Update(grad_norm, learning_rate, finite)


@jax.named_scope("optimizer")
def _norm(grads: Params) -> jax.Array:
    return optax.tree.norm(grads)


def make_curve_step(
    config: ModelConfig, *, num_components: int, num_examples: int, partitioner: Partitioner | None = None
) -> Callable[[Params, Batch], tuple[CurveSums, jax.Array]]:
    """A pure function (params, batch) -> sums by component and K, and the likeliest tokens [rows, length].

    All in one pass, teacher-forced. Each row holds one episode of one task. An answer is exact when every
    target of its example, delimiter included, is the most likely token.
    """

    def curve_step(params: Params, batch: Batch) -> tuple[CurveSums, jax.Array]:
        scores = score(config, params, batch, partitioner)
        examples_BT = jnp.asarray(batch.examples_BT)
        examples_K = jnp.arange(num_examples)
        in_answer_BTK = examples_BT[..., None] == examples_K[None, None]
        in_component_BC = jnp.max(batch.tasks_BT, axis=1)[:, None] == jnp.arange(num_components)[None]

        def over_positions(x_BT: jax.Array) -> jax.Array:
            return jnp.sum(jnp.where(in_answer_BTK, x_BT[..., None], 0.0), axis=1)

        def over_rows(x_BK: jax.Array) -> jax.Array:
            return jnp.sum(jnp.where(in_component_BC[:, :, None], x_BK[:, None], 0.0), axis=0)

        tokens_BK = over_positions(jnp.ones_like(scores.cross_entropy_BT))
        is_correct_BT = scores.best_BT == jnp.asarray(batch.targets_BT)
        correct_BK = over_positions(is_correct_BT.astype(jnp.float32))
        present_BK = tokens_BK > 0
        sums = CurveSums(
            answers_CK=over_rows(present_BK.astype(jnp.float32)),
            exact_CK=over_rows((present_BK & (correct_BK == tokens_BK)).astype(jnp.float32)),
            tokens_CK=over_rows(tokens_BK),
            correct_CK=over_rows(correct_BK),
            loss_CK=over_rows(over_positions(scores.cross_entropy_BT)),
        )
        return sums, scores.best_BT

    return curve_step


def weighed(batch: Batch, count: int | None) -> jax.Array | None:
    """Positions [rows, count] of each row that weigh, in order, then others; None where that would be all."""
    weights_BT = jnp.asarray(batch.weights_BT)
    if count is None or count >= weights_BT.shape[1]:
        return None
    return jnp.argsort(weights_BT <= 0, axis=1, stable=True)[:, :count]


def at(x_BT: ArrayLike, at_BA: jax.Array | None) -> jax.Array:
    """The entries of each row at its positions; all of them for None."""
    x_BT = jnp.asarray(x_BT)
    return x_BT if at_BA is None else jnp.take_along_axis(x_BT, at_BA, axis=1)


def score(
    config: ModelConfig, params: Params, batch: Batch, partitioner: Partitioner | None = None
) -> TokenScores:
    """Runs the model over a batch and scores its targets."""
    hidden_BTD = hidden(config, params, batch, partitioner)
    return score_targets(config, params, hidden_BTD, jnp.asarray(batch.targets_BT), partitioner)


def hidden(
    config: ModelConfig,
    params: Params,
    batch: Batch,
    partitioner: Partitioner | None,
    at_BA: jax.Array | None = None,
) -> jax.Array:
    """The model's last hidden states of a batch, or those at some positions of each row."""
    inputs_BT, segments_BT, positions_BT = map(
        jnp.asarray, (batch.inputs_BT, batch.segments_BT, batch.positions_BT)
    )
    return model.hidden_states(config, params, inputs_BT, segments_BT, positions_BT, partitioner, at_BA)


def by_component(x_BT: ArrayLike, tasks_BT: ArrayLike, num_components: int) -> jax.Array:
    """Sums [components] of `x` over the positions of each; masked sums, as a scatter's order may vary."""
    x_BT, tasks_BT = jnp.asarray(x_BT), jnp.asarray(tasks_BT)
    component_C = jnp.arange(num_components)[:, None, None]
    zero = jnp.zeros((), x_BT.dtype)
    return jnp.sum(jnp.where(tasks_BT[None] == component_C, x_BT[None], zero), axis=(1, 2))


def split_rows(batch: Batch, parts: int, partitioner: Partitioner | None = None) -> Batch:
    """[rows, length] -> [parts, rows / parts, length] arrays.

    Part i takes every row r with r % parts == i, so that each device cuts its own rows and none travels.
    """

    def split(x_BT: jax.Array) -> jax.Array:
        x = jnp.swapaxes(x_BT.reshape(-1, parts, x_BT.shape[-1]), 0, 1)
        if partitioner is None:
            return x
        spec = PartitionSpec(None, *partitioner.batch_sharding.spec)
        return jax.lax.with_sharding_constraint(x, NamedSharding(partitioner.mesh, spec))

    return jax.tree.map(split, batch)
