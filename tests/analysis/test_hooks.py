"""Hooks: they see what the model computes, change what they are told to, and otherwise change nothing."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from icl.analysis.hooks import (
    SITES,
    Edit,
    Hooked,
    Reduce,
    Site,
    ablate_heads,
    add,
    only,
    patch,
    run_with_hooks,
    written_by_heads,
)
from icl.errors import InputError
from icl.model import ModelConfig, abstract_params, hidden_states, unembed
from icl.parallel import Partitioner
from icl.parallel.mesh import MeshConfig, make_mesh

BASE = ModelConfig(vocab_size=24, max_length=16, num_layers=2, embed_dim=16, num_heads=4, mlp_dim=24)
VARIANTS: dict[str, dict[str, Any]] = {
    "neox": {"positions": "rotary", "residual": "parallel", "tied_head": False, "remat": "names"},
    "llama": {
        "positions": "rotary",
        "norm": "rms",
        "activation": "swiglu",
        "num_kv_heads": 2,
        "remat": "full",
    },
    "convolution": {"conv_width": 3, "layer_pattern": ("dense", "banded"), "band_width": 3, "qk_norm": True},
}
LENGTHS = (7, 5)


class Rows(NamedTuple):
    inputs_BT: jax.Array
    segments_BT: jax.Array
    positions_BT: jax.Array


def rows(seed: int = 0, batch: int = 2) -> Rows:
    """Rows of two segments each."""
    inputs_BT = np.random.default_rng(seed).integers(0, BASE.vocab_size, (batch, sum(LENGTHS)))
    segments_T = np.repeat([1, 2], LENGTHS)
    positions_T = np.concatenate([np.arange(n) for n in LENGTHS])
    return Rows(
        *(jnp.asarray(np.broadcast_to(x, inputs_BT.shape)) for x in (inputs_BT, segments_T, positions_T))
    )


def model_of(name: str) -> tuple[ModelConfig, Any]:
    config = dataclasses.replace(BASE, **VARIANTS[name])
    rng = np.random.default_rng(1)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(0.0, 0.4, leaf.shape), jnp.float32), abstract_params(config)
    )
    return config, params


@pytest.fixture(params=VARIANTS, scope="module")
def model(request: pytest.FixtureRequest) -> tuple[ModelConfig, Any]:
    return model_of(request.param)


@functools.partial(jax.jit, static_argnames=("config",))
def read_all(config: ModelConfig, params: Any, of: Rows, edits: dict[Site, Edit] | None = None) -> Hooked:
    return run_with_hooks(config, params, *of, capture=SITES, edits=edits)


def run(model: tuple[ModelConfig, Any], of: Rows, edits: Mapping[Site, Edit] | None = None) -> Hooked:
    """A run that reads every site; with edits it edits every site, most by nothing, to be one program."""
    config, params = model
    if edits is None:
        return read_all(config, params, of)
    layers, (batch, length) = config.num_layers, of.inputs_BT.shape
    heads = config.num_heads, config.size_per_head
    shapes: dict[Site, tuple[int, ...]] = {
        "pattern": (heads[0], length, length),
        "heads": (length, *heads),
        **dict.fromkeys(("residual", "attention", "mlp"), (length, config.embed_dim)),
    }
    every: dict[Site, Edit] = {}
    for site, shape in shapes.items():
        edit = edits.get(site, Edit(jnp.ones(()), jnp.zeros(())))
        every[site] = Edit(*(jnp.broadcast_to(x, (layers, batch, *shape)) for x in edit))
    return read_all(config, params, of, every)


def test_reading_changes_nothing(model: tuple[ModelConfig, Any]) -> None:
    config, params = model
    plain = jax.jit(lambda p: hidden_states(config, p, *rows()))(params)
    hooked = run(model, rows())
    np.testing.assert_allclose(hooked.hidden_BTD, plain, atol=1e-6)
    logits, expected = (unembed(config, params, x) for x in (hooked.hidden_BTD, plain))
    np.testing.assert_allclose(logits, expected, atol=1e-6 * float(jnp.abs(expected).max()))


def test_what_is_read_adds_up_to_the_model(model: tuple[ModelConfig, Any]) -> None:
    config, params = model
    hooked = run(model, rows())
    read = hooked.activations
    entering = jnp.concatenate([read["residual"], hooked.residual_BTD[None]])
    np.testing.assert_allclose(entering[1:] - entering[:-1], read["attention"] + read["mlp"], atol=1e-5)
    bias = params["layers"]["attention"]["out"]["bias"][:, None, None]
    written = written_by_heads(config, params, read["heads"])
    np.testing.assert_allclose(written.sum(axis=-2) + bias, read["attention"], atol=1e-5)


def test_heads_are_values_weighed_by_the_pattern(model: tuple[ModelConfig, Any]) -> None:
    config, _ = model
    read = run(model, rows()).activations
    values = jnp.repeat(read["values"], config.num_heads // config.kv_heads, axis=3)
    outputs = jnp.einsum("lbhts,lbshk->lbthk", read["pattern"], values)
    np.testing.assert_allclose(outputs, read["heads"], atol=1e-5)


def test_a_pattern_is_a_distribution_over_what_is_seen(model: tuple[ModelConfig, Any]) -> None:
    config, _ = model
    pattern = run(model, rows()).activations["pattern"]
    np.testing.assert_allclose(pattern.sum(axis=-1), 1.0, rtol=1e-5)
    segments, positions = np.repeat([1, 2], LENGTHS), np.concatenate([np.arange(n) for n in LENGTHS])
    distance = positions[:, None] - positions[None]
    seen = (segments[:, None] == segments[None]) & (distance >= 0)
    for layer in range(config.num_layers):
        kind = config.layer_pattern[layer % len(config.layer_pattern)]
        visible = seen & (distance < config.band_width) if kind == "banded" else seen
        assert (np.asarray(pattern[layer])[:, :, visible] > 0).all()
        assert not np.asarray(pattern[layer])[:, :, ~visible].any()


@pytest.mark.parametrize("site", ["residual", "pattern", "heads", "attention", "mlp"])
def test_patching_a_runs_own_values_changes_nothing(model: tuple[ModelConfig, Any], site: Site) -> None:
    own = run(model, rows())
    edit = patch(own.activations[site], jnp.ones((1,) * own.activations[site].ndim, bool))
    np.testing.assert_allclose(
        run(model, rows(), edits={site: edit}).hidden_BTD, own.hidden_BTD, atol=2e-6, err_msg=site
    )


def test_patching_everything_from_another_run_gives_that_run(model: tuple[ModelConfig, Any]) -> None:
    here, other = run(model, rows(0)), run(model, rows(1))
    whole = jnp.ones((1,) * 4, bool)
    edits: dict[Site, Edit] = {
        s: patch(other.activations[s], whole) for s in ("residual", "attention", "mlp")
    }
    assert float(jnp.abs(here.hidden_BTD - other.hidden_BTD).max()) > 0.1
    np.testing.assert_allclose(run(model, rows(0), edits=edits).hidden_BTD, other.hidden_BTD, atol=2e-6)


def test_a_patch_reaches_only_what_looks_at_it(model: tuple[ModelConfig, Any]) -> None:
    """One head at one position of the last layer changes that position alone, and it does change it."""
    config, _ = model
    here, other = (run(model, rows(seed)) for seed in (0, 1))
    at_T = jnp.arange(sum(LENGTHS)) == 3
    where = only(config, [(1, 2)])[:, None, None, :, None] & at_T[None, None, :, None, None]
    patched = run(model, rows(0), edits={"heads": patch(other.activations["heads"], where)})
    changed_T = np.abs(patched.hidden_BTD - here.hidden_BTD).max(axis=(0, 2)) > 1e-4
    assert changed_T.tolist() == at_T.tolist()
    expected = jnp.where(where, other.activations["heads"], here.activations["heads"])
    np.testing.assert_allclose(patched.activations["heads"], expected, atol=1e-6)


def test_ablated_heads_write_nothing_or_their_mean(model: tuple[ModelConfig, Any]) -> None:
    config, params = model
    heads = only(config, [(0, 1), (1, 3)])
    means = jnp.asarray(np.random.default_rng(2).normal(size=(2, 4, 4)), jnp.float32)
    for mean in (None, means):
        ablated = run(model, rows(), edits={"heads": ablate_heads(heads, mean)})
        outputs = ablated.activations["heads"]
        expected = jnp.zeros_like(means) if mean is None else mean
        for layer, head in ((0, 1), (1, 3)):
            np.testing.assert_array_equal(
                outputs[layer, :, :, head], jnp.broadcast_to(expected[layer, head], outputs.shape[1:3] + (4,))
            )
        assert float(jnp.abs(outputs[0, :, :, 0]).min()) > 0


def test_a_head_ablated_is_a_head_whose_output_weights_are_zero(model: tuple[ModelConfig, Any]) -> None:
    config, params = model
    kernel = params["layers"]["attention"]["out"]["kernel"].at[0, 4:8].set(0.0)
    attention = params["layers"]["attention"]
    without = params | {
        "layers": params["layers"] | {"attention": attention | {"out": attention["out"] | {"kernel": kernel}}}
    }
    ablated = run(model, rows(), edits={"heads": ablate_heads(only(config, [(0, 1)]))})
    np.testing.assert_allclose(ablated.hidden_BTD, run((config, without), rows()).hidden_BTD, atol=1e-6)


def test_edits_are_applied_one_after_the_other() -> None:
    model = model_of("convolution")
    first, second = (Edit(jnp.full((1,) * 4, k), jnp.full((1,) * 4, a)) for k, a in ((0.5, 0.3), (2.0, -0.1)))
    both = run(model, rows(), edits={"mlp": first.then(second)})
    plain = run(model, rows()).activations["mlp"][0]
    np.testing.assert_allclose(both.activations["mlp"][0], (plain * 0.5 + 0.3) * 2.0 - 0.1, atol=1e-5)


def test_what_is_kept_can_be_less_than_the_whole() -> None:
    model = model_of("convolution")
    config, params = model
    whole = run(model, rows()).activations["heads"]
    capture: dict[Site, Reduce] = {"heads": lambda o_BTHK: o_BTHK[:, -1]}
    kept = jax.jit(lambda p: run_with_hooks(config, p, *rows(), capture=capture))(params)
    np.testing.assert_allclose(kept.activations["heads"], whole[:, :, -1], atol=1e-6)


def test_hooks_on_a_mesh_are_those_of_one_device() -> None:
    config, params = model_of("llama")
    partitioner = Partitioner(make_mesh(MeshConfig(data=2, tensor=2), jax.devices()[:4]))
    edits: dict[Site, Edit] = {"residual": add(jnp.full((1, 1, 1, 16), 0.2))}
    one, many = (
        jax.jit(
            lambda p, on=on: run_with_hooks(config, p, *rows(), capture=SITES, edits=edits, partitioner=on)
        )(params)
        for on in (None, partitioner)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), one, many)


def test_half_precision_stays_what_it_is() -> None:
    config, params = model_of("convolution")
    config = dataclasses.replace(config, compute_dtype="bfloat16")
    hooked = jax.eval_shape(lambda: run((config, params), rows(), {"mlp": add(jnp.zeros((1,) * 4))}))
    float32 = [site for site, read in hooked.activations.items() if read.dtype != jnp.bfloat16]
    assert hooked.hidden_BTD.dtype == jnp.bfloat16
    assert float32 == ["pattern"]


@pytest.mark.parametrize(
    ("hooks", "message"),
    [
        ({"capture": ["logits"]}, "site 'logits': expected one of residual, pattern"),
        ({"edits": {"values": add(jnp.zeros((1,) * 5))}}, "an edit of 'values'"),
        (
            {"edits": {"mlp": add(jnp.zeros((1, 1, 1, 15)))}},
            r"shape \(1, 1, 1, 15\), expected \(2, 2, 12, 16\)",
        ),
        ({"edits": {"heads": add(jnp.zeros((2, 2, 12, 16)))}}, r"expected \(2, 2, 12, 4, 4\)"),
    ],
)
def test_wrong_hooks_are_refused(hooks: dict[str, Any], message: str) -> None:
    config, params = model_of("convolution")
    with pytest.raises(InputError, match=message):
        run_with_hooks(config, params, *rows(), **hooks)


def test_a_head_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match=r"head \(2, 0\): expected a layer below 2"):
        only(BASE, [(2, 0)])
