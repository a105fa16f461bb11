"""The training loop: restore or begin, step, log, evaluate, save; and go on after a kill at any moment.

The batch of a step follows from the step alone, so the newest checkpoint is all there is to resume from.
The loop dispatches step n + 1 before it fetches the metrics of step n, so the devices never wait for it.
"""

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from icl.errors import InputError
from icl.parallel.hosts import check_agreement, from_first, wait_for_all
from icl.parallel.speed import peak_flops
from icl.progress import Progress
from icl.tracking.config import check_installed
from icl.training.checkpoints import Checkpoints, read_description
from icl.training.config import Run, RunConfig
from icl.training.description import Description, as_json
from icl.training.fine_tuning import BEST
from icl.training.fine_tuning_development import Development
from icl.training.fine_tuning_rows import FineTuningRows
from icl.training.held_out import HeldOut, HeldOutRows
from icl.training.metrics import MetricWriters, NoWriters
from icl.training.profiling import Profiler
from icl.training.setup import Setup
from icl.training.step import StepMetrics, TrainState
from icl.training.termination import Termination
from icl.training.trainable import Trainable
from icl.training.workdir import (
    check_model,
    check_shared,
    check_steps,
    check_workdir,
    claim_workdir,
    is_claimed,
    settings_of,
    write_whole,
)


def train(run: RunConfig, workdir: str | Path, *, profile: bool = False) -> bool:
    """Trains a run in a folder, from its newest checkpoint if it has one.

    Writes config.gin, run.json, metrics.jsonl, tensorboard/ and checkpoints/STEP/ there.

    Args:
      run: All that decides the run.
      workdir: Its folder; made if need be.
      profile: Whether to trace a few steps into profile/ there, and to print where their time went.

    Returns:
      Whether it ended by itself; False when SIGTERM ended it, with its state saved.

    Raises:
      InputError: settings do not fit, the folder holds another run, its checkpoint is damaged, or Weights &
        Biases was asked for and is not installed or does not let the run begin.
    """
    return train_prepared(run, lambda: Setup(run), workdir, profile=profile)


def train_prepared(
    run: Run, prepare: Callable[[], Trainable[Any]], workdir: str | Path, *, profile: bool = False
) -> bool:
    """`train` of whatever `prepare` makes ready; the folder is checked before it is called."""
    began = time.monotonic()
    workdir = Path(workdir)
    check_workdir(workdir, run)
    check_installed(run.tracking)
    try:
        return _train(run, prepare, workdir, profile, began)
    except OSError as error:
        error.filename = error.filename or str(workdir)
        raise


def _train(
    run: Run, prepare: Callable[[], Trainable[Any]], workdir: Path, profile: bool, began: float
) -> bool:
    """`train` in a folder that is free or this run's own."""
    with Termination() as termination:
        setup = prepare()
        is_first = jax.process_index() == 0
        check_agreement(
            {
                "version of JAX": jax.__version__,
                "setting": _settings_text(run),
                "data": setup.fingerprint,
            }
        )
        if is_first and not is_claimed(workdir):
            claim_workdir(workdir, run)
        wait_for_all("workdir")
        check_shared(workdir)
        with Checkpoints(
            workdir, keep_last=run.train.keep_last, keep_every=run.train.keep_every
        ) as checkpoints:
            start = int(from_first(np.array(checkpoints.latest() or 0, np.int32)))
            check_steps(workdir, run, start)
            state = _restore(checkpoints, setup, workdir, start) if start else setup.init_state()
            if is_first:
                claim_workdir(workdir, run)
                write_whole(workdir / "data.json", json.dumps(setup.data_report(), indent=1) + "\n")
            with _progress(run, start) as progress, _development(setup, workdir, start) as development:
                if start >= run.train.steps or (development and development.is_over):
                    progress.say(f"step {start} is the last: nothing left to train")
                    return True
                with _writers(run, workdir, start) as writers:
                    profiler = Profiler(workdir / "profile" if profile and is_first else None, start)
                    loop = _Loop(
                        setup, checkpoints, writers, termination, profiler, progress, began, development
                    )
                    return loop.run(state, start)


def _development(
    setup: Trainable[Any], workdir: Path, start: int
) -> Development | contextlib.nullcontext[None]:
    """What decides when fine-tuning on a few examples ends; nothing for other runs."""
    if not isinstance(setup, Setup) or not isinstance(setup.rows, FineTuningRows):
        return contextlib.nullcontext()
    return Development(setup, setup.rows, workdir, start)


