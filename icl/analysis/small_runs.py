"""Many small training runs in one process, measured on the way: how much of the data makes what appear.

A step is compiled once for all runs of one shape, rows are made once for all runs of the same data, and what
is measured is a few shares of right answers, so that a run of a small model takes seconds.

Shapes: B rows, T positions, K examples of a row.
"""

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from icl import model
from icl.analysis.losses import exact_answers, token_scores
from icl.data.batch import Batch
from icl.data.keys import generator
from icl.data.loader import stack
from icl.data.rows import Rows
from icl.data.tokenizer import load_tokenizer
from icl.errors import InputError
from icl.model.config import ModelConfig
from icl.tasks.registry import build_tasks
from icl.training.config import RunConfig, TrainConfig
from icl.training.optimizer import OptimizerConfig, make_optimizer, make_schedule
from icl.training.step import TrainState, make_train_step
from icl.training.workdir import write_whole


class Probe(NamedTuple):
    """Rows to answer, and which of their answers count for which score.

    `counted_BK` of a score is true for the answers, by row and example, whose share of right ones it is.
    """

    rows: Batch
    counted: Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Trace:
    """One run, measured on the way.

    Attributes:
      params: Parameters of the model.
      steps: Optimizer steps done at each measurement; the first is 0, the last the end.
      scores: Share of exact answers (0..1) at each of them, by name.
      answers: How many answers each score is of.
      loss: Mean training loss since the measurement before, in nats a target; NaN at the first.
      cpu_seconds: Processor time of the training and measuring, without the rows.
    """

    params: int
    steps: list[int]
    scores: dict[str, list[float]]
    answers: dict[str, int]
    loss: list[float]
    cpu_seconds: float


def train_and_probe(
    run: RunConfig,
    probes: Sequence[Probe],
    *,
    distinct_rows: int,
    every: int,
    scored_positions: int | None = None,
) -> Trace:
    """Trains a model on the first `distinct_rows` rows of its data again and again, each time in a new order.

    Only the first parameters and that order depend on `TrainConfig.seed`. Nothing is written.

    Args:
      run: A run on one device, without a batch ramp or microbatches.
      probes: What is measured; their scores have names of their own.
      distinct_rows: How many rows there are.
      every: Steps between measurements.
      scored_positions: The most positions of a row that weigh, if that is known: less is computed.

    Raises:
      InputError: the rows make no batch, a ramp or microbatches are asked for, two scores have one name, or a
        row weighs more positions than was said.
    """
    train, per_batch = run.train, run.batch_rows
    if train.ramp_from or train.accumulation_steps != 1:
        raise InputError("TrainConfig.ramp_from or accumulation_steps: expected none of them in a small run")
    if distinct_rows < per_batch:
        raise InputError(f"{distinct_rows} distinct rows: expected a batch of {per_batch} or more")
    names = [name for probe in probes for name in probe.counted]
    if len(set(names)) < len(names):
        raise InputError(f"scores {names}: expected names that differ")
    rows, config, components = make_rows(run, distinct_rows)
    if (
        scored_positions is not None
        and (np.asarray(rows.weights_BT) > 0).sum(axis=1).max() > scored_positions
    ):
        raise InputError(f"scored_positions = {scored_positions}: a row weighs more than so many")
    init, step = _compiled(
        config,
        run.optimizer,
        dataclasses.replace(train, seed=0),
        per_batch,
        components,
        scored_positions,
    )
    began = time.process_time()
    state = init(jax.random.key(train.seed))
    trace = Trace(model.num_params(config), [], {name: [] for name in names}, counts(probes), [], 0.0)
    losses: list[jax.Array] = []
    for number in range(train.steps + 1):
        if number % every == 0 or number == train.steps:
            measured = measure(config, state.params, probes)
            trace.steps.append(number)
            trace.loss.append(round(float(np.mean(losses)), 4) if losses else float("nan"))
            for name in names:
                trace.scores[name].append(measured[name])
            losses = []
        if number < train.steps:
            places = batch_places(train.seed, number, per_batch, distinct_rows)
            state, metrics = step(state, Batch(*(np.asarray(array)[places] for array in rows)))
            losses.append(metrics.loss)
    return dataclasses.replace(trace, cpu_seconds=round(time.process_time() - began, 1))


