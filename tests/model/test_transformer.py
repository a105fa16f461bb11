"""The transformer against a second implementation in NumPy, and the properties it must have."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icl.errors import InputError
from icl.model import (
    ModelConfig,
    abstract_params,
    flops_per_token,
    init_params,
    logical_axes,
    logits,
    num_non_embedding_params,
    num_params,
)

SMALL = ModelConfig(vocab_size=40, max_length=48, num_layers=2, embed_dim=16, num_heads=4, init_std=0.3)
VARIANTS: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "neox": {
        "positions": "rotary",
        "rotary_fraction": 0.5,
        "residual": "parallel",
        "tied_head": False,
        "activation": "gelu_erf",
        "head_dim": 8,
    },
    "llama": {
        "positions": "rotary",
        "norm": "rms",
        "activation": "swiglu",
        "num_kv_heads": 2,
        "qkv_bias": False,
        "attention_out_bias": False,
        "mlp_bias": False,
        "mlp_dim": 24,
        "tied_head": False,
        "head_bias": True,
        "rotary_base": 500.0,
    },
    "convolution": {
        "positions": "rotary",
        "conv_width": 4,
        "activation": "relu2",
        "qk_norm": True,
        "layer_pattern": ("dense", "banded"),
        "band_width": 3,
        "norm_bias": False,
    },
}


def variant(name: str) -> ModelConfig:
    return dataclasses.replace(SMALL, **VARIANTS[name])


def random_params(config: ModelConfig, seed: int = 0) -> Any:
    """Weights of standard deviation 0.3 with random biases and scales, so that every part counts."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(0.0, 0.3, leaf.shape), jnp.float32), abstract_params(config)
    )


def packed(rng: np.random.Generator, batch: int, lengths: list[int]) -> tuple[np.ndarray, ...]:
    tokens = rng.integers(0, SMALL.vocab_size, (batch, sum(lengths)), np.int32)
    segments = np.repeat(np.arange(1, len(lengths) + 1, dtype=np.int32), lengths)
    positions = np.concatenate([np.arange(n, dtype=np.int32) for n in lengths])
    return tokens, np.tile(segments, (batch, 1)), np.tile(positions, (batch, 1))


run = jax.jit(logits, static_argnums=0)

# The second road: loops over heads and positions in float64, written from the formulae alone.


