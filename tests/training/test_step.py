import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from icl import model
from icl.data.batch import Batch
from icl.data.loader import stack
from icl.data.rows import Rows
from icl.training import loss
from icl.training.setup import Setup
from icl.training.step import (
    StepMetrics,
    TrainState,
    make_curve_step,
    make_train_step,
    score,
    split_rows,
)
from tests.training.small import one_device_setup, small_run

SETUP = one_device_setup()
STATE = SETUP.init_state()
ROWS = stack([SETUP.rows[i] for i in range(8)])


_TRACE = optax.trace(0.0)
"""An optimizer that keeps the gradient as its state."""
_ZERO = jnp.zeros((), jnp.int32)
START = TrainState(_ZERO, STATE.params, _TRACE.init(STATE.params), _ZERO, jnp.zeros(2, jnp.int32))


@functools.cache
def _jitted(**settings: Any) -> Any:
    return jax.jit(
        make_train_step(SETUP.model, _TRACE, lambda _: jnp.float32(1.0), num_components=2, **settings)
    )


def _train_step(batch: Batch, **settings: Any) -> tuple[TrainState, StepMetrics]:
    after, metrics = _jitted(**settings)(START, batch)
    return after, metrics


def _gradients(after: TrainState) -> Any:
    return jax.device_get(after.moments.trace)


def _assert_close(found: Any, expected: Any, of_maximum: float) -> None:
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=of_maximum * float(np.max(np.abs(b))) + 1e-12)


def _logits(params: Any, batch: Batch) -> jax.Array:
    inputs, segments, positions = map(jnp.asarray, (batch.inputs_BT, batch.segments_BT, batch.positions_BT))
    return model.logits(SETUP.model, params, inputs, segments, positions)


def _log_probabilities(params: Any, batch: Batch) -> jax.Array:
    return jax.nn.log_softmax(_logits(params, batch))


def test_a_step_at_the_weighed_positions_equals_one_at_all() -> None:
    most = int(np.max(np.sum(np.asarray(ROWS.weights_BT) > 0, axis=1)))
    assert most < 60
    everywhere, want = _train_step(ROWS)
    there, found = _train_step(ROWS, scored_positions=most)
    np.testing.assert_allclose(found.loss, want.loss, rtol=1e-6)
    np.testing.assert_allclose(found.task_loss_C, want.task_loss_C, rtol=1e-5)
    _assert_close(_gradients(there), _gradients(everywhere), of_maximum=1e-5)
    _, fewer = _train_step(ROWS, scored_positions=most - 5)
    assert abs(float(fewer.loss - want.loss)) > 1e-5


def test_loss_is_the_weighted_mean_of_the_targets_cross_entropy() -> None:
    log_p = np.asarray(_log_probabilities(STATE.params, ROWS))
    at_target = np.take_along_axis(log_p, np.asarray(ROWS.targets_BT)[..., None], axis=-1)[..., 0]
    weights, tasks = np.asarray(ROWS.weights_BT), np.asarray(ROWS.tasks_BT)
    _, metrics = _train_step(ROWS)
    np.testing.assert_allclose(metrics.loss, -(weights * at_target).sum() / weights.sum(), rtol=1e-5)
    for task in range(2):
        own = weights * (tasks == task)
        np.testing.assert_allclose(metrics.task_loss_C[task], -(own * at_target).sum() / own.sum(), rtol=1e-5)


def test_accumulation_equals_full_batch() -> None:
    tokens = np.asarray(ROWS.weights_BT).sum(axis=1)
    assert len(set(tokens.tolist())) > 2, "rows must have unequal token counts"
    whole, whole_metrics = _train_step(ROWS)
    parts, parts_metrics = _train_step(ROWS, accumulation_steps=4)
    _assert_close(_gradients(parts), _gradients(whole), 2e-6)
    for a, b in zip(parts_metrics, whole_metrics, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_excluded_examples_are_counted_by_component() -> None:
    excluded_BT = np.zeros_like(np.asarray(ROWS.segments_BT))
    excluded_BT[:, 0] = np.arange(8)
    first_B = np.asarray(ROWS.tasks_BT)[:, 0]
    after, metrics = _train_step(ROWS._replace(excluded_BT=excluded_BT))
    expected = [excluded_BT[first_B == component].sum() for component in range(2)]
    assert sum(expected) == 28 and metrics.excluded_C.tolist() == after.excluded_C.tolist() == expected
    again, _ = _jitted()(after, ROWS._replace(excluded_BT=excluded_BT))
    assert again.excluded_C.tolist() == [2 * n for n in expected]


def test_microbatches_hold_each_row_once() -> None:
    index = jnp.broadcast_to(jnp.arange(8, dtype=jnp.int32)[:, None], (8, 4))
    parts = split_rows(Batch(*(index,) * 8), 4)
    assert parts.inputs_BT.shape == (4, 2, 4)  # type: ignore[union-attr]
    assert sorted(np.asarray(parts.inputs_BT)[..., 0].ravel().tolist()) == list(range(8))


def test_z_loss_adds_the_squared_log_partition() -> None:
    weights = jnp.asarray(ROWS.weights_BT)

    def penalty(params: Any) -> jax.Array:
        log_partition = jax.nn.logsumexp(_logits(params, ROWS), axis=-1)
        return jnp.sum(weights * log_partition**2) / jnp.sum(weights)

    plain, plain_metrics = _train_step(ROWS)
    with_z, metrics = _train_step(ROWS, z_loss=0.1)
    extra = jax.tree.map(np.subtract, _gradients(with_z), _gradients(plain))
    expected = jax.tree.map(lambda g: 0.1 * g, jax.jit(jax.grad(penalty))(STATE.params))
    _assert_close(extra, expected, 1e-4)
    np.testing.assert_allclose(metrics.loss, plain_metrics.loss, rtol=1e-6)


def test_an_update_that_is_not_finite_is_skipped_and_counted() -> None:
    bad = ROWS._replace(weights_BT=np.where(np.arange(64) == 3, np.inf, np.asarray(ROWS.weights_BT)))
    step = _jitted()
    skipped, metrics = step(START, bad)
    assert not metrics.finite and int(metrics.skipped) == 1
    assert (int(skipped.step), int(skipped.skipped)) == (1, 1)
    jax.tree.map(np.testing.assert_array_equal, skipped.params, STATE.params)
    jax.tree.map(np.testing.assert_array_equal, skipped.moments, START.moments)
    after, metrics = step(skipped, ROWS)
    assert metrics.finite and int(after.skipped) == 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after.params))
    assert not np.array_equal(after.params["embedding"]["tokens"], STATE.params["embedding"]["tokens"])


