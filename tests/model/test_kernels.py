"""Fused attention is the reference, forward and backward: splash interpreted, cuDNN's mask by XLA."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo

from icl import model
from icl.errors import InputError
from icl.model import ModelConfig, kernels
from icl.model.attention import attend
from icl.model.block import attention_of
from icl.model.kernels import cudnn_attention
from icl.model.spans import Span, visible
from icl.parallel import MeshConfig, Partitioner, make_mesh

LENGTH = 256


def spans(rows: int, length: int, seed: int = 0) -> Span:
    """Rows of a few segments, and at the end of some of them a part where nothing stands."""
    rng = np.random.default_rng(seed)
    segments, positions = np.zeros((2, rows, length), np.int32)
    for row in range(rows):
        cuts = [0, *sorted(rng.choice(np.arange(1, length), 3, replace=False)), length]
        for number, (start, stop) in enumerate(zip(cuts, cuts[1:], strict=False), 1):
            segments[row, start:stop] = 0 if number == 4 and row % 2 else number
            positions[row, start:stop] = np.arange(stop - start)
    return Span(jnp.asarray(segments), jnp.asarray(positions))


def inputs(rows: int, length: int, heads: int, kv_heads: int, size: int) -> tuple[jax.Array, ...]:
    keys = jax.random.split(jax.random.key(0), 4)
    q, out = (jax.random.normal(key, (rows, length, heads, size)) for key in keys[:2])
    k, v = (jax.random.normal(key, (rows, kv_heads, length, size)) for key in keys[2:])
    return q, k, v, out


def results(
    how: Any,
    span: Span,
    arrays: tuple[jax.Array, ...],
    band: int | None,
    partitioner: Partitioner | None = None,
) -> list[np.ndarray]:
    """Output, and gradients of its product with a random array."""
    q, k, v, out = arrays

    def product(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
        o = attend(
            q,
            k,
            v,
            queries=span,
            keys=span,
            band=band,
            implementation=how,
            aligned=True,
            partitioner=partitioner,
        )
        return jnp.sum(o * out), o

    (_, o), gradients = jax.jit(jax.value_and_grad(product, (0, 1, 2), has_aux=True))(q, k, v)
    return [np.asarray(x) for x in (o, *gradients)]


def differs_by(found: list[np.ndarray], wanted: list[np.ndarray]) -> float:
    return max(float(np.max(np.abs(a - b)) / np.max(np.abs(b))) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize(
    ("size", "heads", "kv_heads", "band", "length"),
    [
        (64, 2, 2, None, LENGTH),
        (80, 2, 1, 37, LENGTH),
        (96, 2, 2, 130, 200),
        (128, 4, 2, None, LENGTH),
        (64, 2, 2, 3, 130),
    ],
)
def test_splash_equals_the_reference(
    size: int, heads: int, kv_heads: int, band: int | None, length: int
) -> None:
    span, arrays = spans(2, length), inputs(2, length, heads, kv_heads, size)
    wanted = results("reference", span, arrays, band)
    found = results("splash", span, arrays, band)
    assert differs_by(found, wanted) < 2e-5
    other_band = 36 if band is None else band + 1
    assert differs_by(results("splash", span, arrays, other_band), wanted) > 1e-2
    moved = span._replace(segments_BT=jnp.roll(span.segments_BT, 1, axis=1))
    assert differs_by(results("splash", moved, arrays, band), wanted) > 1e-2


@pytest.mark.parametrize("mesh", [(2, 2, 2, 1), (2, 1, 2, 2), (1, 1, 1, 8)])
@pytest.mark.parametrize("band", [None, 37])
def test_splash_on_a_mesh_equals_the_reference(mesh: tuple[int, ...], band: int | None) -> None:
    partitioner = Partitioner(make_mesh(MeshConfig(*mesh)))
    length = 128 * mesh[3]
    span, arrays = spans(4, length), inputs(4, length, 4, 2, 64)
    wanted = results("reference", span, arrays, band)
    assert differs_by(results("splash", span, arrays, band, partitioner), wanted) < 2e-5


MODEL = ModelConfig(
    vocab_size=32,
    max_length=128,
    num_layers=4,
    embed_dim=32,
    num_heads=2,
    layer_pattern=("dense", "banded"),
    band_width=20,
    qkv_bias=False,
    init_std=0.2,
    scan_unroll=1,
)


def gradients(config: ModelConfig, partitioner: Partitioner | None, at: Any = None) -> Any:
    params = model.init_params(config, jax.random.key(0))
    span = spans(4, 128)
    tokens = jax.random.randint(jax.random.key(1), (4, 128), 0, config.vocab_size)

    def loss(params: Any) -> jax.Array:
        hidden = model.hidden_states(config, params, tokens, *span, partitioner, at)
        return jnp.sum(jnp.sin(hidden.astype(jnp.float32)))

    return jax.jit(jax.value_and_grad(loss))(params)


@pytest.mark.parametrize(
    "remat",
    ["none", *(pytest.param(policy, marks=pytest.mark.extended) for policy in ("names", "full"))],
)
def test_a_model_with_splash_has_the_gradients_of_the_reference(remat: Any) -> None:
    wanted = gradients(dataclasses.replace(MODEL, attention="reference"), None)
    splash = dataclasses.replace(MODEL, attention="splash", remat=remat)
    for partitioner in (None, Partitioner(make_mesh(MeshConfig(2, 2, 2)))):
        found = gradients(splash, partitioner)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=5e-5 * float(jnp.max(jnp.abs(b))))


def test_splash_attends_everywhere_where_some_positions_are_wanted() -> None:
    at = jnp.asarray(
        np.sort(np.random.default_rng(0).permuted(np.tile(np.arange(128), (4, 1)), axis=1)[:, :9])
    )
    wanted = gradients(dataclasses.replace(MODEL, attention="reference"), None, at)
    found = gradients(dataclasses.replace(MODEL, attention="splash"), None, at)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=5e-5 * float(jnp.max(jnp.abs(b))))


def test_a_saved_output_spares_the_backward_pass_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lowered for a TPU: forward, dq and dkv; recomputing everything runs the forward kernel again."""
    monkeypatch.setattr(kernels, "platform_of", lambda _: "tpu")
    ids = jax.ShapeDtypeStruct((4, 128), jnp.int32)

    def kernels_run(remat: Any) -> int:
        config = dataclasses.replace(MODEL, attention="splash", remat=remat, layer_pattern=("dense",))

        def loss(params: Any, tokens: jax.Array, segments: jax.Array, positions: jax.Array) -> jax.Array:
            return jnp.sum(model.hidden_states(config, params, tokens, segments, positions))

        traced = jax.jit(jax.grad(loss)).trace(model.abstract_params(config), ids, ids, ids)
        return traced.lower(lowering_platforms=("tpu",)).as_text().count("tpu_custom_call")

    assert kernels_run("none") == kernels_run("names") == 3
    assert kernels_run("full") == 4


