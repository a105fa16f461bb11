"""A run's folder: whose it is, and whether this run may go on in it.

`run.json` holds every setting that decides what the run computes. A folder that holds another run is
refused by naming the setting that differs; only cadences may change, and `steps` where the learning rates
of the steps already done stay the same.
"""

import dataclasses
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from icl.errors import InputError, check_is_no_url
from icl.model.config import ModelConfig
from icl.tasks.registry import describe
from icl.training.config import Run
from icl.training.description import as_json
from icl.training.fine_tuning import FineTuneConfig
from icl.training.optimizer import make_schedule

_RUN_FILE = "run.json"
_SHOWS_WITHIN = 20.0
"""Seconds after which a network file system shows every host what another one wrote."""
_FREE: dict[str, set[str]] = {
    "TrainConfig": {
        *("steps", "tokens", "save_every", "keep_last", "keep_every", "log_every", "eval_every", "eval_rows"),
        *("read_threads", "read_workers"),
    },
    "ModelConfig": {"attention", "remat", "scan_unroll"},
    "FineTuneConfig": {"checkpoint"},
}
"""Settings that may change from start to start: cadences, `steps` (see `check_steps`), how to compute, and
the path of a checkpoint that is told by its content."""


def settings_of(run: Run) -> dict[str, dict[str, Any]]:
    """The settings that decide what a run computes, as JSON by class; the mesh is free to change."""
    parts: dict[str, dict[str, Any]] = {
        type(part).__name__: as_json(part) for part in (run.model, run.data, run.optimizer, run.train)
    }
    if run.fine_tune != FineTuneConfig():
        started = run.start.identity if run.start else {}
        parts["FineTuneConfig"] = as_json(run.fine_tune) | started
    families = json.loads(json.dumps(describe(run.families)))
    return parts | {f"task family {key}": settings for key, settings in families.items()}


def check_workdir(workdir: Path, run: Run) -> None:
    """Whether a run may start or go on in a folder, without touching it.

    Raises:
      InputError: the path is a file, or the folder holds another run; names the setting that differs.
    """
    check_is_no_url(workdir, "--workdir")
    if workdir.exists() and not workdir.is_dir():
        raise InputError(f"--workdir {workdir} is a file: expected a folder, or a path where to make one")
    if run.start is not None and run.start.folder.resolve() in (
        *(workdir.resolve() / name for name in ("", "checkpoints")),
        *workdir.resolve().parents,
    ):
        raise InputError(
            f"--workdir {workdir} holds or is in the checkpoint that the run starts from, {run.start.folder}:"
            " expected another folder"
        )
    path = workdir / _RUN_FILE
    if not path.exists():
        foreign = [name for name in ("checkpoints", "metrics.jsonl") if (workdir / name).exists()]
        if foreign:
            raise InputError(
                f"--workdir {workdir} holds {foreign[0]} but no {_RUN_FILE}: expected a new folder,"
                " or a run's own"
            )
        return
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        _compare(saved, settings_of(run), path)
    except (ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: is no JSON object of settings: {error}") from error


def check_steps(workdir: Path, run: Run, done: int) -> None:
    """Whether `TrainConfig.steps` may differ from the folder's after `done` steps.

    It may where the learning rates of those steps stay what they were; InputError otherwise.
    """
    path = workdir / _RUN_FILE
    if not path.exists():
        return
    before = json.loads(path.read_text(encoding="utf-8"))["TrainConfig"]["steps"]
    now = run.train.steps
    if now == before or not done:
        return
    if now < done:
        raise InputError(f"TrainConfig.steps = {now}: the run in {workdir} has done {done} steps already")
    rates = [make_schedule(run.optimizer, steps, run.train.batch_tokens, run.ramp) for steps in (before, now)]
    then, here = (np.asarray(rate(np.arange(done))) for rate in rates)
    if not np.array_equal(then, here):
        raise InputError(
            f"TrainConfig.steps = {now}: the run in {workdir} was started with {before}, and its learning"
            f" rates up to step {done} would have been others; expected {before}, or another --workdir"
        )


def check_model(saved: ModelConfig, now: ModelConfig, where: str) -> None:
    """Whether a checkpoint's model is this run's; InputError names `where` and the setting that differs."""
    for field in dataclasses.fields(ModelConfig):
        before, here = getattr(saved, field.name), getattr(now, field.name)
        if before != here and field.name not in _FREE["ModelConfig"]:
            raise InputError(
                f"{where}: its model has ModelConfig.{field.name} = {before!r}, this run {here!r}"
            )


def is_claimed(workdir: Path) -> bool:
    """Whether a run has begun in the folder."""
    return (workdir / _RUN_FILE).exists()


def check_shared(workdir: Path) -> None:
    """Whether this host sees the folder that the first host has claimed.

    Raises:
      InputError: it does not, also after a network's delay.
    """
    end = time.monotonic() + _SHOWS_WITHIN
    while not is_claimed(workdir):
        if time.monotonic() > end:
            raise InputError(
                f"--workdir {workdir}: host {jax.process_index()} does not see what host 0 wrote there;"
                " expected a folder on a file system that all hosts share"
            )
        time.sleep(0.1)


def claim_workdir(workdir: Path, run: Run) -> None:
    """Makes the folder and writes run.json and config.gin."""
    workdir.mkdir(parents=True, exist_ok=True)
    write_whole(workdir / _RUN_FILE, json.dumps(settings_of(run), indent=1) + "\n")
    if run.config_text:
        write_whole(workdir / "config.gin", run.config_text)


def write_whole(path: Path, text: str) -> None:
    """Writes a file so that, after a kill at any moment, it is the old one or the new one."""
    beside = path.with_name(path.name + ".tmp")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def _compare(saved: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    for part in (*now, *(part for part in saved if part not in now)):
        before, here = saved.get(part), now.get(part)
        if not isinstance(before, Mapping) or here is None:
            raise InputError(
                f"{path}: this folder's run has {'a' if before else 'no'} {part}, unlike this run;"
                " use another --workdir"
            )
        for field in (*here, *(field for field in before if field not in here)):
            if field not in _FREE.get(part, ()) and before.get(field) != here.get(field):
                raise InputError(
                    f"{path}: this folder's run has {part}.{field} = {before.get(field)!r}, this run"
                    f" {here.get(field)!r}; use another --workdir"
                )
