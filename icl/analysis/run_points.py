"""Points for scaling laws from the folders of finished runs: a ladder's workdir is enough.

Which parameters count: Kaplan et al. 2020 (and GPT-3's Fig. 3.1) leave out the tables of tokens and
positions and the head, as their laws were then straighter; Hoffmann et al. 2022 count all. Where embeddings
are a large part, as in small models, one exponent turns into the other's (Pearce and Song 2024). Compute is
the model's own FLOPs, with head and attention: leaving out the head's bends the law of small models (Porian
et al. 2024).
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from icl import model
from icl.analysis.law_forms import Floats
from icl.analysis.scaling_laws import RunPoint
from icl.analysis.text_loss import text_loss
from icl.errors import InputError
from icl.training.checkpoints import read_description
from icl.training.description import Description

Count = Literal["non_embedding", "all"]
_COUNTS = {"non_embedding": model.num_non_embedding_params, "all": model.num_params}
LAST_SHARE = 0.05
"""Of a run's steps, over which the training loss is averaged: the learning rate is near its end there."""


class Curve(NamedTuple):
    """The training loss of a run as it went.

    Attributes:
      name: Of the run.
      tokens_N: Seen so far [points].
      flops_N: Spent so far [points].
      loss_N: Nats per token of single batches [points], of logged steps.
    """

    name: str
    tokens_N: Floats
    flops_N: Floats
    loss_N: Floats


def read_points(
    workdirs: Sequence[str | Path],
    *,
    count: Count = "non_embedding",
    rows: range | None = None,
) -> list[RunPoint]:
    """The finished runs of folders, as points of scaling laws.

    Args:
      workdirs: Folders of runs, or folders that hold such folders at any depth (a ladder's).
      count: Which parameters are N: without tables of tokens and positions and an untied head, or all.
      rows: Training rows that no run has reached, on which every run's loss is measured: the same for all.
        Without them it is the training loss over the last 20th of the steps, which on unique text is one on
        unseen text too, but for each run on another part of it, and more noisy.

    Raises:
      InputError: a folder holds no run; a run's schedule is not finished, or its text was repeated; runs
        differ in tokenizer, text or length of rows, so that their losses do not compare.
    """
    folders = find_runs(workdirs)
    found = [(folder, _read(folder)) for folder in folders]
    first_folder, first = found[0]
    for folder, run in found[1:]:
        _check_same_text(first_folder, first, folder, run)
    return [_point(folder, run, count, rows) for folder, run in found]


def read_curve(workdir: str | Path) -> Curve:
    """The training loss of a run, finished or not.

    Raises:
      InputError: the folder holds no run.
    """
    folder = Path(workdir)
    run = _read(folder)
    lines = [line for line in run.lines if line["loss"] is not None]
    tokens_N = np.array([line["tokens"] for line in lines], np.float64)
    loss_N = np.array([line["loss"] for line in lines], np.float64)
    return Curve(run.name(folder), tokens_N, tokens_N * run.flops_per_token, loss_N)


def find_runs(workdirs: Sequence[str | Path]) -> list[Path]:
    """The folders of runs among and below some folders, each once.

    Raises:
      InputError: there is none in one of them.
    """
    found: dict[Path, None] = {}
    for workdir in workdirs:
        before = len(found)
        for folder, folders, files in os.walk(workdir):
            folders.sort()
            if "run.json" in files:
                folders.clear()
                found[Path(folder)] = None
        if len(found) == before and Path(workdir) not in found:
            raise InputError(f"{workdir}: holds no run; expected a run's folder, or one that has some in it")
    return list(found)


class _Run(NamedTuple):
    """What a run's folder says."""

    settings: Mapping[str, Any]
    data: Mapping[str, Any]
    description: Description
    lines: Sequence[Mapping[str, Any]]

    def name(self, folder: Path) -> str:
        return self.description.rung or folder.name

    @property
    def flops_per_token(self) -> float:
        return model.flops_per_token(self.description.model, self.description.data["row_length"])

    @property
    def repeats(self) -> float:
        """How often the whole run uses the corpus, or the task with an end, that it uses most."""
        return max((usage["repeats"] or 0.0 for usage in self.data["usage"].values()), default=0.0)


def _read(folder: Path) -> _Run:
    description = read_description(folder)
    try:
        settings, data = (
            json.loads((folder / name).read_text("utf-8")) for name in ("run.json", "data.json")
        )
        text = (folder / "metrics.jsonl").read_text("utf-8")
        lines = [json.loads(line) for line in text.splitlines()]
    except FileNotFoundError as error:
        raise InputError(f"{error.filename} does not exist: expected it in a run's folder") from None
    except ValueError as error:
        raise InputError(f"{folder}: run.json, data.json or metrics.jsonl is damaged: {error}") from None
    return _Run(settings, data, description, [line for line in lines if line["step"] <= description.step])


def _check_same_text(first_folder: Path, first: _Run, folder: Path, run: _Run) -> None:
    """Whether the losses of two runs compare."""
    for part in ("tokenizer", "data", "tasks"):
        ours, other = (dict(getattr(each.description, part)) for each in (first, run))
        for name in ("seed", "curriculum") if part == "data" else ():
            ours.pop(name, None), other.pop(name, None)
        if ours != other:
            fields = [name for name in {**ours, **other} if ours.get(name) != other.get(name)]
            raise InputError(
                f"{first_folder} and {folder} differ in {part} ({', '.join(sorted(fields))}): expected runs"
                " whose losses compare"
            )


def _point(folder: Path, run: _Run, count: Count, rows: range | None) -> RunPoint:
    _check_finished(folder, run)
    if run.repeats > 1:
        raise InputError(f"{folder}: saw its text {run.repeats:.3g} times; expected unique text only")
    description = run.description
    return RunPoint(
        params=_COUNTS[count](description.model),
        tokens=description.tokens,
        loss=_last_loss(run) if rows is None else text_loss(folder, rows).loss,
        seed=description.train_seed,
        flops=description.tokens * run.flops_per_token,
        repeats=run.repeats,
        name=str(folder),
    )


def _check_finished(folder: Path, run: _Run) -> None:
    steps, done = run.settings["TrainConfig"]["steps"], run.description.step
    if done != steps:
        raise InputError(
            f"{folder}: is at step {done} of {steps}, its schedule is not finished; train it to its end"
        )
    if run.settings["OptimizerConfig"]["schedule"] == "constant":
        raise InputError(
            f"{folder}: its learning rate stays constant, so no schedule finishes; expected a decay"
        )
    if not run.lines or run.lines[-1]["step"] != steps:
        raise InputError(f"{folder}/metrics.jsonl: has no line of the last step {steps}")


def _last_loss(run: _Run) -> float:
    """Mean training loss of the last logged steps in nats per token; NaN where one was not finite."""
    after = run.description.step * (1 - LAST_SHARE)
    losses = [line["loss"] for line in run.lines if line["step"] > after]
    return math.nan if None in losses else float(np.mean(losses))
