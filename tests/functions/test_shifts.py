"""Test prompts are from the distribution that their name says, of functions that do not change with it."""

import numpy as np
import pytest

from icl.errors import InputError
from icl.functions.config import FunctionConfig
from icl.functions.shifts import SHIFTS, Prompts, make_test
from tests.functions.small import CONFIG, made


def _weights(prompts: Prompts) -> np.ndarray:
    """w of each prompt, recovered from true values at queries."""
    return (np.linalg.pinv(prompts.query_BKd) @ prompts.true_BK[..., None])[..., 0]


@pytest.mark.parametrize("shift", [name for name in SHIFTS if name not in ("subspace", "weights_doubled")])
def test_the_functions_are_the_same_under_every_shift(shift: str) -> None:
    np.testing.assert_allclose(_weights(made(shift)), _weights(made("none")), rtol=0.02, atol=0.02)


def test_without_a_shift_queries_are_the_next_points_and_values_have_the_noise() -> None:
    prompts = made("none")
    assert prompts.asks_next_points
    assert np.mean((prompts.shown_BK - prompts.true_BK) ** 2) == pytest.approx(0.25, rel=0.05)
    assert np.mean(prompts.x_BKd**2) == pytest.approx(1, rel=0.05)
    # Of random float32 numbers a few in a hundred are drawn twice.
    assert np.isin(prompts.x_BKd, made("none", "tune").x_BKd).mean() < 0.05


def test_orthants_are_one_for_the_points_and_another_for_the_queries() -> None:
    prompts = made("orthants")
    signs = np.sign(prompts.x_BKd), np.sign(prompts.query_BKd)
    for sign_BKd in signs:
        assert (sign_BKd == sign_BKd[:, :1]).all()
    same = np.mean(np.all(signs[0][:, 0] == signs[1][:, 0], axis=1))
    assert same == pytest.approx(1 / 16, abs=0.02)
    assert not prompts.asks_next_points


def test_a_subspace_has_half_the_dimensions() -> None:
    prompts = made("subspace")
    singular = np.linalg.svd(prompts.x_BKd[:200], compute_uv=False)
    assert (singular[:, 2:] < 1e-4).all() and (singular[:, 1] > 1e-3).all()
    assert np.mean(np.sum(prompts.x_BKd**2, axis=2)) == pytest.approx(2, rel=0.05)


def test_a_skewed_covariance_keeps_the_trace_and_has_one_large_direction() -> None:
    config = FunctionConfig(dimension=4, points=400)
    x_BKd = make_test(config, "skewed", 40).x_BKd
    eigenvalues = np.linalg.eigvalsh(np.einsum("bki,bkj->bij", x_BKd, x_BKd) / 400).mean(axis=0)[::-1]
    expected = 4 / np.arange(1, 5) ** 2 / np.sum(1 / np.arange(1, 5) ** 2)
    np.testing.assert_allclose(eigenvalues, expected, rtol=0.15)
    assert eigenvalues.sum() == pytest.approx(4, rel=0.05)


def test_points_weights_and_noise_are_doubled() -> None:
    none = made("none")
    points, weights, noise = (made(f"{name}_doubled") for name in ("points", "weights", "noise"))
    np.testing.assert_allclose(points.x_BKd, 2 * none.x_BKd, rtol=1e-6)
    np.testing.assert_allclose(points.true_BK, 2 * none.true_BK, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(weights.true_BK, 2 * none.true_BK, rtol=1e-6)
    rest = noise.shown_BK - noise.true_BK
    np.testing.assert_allclose(rest, 2 * (none.shown_BK - none.true_BK), rtol=1e-3, atol=1e-5)


def test_an_unknown_shift_is_refused() -> None:
    with pytest.raises(InputError, match="shift 'sideways': expected one of none, orthants"):
        make_test(CONFIG, "sideways", 4)
