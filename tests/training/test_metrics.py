import json
from pathlib import Path

import numpy as np
import pytest

from icl.tracking.config import TrackingConfig
from icl.training.metrics import MetricWriters, drop_after, plain, scalars
from tests.tracking.events import shown


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


def test_trackers_get_numbers_in_groups_and_curves_at_powers_of_two() -> None:
    curve = {
        "loss": np.array([3.0, 2.0, 1.5, 1.0, np.nan], np.float32),
        "answers": np.array([9, 9, 9, 9, 0], np.int32),
    }
    line = {
        "step": 5,
        "tokens": 9,
        "loss": np.float32(1.5),
        "skipped": 0,
        "tokens_per_second": 7.5,
        "mfu": None,
        "task_loss": {"cipher": np.float32(0.5), "affine": np.float32(np.nan)},
        "excluded": {"affine": 4},
        "curve": {"without": {"cipher": curve}},
    }
    assert scalars(line) == {
        "train/tokens": 9,
        "train/loss": 1.5,
        "train/skipped": 0,
        "speed/tokens_per_second": 7.5,
        "task_loss/cipher": 0.5,
        "excluded/affine": 4,
        "held_out_loss/cipher/without_instruction/k00": 3.0,
        "held_out_loss/cipher/without_instruction/k01": 2.0,
        "held_out_loss/cipher/without_instruction/k02": 1.5,
    }


def test_a_start_drops_from_tensorboard_what_it_drops_from_metrics(tmp_path: Path) -> None:
    for start, last in ((0, 5), (3, 6)):
        with MetricWriters(tmp_path, start) as writers:
            for step in range(start + 1, last + 1):
                writers.write({"step": step, "loss": np.float32(start)})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [
        *((k, 0) for k in (1, 2, 3)),
        (4, 3),
        (5, 3),
        (6, 3),
    ]
    assert [(step, value) for step, _, value in shown(tmp_path / "tensorboard")] == [
        (line["step"], line["loss"]) for line in lines
    ]


def test_tensorboard_can_be_left_out(tmp_path: Path) -> None:
    with MetricWriters(tmp_path, 0, TrackingConfig(tensorboard=False)) as writers:
        writers.write({"step": 1, "loss": np.float32(2.5)})
        writers.sync()
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
