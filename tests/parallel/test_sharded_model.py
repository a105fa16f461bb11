"""A sharded model is the single-device model: loss, gradients, and no hidden resharding."""

import dataclasses
import functools
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from icl.model import ModelConfig, abstract_params, init_params, init_sharded, logits
from icl.parallel import MeshConfig, Partitioner, make_mesh

# Sizes that no other dimension of the program has, so that shapes in the compiled text tell what they are.
BATCH, LENGTH = 40, 24
MODEL = ModelConfig(
    vocab_size=64,
    max_length=LENGTH,
    num_layers=2,
    embed_dim=32,
    num_heads=4,
    positions="rotary",
    conv_width=3,
    init_std=0.3,
    scan_unroll=1,
)
MESHES = [(8, 1, 1), (2, 2, 2), (1, 2, 4), (4, 1, 2)]
COMBINATIONS: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    *((mesh, {}) for mesh in MESHES),
    ((2, 2, 2), {"remat": "full", "layer_pattern": ("dense", "banded"), "band_width": 5}),
    ((1, 2, 4), {"remat": "names", "positions": "learned", "tied_head": False}),
    ((1, 2, 2, 2), {"remat": "full"}),
]


def make_batch() -> tuple[np.ndarray, ...]:
    tokens = np.random.default_rng(0).integers(0, MODEL.vocab_size, (BATCH, LENGTH + 1)).astype(np.int32)
    segments = np.tile(np.repeat(np.array([1, 2], np.int32), [9, 15]), (BATCH, 1))
    positions = np.tile(np.concatenate([np.arange(9), np.arange(15)]).astype(np.int32), (BATCH, 1))
    return tokens[:, :-1], segments, positions, tokens[:, 1:]


def loss(
    config: ModelConfig, partitioner: Partitioner | None, params: Any, batch: tuple[jax.Array, ...]
) -> jax.Array:
    inputs, segments, positions, targets = batch
    log_probs = jax.nn.log_softmax(logits(config, params, inputs, segments, positions, partitioner))
    return -jnp.mean(jnp.take_along_axis(log_probs, targets[..., None], axis=-1))


@functools.cache
def single_device(config: ModelConfig) -> tuple[Any, Any]:
    params = jax.jit(init_params, static_argnums=0)(config, jax.random.key(0))
    return jax.jit(jax.value_and_grad(functools.partial(loss, config, None)))(params, make_batch())


def shapes_in(program: str | None) -> Iterator[tuple[int, ...]]:
    for dims in re.findall(r"\b(?:f32|bf16|s32|pred)\[([\d,]+)\]", program or ""):
        yield tuple(int(d) for d in dims.split(","))


@pytest.mark.parametrize(("mesh", "changes"), COMBINATIONS)
def test_loss_and_gradients_equal_one_device(
    mesh: tuple[int, ...], changes: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    config = dataclasses.replace(MODEL, **changes)
    partitioner = Partitioner(make_mesh(MeshConfig(*mesh)))
    params = init_sharded(config, jax.random.key(0), partitioner)
    batch = tuple(jax.device_put(x, partitioner.batch_sharding) for x in make_batch())
    shardings = jax.tree.map(lambda leaf: leaf.sharding, params)
    step = jax.jit(
        jax.value_and_grad(functools.partial(loss, config, partitioner)),
        out_shardings=(partitioner.replicated, shardings),
    )
    compiled = step.lower(params, batch).compile()
    value, gradients = compiled(params, batch)

    want_value, want_gradients = single_device(dataclasses.replace(config, remat="none"))
    np.testing.assert_allclose(value, want_value, rtol=1e-5)
    largest = max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(want_gradients))
    for got, want in zip(jax.tree.leaves(gradients), jax.tree.leaves(want_gradients), strict=True):
        # Without rotary positions the gradient of a key bias is zero but for rounding.
        scale = max(float(jnp.max(jnp.abs(want))), 1e-3 * largest)
        np.testing.assert_allclose(got, want, atol=1e-5 * scale, rtol=0)

    assert "involuntary full rematerialization" not in capfd.readouterr().err.lower()
    if partitioner.batch_divisor > 1:
        whole = [s for s in shapes_in(compiled.as_text()) if BATCH in s and LENGTH in s]
        assert not whole, f"the whole batch stands on one device: {sorted(set(whole))}"


def test_a_lost_batch_sharding_would_show_in_the_compiled_program() -> None:
    """The assertion above can fail: the same program with a replicated batch has such shapes."""
    partitioner = Partitioner(make_mesh(MeshConfig(8, 1, 1)))
    ids = jax.ShapeDtypeStruct((BATCH, LENGTH), jnp.int32, sharding=partitioner.replicated)
    step = jax.jit(functools.partial(loss, MODEL, None))
    program = step.lower(abstract_params(MODEL), (ids,) * 4).compile().as_text()
    assert any(BATCH in s and LENGTH in s for s in shapes_in(program))