@pytest.mark.parametrize("band", [None, 5])
def test_the_mask_that_cudnn_gets_is_the_references(band: int | None) -> None:
    span, arrays = spans(2, 64), inputs(2, 64, 4, 2, 16)
    for partitioner in (None, Partitioner(make_mesh(MeshConfig(2, 1, 2), jax.devices()[:4]))):
        q, k, v, _ = arrays
        seen = visible(span, span, band)
        o = cudnn_attention(q, k, v, seen, partitioner=partitioner, implementation="xla")
        np.testing.assert_allclose(o, results("reference", span, arrays, band)[0], atol=2e-5)


def test_cudnn_is_called_forward_and_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(fused_attention_stablehlo, "check_compute_capability", lambda *_: True)
    monkeypatch.setattr(fused_attention_stablehlo, "is_cuda_compute_capability_equal", lambda *_: False)
    span, arrays = spans(2, 64), inputs(2, 64, 4, 2, 64)
    q, k, v, out = (x.astype(jnp.bfloat16) for x in arrays)

    def product(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        o = cudnn_attention(q, k, v, visible(span, span, None), partitioner=None)
        return jnp.sum((o * out).astype(jnp.float32))

    program = (
        jax.jit(jax.grad(product, (0, 1, 2))).trace(q, k, v).lower(lowering_platforms=("cuda",)).as_text()
    )
    assert "__cudnn$fmha" in program and "Backward" in program


def test_auto_follows_the_platform_of_the_mesh(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, split = (Partitioner(make_mesh(MeshConfig(*mesh))) for mesh in ((8,), (4, 1, 1, 2)))
    narrow = dataclasses.replace(MODEL, compute_dtype="bfloat16")
    found = {}
    for platform in ("cpu", "gpu", "tpu"):
        monkeypatch.setattr(Partitioner, "platform", platform)
        found[platform] = [
            attention_of(config, mesh) for config in (MODEL, narrow) for mesh in (whole, split)
        ]
    assert found == {
        "cpu": ["blocked", "reference"] * 2,
        "gpu": ["reference", "reference", "cudnn", "reference"],
        "tpu": ["splash"] * 4,
    }


def test_cudnn_in_float32_or_over_split_rows_is_refused() -> None:
    with pytest.raises(InputError, match="ModelConfig.attention = 'cudnn': .*float32"):
        dataclasses.replace(MODEL, attention="cudnn")
    config = dataclasses.replace(MODEL, attention="cudnn", compute_dtype="bfloat16")
    with pytest.raises(InputError, match="MeshConfig.sequence = 2"):
        model.check_mesh(config, Partitioner(make_mesh(MeshConfig(4, 1, 1, 2))))
