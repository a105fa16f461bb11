"""Squared error against the number of points seen, of a model and of what it is held against.

All errors are of the same test prompts, against the function without noise, in units of the variance of the
functions' values: d for linear functions.

Shapes: B prompts, K points, R resamples.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from icl.data.keys import generator
from icl.functions import baselines, transformer
from icl.functions.config import FunctionConfig
from icl.functions.shifts import TEST, Prompts, make_test
from icl.model.config import ModelConfig

Floats = NDArray[np.float64]
RESAMPLES = 1000
LEVEL = 0.95
_CHUNK = 512
"""Prompts that a model reads together."""


@dataclasses.dataclass(frozen=True)
class Curve:
    """A mean over prompts at each number of points, [points], with its bootstrap interval."""

    mean_K: Floats
    low_K: Floats
    high_K: Floats

    def to_json(self) -> dict[str, list[float]]:
        """Lists of numbers with five digits after the point."""
        return {
            name: [round(float(value), 5) for value in getattr(self, f"{name}_K")]
            for name in ("mean", "low", "high")
        }


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Models and estimators on the same prompts.

    Attributes:
      models: The squared error of each model.
      estimators: Those of estimators, by name.
      excess: Each model's squared error minus the Bayes estimator's, paired by prompt; empty where none is
        known.
    """

    models: tuple[Curve, ...]
    estimators: Mapping[str, Curve]
    excess: tuple[Curve, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain lists and dicts."""
        return {
            "models": [curve.to_json() for curve in self.models],
            "estimators": {name: curve.to_json() for name, curve in self.estimators.items()},
            "excess": [curve.to_json() for curve in self.excess],
        }


def compare(
    config: ModelConfig,
    functions: FunctionConfig,
    params: Sequence[Any],
    *,
    shift: str = "none",
    number: int = 4096,
    stream: str = TEST,
) -> Comparison:
    """Holds models of one kind against the estimators on test prompts.

    Args:
      config: The models.
      functions: What they were trained on.
      params: Their parameters.
      shift: How the test differs from training, a name of `icl.functions.shifts.SHIFTS`.
      number: Test prompts.
      stream: Of the prompts; another than `TEST` to choose settings by.

    Raises:
      InputError: there is no such shift.
    """
    prompts = make_test(functions, shift, number, stream=stream)

    def error(predicted_BK: Any) -> Floats:
        return np.square(np.asarray(predicted_BK, np.float64) - prompts.true_BK) / functions.variance

    models = [error(predictions(config, functions, one, prompts)) for one in params]
    others = {
        name: error(baselines.by_points(estimator, prompts))
        for name, estimator in baselines.estimators(functions, shift).items()
    }
    bayes = others.get(baselines.BAYES)
    return Comparison(
        tuple(map(bootstrap, models)),
        {name: bootstrap(error_BK) for name, error_BK in others.items()},
        () if bayes is None else tuple(bootstrap(error_BK - bayes) for error_BK in models),
    )


def predictions(
    config: ModelConfig, functions: FunctionConfig, params: Any, prompts: Prompts
) -> NDArray[np.float32]:
    """A model's predictions [prompts, points]: those at k come from the first k points and values.

    Where queries are the next points one pass gives all; else each k is a pass with its query in place.
    """
    run = _forward(config, functions)

    def read(x_BKd: Any, y_BK: Any) -> NDArray[np.float32]:
        parts = [
            np.asarray(run(params, x_BKd[i : i + _CHUNK], y_BK[i : i + _CHUNK]))
            for i in range(0, len(x_BKd), _CHUNK)
        ]
        return np.concatenate(parts)

    if prompts.asks_next_points:
        return read(prompts.x_BKd, prompts.shown_BK)
    found = []
    for k in range(functions.points):
        x_BKd = prompts.x_BKd.copy()
        x_BKd[:, k] = prompts.query_BKd[:, k]
        found.append(read(x_BKd, prompts.shown_BK)[:, k])
    return np.stack(found, axis=1)


def bootstrap(values_BK: Floats, resamples: int = RESAMPLES, level: float = LEVEL) -> Curve:
    """Means over prompts with percentile intervals of resampled prompts; the same resamples for all."""
    number = len(values_BK)
    draws = generator("bootstrap", number, resamples)
    means_RK = draws.multinomial(number, np.full(number, 1 / number), size=resamples) @ values_BK / number
    low_K, high_K = np.quantile(means_RK, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return Curve(values_BK.mean(axis=0), low_K, high_K)


@functools.cache
def _forward(config: ModelConfig, functions: FunctionConfig) -> Any:
    def run(params: Any, x_BKd: jax.Array, y_BK: jax.Array) -> jax.Array:
        return transformer.predict(config, functions, params, jnp.asarray(x_BKd), jnp.asarray(y_BK))

    return jax.jit(run)
