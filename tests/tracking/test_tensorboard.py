import io
import time
from pathlib import Path

import pytest
from PIL import Image

from icl.tracking.markdown import as_markdown
from icl.tracking.tensorboard import TensorBoard
from icl.tracking.tracker import Sample
from tests.tracking.events import events_of, shown

SAMPLE = Sample("K = 0, without instruction", "2+2=", "4", "4", True)


def png(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "white").save(file, "png")
    return file.getvalue()


def test_numbers_figures_and_prompts_read_back_at_their_step(tmp_path: Path) -> None:
    tracker = TensorBoard.append(tmp_path, 1)
    tracker.scalars(3, {"train/loss": 2.5, "speed/mfu": 0.25})
    tracker.figure(3, "held_out/k_curve", png(30, 20))
    tracker.samples(4, "held_out/sums", [SAMPLE])
    tracker.close()
    assert shown(tmp_path) == [
        (3, "train/loss", 2.5),
        (3, "speed/mfu", 0.25),
        (3, "held_out/k_curve", png(30, 20)),
        (4, "held_out/sums", as_markdown([SAMPLE])),
    ]
    first, *_, figure, _ = [event for path in tmp_path.iterdir() for event in events_of(path.read_bytes())]
    assert first.file_version == "brain.Event:2"
    (value,) = figure.summary.value
    assert (value.image.width, value.image.height) == (30, 20)


def test_a_run_that_goes_on_shows_each_step_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when both starts fall into one second, or the clock goes back between them."""
    for now, start, last in ((1_000.5, 1, 5), (1_000.9, 4, 7), (900.0, 6, 8)):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        tracker = TensorBoard.append(tmp_path, start)
        for step in range(start, last + 1):
            tracker.scalars(step, {"start": start})
        tracker.close()
    assert [(step, value) for step, _, value in shown(tmp_path)] == [
        (1, 1),
        (2, 1),
        (3, 1),
        (4, 4),
        (5, 4),
        (6, 6),
        (7, 6),
        (8, 6),
    ]
    assert len(list(tmp_path.iterdir())) == 3


def test_a_kill_loses_nothing_that_was_synced_and_tears_only_the_last_event(tmp_path: Path) -> None:
    tracker = TensorBoard.append(tmp_path, 1)
    for step in (1, 2):
        tracker.scalars(step, {"loss": step})
    tracker.sync()
    (path,) = tmp_path.iterdir()
    kept = path.read_bytes()  # What a kill at this moment leaves.
    assert [row[0] for row in shown(tmp_path)] == [1, 2]
    tracker.close()
    for cut in range(1, 30):
        path.write_bytes(kept[:-cut])
        assert [row[0] for row in shown(tmp_path)] == [1]
    TensorBoard.append(tmp_path, 2).close()
    assert [row[0] for row in shown(tmp_path)] == [1]


def test_what_is_written_can_be_seen_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    tracker = TensorBoard.append(tmp_path, 1)
    tracker.scalars(1, {"loss": 1.0})
    assert shown(tmp_path) == []
    now += 11
    tracker.scalars(2, {"loss": 2.0})
    assert [row[0] for row in shown(tmp_path)] == [1, 2]
    tracker.close()