def _progress(run: Run, start: int) -> Progress:
    is_first = jax.process_index() == 0
    return Progress(run.rung or "train", run.train.steps, done=start, is_shown=is_first)


def _writers(run: Run, workdir: Path, start: int) -> MetricWriters | NoWriters:
    """Only the first host writes."""
    if jax.process_index() != 0:
        return NoWriters()
    return MetricWriters(workdir, start, run.tracking, settings_of(run) | {"MeshConfig": as_json(run.mesh)})


def _settings_text(run: Run) -> str:
    """Every setting, for a comparison between hosts."""
    return json.dumps([settings_of(run), as_json(run.mesh)])


class _Loop:
    """The loop proper, over what `train` has opened."""

    def __init__(
        self,
        setup: Trainable[Any],
        checkpoints: Checkpoints,
        writers: MetricWriters | NoWriters,
        termination: Termination,
        profiler: Profiler,
        progress: Progress,
        began: float,
        development: Development | None = None,
    ) -> None:
        self._setup = setup
        self._train = setup.run.train
        self._checkpoints = checkpoints
        self._termination = termination
        self._profiler = profiler
        self._progress = progress
        self._began = began
        self._development = development
        self._held_out = HeldOutRows(setup) if isinstance(setup, Setup) else None
        self._description = setup.description()
        self._writers = writers

    def run(self, state: TrainState, start: int) -> bool:
        with contextlib.closing(self._setup.batches(start)) as batches:
            return self._steps(batches, state, start)

    def _steps(self, batches: Iterator[Any], state: TrainState, start: int) -> bool:
        batch, progress = next(batches), self._progress
        ramp = self._setup.run.ramp
        train_step = self._compiled(state, batch, start)
        log = _Log(self._setup, self._writers, progress)
        last = self._train.steps
        if self._development and not start:
            self._development.measure(0, state.params)
        for step in range(start + 1, last + 1):
            if step > start + 1 and ramp.rows(step - 1) != ramp.rows(step - 2):
                log.finish()
                train_step = self._compiled(state, batch, step - 1)
                log.start_clock()
            self._profiler.before(step, state)
            with jax.transfer_guard("disallow"):
                state, metrics = train_step(state, batch)
            log.add(step, metrics)
            if step == start + 1:
                jax.block_until_ready(state)
                progress.say(f"first step done {time.monotonic() - self._began:.1f} s after the start")
            if traced := self._profiler.after(step, state, train_step, is_last=step == last):
                progress.say(traced)
            if step < last:
                batch = next(batches)
                # The step before was dispatched: where it was done before the rows came, the next one waited.
                log.add_wait(self._setup.seconds_to_read > _AT_ONCE and metrics.loss.is_ready())
            stop = self._termination.requested(step)
            held_out = found = None
            evaluates = self._train.eval_every and (step % self._train.eval_every == 0 or step == last)
            if self._held_out is not None and evaluates:
                held_out = self._held_out.measure(state.params)
            if self._development and self._development.is_due(step, last):
                found = self._development.measure(step, state.params)
            if held_out or found:
                log.finish(held_out, found)
            over = self._development is not None and self._development.is_over
            if (
                stop
                or over
                or step == last
                or (self._train.save_every and step % self._train.save_every == 0)
            ):
                log.finish()
                self._save(step, state)
            log.start_clock()
            if self._development and (over or step == last):
                progress.say(f"{self._development.summary}: in {BEST}/")
                return True
            if stop:
                progress.say(f"terminated: saved at step {step}")
                return False
        return True

    def _compiled(self, state: TrainState, batch: Any, start: int) -> Any:
        began = time.monotonic()
        train_step = self._setup.compile_train_step(state, batch)
        rows = self._setup.run.ramp.rows(start)
        self._progress.say(
            f"step of {rows} rows compiled in {time.monotonic() - began:.1f} s (attention:"
            f" {self._setup.attention}), begins after step {start}"
        )
        return train_step

    def _save(self, step: int, state: TrainState) -> None:
        """Every metric up to `step` is on the disk before its checkpoint can commit."""
        self._writers.sync()
        description = dataclasses.replace(
            self._description,
            tokens=self._setup.run.tokens(step),
            excluded=self._setup.excluded(jax.device_get(state.excluded_C)),
        )
        if self._development:
            self._development.save(description)
        self._checkpoints.save(step, state, description)