def numpy_norm(config: ModelConfig, p: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    if config.norm == "layer":
        x = x - x.mean(-1, keepdims=True)
    y = x / np.sqrt((x**2).mean(-1, keepdims=True) + config.norm_epsilon) * p["scale"]
    return y + p["bias"] if "bias" in p else y


def numpy_linear(p: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    return x @ p["kernel"] + p.get("bias", 0.0)


def numpy_rotary(config: ModelConfig, x: np.ndarray) -> np.ndarray:
    """x [positions, size]: dimension i is rotated with dimension i + half, as complex numbers."""
    half = int(config.size_per_head * config.rotary_fraction) // 2
    turn = np.exp(1j * np.outer(np.arange(len(x)), config.rotary_base ** (-np.arange(half) / half)))
    z = (x[:, :half] + 1j * x[:, half : 2 * half]) * turn
    return np.concatenate([z.real, z.imag, x[:, 2 * half :]], axis=1)


def numpy_attention(config: ModelConfig, p: dict[str, Any], x: np.ndarray, band: int) -> np.ndarray:
    length, size = len(x), config.size_per_head
    parts = {}
    for name in ("query", "key", "value"):
        y = numpy_linear(p[name], x)
        if config.conv_width:
            kernel = p[name]["convolution"]
            y = np.stack(
                [sum(kernel[j] * y[t - j] for j in range(min(t + 1, len(kernel)))) for t in range(length)]
            )
        parts[name] = y.reshape(length, -1, size)
    heads = []
    for head in range(config.num_heads):
        q = parts["query"][:, head]
        k, v = (parts[name][:, head * config.kv_heads // config.num_heads] for name in ("key", "value"))
        if config.qk_norm:
            q, k = numpy_norm(config, p["query_norm"], q), numpy_norm(config, p["key_norm"], k)
        if config.positions == "rotary":
            q, k = numpy_rotary(config, q), numpy_rotary(config, k)
        out = np.zeros_like(v)
        for t in range(length):
            start = max(0, t - band + 1)
            scores = k[start : t + 1] @ q[t] / math.sqrt(size)
            weights = np.exp(scores - scores.max())
            out[t] = weights @ v[start : t + 1] / weights.sum()
        heads.append(out)
    return numpy_linear(p["out"], np.concatenate(heads, axis=1))


def numpy_mlp(config: ModelConfig, p: dict[str, Any], x: np.ndarray) -> np.ndarray:
    h = numpy_linear(p["up"], x)
    if config.activation == "swiglu":
        gate = numpy_linear(p["gate"], x)
        h = gate / (1 + np.exp(-gate)) * h
    elif config.activation == "relu2":
        h = np.maximum(h, 0) ** 2
    elif config.activation == "gelu_erf":
        h = h * (1 + np.vectorize(math.erf)(h / math.sqrt(2))) / 2
    else:
        h = h * (1 + np.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3))) / 2
    return numpy_linear(p["down"], h)


def numpy_logits(config: ModelConfig, params: Any, tokens: np.ndarray) -> np.ndarray:
    """Logits [length, vocab] of one segment."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    x = params["embedding"]["tokens"][tokens]
    if config.positions == "learned":
        x = x + params["embedding"]["positions"][: len(tokens)]
    for layer in range(config.num_layers):
        p = jax.tree.map(lambda leaf, layer=layer: leaf[layer], params["layers"])
        kind = config.layer_pattern[layer % len(config.layer_pattern)]
        band = config.band_width if kind == "banded" else len(tokens)
        attended = numpy_attention(config, p["attention"], numpy_norm(config, p["attention_norm"], x), band)
        if config.residual == "parallel":
            x = x + attended + numpy_mlp(config, p["mlp"], numpy_norm(config, p["mlp_norm"], x))
        else:
            x = x + attended
            x = x + numpy_mlp(config, p["mlp"], numpy_norm(config, p["mlp_norm"], x))
    x = numpy_norm(config, params["final_norm"], x)
    if config.tied_head:
        return x @ params["embedding"]["tokens"].T
    return numpy_linear(params["head"], x)


@pytest.mark.parametrize("name", VARIANTS)
def test_packed_logits_equal_a_numpy_transformer_segment_by_segment(name: str) -> None:
    config, lengths = variant(name), [5, 9, 3]
    params = random_params(config)
    tokens, segments, positions = packed(np.random.default_rng(1), 2, lengths)
    got = np.asarray(run(config, params, tokens, segments, positions))
    for row in range(2):
        start = 0
        for length in lengths:
            want = numpy_logits(config, params, tokens[row, start : start + length])
            np.testing.assert_allclose(got[row, start : start + length], want, atol=2e-4, rtol=1e-4)
            start += length


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), cut=st.integers(1, 15), changed=st.integers(0, 15))
def test_packing_does_not_leak_and_nothing_sees_the_future(seed: int, cut: int, changed: int) -> None:
    config = variant("convolution")
    params = random_params(config)
    tokens, segments, positions = packed(np.random.default_rng(seed), 1, [cut, 16 - cut])
    other = tokens.copy()
    other[0, changed] = (other[0, changed] + 1) % config.vocab_size
    before, after = (np.asarray(run(config, params, t, segments, positions)) for t in (tokens, other))
    differs = np.any(before != after, axis=-1)[0]
    end = cut if changed < cut else 16
    assert differs[changed]
    assert not differs[:changed].any()
    assert not differs[end:].any()


def test_one_segment_id_for_all_documents_lets_them_see_each_other() -> None:
    config = variant("gpt2")
    params = random_params(config)
    tokens, segments, positions = packed(np.random.default_rng(0), 1, [6, 6])
    joined = np.arange(12, dtype=np.int32)[None]
    other = tokens.copy()
    other[0, 0] = (other[0, 0] + 1) % config.vocab_size
    one = np.ones_like(segments)
    changed = np.abs(run(config, params, tokens, one, joined) - run(config, params, other, one, joined))
    assert np.all(changed.max(-1) > 0)


@pytest.mark.parametrize("remat", ["none", "names", "full"])
def test_remat_and_scan_change_no_gradient(remat: Any) -> None:
    config = dataclasses.replace(variant("convolution"), layer_pattern=("dense",))
    params = random_params(config)
    tokens, segments, positions = packed(np.random.default_rng(2), 2, [7, 5])

    def gradient(config: ModelConfig) -> Any:
        return jax.jit(jax.grad(lambda p: jnp.mean(jnp.square(run(config, p, tokens, segments, positions)))))(
            params
        )

    want = gradient(dataclasses.replace(config, remat="none", scan_unroll=2))
    got = gradient(dataclasses.replace(config, remat=remat, scan_unroll=1))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.max(jnp.abs(b))) + 1e-9)


def test_full_remat_keeps_less_between_forward_and_backward_than_none() -> None:
    def saved_bytes(remat: Any) -> int:
        config = dataclasses.replace(variant("gpt2"), remat=remat, scan_unroll=1)
        params = abstract_params(config)
        ids = jax.ShapeDtypeStruct((4, 48), jnp.int32)
        step = jax.jit(jax.grad(lambda p, t, s, q: jnp.sum(logits(config, p, t, s, q))))
        analysis = step.lower(params, ids, ids, ids).compile().memory_analysis()
        assert analysis is not None
        return int(analysis.temp_size_in_bytes)

    full, names, none = saved_bytes("full"), saved_bytes("names"), saved_bytes("none")
    assert full < names < none


def test_bfloat16_compute_is_close_and_keeps_float32_parameters_and_logits() -> None:
    config = dataclasses.replace(variant("llama"), compute_dtype="bfloat16")
    params = random_params(config)
    tokens, segments, positions = packed(np.random.default_rng(3), 1, [12])
    got = run(config, params, tokens, segments, positions)
    want = run(variant("llama"), params, tokens, segments, positions)
    assert got.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(abstract_params(config))} == {jnp.dtype("float32")}
    difference = float(jnp.max(jnp.abs(got - want)) / jnp.max(jnp.abs(want)))
    assert 0 < difference < 0.05


def test_gpt2_small_has_its_published_number_of_parameters() -> None:
    config = ModelConfig(vocab_size=50257)
    assert num_params(config) == 124_439_808
    assert num_non_embedding_params(config) == 124_439_808 - (50257 + 1024) * 768
    length = 1024
    matmuls = num_non_embedding_params(config) + 50257 * 768
    assert flops_per_token(config, length) == 6 * matmuls + 12 * 12 * 768 * length


def test_a_band_lowers_the_cost_of_attention_only() -> None:
    dense = ModelConfig(vocab_size=50257)
    banded = dataclasses.replace(dense, layer_pattern=("dense", "banded"), band_width=256)
    saved = flops_per_token(dense, 1024) - flops_per_token(banded, 1024)
    assert saved == 12 * 768 * 6 * (1024 - 256)


def test_initial_loss_is_that_of_a_uniform_guess() -> None:
    config = dataclasses.replace(SMALL, vocab_size=512, num_layers=1, embed_dim=64, init_std=0.02)
    params = init_params(config, jax.random.key(0))
    tokens, segments, positions = packed(np.random.default_rng(0), 2, [32])
    log_probs = jax.nn.log_softmax(run(config, params, tokens, segments, positions))
    assert abs(float(-jnp.mean(log_probs)) - math.log(512)) < 0.05


@pytest.mark.parametrize("name", VARIANTS)
def test_every_parameter_names_its_axes(name: str) -> None:
    config = variant(name)
    shapes, axes = abstract_params(config), logical_axes(config)
    flat_axes = jax.tree.leaves(axes, is_leaf=lambda x: isinstance(x, tuple))
    for leaf, names in zip(jax.tree.leaves(shapes), flat_axes, strict=True):
        assert len(leaf.shape) == len(names)
    for names in jax.tree.leaves(axes["layers"], is_leaf=lambda x: isinstance(x, tuple)):
        assert names[0] == "layers"


@pytest.mark.parametrize(
    ("settings_", "field"),
    [
        ({"num_heads": 3}, "num_heads"),
        ({"num_kv_heads": 3}, "num_kv_heads"),
        ({"num_layers": 0}, "num_layers"),
        ({"num_layers": 3, "layer_pattern": ("dense", "banded")}, "num_layers"),
        ({"layer_pattern": ("sparse",)}, "layer_pattern"),
        ({"norm": "batch"}, "norm"),
        ({"embed_dim": "64"}, "embed_dim"),
        ({"rotary_fraction": 1.5}, "rotary_fraction"),
        ({"head_bias": True}, "head_bias"),
        ({"norm_epsilon": float("nan")}, "norm_epsilon"),
    ],
)
def test_bad_settings_are_refused_by_field_and_value(settings_: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError, match=rf"ModelConfig\.{field} = .*expected"):
        dataclasses.replace(SMALL, **settings_)
