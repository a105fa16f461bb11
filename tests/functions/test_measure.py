"""Errors are what they are said to be, whichever road a model's predictions take."""

import functools

import jax
import numpy as np
import pytest

from icl.functions import measure, transformer
from icl.functions.figures import draw
from icl.functions.shifts import make_test
from tests.functions.small import small_run

RUN = small_run()
PARAMS = jax.jit(functools.partial(transformer.init_params, RUN.model, RUN.data))(jax.random.key(0))


def test_queries_put_in_place_are_answered_as_next_points_are() -> None:
    """One pass for all k and one pass a k agree where the queries are the next points."""
    prompts = make_test(RUN.data, "none", 4)
    one_pass = measure.predictions(RUN.model, RUN.data, PARAMS, prompts)
    query_BKd = prompts.query_BKd.copy()
    query_BKd[:, 0] += 1
    by_k = measure.predictions(RUN.model, RUN.data, PARAMS, prompts._replace(query_BKd=query_BKd))
    np.testing.assert_allclose(by_k[:, 1:], one_pass[:, 1:], atol=1e-5)
    assert (np.abs(by_k[:, 0] - one_pass[:, 0]) > 1e-3).all()


def test_a_model_that_says_nothing_has_the_error_of_the_variance() -> None:
    silent = jax.tree.map(lambda leaf: leaf, PARAMS) | {
        "read_out": jax.tree.map(np.zeros_like, PARAMS["read_out"])
    }
    found = measure.compare(RUN.model, RUN.data, [silent, PARAMS], number=2000)
    of_silent, other = found.models
    np.testing.assert_allclose(of_silent.mean_K, 1, atol=0.15)
    assert (of_silent.low_K < of_silent.mean_K).all() and (of_silent.mean_K < of_silent.high_K).all()
    assert found.excess[0].mean_K[0] == pytest.approx(0, abs=1e-9)
    for model, excess in zip((of_silent, other), found.excess, strict=True):
        np.testing.assert_allclose(excess.mean_K, model.mean_K - found.estimators["Bayes"].mean_K, atol=1e-9)
    assert draw({"linear": found.to_json()}, 0.05).startswith(b"\x89PNG")


def test_only_linear_functions_have_a_known_bayes_estimator() -> None:
    run = small_run(data={"kind": "tree", "depth": 2})
    found = measure.compare(run.model, run.data, [], number=50)
    assert found.excess == () and "Bayes" not in found.estimators


def test_bootstrap_intervals_are_those_of_the_mean() -> None:
    values_BK = np.random.default_rng(0).exponential(size=(900, 3))
    curve = measure.bootstrap(values_BK)
    half = 1.96 * values_BK.std(axis=0) / 30
    np.testing.assert_allclose(curve.mean_K, values_BK.mean(axis=0))
    np.testing.assert_allclose(curve.high_K - curve.mean_K, half, rtol=0.15)
    np.testing.assert_allclose(curve.mean_K - curve.low_K, half, rtol=0.15)
