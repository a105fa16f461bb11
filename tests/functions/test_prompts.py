"""Prompts are a pure function of their index, and their functions are of the class they are said to be."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from icl.errors import InputError
from icl.functions.config import FunctionConfig
from icl.functions.prompts import FunctionBatch, draw, row_keys, stream_key, training_batch

LINEAR = FunctionConfig(dimension=3, points=5, noise=0.5)
KEY = stream_key(0, "training")
MANY = 10_000


@functools.cache
def _maker(config: FunctionConfig, rows: int) -> Any:
    return jax.jit(functools.partial(training_batch, config, rows=rows))


def _made(config: FunctionConfig, step: int, rows: int, seed: int = 0, stream: str = "training") -> Any:
    batch = _maker(config, rows)(stream_key(seed, stream), np.int32(step))
    return FunctionBatch(*map(np.asarray, batch))


@functools.cache
def _drawer(config: FunctionConfig) -> Any:
    return jax.jit(jax.vmap(functools.partial(draw, config), in_axes=(0, None)))


def _drawn(config: FunctionConfig, x_Kd: Any, number: int) -> Any:
    """True and shown values of many functions at the same points."""
    return jax.device_get(_drawer(config)(row_keys(KEY, 0, number), jnp.asarray(x_Kd, jnp.float32)))


def test_a_prompt_follows_from_its_index_alone() -> None:
    """The rows of a step are those of any other batch size at the same place in the stream."""
    large, second = _made(LINEAR, 0, 8), _made(LINEAR, 1, 4)
    np.testing.assert_array_equal(second.x_BKd, large.x_BKd[4:])
    np.testing.assert_allclose(second.y_BK, large.y_BK[4:], rtol=1e-5, atol=1e-6)


def test_steps_seeds_and_streams_have_prompts_of_their_own() -> None:
    first = _made(LINEAR, 0, 8)
    others = [_made(LINEAR, 1, 8), _made(LINEAR, 0, 8, 1), _made(LINEAR, 0, 8, 0, "test")]
    seen = {first.x_BKd.ravel()[0]}
    for other in others:
        assert not np.isin(other.x_BKd, first.x_BKd).any()
        seen.add(other.x_BKd.ravel()[0])
    assert len(seen) == 4


@pytest.mark.parametrize(
    "config",
    [
        FunctionConfig(dimension=4),
        FunctionConfig("sparse_linear", dimension=4, nonzero=2),
        FunctionConfig("tree", dimension=4, depth=3),
        FunctionConfig("network", dimension=4, hidden=9),
    ],
    ids=lambda config: config.kind,
)
def test_values_have_the_variance_that_errors_are_divided_by(config: FunctionConfig) -> None:
    config = dataclasses.replace(config, points=1, noise=0.5)

    def value(key: jax.Array) -> Any:
        points_key, function_key = jax.random.split(key)
        return draw(config, function_key, jax.random.normal(points_key, (1, config.dimension)))

    drawn = jax.device_get(jax.jit(jax.vmap(value))(row_keys(KEY, 0, MANY)))
    assert np.mean(drawn.true**2) == pytest.approx(config.variance, rel=0.08)
    assert np.mean((drawn.shown - drawn.true) ** 2) == pytest.approx(0.25, rel=0.05)
    assert abs(np.corrcoef(drawn.true.ravel(), (drawn.shown - drawn.true).ravel())[0, 1]) < 0.03


def test_sparse_functions_use_as_many_coordinates_as_said_all_alike() -> None:
    config = FunctionConfig("sparse_linear", dimension=5, nonzero=2)
    weights_Bd = _drawn(config, np.eye(5), 4000).true
    assert set(np.count_nonzero(weights_Bd, axis=1)) == {2}
    np.testing.assert_allclose(np.count_nonzero(weights_Bd, axis=0) / 4000, 2 / 5, atol=0.04)


def test_sparse_functions_choose_among_the_coordinates_that_are_used() -> None:
    config = FunctionConfig("sparse_linear", dimension=5, nonzero=2)
    draws = jax.jit(jax.vmap(lambda key: draw(config, key, jnp.eye(5), 3).true))(row_keys(KEY, 0, 50))
    assert set(np.count_nonzero(draws[:, :3], axis=1)) == {2} and not np.any(draws[:, 3:])


def test_trees_ask_for_signs_along_a_path_of_their_depth() -> None:
    """A value depends on signs alone, takes as many values as there are leaves, and on few coordinates."""
    config = FunctionConfig("tree", dimension=4, depth=2)
    corners = np.array(np.meshgrid(*[[-1.0, 1.0]] * 4)).reshape(4, -1).T
    near, far = _drawn(config, corners, 200).true, _drawn(config, 7 * corners, 200).true
    np.testing.assert_array_equal(near, far)
    counts = [len(np.unique(values)) for values in near]
    assert max(counts) == 4 and min(counts) >= 2 - 1
    # Each path asks two coordinates, so every value is shared by a quarter of all corners at least.
    assert min(np.unique(values, return_counts=True)[1].min() for values in near) >= 4


def test_networks_are_homogeneous_and_not_linear() -> None:
    config = FunctionConfig("network", dimension=3, hidden=6)
    x_Kd = np.random.default_rng(0).normal(size=(4, 3))
    at, twice, minus = (_drawn(config, scale * x_Kd, 20).true for scale in (1, 2, -1))
    np.testing.assert_allclose(twice, 2 * at, rtol=1e-4, atol=1e-5)
    assert np.abs(at + minus).max() > 0.1


def test_the_curriculum_adds_a_coordinate_and_two_points_at_a_time() -> None:
    config = FunctionConfig(dimension=4, points=8, first_dimension=2, first_points=3, grow_every=10)
    expected = {0: (2, 3), 9: (2, 3), 10: (3, 5), 20: (4, 7), 30: (4, 8), 1000: (4, 8)}
    for step, (dimension, points) in expected.items():
        batch = _made(config, step, 4)
        assert np.count_nonzero(np.any(batch.x_BKd != 0, axis=(0, 1))) == dimension
        np.testing.assert_array_equal(batch.weights_BK.sum(axis=1), points)
        assert batch.weights_BK[:, :points].all()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"dimension": 0}, "FunctionConfig.dimension = 0: expected at least 1"),
        ({"noise": -1.0}, "FunctionConfig.noise = -1.0"),
        ({"kind": "cubic"}, "FunctionConfig.kind"),
        ({"kind": "sparse_linear", "nonzero": 9}, "FunctionConfig.nonzero = 9: expected at most the 5"),
        ({"first_points": 99}, "FunctionConfig.first_points = 99: expected between 0 and 11"),
    ],
)
def test_bad_settings_are_refused_by_name(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        FunctionConfig(**changes)
