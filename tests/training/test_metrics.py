import json
from pathlib import Path

import numpy as np
import pytest

from icl.training.metrics import MetricWriters, Progress, drop_after, plain, scalars


def _lines(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("torn", ["", '{"step": 4, "lo', '{"step": 3}', "\x00\x00\n"])
def test_resuming_drops_later_lines_and_a_torn_last_one(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "metrics.jsonl"
    whole = "".join(json.dumps({"step": step}) + "\n" for step in (1, 2, 3))
    path.write_text(whole + torn)
    drop_after(path, 9)
    assert path.read_text() == whole
    drop_after(path, 2)
    assert _lines(path) == [1, 2]
    drop_after(path, 0)
    assert path.read_text() == ""


def test_losses_are_written_with_the_digits_that_read_back_the_same_number() -> None:
    for value in np.random.default_rng(0).normal(size=100).astype(np.float32):
        written = json.dumps(plain(value))
        assert np.float32(json.loads(written)) == value
        assert len(written) <= 14


def test_numbers_that_are_not_finite_become_null() -> None:
    line = {
        "loss": np.float32(np.nan),
        "curve": np.array([1.0, np.inf], np.float32),
        "mfu": None,
        "n": np.int32(3),
    }
    assert json.loads(json.dumps(plain(line), allow_nan=False)) == {
        "loss": None,
        "curve": [1.0, None],
        "mfu": None,
        "n": 3,
    }


def test_lines_are_on_the_disk_after_sync(tmp_path: Path) -> None:
    with MetricWriters(tmp_path, 0) as writers:
        writers.write({"step": 1, "loss": np.float32(2.5)})
        writers.sync()
        assert _lines(tmp_path / "metrics.jsonl") == [1]
    with MetricWriters(tmp_path, 1) as writers:
        writers.write({"step": 2, "loss": np.float32(2.25)})
    assert _lines(tmp_path / "metrics.jsonl") == [1, 2]
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_tensorboard_gets_a_curve_at_powers_of_two() -> None:
    line = {"step": 5, "tokens": 9, "loss": 1.0, "mfu": None, "curve": {"a": np.arange(6.0)}}
    assert [name for name, _ in scalars(line)] == [
        "loss",
        "curve/a/k00",
        "curve/a/k01",
        "curve/a/k02",
        "curve/a/k04",
    ]


def test_without_a_terminal_the_progress_is_seldom_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress("xs", 100, 0)
    for step in range(1, 101):
        progress.update(step, 1.0, 2000.0, 0.5)
    progress.close()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("xs: step 100/100, loss 1.0000, 2,000 tokens/s, MFU 50%")
