"""A prediction sees what came before it and nothing else."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from icl.functions import transformer
from icl.functions.config import FunctionConfig
from icl.model import ModelConfig

FUNCTIONS = FunctionConfig(dimension=3, points=5)
SMALL = {"num_layers": 2, "embed_dim": 16, "num_heads": 2, "max_length": 16}
RNG = np.random.default_rng(0)
X, Y = (jnp.asarray(RNG.normal(size=shape), jnp.float32) for shape in ((2, 5, 3), (2, 5)))
MODELS = {
    "convolution": ModelConfig.small(**SMALL, conv_width=3),
    "learned positions": ModelConfig(**SMALL, init_std=0.2),  # type: ignore[arg-type]
}


@functools.cache
def _params(config: ModelConfig) -> Any:
    return jax.jit(functools.partial(transformer.init_params, config, FUNCTIONS))(jax.random.key(0))


@functools.cache
def _predict(config: ModelConfig) -> Any:
    params = _params(config)
    return jax.jit(lambda x, y: transformer.predict(config, FUNCTIONS, params, x, y))


@pytest.mark.parametrize("name", MODELS)
def test_a_prediction_sees_its_point_and_what_came_before(name: str) -> None:
    """Changing the value at k changes predictions after k only; changing the point at k, those from k on."""
    predict = _predict(MODELS[name])
    before = predict(X, Y)
    for k in range(5):
        of_value = np.any(np.asarray(predict(X, Y.at[:, k].add(1.0)) != before), axis=0)
        np.testing.assert_array_equal(of_value, np.arange(5) > k)
        of_point = np.any(np.asarray(predict(X.at[:, k].add(1.0), Y) != before), axis=0)
        np.testing.assert_array_equal(of_point, np.arange(5) >= k)


def test_prompts_do_not_see_each_other() -> None:
    predict = _predict(MODELS["convolution"])
    changed = predict(X.at[1].add(1.0), Y.at[1].add(1.0)) != predict(X, Y)
    assert not changed[0].any() and changed[1].all()


@pytest.mark.parametrize("config", MODELS.values(), ids=list(MODELS))
def test_every_parameter_has_logical_axes_and_a_gradient(config: ModelConfig) -> None:
    params = _params(config)
    axes = transformer.logical_axes(config, FUNCTIONS)
    jax.tree.map(lambda leaf, names: np.testing.assert_equal(len(names), leaf.ndim), params, axes)
    assert transformer.num_params(config, FUNCTIONS) == sum(leaf.size for leaf in jax.tree.leaves(params))

    def loss(params: Any) -> jax.Array:
        return jnp.sum(jnp.square(transformer.predict(config, FUNCTIONS, params, X, Y) - Y))

    for path, grad in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(params)):
        # Softmax cancels a bias of all keys.
        if "key" not in jax.tree_util.keystr(path) or grad.ndim > 2:
            assert np.any(grad), path
