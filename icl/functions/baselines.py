"""What the model is held against: estimators that see the same points and values, in NumPy and float64.

Each takes points [prompts, k, dimension], values [prompts, k] and queries [prompts, dimension], and predicts
[prompts]; `by_points` asks one for every k.

Shapes: B prompts, K points, d dimensions.
"""

import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from icl.functions.config import FunctionConfig
from icl.functions.shifts import SHIFTS, Prompts

Floats = NDArray[np.float64]
Estimator = Callable[[Floats, Floats, Floats], Floats]

BAYES = "Bayes"
"""The posterior mean: no estimator has a smaller expected squared error."""
LEAST_SQUARES = "least squares"
NEIGHBOURS = 3
LASSO_PENALTY = 0.03
"""The best of 0.003, 0.01, 0.03, 0.1 and 0.3 on other prompts of `experiments/functions_in_context`."""


def estimators(config: FunctionConfig, shift: str = "none") -> dict[str, Estimator]:
    """Those that a class of functions is held against, by name; `BAYES` first, where it is known."""
    how = SHIFTS[shift]
    found: dict[str, Estimator] = {
        LEAST_SQUARES: least_squares,
        "nearest neighbours": functools.partial(nearest_neighbours, neighbours=NEIGHBOURS),
        "averaging": averaging,
    }
    if config.kind == "sparse_linear":
        return {"lasso": functools.partial(lasso, penalty=LASSO_PENALTY)} | found
    if config.kind != "linear":
        return found
    in_training, here = config.noise**2, (config.noise * how.noise / how.weights) ** 2
    if here == 0:
        del found[LEAST_SQUARES]
    if in_training != here:
        found = {"ridge of training": functools.partial(ridge, penalty=in_training)} | found
    return {BAYES: functools.partial(ridge, penalty=here)} | found


def by_points(estimator: Estimator, prompts: Prompts) -> Floats:
    """Predictions [prompts, points]: those at k come from the first k points and values."""
    x_BKd, y_BK, query_BKd = (
        np.asarray(part, np.float64) for part in (prompts.x_BKd, prompts.shown_BK, prompts.query_BKd)
    )
    found = [estimator(x_BKd[:, :k], y_BK[:, :k], query_BKd[:, k]) for k in range(x_BKd.shape[1])]
    return np.stack(found, axis=1)


def ridge(x_BKd: Floats, y_BK: Floats, query_Bd: Floats, *, penalty: float) -> Floats:
    """Least |y - x w|^2 + penalty |w|^2; `least_squares` where the penalty is 0.

    For w from N(0, s^2 I) and noise of variance v, penalty v / s^2 makes it the posterior mean of the value,
    whatever the points are: no estimator has a smaller expected squared error.
    """
    if penalty == 0:
        return least_squares(x_BKd, y_BK, query_Bd)
    gram_Bdd = np.einsum("bki,bkj->bij", x_BKd, x_BKd) + penalty * np.eye(x_BKd.shape[2])
    w_Bd = np.linalg.solve(gram_Bdd, np.einsum("bki,bk->bi", x_BKd, y_BK)[..., None])[..., 0]
    return _dot(w_Bd, query_Bd)


def least_squares(x_BKd: Floats, y_BK: Floats, query_Bd: Floats) -> Floats:
    """The shortest w of those with least |y - x w|^2."""
    if x_BKd.shape[1] == 0:
        return np.zeros(len(query_Bd))
    w_Bd = (np.linalg.pinv(x_BKd) @ y_BK[..., None])[..., 0]
    return _dot(w_Bd, query_Bd)


def averaging(x_BKd: Floats, y_BK: Floats, query_Bd: Floats) -> Floats:
    """The w that is the mean of y x: right on average for points from N(0, I) (Garg et al. 2022, 3)."""
    return _dot(np.einsum("bki,bk->bi", x_BKd, y_BK) / max(x_BKd.shape[1], 1), query_Bd)


def nearest_neighbours(x_BKd: Floats, y_BK: Floats, query_Bd: Floats, *, neighbours: int) -> Floats:
    """The mean value of the nearest points, all where there are fewer; 0 without any."""
    if x_BKd.shape[1] == 0:
        return np.zeros(len(query_Bd))
    distance_BK = np.sum((x_BKd - query_Bd[:, None]) ** 2, axis=2)
    nearest = np.argsort(distance_BK, axis=1, kind="stable")[:, :neighbours]
    return np.take_along_axis(y_BK, nearest, axis=1).mean(axis=1)


def lasso(x_BKd: Floats, y_BK: Floats, query_Bd: Floats, *, penalty: float, sweeps: int = 100) -> Floats:
    """Least |y - x w|^2 / (2 k) + penalty |w|_1, by coordinate descent (Friedman et al. 2010)."""
    return _dot(lasso_weights(x_BKd, y_BK, penalty=penalty, sweeps=sweeps), query_Bd)


def lasso_weights(x_BKd: Floats, y_BK: Floats, *, penalty: float, sweeps: int = 100) -> Floats:
    """The weights [prompts, dimension] of `lasso`; zeros without a point."""
    batch, count, dimension = x_BKd.shape
    w_Bd = np.zeros((batch, dimension))
    if count == 0:
        return w_Bd
    square_Bd = np.mean(x_BKd**2, axis=1)
    rest_BK = y_BK.copy()
    for _ in range(sweeps):
        for i in range(dimension):
            pull_B = np.mean(x_BKd[:, :, i] * rest_BK, axis=1) + square_Bd[:, i] * w_Bd[:, i]
            new_B = np.sign(pull_B) * np.maximum(np.abs(pull_B) - penalty, 0) / square_Bd[:, i]
            rest_BK -= x_BKd[:, :, i] * (new_B - w_Bd[:, i])[:, None]
            w_Bd[:, i] = new_B
    return w_Bd


def _dot(w_Bd: Floats, query_Bd: Floats) -> Floats:
    found: Floats = np.einsum("bi,bi->b", w_Bd, query_Bd)
    return found
