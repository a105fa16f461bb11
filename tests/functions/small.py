"""A run on functions small enough for tests."""

import dataclasses
import functools
from typing import Any

from icl.functions.config import FunctionConfig, FunctionRun
from icl.functions.shifts import Prompts, make_test
from icl.model import ModelConfig
from icl.parallel.mesh import MeshConfig
from icl.training.config import TrainConfig
from icl.training.optimizer import OptimizerConfig

CONFIG = FunctionConfig(dimension=4, points=6, noise=0.5)
_PARTS = {"model", "data", "optimizer", "train", "mesh"}


def small_run(**changes: Any) -> FunctionRun:
    """A run of a one-layer model; `model=dict(...)` and the like change single settings."""
    run = FunctionRun(
        model=ModelConfig.small(num_layers=1, embed_dim=16, num_heads=2, max_length=16, conv_width=2),
        data=FunctionConfig(dimension=3, points=5, noise=0.5),
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=2, schedule="wsd"),
        train=TrainConfig(steps=6, batch_tokens=8 * 9, log_every=1, save_every=2),
        mesh=MeshConfig(data=1),
    )
    assert set(changes) <= _PARTS | {"rung"}
    for part in _PARTS & set(changes):
        changes[part] = dataclasses.replace(getattr(run, part), **changes[part])
    return dataclasses.replace(run, **changes)


@functools.cache
def made(shift: str, stream: str = "test") -> Prompts:
    """Test prompts of `CONFIG`, which many tests look at."""
    return make_test(CONFIG, shift, 3000, stream=stream)