def batch_places(seed: int, step: int, per_batch: int, distinct_rows: int) -> np.ndarray:
    """Which of the rows a step takes, [per_batch]: of each pass over them all, a slice of its random order.

    What is left of a pass and fills no batch is passed over.
    """
    lap, place = divmod(step, distinct_rows // per_batch)
    return _order(seed, lap, distinct_rows)[place * per_batch : (place + 1) * per_batch]


@functools.lru_cache(1)
def _order(seed: int, lap: int, distinct_rows: int) -> np.ndarray:
    return generator("order of rows", seed, lap).permutation(distinct_rows)


def make_rows(run: RunConfig, number: int) -> tuple[Batch, ModelConfig, int]:
    """The first training rows as NumPy arrays, the model with its vocabulary, the number of components.

    The rows made last are kept.
    """
    key = json.dumps([dataclasses.asdict(run.data), {k: repr(v) for k, v in run.families.items()}, number])
    if key not in _MADE:
        _MADE.clear()
        rows = Rows(run.data, build_tasks(run.families), load_tokenizer(run.data.tokenizer))
        _MADE[key] = stack([rows[i] for i in range(number)]), len(rows.components)
    vocabulary = run.model.vocab_size or load_tokenizer(run.data.tokenizer).vocab_size
    batch, components = _MADE[key]
    return batch, dataclasses.replace(run.model, vocab_size=vocabulary), components


_MADE: dict[str, tuple[Batch, int]] = {}


@functools.lru_cache(8)
def _compiled(
    config: ModelConfig,
    optimizer_config: OptimizerConfig,
    train: TrainConfig,
    per_batch: int,
    components: int,
    scored_positions: int | None,
) -> tuple[Callable[[jax.Array], TrainState], Callable[[TrainState, Batch], Any]]:
    """A new state from a key, and the train step; the same for all runs that differ in data and seed only."""
    optimizer = make_optimizer(optimizer_config, model.logical_axes(config))
    schedule = make_schedule(optimizer_config, train.steps, train.batch_tokens)
    step = make_train_step(
        config,
        optimizer,
        schedule,
        num_components=components,
        scored_positions=scored_positions,
        z_loss=train.z_loss,
        skip_nonfinite=train.skip_nonfinite,
    )

    def init(key: jax.Array) -> TrainState:
        params = model.init_params(config, key)
        zero = jnp.zeros((), jnp.int32)
        return TrainState(zero, params, optimizer.init(params), zero, jnp.zeros(components, jnp.int32))

    return jax.jit(init), jax.jit(step, donate_argnums=0)


def measure(config: ModelConfig, params: Any, probes: Sequence[Probe]) -> dict[str, float]:
    """Share of exact answers among those that count, by score."""
    found = {}
    for probe in probes:
        best_BT = np.asarray(token_scores(config, params, probe.rows).best_BT)
        num_examples = next(iter(probe.counted.values())).shape[1]
        exact_BK = exact_answers(best_BT, probe.rows.targets_BT, probe.rows.examples_BT, num_examples)
        for name, counted_BK in probe.counted.items():
            found[name] = round(float(exact_BK[counted_BK].mean()), 4)
    return found


def counts(probes: Sequence[Probe]) -> dict[str, int]:
    """How many answers each score is of.

    Raises:
      InputError: none counts for a score.
    """
    found = {name: int(np.sum(mask)) for probe in probes for name, mask in probe.counted.items()}
    if empty := [name for name, number in found.items() if not number]:
        raise InputError(f"scores {empty}: none of the rows' answers counts for them; expected more rows")
    return found


def seen_inputs(rows: Batch, num_examples: int) -> np.ndarray:
    """Whether the input of an example was shown before in its row, [rows, num_examples].

    For rows that hold one episode each and no instruction.
    """
    inputs_BT, examples_BT = np.asarray(rows.inputs_BT), np.asarray(rows.examples_BT)
    seen_BK = np.zeros((len(inputs_BT), num_examples), bool)
    for row, (inputs_T, examples_T) in enumerate(zip(inputs_BT, examples_BT, strict=True)):
        known: set[tuple[int, ...]] = set()
        begin = 1
        for k in range(num_examples):
            (places,) = np.nonzero(examples_T == k)
            if not len(places):
                break
            # The input ends at the position whose target is the answer's first token.
            asked = tuple(inputs_T[begin : places[0] + 1].tolist())
            begin = int(places[-1]) + 2
            seen_BK[row, k] = asked in known
            known.add(asked)
    return seen_BK


def half_way(steps: Sequence[int], values: Sequence[float], least: float) -> int | None:
    """The first measurement at which a score is at least `least`; None where it never is."""
    return next((step for step, value in zip(steps, values, strict=True) if value >= least), None)


def fading(values: Sequence[float]) -> float:
    """How far a score has come down from its highest value to its last one."""
    return float(max(values) - values[-1])


def write_trace(path: Path, trace: Trace) -> None:
    """Writes a trace whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(dataclasses.asdict(trace)) + "\n")


def read_trace(path: Path) -> Trace:
    """A trace that `write_trace` wrote.

    Raises:
      InputError: the file holds none.
    """
    try:
        return Trace(**json.loads(path.read_text()))
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: {error}: expected a trace of a run") from None
