"""Training on functions: one loop with rows of tokens, the same on many devices, and exact when resumed."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from icl.errors import InputError
from icl.functions.setup import FunctionSetup, restore, train
from icl.training.checkpoints import read_description
from icl.training.metrics import MetricWriters
from tests.functions.small import small_run

_TIMES = {"tokens_per_second", "mfu", "data_waits"}


def _lines(workdir: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in _TIMES} for line in lines]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps on all devices that was never interrupted."""
    workdir = tmp_path_factory.mktemp("whole")
    assert train(small_run(mesh={"data": -1}), workdir)
    return workdir


@pytest.mark.extended
def test_a_run_writes_its_steps_and_what_its_checkpoint_is(whole: Path) -> None:
    lines, description = _lines(whole), read_description(whole)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["tokens"] for line in lines] == [72 * step for step in range(1, 7)]
    assert all(line["task_loss"] == {"linear": line["loss"]} for line in lines)
    assert description.step == 6 and description.data["dimension"] == 3
    assert json.loads((whole / "data.json").read_text()) == {"functions": 6 * 8}


def test_sigterm_saves_and_the_resumed_run_equals_the_whole_one(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, write = small_run(mesh={"data": -1}), MetricWriters.write

    def terminate(self: MetricWriters, line: Any) -> None:
        write(self, line)
        if line["step"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(MetricWriters, "write", terminate)
        assert not train(run, tmp_path)
    assert read_description(tmp_path).step == 3
    assert train(run, tmp_path)
    assert _lines(tmp_path) == _lines(whole)
    assert read_description(tmp_path).checksums == read_description(whole).checksums


def test_many_devices_compute_what_one_does() -> None:
    states = []
    for mesh, devices in (({"data": 1}, jax.devices()[:1]), ({"data": 4, "fsdp": 2}, jax.devices())):
        setup = FunctionSetup(small_run(mesh=mesh, optimizer={"eps": 1e-3}), devices)
        batches = setup.batches(0)
        state, batch = setup.init_state(), next(batches)
        assert batch.x_BKd.sharding.num_devices == len(devices)  # type: ignore[union-attr]
        step = setup.compile_train_step(state, batch)
        state, _ = step(state, batch)
        batch = next(batches)
        state, metrics = step(state, batch)
        states.append(jax.device_get((state.params, metrics.loss, batch)))
    for one, many in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_allclose(many, one, rtol=1e-4, atol=1e-5)


@pytest.mark.extended
def test_the_loss_counts_the_points_of_the_curriculum_only() -> None:
    run = small_run(data={"first_points": 2, "noise": 0.0}, train={"batch_tokens": 8 * 9})
    setup = FunctionSetup(run, jax.devices()[:1])
    batch, state = next(setup.batches(0)), setup.init_state()
    step = jax.jit(setup.train_step)
    _, metrics = step(state, batch)
    later = batch._replace(y_BK=np.asarray(batch.y_BK) + 7 * (np.arange(5) >= 2)[None])
    _, same = step(state, later)
    assert metrics.loss == same.loss
    first = batch._replace(y_BK=np.asarray(batch.y_BK) + 7)
    _, other = step(state, first)
    assert other.loss > metrics.loss


@pytest.mark.extended
def test_parameters_are_read_back_and_other_functions_or_models_refused(whole: Path) -> None:
    params, description = restore(whole, small_run())
    assert description.params == sum(leaf.size for leaf in jax.tree.leaves(params))
    with pytest.raises(InputError, match="trained on other functions"):
        restore(whole, small_run(data={"noise": 0.1}))
    with pytest.raises(InputError, match="its model has ModelConfig.embed_dim = 16, this run 32"):
        restore(whole, small_run(model={"embed_dim": 32}))
    with pytest.raises(InputError, match="FunctionConfig.noise = 0.5, this run 0.1"):
        train(small_run(data={"noise": 0.1}), whole)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"train": {"batch_tokens": 70}}, "TrainConfig.batch_tokens = 70: expected a multiple of the 9"),
        ({"model": {"max_length": 8}}, "ModelConfig.max_length = 8: expected at least the 9 positions"),
        ({"train": {"eval_every": 5}}, "TrainConfig.eval_every = 5: expected 0 where functions"),
        ({"mesh": {"sequence": 2}}, "MeshConfig.sequence = 2: expected 1 where functions"),
        ({"train": {"steps": 1}}, "OptimizerConfig warm-up takes 2 steps"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_name(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        small_run(**changes)


def test_prompts_that_do_not_divide_among_devices_are_refused() -> None:
    with pytest.raises(InputError, match="its 4 prompts do not divide among the 8 devices"):
        FunctionSetup(small_run(train={"batch_tokens": 4 * 9}, mesh={"data": 8}))
