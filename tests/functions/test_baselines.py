"""Estimators against closed forms and other roads to the same numbers."""

import numpy as np
import pytest

from icl.functions import baselines
from icl.functions.baselines import averaging, lasso_weights, least_squares, nearest_neighbours, ridge
from icl.functions.config import FunctionConfig
from icl.functions.shifts import Prompts
from tests.functions.small import CONFIG, made

RNG = np.random.default_rng(0)
X, Y, QUERY = RNG.normal(size=(6, 5, 3)), RNG.normal(size=(6, 5)), RNG.normal(size=(6, 3))


def _errors(shift: str) -> dict[str, np.ndarray]:
    prompts = made(shift)
    return {
        name: (baselines.by_points(estimator, prompts) - prompts.true_BK) ** 2
        for name, estimator in baselines.estimators(CONFIG, shift).items()
    }


@pytest.mark.parametrize("count", [0, 1, 3, 5])
def test_ridge_is_the_posterior_mean(count: int) -> None:
    """By conditioning the joint Gaussian of values and answer, whose covariance is x x' + v I."""
    x_BKd, y_BK = X[:, :count], Y[:, :count]
    covariance = x_BKd @ x_BKd.transpose(0, 2, 1) + 0.25 * np.eye(count)
    with_answer = np.einsum("bd,bkd->bk", QUERY, x_BKd)
    expected = [a @ np.linalg.solve(c, y) for a, c, y in zip(with_answer, covariance, y_BK, strict=True)]
    np.testing.assert_allclose(ridge(x_BKd, y_BK, QUERY, penalty=0.25), expected, atol=1e-12)


def test_the_error_of_the_bayes_estimator_is_the_posterior_variance() -> None:
    prompts, error = made("none"), _errors("none")["Bayes"]
    for k in range(CONFIG.points):
        x_BKd, query_Bd = prompts.x_BKd[:, :k].astype(float), prompts.query_BKd[:, k].astype(float)
        precision = np.eye(CONFIG.dimension) + np.einsum("bki,bkj->bij", x_BKd, x_BKd) / 0.25
        variance = np.einsum("bi,bij,bj->b", query_Bd, np.linalg.inv(precision), query_Bd)
        spread = (error[:, k] - variance).std() / np.sqrt(len(error))
        assert abs(error[:, k].mean() - variance.mean()) < 4 * spread


@pytest.mark.parametrize(
    "shift", ["none", "orthants", "skewed", "points_doubled", "weights_doubled", "noise_doubled"]
)
def test_no_estimator_is_better_than_bayes_under_any_shift(shift: str) -> None:
    errors = _errors(shift)
    bayes = errors.pop("Bayes")
    assert ("ridge of training" in errors) == (shift in ("weights_doubled", "noise_doubled"))
    for name, error in errors.items():
        worse = error - bayes
        assert (worse.mean(axis=0) >= -3 * worse.std(axis=0) / np.sqrt(len(worse))).all(), name
        assert worse.mean() > 0, name


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_least_squares_is_the_shortest_solution(count: int) -> None:
    weights = [np.linalg.lstsq(x, y, rcond=None)[0] for x, y in zip(X[:, :count], Y[:, :count], strict=True)]
    expected = np.sum(np.array(weights) * QUERY, axis=1)
    np.testing.assert_allclose(least_squares(X[:, :count], Y[:, :count], QUERY), expected, atol=1e-10)


def test_least_squares_is_exact_from_d_points_on_without_noise() -> None:
    w_Bd = RNG.normal(size=(6, 3))
    y_BK = np.einsum("bkd,bd->bk", X, w_Bd)
    for count, is_exact in ((2, False), (3, True), (5, True)):
        error = least_squares(X[:, :count], y_BK[:, :count], QUERY) - np.sum(w_Bd * QUERY, axis=1)
        assert (np.abs(error).max() < 1e-9) == is_exact
    assert list(baselines.estimators(FunctionConfig(noise=0.0)))[0] == "Bayes"


def test_lasso_meets_the_conditions_of_its_optimum() -> None:
    """The gradient of the squares is -penalty x sign where w is not 0, and no larger elsewhere."""
    penalty = 0.2
    w_Bd = lasso_weights(X, Y, penalty=penalty, sweeps=1000)
    gradient = -np.einsum("bkd,bk->bd", X, Y - np.einsum("bkd,bd->bk", X, w_Bd)) / 5
    assert 0 < np.count_nonzero(w_Bd) < w_Bd.size
    np.testing.assert_allclose(gradient[w_Bd != 0], -penalty * np.sign(w_Bd[w_Bd != 0]), atol=1e-9)
    assert (np.abs(gradient) <= penalty + 1e-9).all()
    assert not lasso_weights(X[:, :0], Y[:, :0], penalty=penalty).any()


def test_lasso_shrinks_each_coordinate_of_orthogonal_points_by_itself() -> None:
    x_BKd, y_BK = np.eye(3)[None] * 3**0.5, np.array([[3.0, -0.3, -2.0]]) * 3**0.5
    expected = [[3 - 0.5, 0, -(2 - 0.5)]]
    np.testing.assert_allclose(lasso_weights(x_BKd, y_BK, penalty=0.5), expected, atol=1e-12)


def test_nearest_neighbours_and_averaging_by_hand() -> None:
    x_BKd, y_BK = np.array([[[0.0], [1.0], [2.0], [9.0]]]), np.array([[1.0, 2.0, 6.0, 100.0]])
    query_Bd = np.array([[0.9]])
    assert nearest_neighbours(x_BKd, y_BK, query_Bd, neighbours=3)[0] == 3
    assert nearest_neighbours(x_BKd[:, :2], y_BK[:, :2], query_Bd, neighbours=3)[0] == 1.5
    assert nearest_neighbours(x_BKd[:, :0], y_BK[:, :0], query_Bd, neighbours=3)[0] == 0
    assert averaging(x_BKd[:, :3], y_BK[:, :3], query_Bd)[0] == pytest.approx(0.9 * (2 + 12) / 3)
    assert averaging(x_BKd[:, :0], y_BK[:, :0], query_Bd)[0] == 0


@pytest.mark.parametrize("kind", ["linear", "sparse_linear", "tree", "network"])
def test_estimators_see_the_first_k_points_only(kind: str) -> None:
    config = FunctionConfig(kind, dimension=3, points=5, nonzero=2)  # type: ignore[arg-type]
    x_BKd = RNG.normal(size=(6, 5, 3))
    prompts = Prompts(x_BKd, RNG.normal(size=(6, 5)), x_BKd.copy(), RNG.normal(size=(6, 5)))  # type: ignore[arg-type]
    later = prompts._replace(x_BKd=prompts.x_BKd.copy(), shown_BK=prompts.shown_BK.copy())
    later.x_BKd[:, 3:], later.shown_BK[:, 3:] = 9, 9
    for estimator in baselines.estimators(config).values():
        before, after = baselines.by_points(estimator, prompts), baselines.by_points(estimator, later)
        np.testing.assert_array_equal(before[:, :4], after[:, :4])
        assert not np.allclose(before[:, 4], after[:, 4])
