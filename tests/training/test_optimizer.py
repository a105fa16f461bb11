import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from icl.data.ramp import make_ramp
from icl.errors import InputError
from icl.model import ModelConfig, abstract_params, logical_axes
from icl.training.optimizer import OptimizerConfig, is_matrix, make_optimizer, make_schedule

CONFIG = ModelConfig(vocab_size=32, num_layers=3, embed_dim=16, num_heads=2, max_length=8, conv_width=3)


def _schedule(steps: int, batch_tokens: int = 1, **settings: object) -> list[float]:
    config = OptimizerConfig(learning_rate=1.0, **settings)  # type: ignore[arg-type]
    schedule = make_schedule(config, steps, batch_tokens)
    return [float(schedule(step)) for step in range(steps)]


def _ones() -> Any:
    return jax.tree.map(lambda leaf: jnp.ones(leaf.shape), abstract_params(CONFIG))


def test_cosine_schedule_rises_linearly_and_falls_by_a_half_cosine() -> None:
    rates = _schedule(20, warmup_steps=4, final_ratio=0.1)
    np.testing.assert_allclose(rates[:4], [0.25, 0.5, 0.75, 1.0], rtol=1e-6)
    expected = [0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (n - 4) / 16)) for n in range(4, 20)]
    np.testing.assert_allclose(rates[4:], expected, rtol=1e-5)


def test_wsd_schedule_is_flat_until_its_last_share() -> None:
    rates = _schedule(20, schedule="wsd", warmup_steps=2, decay_share=0.25, final_ratio=0.0)
    np.testing.assert_allclose(rates[1:16], 1.0)
    np.testing.assert_allclose(rates[15:], [1.0, 0.8, 0.6, 0.4, 0.2], rtol=1e-5)


def test_warmup_in_tokens_equals_warmup_in_steps() -> None:
    assert _schedule(20, batch_tokens=100, warmup_tokens=400) == _schedule(
        20, batch_tokens=100, warmup_steps=4
    )


def test_decay_skips_norms_biases_and_convolutions() -> None:
    axes = logical_axes(CONFIG)
    params = _ones()
    optimizer = make_optimizer(OptimizerConfig(weight_decay=0.5, clip=0.0), axes)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    decayed, kept = set(), set()
    for (path, update), param in zip(
        jax.tree_util.tree_leaves_with_path(updates), jax.tree.leaves(params), strict=True
    ):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if np.any(update):
            np.testing.assert_allclose(update, -0.5 * param, rtol=1e-6)
            decayed.add(name)
        else:
            kept.add(name)
    assert {name for name in decayed if "norm" in name or "conv" in name or "bias" in name} == set()
    assert all("norm" in name or "conv" in name or "bias" in name or "positions" in name for name in kept)
    assert any("mlp" in name for name in decayed) and "embedding/tokens" in decayed


def test_muon_orthogonalises_each_layer_on_its_own() -> None:
    axes = {"w": ("layers", "embed", "mlp")}
    grads = {"w": jax.random.normal(jax.random.key(0), (3, 8, 16))}
    optimizer = make_optimizer(OptimizerConfig(kind="muon", weight_decay=0.0, clip=0.0), axes)
    stacked, _ = optimizer.update(grads, optimizer.init(grads), grads)
    single = optax.contrib.scale_by_muon(
        beta=0.95, weight_dimension_numbers={"w": optax.contrib.MuonDimensionNumbers(0, 1)}
    )
    for layer in range(3):
        own = {"w": grads["w"][layer]}
        direction, _ = single.update(own, single.init(own), own)
        expected = -0.2 * 16**0.5 * direction["w"]
        np.testing.assert_allclose(stacked["w"][layer], expected, rtol=1e-4, atol=1e-5)
    singular = np.linalg.svd(np.asarray(stacked["w"][0]) / (0.2 * 4), compute_uv=False)
    assert singular.min() > 0.5 and singular.max() < 1.5


def test_muon_takes_hidden_matrices_and_adam_the_rest() -> None:
    axes = logical_axes(CONFIG)
    params = _ones()
    optimizer = make_optimizer(OptimizerConfig(kind="muon"), axes)
    state = jax.tree_util.tree_leaves_with_path(optimizer.init(params))
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, leaf in state if leaf.ndim]
    muon = [name for name in names if "muon" in name and "ns_coeffs" not in name]
    adam = [name for name in names if "/adam/" in name]
    assert muon and all(name.endswith("kernel") and "layers" in name and "conv" not in name for name in muon)
    assert any("embedding/tokens" in name for name in adam) and any("conv" in name for name in adam)


def test_an_array_is_a_matrix_by_its_named_axes_besides_layers() -> None:
    assert is_matrix(("layers", "embed", "mlp")) and is_matrix(("vocab", "embed"))
    assert not is_matrix(("layers", None)) and not is_matrix(("layers", None, "heads"))


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"kind": "sgd"}, "kind"),
        ({"warmup_steps": 3, "warmup_tokens": 4}, "warmup_tokens"),
        ({"b2": 1.0}, "b2"),
        ({"decay_share": 1.5}, "decay_share"),
        ({"clip": "1"}, "clip"),
    ],
)
def test_a_bad_setting_is_refused_by_its_name(settings: dict[str, object], field: str) -> None:
    with pytest.raises(InputError, match=f"OptimizerConfig.{field} = .*expected"):
        OptimizerConfig(**settings)  # type: ignore[arg-type]


def test_where_the_batch_grows_the_schedule_goes_by_the_tokens_seen() -> None:
    ramp = make_ramp(64, 8, 640, 4)
    config = OptimizerConfig(learning_rate=1.0, warmup_tokens=300, decay_tokens=2000, final_ratio=0.1)
    steps = ramp.steps(3000)
    growing = make_schedule(config, steps, 64, ramp)
    flat = make_schedule(config, 3000, 1)
    for step in range(steps):
        seen, after = ramp.first_row(step), ramp.first_row(step + 1)
        # The rise counts the batch itself, the fall what was seen before it.
        expected = min(1.0, after / 300) * float(flat(seen)) if seen >= 300 else min(1.0, after / 300)
        np.testing.assert_allclose(growing(step), expected, rtol=2e-5)
    np.testing.assert_allclose(growing(steps - 1), 0.1, rtol=1e-6)
