"""The chunked loss is the plain one: scores, gradients, on one device and on meshes, for every chunk."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icl.model import ModelConfig
from icl.parallel import MeshConfig, Partitioner, Rules, make_mesh
from icl.training.loss import CHUNK, score_targets, weighted_loss

TIED = ModelConfig(vocab_size=48, embed_dim=16, num_heads=2, num_layers=1)
UNTIED = dataclasses.replace(TIED, tied_head=False, head_bias=True)
ROWS, LENGTH = 8, 12


def parts(config: ModelConfig, seed: int = 0, length: int = LENGTH) -> tuple[Any, ...]:
    keys = jax.random.split(jax.random.key(seed), 6)
    vocab, width = config.vocab_size, config.embed_dim
    params: Any = {"embedding": {"tokens": jax.random.normal(keys[0], (vocab, width))}}
    if not config.tied_head:
        params["head"] = {
            "kernel": jax.random.normal(keys[1], (width, vocab)),
            "bias": jax.random.normal(keys[2], (vocab,)),
        }
    hidden = jax.random.normal(keys[3], (ROWS, length, width))
    targets = jax.random.randint(keys[4], (ROWS, length), 0, vocab)
    weights = jnp.maximum(jax.random.normal(keys[5], (ROWS, length)), 0.0)
    return params, hidden, targets, weights


def plain(
    config: ModelConfig, z_loss: float, params: Any, hidden: Any, targets: Any, weights: Any
) -> jax.Array:
    """The loss as a textbook writes it, with the logits of all positions."""
    if config.tied_head:
        logits = hidden @ params["embedding"]["tokens"].T
    else:
        logits = hidden @ params["head"]["kernel"] + params["head"]["bias"][None, None]
    log_p = jax.nn.log_softmax(logits)
    at_target = jnp.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0]
    return jnp.sum(weights * (z_loss * jax.nn.logsumexp(logits, axis=-1) ** 2 - at_target))


def chunked(
    config: ModelConfig,
    z_loss: float,
    chunk: int,
    partitioner: Partitioner | None,
    params: Any,
    hidden: Any,
    targets: Any,
    weights: Any,
) -> jax.Array:
    return weighted_loss(config, params, hidden, targets, weights, partitioner, z_loss=z_loss, chunk=chunk)[0]


def assert_same(config: ModelConfig, z_loss: float, chunk: int, partitioner: Partitioner | None) -> None:
    inputs = parts(config)
    want = jax.value_and_grad(functools.partial(plain, config, z_loss), (0, 1))(*inputs)
    got = jax.jit(jax.value_and_grad(functools.partial(chunked, config, z_loss, chunk, partitioner), (0, 1)))(
        *inputs
    )
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6 * float(jnp.max(jnp.abs(b))))


@pytest.mark.parametrize("config", [TIED, UNTIED], ids=["tied", "untied"])
@pytest.mark.parametrize("z_loss", [0.0, 0.1])
@pytest.mark.parametrize("chunk", [7, 32, CHUNK])
def test_value_and_gradients_equal_the_plain_loss(config: ModelConfig, z_loss: float, chunk: int) -> None:
    assert_same(config, z_loss, chunk, None)


@pytest.mark.parametrize(
    ("mesh", "rules"),
    [
        ((8, 1, 1, 1), Rules()),
        ((1, 2, 4, 1), Rules()),
        ((2, 2, 1, 2), Rules()),
        ((1, 2, 2, 2), Rules()),
        ((2, 1, 4, 1), Rules(vocab=None)),
        ((2, 2, 2, 1), Rules(embed=None)),
        ((2, 2, 2, 1), Rules(embed="tensor", vocab=None, heads=None, kv_heads=None, mlp=None)),
    ],
)
def test_a_mesh_gives_the_same_whatever_its_rules(mesh: tuple[int, ...], rules: Rules) -> None:
    partitioner = Partitioner(make_mesh(MeshConfig(*mesh)), rules)
    for config in (TIED, UNTIED):
        assert_same(config, 0.1, 5, partitioner)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), chunk=st.integers(1, 200))
def test_scores_are_those_of_the_logits(seed: int, chunk: int) -> None:
    params, hidden, targets, _ = parts(TIED, seed)
    found = score_targets(TIED, params, hidden, targets, chunk=chunk)
    log_p = jax.nn.log_softmax(hidden @ params["embedding"]["tokens"].T)
    at_target = jnp.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(found.cross_entropy_BT, -at_target, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found.best_BT, jnp.argmax(log_p, axis=-1))


def test_of_equal_logits_the_first_is_the_answer_on_every_mesh() -> None:
    params, hidden, targets, _ = parts(TIED)
    params = {"embedding": {"tokens": jnp.tile(params["embedding"]["tokens"][:24], (2, 1))}}
    best = jnp.argmax(hidden @ params["embedding"]["tokens"].T, axis=-1)
    targets = best + 24 * (targets % 2)
    for mesh in (None, MeshConfig(1, 2, 4), MeshConfig(2, 1, 2, 2)):
        partitioner = Partitioner(make_mesh(mesh)) if mesh else None
        found = jax.jit(functools.partial(score_targets, TIED, partitioner=partitioner))(
            params, hidden, targets
        )
        np.testing.assert_array_equal(found.best_BT, best)


def test_positions_that_do_not_divide_among_the_sequence_axis_are_scored_whole() -> None:
    inputs = parts(TIED, length=9)
    partitioner = Partitioner(make_mesh(MeshConfig(2, 1, 2, 2)))
    want = jax.grad(functools.partial(plain, TIED, 0.0), (0, 1))(*inputs)
    got = jax.jit(jax.grad(functools.partial(chunked, TIED, 0.0, 5, partitioner), (0, 1)))(*inputs)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6 * float(jnp.max(jnp.abs(b))))


def test_logits_of_all_positions_stand_nowhere_in_the_program() -> None:
    """And the plain loss has them, so the assertion can fail."""
    inputs = parts(TIED)
    whole = f"f32[{ROWS * LENGTH},{TIED.vocab_size}]", f"f32[{ROWS},{LENGTH},{TIED.vocab_size}]"

    def text(function: Any) -> str:
        return str(jax.jit(jax.grad(function, (0, 1))).lower(*inputs).compile().as_text())

    program = text(functools.partial(chunked, TIED, 0.0, 32, None))
    assert not any(shape in program for shape in whole)
    assert any(shape in text(functools.partial(plain, TIED, 0.0)) for shape in whole)
