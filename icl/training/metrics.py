"""Where a run's numbers go: metrics.jsonl, TensorBoard, and a progress line.

A line of metrics.jsonl is on the disk before the checkpoint of its step commits, and a resumed run drops
what lies after its checkpoint. So, however often a run is killed, each step stands there once.
"""

import json
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import SummaryWriter
from tqdm import tqdm

Line = Mapping[str, Any]


class MetricWriters:
    """Writes each logged step to metrics.jsonl and TensorBoard; a context manager."""

    def __init__(self, workdir: Path, start_step: int) -> None:
        """Drops what stands after `start_step`, and appends from there."""
        path = workdir / "metrics.jsonl"
        drop_after(path, start_step)
        self._file = path.open("a", encoding="utf-8")
        self._tensorboard = SummaryWriter(str(workdir / "tensorboard"), purge_step=start_step + 1)

    def __enter__(self) -> "MetricWriters":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._tensorboard.close()

    def write(self, line: Line) -> None:
        """Writes one line. Numbers that are not finite become null, as JSON has no others."""
        self._file.write(json.dumps(plain(line), allow_nan=False) + "\n")
        for name, value in scalars(line):
            self._tensorboard.add_scalar(name, value, line["step"])

    def sync(self) -> None:
        """Returns when every line written is on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())


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

    def __init__(self, name: str, total: int, start: int) -> None:
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm(total=total, initial=start, desc=name, unit="step", dynamic_ncols=True)
        self._name, self._total, self._start = name, total, start
        self._began = self._last = time.monotonic()

    def update(self, step: int, loss: float, tokens_per_second: float, mfu: float | None) -> None:
        """Shows a step that is done."""
        use = "" if mfu is None else f", MFU {mfu:.0%}"
        text = f"loss {loss:.4f}, {tokens_per_second:,.0f} tokens/s{use}"
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(step - self._bar.n)
            return
        now = time.monotonic()
        if now - self._last < self._SECONDS and step < self._total:
            return
        self._last = now
        left = (now - self._began) / max(step - self._start, 1) * (self._total - step)
        self.say(f"step {step}/{self._total}, {text}, {left:.0f} s left")

    def say(self, text: str) -> None:
        """Prints a line of its own."""
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