def test_without_skipping_an_update_that_is_not_finite_is_applied() -> None:
    bad = ROWS._replace(weights_BT=np.full_like(np.asarray(ROWS.weights_BT), np.nan))
    after, metrics = _train_step(bad, skip_nonfinite=False)
    assert not metrics.finite and int(metrics.skipped) == 0
    assert np.isnan(after.params["embedding"]["tokens"]).any()


def test_rows_without_weight_change_nothing() -> None:
    empty = ROWS._replace(weights_BT=np.zeros_like(np.asarray(ROWS.weights_BT)))
    after, metrics = _train_step(empty)
    assert metrics.finite and float(metrics.loss) == 0
    jax.tree.map(np.testing.assert_array_equal, after.params, STATE.params)


@pytest.mark.parametrize("kind", ["adamw", pytest.param("muon", marks=pytest.mark.slow)])
def test_a_sharded_step_equals_the_single_device_step(kind: str) -> None:
    changes = {"optimizer": {"kind": kind}, "train": {"accumulation_steps": 2}}
    single = one_device_setup(**changes)
    sharded = Setup(small_run(**changes, mesh={"data": 2, "fsdp": 2, "tensor": 2}))
    first = jax.device_get(single.init_state())
    results = []
    for setup in (single, sharded):
        state, batch = jax.device_put(first, setup.shardings), setup.place(ROWS, 8)
        specs = jax.tree.map(lambda x: x.sharding, state)
        step = setup.compile_train_step(state, batch)
        state, metrics = step(state, batch)
        state, metrics = step(state, setup.place(ROWS, 8))
        assert jax.tree.map(lambda x: x.sharding, state) == specs
        results.append((jax.device_get(state.params), jax.device_get(metrics)))
    (expected, expected_metrics), (found, metrics) = results
    np.testing.assert_allclose(metrics.loss, expected_metrics.loss, rtol=1e-5)
    np.testing.assert_allclose(metrics.grad_norm, expected_metrics.grad_norm, rtol=1e-4)
    _assert_close(found, expected, 5e-5 if kind == "adamw" else 1e-3)


def test_moments_lie_where_their_parameters_lie() -> None:
    setup = Setup(small_run(mesh={"data": 2, "fsdp": 2, "tensor": 2}))
    state = setup.init_state()
    params = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.sharding
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.params)
    }
    assert any(not sharding.is_fully_replicated for sharding in params.values())
    moments = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.moments):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        own = [sharding for param, sharding in params.items() if name.endswith(f"/{param}")]
        assert leaf.sharding == (own[0] if own else setup.partitioner.replicated), name
        moments += len(own)
    assert moments == 2 * len(params)


def test_the_curve_counts_exact_answers_by_task_and_example() -> None:
    held_out = Rows(SETUP.run.data, SETUP.tasks, SETUP.tokenizer, "held_out")
    batch = stack([held_out[i] for i in range(6)])
    step = jax.jit(make_curve_step(SETUP.model, num_components=2, num_examples=12))
    sums, best = step(STATE.params, batch)
    log_p = np.asarray(_log_probabilities(STATE.params, batch))
    answers, exact, tokens, loss = (np.zeros((2, 12)) for _ in range(4))
    for row in range(6):
        task = int(np.asarray(batch.tasks_BT)[row].max())
        for k in range(12):
            at = np.asarray(batch.examples_BT)[row] == k
            targets = np.asarray(batch.targets_BT)[row, at]
            if len(targets):
                answers[task, k] += 1
                exact[task, k] += (log_p[row, at].argmax(-1) == targets).all()
                tokens[task, k] += len(targets)
                loss[task, k] -= log_p[row, at, targets].sum()
    assert answers.sum() > 12
    np.testing.assert_array_equal(sums.answers_CK, answers)
    np.testing.assert_array_equal(sums.exact_CK, exact)
    np.testing.assert_array_equal(sums.tokens_CK, tokens)
    np.testing.assert_allclose(sums.loss_CK, loss, rtol=1e-4)
    np.testing.assert_array_equal(best, log_p.argmax(-1))


def test_a_model_that_knows_the_answers_has_a_perfect_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = ROWS

    def oracle(*_: Any) -> jax.Array:
        return 50.0 * jax.nn.one_hot(np.asarray(batch.targets_BT).reshape(-1), SETUP.model.vocab_size)

    monkeypatch.setattr(loss, "_logits", oracle)
    sums, _ = make_curve_step(SETUP.model, num_components=2, num_examples=12)(STATE.params, batch)
    np.testing.assert_array_equal(sums.exact_CK, sums.answers_CK)
    np.testing.assert_array_equal(sums.correct_CK, sums.tokens_CK)
    assert float(jnp.sum(sums.answers_CK)) > 0
    np.testing.assert_array_equal(score(SETUP.model, STATE.params, batch).best_BT, batch.targets_BT)
