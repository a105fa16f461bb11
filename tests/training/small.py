"""A run small enough for tests: what they share is its settings, not its results."""

import dataclasses
from typing import Any

import jax

from icl.data.config import DataConfig
from icl.model import ModelConfig
from icl.parallel.mesh import MeshConfig
from icl.tasks import FAMILIES
from icl.training.config import RunConfig, TrainConfig
from icl.training.optimizer import OptimizerConfig
from icl.training.setup import Setup

_PARTS = {"model", "data", "optimizer", "train", "mesh"}


def small_run(**changes: Any) -> RunConfig:
    """A run of a one-layer model; `model=dict(...)` and the like change single settings."""
    run = RunConfig(
        # Without a bias on the keys: softmax cancels it, so its gradient is noise that Adam blows up.
        model=ModelConfig(num_layers=1, embed_dim=16, num_heads=2, max_length=64, qkv_bias=False),
        data=DataConfig(row_length=64, weights={"cipher": 1.0, "word_label": 2.0}),
        families={"cipher": FAMILIES["cipher"](), "word_label": FAMILIES["word_label"]()},
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=2, schedule="wsd"),
        train=TrainConfig(steps=6, batch_tokens=8 * 64, log_every=1, save_every=2, eval_rows=8),
        mesh=MeshConfig(data=1),
    )
    assert set(changes) <= _PARTS | {"rung", "families"}
    for part in _PARTS & set(changes):
        changes[part] = dataclasses.replace(getattr(run, part), **changes[part])
    return dataclasses.replace(run, **changes)


def one_device_setup(**changes: Any) -> Setup:
    """`small_run` on the first of the simulated devices."""
    return Setup(small_run(**changes), devices=jax.devices()[:1])
