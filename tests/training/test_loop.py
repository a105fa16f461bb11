import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from icl.data.rows import Rows
from icl.errors import InputError
from icl.tracking.config import TrackingConfig
from icl.training import train
from icl.training.checkpoints import read_description
from icl.training.config import RunConfig
from icl.training.metrics import MetricWriters
from tests.tracking.events import shown
from tests.tracking.stand_in import Calls, install
from tests.training.small import small_run

_TIMES = {"tokens_per_second", "mfu", "data_waits"}
ALL_DEVICES = {"data": -1}


def _lines(workdir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def _without_times(workdir: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k not in _TIMES} for line in _lines(workdir)]


def _watched(workdir: Path) -> list[tuple[int, str, Any]]:
    """What TensorBoard shows of a run, speed apart."""
    return [row for row in shown(workdir / "tensorboard") if not row[1].startswith("speed/")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps that was never interrupted."""
    workdir = tmp_path_factory.mktemp("whole")
    assert train(small_run(mesh=ALL_DEVICES, train={"eval_every": 3, "keep_last": 9}), workdir)
    return workdir


def test_a_run_writes_each_step_and_its_curve(whole: Path) -> None:
    lines = _lines(whole)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["tokens"] for line in lines] == [512 * step for step in range(1, 7)]
    assert [step for step, line in enumerate(lines, 1) if "curve" in line] == [3, 6]
    expected = {
        "step",
        "tokens",
        "loss",
        "learning_rate",
        "grad_norm",
        "skipped",
        "task_loss",
        "excluded",
    } | _TIMES
    assert set(lines[0]) == expected and set(lines[0]["task_loss"]) == {"cipher", "word_label"}
    assert lines[-1]["loss"] < lines[0]["loss"] < 7
    curve = lines[2]["curve"]["with_instruction"]["word_label"]
    assert sum(curve["answers"]) > 8 and len(curve["exact_match"]) == len(curve["answers"])
    assert sorted(int(path.name) for path in (whole / "checkpoints").iterdir()) == [2, 4, 6]


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Calls]:
    """The same run, ended by SIGTERM after two steps or three and begun again, and what W&B was told."""
    folder = tmp_path_factory.mktemp("resumed")
    run = small_run(mesh=ALL_DEVICES, train={"eval_every": 3, "keep_last": 9})
    run = dataclasses.replace(run, tracking=TrackingConfig(wandb_project="shots"))
    write = MetricWriters.write

    def terminate(self: MetricWriters, line: Any) -> None:
        write(self, line)
        if line["step"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        calls = install(folder / "site", patch)
        with patch.context() as inner:
            inner.setattr(MetricWriters, "write", terminate)
            assert not train(run, folder / "run")
        assert [line["step"] for line in _lines(folder / "run")] == [1, 2, 3]
        assert read_description(folder / "run").step == 3
        assert train(run, folder / "run")
    return folder / "run", calls


def test_sigterm_saves_and_the_resumed_run_equals_the_whole_one(
    whole: Path, resumed: tuple[Path, Calls]
) -> None:
    workdir, _ = resumed
    assert _without_times(workdir) == _without_times(whole)
    assert read_description(workdir).checksums == read_description(whole).checksums
    assert read_description(workdir).tokens == 6 * 512
    assert _watched(workdir) == _watched(whole)


def test_weights_and_biases_is_told_what_tensorboard_is_and_goes_on_as_one_run(
    resumed: tuple[Path, Calls],
) -> None:
    workdir, calls = resumed
    assert len({call["id"] for call in calls.named("init")}) == 1 and len(calls.named("finish")) == 2
    assert calls.named("init")[0]["config"]["TrainConfig"]["batch_tokens"] == 512
    logged = [(call["step"], name) for call in calls.named("log") for name in call["data"]]
    assert logged == [(step, name) for step, name, _ in shown(workdir / "tensorboard")]


def test_a_run_can_be_watched(whole: Path) -> None:
    """Its numbers at every step, and curves as a figure and prompts where it measured them."""
    found = _watched(whole)
    losses = [(step, pytest.approx(value)) for step, name, value in found if name == "train/loss"]
    assert losses == [(line["step"], line["loss"]) for line in _lines(whole)]
    at = {name: [step for step, other, _ in found if other == name] for _, name, _ in found}
    assert at["held_out/k_curve"] == at["held_out/cipher"] == at["held_out/word_label"] == [3, 6]
    curve = _lines(whole)[5]["curve"]["without"]["cipher"]["loss"]
    assert (6, "held_out_loss/cipher/without_instruction/k02", pytest.approx(curve[2])) in found
    assert {value[:4] for _, name, value in found if name == "held_out/k_curve"} == {b"\x89PNG"}


def test_a_finished_run_trains_no_further(whole: Path) -> None:
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    assert train(small_run(mesh=ALL_DEVICES, train={"eval_every": 3, "keep_last": 9}), whole)
    assert {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()} == before


def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("icl.tracking.config.find_spec", lambda name: None)
    monkeypatch.setattr("icl.training.loop.Setup", None)
    run = dataclasses.replace(small_run(), tracking=TrackingConfig(wandb_project="shots"))
    with pytest.raises(InputError, match=r"pip install 'icl\[wandb\]'"):
        train(run, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_over_other_rows_is_refused(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rows, "fingerprint", "other")
    with pytest.raises(InputError, match="step 6: was trained on other rows .*now other"):
        train(small_run(mesh=ALL_DEVICES), whole)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"train": {"batch_tokens": 3 * 64}}, "TrainConfig.batch_tokens = 192: .*8 devices"),
        (
            {"model": {"vocab_size": 100}},
            "ModelConfig.vocab_size = 100: expected at least the tokenizer's 264",
        ),
        ({"data": {"tokenizer": "/nowhere"}}, "/nowhere"),
        ({"mesh": {"data": 3}}, "MeshConfig"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_anything_is_written(
    tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(InputError, match=named):
        train(small_run(**({"mesh": ALL_DEVICES} | changes)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


_GIN = """
ModelConfig.num_layers = 1
ModelConfig.embed_dim = 16
ModelConfig.num_heads = 2
ModelConfig.max_length = 64
DataConfig.row_length = 64
DataConfig.weights = {'cipher': 1, 'word_label': 1}
TrainConfig.steps = 50
TrainConfig.batch_tokens = 256
TrainConfig.log_every = 1
TrainConfig.save_every = 10
"""


def _start(workdir: Path, gin_file: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "icl.train", f"--workdir={workdir}", f"--gin_file={gin_file}"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, cwd=Path(__file__).parents[2])


@pytest.mark.slow
def test_resume_is_bit_exact_after_sigkill(tmp_path: Path) -> None:
    gin_file = tmp_path / "run.gin"
    gin_file.write_text(_GIN)
    reference = _start(tmp_path / "whole", gin_file)
    assert reference.wait() == 0, reference.stderr
    rng, kills = random.Random(0), 0
    while True:
        process = _start(tmp_path / "killed", gin_file)
        if kills == 1:
            assert process.wait() == 0
            break
        path = tmp_path / "killed" / "metrics.jsonl"
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if path.exists() and path.read_bytes().count(b"\n") >= 25:
                break
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.2))
        process.kill()
        assert process.wait() == -signal.SIGKILL
        kills += 1
    assert _without_times(tmp_path / "killed") == _without_times(tmp_path / "whole")
    checksums = [read_description(tmp_path / name).checksums for name in ("killed", "whole")]
    assert checksums[0] == checksums[1]


@pytest.mark.extended
def test_a_run_whose_batch_grows_resumes_to_the_same_losses(tmp_path: Path) -> None:
    """From 2 rows to 8; the run is given in tokens."""
    ramp = {"ramp_from": 128, "ramp_tokens": 12 * 64, "ramp_stages": 2, "accumulation_steps": 2}

    def run_of(rows: int) -> RunConfig:
        return small_run(
            train={**ramp, "tokens": rows * 64},
            optimizer={"schedule": "constant"},
            mesh={"data": 2, "tensor": 2, "sequence": 2},
        )

    run = run_of(35)
    assert [stage.rows for stage in run.ramp.stages] == [2, 4, 8] and run.train.steps == 8
    assert train(run, tmp_path / "whole")
    lines = _without_times(tmp_path / "whole")
    assert [line["tokens"] // 64 for line in lines] == [2, 4, 6, 10, 14, 22, 30, 38]
    assert train(run_of(10), tmp_path / "parts")
    assert train(run, tmp_path / "parts")
    assert _without_times(tmp_path / "parts") == lines