_AT_ONCE = 1e-3
"""Seconds in which rows that were made ahead are there."""


class _Log:
    """Fetches metrics one step late and writes those of the steps that are due."""

    def __init__(self, setup: Trainable[Any], writers: MetricWriters | NoWriters, progress: Progress) -> None:
        self._setup = setup
        self._every = setup.run.train.log_every
        self._run = setup.run
        self._last = setup.run.train.steps
        self._writers = writers
        self._progress = progress
        self._peak = peak_flops()
        self._pending: tuple[int, StepMetrics] | None = None
        self._busy, self._tokens, self._waits = 0.0, 0, 0
        self._clock = time.monotonic()

    def add_wait(self, waited: bool) -> None:
        """Counts a step whose batch was not there when the devices were free."""
        self._waits += waited

    def add(self, step: int, metrics: StepMetrics) -> None:
        """Takes the metrics of a step just dispatched; fetches those of the one before."""
        self.finish()
        self._pending = (step, metrics)

    def start_clock(self) -> None:
        """Time since the last step fetched does not count where the devices had to wait."""
        if self._pending is None:
            self._clock = time.monotonic()

    def finish(self, held_out: HeldOut | None = None, development: Mapping[str, Any] | None = None) -> None:
        """Waits for the step last dispatched, and writes its line if it is due or something was measured."""
        if self._pending is None:
            return
        step, on_device = self._pending
        self._pending = None
        metrics = jax.device_get(on_device)
        now = time.monotonic()
        self._busy, self._clock = self._busy + now - self._clock, now
        self._tokens += self._run.tokens(step) - self._run.tokens(step - 1)
        if not metrics.finite:
            skipped = f"{metrics.skipped} updates skipped so far"
            self._progress.say(f"step {step}: loss or gradient is not finite, {skipped}")
        if (
            held_out
            or development
            or step % self._every == 0
            or step in (1, self._last)
            or not metrics.finite
        ):
            self._write(step, metrics, held_out, development)

    def _write(
        self,
        step: int,
        metrics: StepMetrics,
        held_out: HeldOut | None,
        development: Mapping[str, Any] | None,
    ) -> None:
        tokens_per_second = self._tokens / max(self._busy, 1e-9)
        data_waits, self._busy, self._tokens, self._waits = self._waits, 0.0, 0, 0
        mfu = tokens_per_second * self._setup.flops_per_token() / self._peak if self._peak else None
        by_task = zip(self._setup.components, metrics.task_loss_C, strict=True)
        line = {
            "step": step,
            "tokens": self._run.tokens(step),
            "loss": metrics.loss,
            "learning_rate": metrics.learning_rate,
            "grad_norm": metrics.grad_norm,
            "skipped": int(metrics.skipped),
            "tokens_per_second": round(tokens_per_second, 1),
            "mfu": None if mfu is None else round(mfu, 4),
            "data_waits": data_waits,
            "task_loss": {task: loss for task, loss in by_task if loss == loss},
            "excluded": self._setup.excluded(np.asarray(metrics.excluded_C))["examples"],
        }
        measured = {"curve": held_out and held_out.curve, "development": development}
        self._writers.write(line | {name: value for name, value in measured.items() if value})
        if held_out:
            self._writers.show(step, held_out)
        use = "" if mfu is None else f", MFU {mfu:.0%}"
        self._progress.update(step, f"loss {metrics.loss:.4f}, {tokens_per_second:,.0f} tokens/s{use}")


def _restore(checkpoints: Checkpoints, setup: Trainable[Any], workdir: Path, step: int) -> TrainState:
    """The state of a checkpoint, after making sure that it is of this model, trained on the same rows."""
    description: Description = read_description(workdir, step)
    check_model(description.model, setup.model, f"checkpoint {workdir}, step {step}")
    if description.data_fingerprint != setup.fingerprint:
        raise InputError(
            f"checkpoint {workdir}, step {step}: was trained on other rows than these settings and files give"
            f" (fingerprint {description.data_fingerprint}, now {setup.fingerprint})"
        )
    return checkpoints.restore(step, setup.abstract_state())
