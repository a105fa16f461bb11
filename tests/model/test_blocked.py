"""Attention in blocks is the reference, forward and backward, whatever the rows and heads."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icl.model import blocked, spans
from icl.model.attention import attend
from icl.model.blocked import blocked_attention, cuts
from icl.model.spans import Span

SHAPES = ((1, 2, 2, 8), (65, 4, 2, 4), (160, 2, 1, 8), (200, 6, 2, 4), (256, 3, 3, 8), (300, 4, 1, 2))


@st.composite
def rows(draw: st.DrawFn, length: int, count: int = 2) -> Span:
    """Segments cut anywhere, the last part of a row often empty (segment 0)."""
    segments, positions = np.zeros((2, count, length), np.int32)
    for row in range(count):
        at = draw(st.lists(st.integers(1, max(1, length - 1)), max_size=4, unique=True))
        edges = [0, *sorted(at), length]
        padded = draw(st.booleans())
        for number, (start, end) in enumerate(zip(edges, edges[1:], strict=False), 1):
            segments[row, start:end] = 0 if padded and number == len(edges) - 1 else number
            positions[row, start:end] = np.arange(end - start)
    return Span(jnp.asarray(segments), jnp.asarray(positions))


@functools.partial(jax.jit, static_argnames=("how", "band", "remat"))
def results(how: Any, span: Span, arrays: Any, band: int | None, remat: str = "none") -> Any:
    """Output, and gradients of its product with a random array."""

    def product(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
        o = attend(q, k, v, queries=span, keys=span, band=band, implementation=how, aligned=True)
        return jnp.sum(o * arrays[3]), o

    if remat != "none":
        policies = {"full": None, "names": jax.checkpoint_policies.save_only_these_names("attention")}
        product = jax.checkpoint(product, policy=policies[remat])
    (_, o), gradients = jax.value_and_grad(product, (0, 1, 2), has_aux=True)(*arrays[:3])
    return o, *gradients


def arrays_of(
    length: int, heads: int, kv_heads: int, size: int, *, seed: int, dtype: Any = np.float32
) -> Any:
    rng = np.random.default_rng(seed)
    shapes = [(2, length, heads, size), *[(2, kv_heads, length, size)] * 2, (2, length, heads, size)]
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


@settings(max_examples=25, deadline=None)
@given(data=st.data(), shape=st.sampled_from(SHAPES), band=st.sampled_from([None, 1, 50]))
def test_output_and_gradients_are_those_of_the_reference(data: Any, shape: Any, band: int | None) -> None:
    span, seed = data.draw(rows(shape[0])), data.draw(st.integers(0, 1000))
    arrays = arrays_of(*shape, seed=seed)
    for got, want in zip(
        results("blocked", span, arrays, band), results("reference", span, arrays, band), strict=True
    ):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("remat", ["full", "names"])
def test_rematerialization_changes_no_result(remat: str) -> None:
    arrays, span = arrays_of(256, 4, 2, 8, seed=0), whole_rows(256)
    for got, want in zip(
        results("blocked", span, arrays, None, remat), results("blocked", span, arrays, None), strict=True
    ):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_what_the_remat_policy_saves_spares_the_second_forward_pass() -> None:
    arrays, span = arrays_of(256, 4, 2, 8, seed=0), whole_rows(256)

    def products(remat: str) -> int:
        return str(jax.make_jaxpr(lambda: results("blocked", span, arrays, None, remat))()).count(
            "dot_general"
        )

    blocks = len(list(cuts(256)))
    assert products("none") == products("names") == 7 * blocks
    assert products("full") == 9 * blocks


def test_gradients_in_bfloat16_are_those_of_float32_to_its_precision() -> None:
    span = whole_rows(256)
    half = arrays_of(256, 4, 2, 8, seed=0, dtype=jnp.bfloat16)
    exact = [x.astype(jnp.float32) for x in half]
    for got, want in zip(
        results("blocked", span, half, None), results("reference", span, exact, None), strict=True
    ):
        assert got.dtype == jnp.bfloat16
        np.testing.assert_allclose(got.astype(jnp.float32), want, rtol=0.02, atol=0.02 * np.abs(want).max())


def test_a_block_scores_no_key_after_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = []

    def visible(queries: Span, keys: Span, band: int | None) -> jax.Array:
        lengths.append(keys.segments_BT.shape[1])
        return spans.visible(queries, keys, band)

    monkeypatch.setattr(blocked, "visible", visible)
    q, k, v, _ = arrays_of(256, 2, 2, 4, seed=0)
    jax.eval_shape(lambda: blocked_attention(q, k, v, whole_rows(256)))
    assert lengths == [64, 128, 192, 256]


def whole_rows(length: int) -> Span:
    ones = jnp.ones((2, length), jnp.int32)
    return Span(ones, jnp.cumsum(ones, axis=1) - 1)
