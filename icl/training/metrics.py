"""Where a run's numbers go: metrics.jsonl, TensorBoard, and a progress line.

A line of metrics.jsonl is on the disk before the checkpoint of its step commits, and a resumed run drops
what lies after its checkpoint. So, however often a run is killed, each step stands there once.
"""

import json
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tqdm import tqdm

Line = Mapping[str, Any]


class MetricWriters:
    """Writes each logged step to metrics.jsonl and TensorBoard; a context manager."""

    def __init__(self, workdir: Path, start_step: int) -> None:
        """Drops what stands after `start_step`, and appends from there."""
        path = workdir / "metrics.jsonl"
        drop_after(path, start_step)
        self._file = path.open("a", encoding="utf-8")
        self._tensorboard = _TensorBoard(workdir / "tensorboard", start_step + 1)

    def __enter__(self) -> "MetricWriters":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._tensorboard.close()

    def write(self, line: Line) -> None:
        """Writes one line. Numbers that are not finite become null, as JSON has no others."""
        self._file.write(json.dumps(plain(line), allow_nan=False) + "\n")
        self._tensorboard.write(line["step"], scalars(line))

    def sync(self) -> None:
        """Returns when every line written is on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())


class _TensorBoard:
    """An event file, written in the caller's thread.

    tensorboardX's SummaryWriter has a thread of its own, which a full disk ends; the next writes then wait
    for it forever.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        """Opens a file; TensorBoard drops what earlier files hold from `first_step` on."""
        folder.mkdir(parents=True, exist_ok=True)
        self._events = EventsWriter(str(folder / "events"))
        self._write(first_step, session_log=SessionLog(status=SessionLog.START))

    def write(self, step: int, values: Sequence[tuple[str, float]]) -> None:
        """Writes the named numbers of a step."""
        tagged = [Summary.Value(tag=name, simple_value=value) for name, value in values]
        self._write(step, summary=Summary(value=tagged))

    def close(self) -> None:
        """Writes out what is buffered."""
        self._events.close()

    def _write(self, step: int, **content: Any) -> None:
        self._events.write_event(Event(step=step, wall_time=time.time(), **content))


class NoWriters:
    """Stands for `MetricWriters` on every host but the first."""

    def __enter__(self) -> "NoWriters":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def write(self, line: Line) -> None:
        """Writes nothing."""

    def sync(self) -> None:
        """Has nothing to wait for."""


class Progress:
    """A progress line on stderr: a bar in a terminal, else a plain line every ten seconds at most."""

    _SECONDS = 10.0

    def __init__(self, name: str, total: int, start: int, *, is_shown: bool = True) -> None:
        self._bar = None
        self._is_shown = is_shown
        if is_shown and sys.stderr.isatty():
            self._bar = tqdm(total=total, initial=start, desc=name, unit="step", dynamic_ncols=True)
        self._name, self._total = name, total
        self._first: tuple[int, float] | None = None
        self._shown = time.monotonic()

    def update(self, step: int, loss: float, tokens_per_second: float, mfu: float | None) -> None:
        """Shows a step that is done."""
        use = "" if mfu is None else f", MFU {mfu:.0%}"
        text = f"loss {loss:.4f}, {tokens_per_second:,.0f} tokens/s{use}"
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(step - self._bar.n)
            return
        now = time.monotonic()
        first, began = self._first = self._first or (step, now)
        if now - self._shown < self._SECONDS and step < self._total:
            return
        self._shown = now
        left = (now - began) / max(step - first, 1) * (self._total - step)
        self.say(f"step {step}/{self._total}, {text}, {left:.0f} s left")

    def say(self, text: str) -> None:
        """Prints a line of its own."""
        if self._is_shown:
            tqdm.write(f"{self._name}: {text}", file=sys.stderr)

    def close(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.close()


def drop_after(path: Path, step: int) -> None:
    """Cuts metrics.jsonl after the line of `step`: later lines, and a torn last one, go."""
    if not path.exists():
        return
    content = path.read_bytes()
    end = 0
    for raw in content.splitlines(keepends=True):
        try:
            kept = raw.endswith(b"\n") and json.loads(raw)["step"] <= step
        except (ValueError, KeyError, TypeError):
            kept = False
        if not kept:
            break
        end += len(raw)
    if end < len(content):
        os.truncate(path, end)


def plain(value: Any) -> Any:
    """Plain JSON of a metric: single-precision numbers by their shortest digits, non-finite ones as None."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray) and value.ndim == 0:
        return plain(value[()])
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.floating | float):
        number = float(str(value)) if isinstance(value, np.float32) else float(value)
        return number if math.isfinite(number) else None
    return value.item() if isinstance(value, np.generic) else value


def scalars(line: Line, prefix: str = "") -> list[tuple[str, float]]:
    """The finite numbers of a line with names for TensorBoard; of a curve over K, powers of two and zero."""
    found = []
    for name, value in line.items():
        if isinstance(value, Mapping):
            found += scalars(value, f"{prefix}{name}/")
        elif np.ndim(value):
            chosen = [k for k in range(len(value)) if k & (k - 1) == 0 and np.isfinite(value[k])]
            found += [(f"{prefix}{name}/k{k:02d}", float(value[k])) for k in chosen]
        elif name not in ("step", "tokens") and value is not None and np.isfinite(value):
            found.append((f"{prefix}{name}", float(value)))
    return found
