"""Where a run's numbers go: metrics.jsonl, TensorBoard, and Weights & Biases if it is asked for.

A line of metrics.jsonl is on the disk before the checkpoint of its step commits, and a resumed run drops
what lies after its checkpoint. So, however often a run is killed, each step stands there once.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from icl.tracking.config import TrackingConfig
from icl.tracking.tensorboard import TensorBoard
from icl.tracking.tracker import Tracker, Trackers
from icl.tracking.weights_and_biases import WeightsAndBiases
from icl.training.held_out import HeldOut

Line = Mapping[str, Any]
_TENSORBOARD = TrackingConfig()

_WORDINGS = {"without": "without_instruction", "with_instruction": "with_instruction"}
_GROUPS = {
    **dict.fromkeys(("tokens_per_second", "mfu", "data_waits"), "speed"),
    **dict.fromkeys(("task_loss", "excluded"), ""),
}
"""Under which group trackers show a metric, where that is not "train"; "" for one that is a group itself."""


class MetricWriters:
    """Writes each logged step to metrics.jsonl and the trackers; a context manager."""

    def __init__(
        self,
        workdir: Path,
        start_step: int,
        tracking: TrackingConfig = _TENSORBOARD,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Drops what stands after `start_step`, and appends from there.

        Args:
          workdir: The run's folder.
          start_step: The last step that is done.
          tracking: Where else to write.
          settings: Of the run, as trackers show them.

        Raises:
          InputError: a tracker does not let the run begin.
        """
        path = workdir / "metrics.jsonl"
        drop_after(path, start_step)
        trackers: list[Tracker] = []
        if tracking.tensorboard:
            trackers.append(TensorBoard.append(workdir / "tensorboard", start_step + 1))
        if tracking.wandb_project:
            trackers.append(WeightsAndBiases(tracking, workdir, "train", settings or {}))
        self._trackers = Trackers(trackers)
        self._file = path.open("a", encoding="utf-8")

    def __enter__(self) -> "MetricWriters":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._file.close()
        self._trackers.close(failed=kind is not None)

    def write(self, line: Line) -> None:
        """Writes one line. Numbers that are not finite become null, as JSON has no others."""
        self._file.write(json.dumps(plain(line), allow_nan=False) + "\n")
        self._trackers.scalars(line["step"], scalars(line))

    def show(self, step: int, held_out: HeldOut) -> None:
        """Shows the K-curve and the sample prompts of a step, after its line."""
        if self._trackers:
            # Only now: matplotlib takes most of a second to load, and many runs draw nothing.
            from icl.training.curve_figure import curve_figure

            self._trackers.figure(step, "held_out/k_curve", curve_figure(held_out.curve))
            for task, samples in held_out.samples.items():
                self._trackers.samples(step, f"held_out/{task}", samples)

    def sync(self) -> None:
        """Returns when every line written is on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._trackers.sync()


class NoWriters:
    """Stands for `MetricWriters` on every host but the first."""

    def __enter__(self) -> "NoWriters":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def write(self, line: Line) -> None:
        """Writes nothing."""

    def show(self, step: int, held_out: HeldOut) -> None:
        """Shows nothing."""

    def sync(self) -> None:
        """Has nothing to wait for."""


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


def scalars(line: Line) -> dict[str, float]:
    """The finite numbers of a line by the names that trackers show; of curves, K = 0 and powers of two."""
    found: dict[str, Any] = {}
    for name, value in line.items():
        group = _GROUPS.get(name, "train")
        if name == "curve":
            found |= _curve_scalars(value)
        elif isinstance(value, Mapping):
            found |= {"/".join(filter(None, (group, name, key))): item for key, item in value.items()}
        elif name != "step" and value is not None:
            found[f"{group}/{name}"] = value
    return {name: float(value) for name, value in found.items() if np.isfinite(value)}


def _curve_scalars(curve: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """`held_out_METRIC/TASK/WORDING/kNN`, so that each metric is a group; counts of answers are left out."""
    return {
        f"held_out_{metric}/{task}/{_WORDINGS[wording]}/k{k:02d}": value
        for wording, by_task in curve.items()
        for task, by_metric in by_task.items()
        for metric, values in by_metric.items()
        for k, value in enumerate(values)
        if metric != "answers" and k & (k - 1) == 0
    }
