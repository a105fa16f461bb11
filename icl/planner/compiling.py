"""Compiles the real train step, or the evaluation's reading of prompts, for devices that are not there."""

import contextlib
import dataclasses
import functools
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from icl import model
from icl.errors import InputError
from icl.model.block import attention_of
from icl.model.config import ModelConfig
from icl.parallel.partition import Partitioner
from icl.planner.hlo import Program, read_hlo
from icl.planner.memory import (
    Allocation,
    Memory,
    bytes_a_device,
    compiled_memory,
    estimated_memory,
    largest_allocations,
    needed_bytes,
)
from icl.planner.topology import Topology
from icl.training.config import RunConfig
from icl.training.setup import Setup


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run would take on some devices.

    Attributes:
      name: of the run.
      topology: the devices.
      mesh: devices along each mesh axis.
      attention: which attention the program has.
      run: its settings.
      params: number of parameters.
      tokens: positions of one execution of the program.
      total_tokens: positions of the whole run; 0 for an evaluation.
      model_flops: of one execution over all devices, recomputation not counted.
      attention_flops: those among them of attention scores and values.
      memory: bytes of one chip.
      program: what the compiler made; None where there is none for these devices, or it does not fit.
      seconds: that compiling took.
    """

    name: str
    topology: Topology
    mesh: dict[str, int]
    attention: str
    run: RunConfig
    params: int
    tokens: int
    total_tokens: int
    model_flops: float
    attention_flops: float
    memory: Memory
    program: Program | None
    seconds: float


def plan_training(run: RunConfig, topology: Topology, devices: Sequence[Any]) -> Plan:
    """Plans a run's train step.

    Raises:
      InputError: settings do not fit each other or the devices.
    """
    setup = _setup(run, devices)
    state, batch = setup.abstract_state(), setup.abstract_batch()
    parameters, moments = bytes_a_device(state.params), bytes_a_device(state.moments)
    length = run.data.row_length
    tokens = run.train.batch_tokens
    if topology.is_compiled:
        compiled = _compile(
            topology.chip.memory,
            parameters,
            moments,
            functools.partial(setup.compile_train_step, state, batch),
        )
    else:
        estimate = estimated_memory(
            topology.chip.memory,
            setup.model,
            setup.partitioner,
            run,
            parameters,
            moments,
            bytes_a_device(batch),
        )
        compiled = estimate, None, 0.0
    return _plan(run, topology, setup, tokens, run.tokens(run.train.steps), length, 1.0, compiled)


def plan_evaluation(run: RunConfig, topology: Topology, devices: Sequence[Any], rows: int) -> Plan:
    """Plans the reading of `rows` prompts as long as a training row into a KV cache, as evaluation does."""
    setup = _setup(run, devices)
    config, partitioner = setup.model, setup.partitioner
    params = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        model.abstract_params(config),
        setup.shardings.params,
    )
    length = run.data.row_length
    if rows % partitioner.batch_divisor:
        raise InputError(
            f"--eval_rows = {rows}: expected a multiple of the {partitioner.batch_divisor} devices along the"
            " mesh axes data and fsdp"
        )
    tokens = jax.ShapeDtypeStruct((rows, length), jnp.int32, sharding=partitioner.sharding(("batch", None)))
    counts = jax.ShapeDtypeStruct((rows,), jnp.int32, sharding=partitioner.sharding(("batch",)))

    def read(params: Any, tokens_BT: jax.Array, counts_B: jax.Array) -> Any:
        cache = model.init_cache(config, rows, length)
        return model.extend_to_last(config, params, cache, tokens_BT, counts_B, partitioner)

    def compile_with(options: dict[str, str | bool]) -> Any:
        return jax.jit(read).lower(params, tokens, counts).compile(options)

    parameters = bytes_a_device(params)
    if not topology.is_compiled:
        raise InputError(f"--eval needs a compiler: expected a TPU topology, not {topology.name}")
    compiled = _compile(topology.chip.memory, parameters, 0, compile_with)
    return _plan(run, topology, setup, rows * length, 0, length, 1 / 3, compiled)


def _setup(run: RunConfig, devices: Sequence[Any]) -> Setup:
    return Setup(run, devices, num_components=max(1, len(run.data.weights) + len(run.data.corpora)))


def _plan(
    run: RunConfig,
    topology: Topology,
    setup: Setup,
    tokens: int,
    total_tokens: int,
    length: int,
    part: float,
    compiled: tuple[Memory, Program | None, float],
) -> Plan:
    memory, program, seconds = compiled
    config = setup.model
    flops = model.flops_per_token(config, length)
    without = model.flops_per_token(config, 0)
    return Plan(
        name=run.rung or "run",
        topology=topology,
        mesh=dict(setup.partitioner.axis_sizes()),
        attention=_attention(config, setup.partitioner),
        run=run,
        params=model.num_params(config),
        tokens=tokens,
        total_tokens=total_tokens,
        model_flops=part * tokens * flops,
        attention_flops=part * tokens * (flops - without),
        memory=memory,
        program=program,
        seconds=seconds,
    )


def _attention(config: ModelConfig, partitioner: Partitioner) -> str:
    return attention_of(config, partitioner)


def _compile(
    capacity: float, parameters: int, moments: int, compile_with: Any
) -> tuple[Memory, Program | None, float]:
    """Compiles, and reads the program and what it takes; where it does not fit, what it would take."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, str | bool] = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True}
        stats, message = None, ""
        try:
            stats = compile_with(options).memory_analysis()
        except jax.errors.JaxRuntimeError as error:
            message = str(error)
            needed = needed_bytes(message)
            if needed is None:
                raise
        seconds = time.monotonic() - began
        largest = _largest(Path(folder))
        if stats is None:
            temporaries = max(0, (needed_bytes(message) or 0) - parameters - moments)
            return Memory(capacity, parameters, moments, 0, temporaries, largest=largest), None, seconds
        memory = compiled_memory(capacity, parameters, moments, stats, largest)
        return memory, _program(Path(folder)), seconds


def _largest(folder: Path) -> tuple[Allocation, ...]:
    reports = sorted(folder.glob("*memory-usage-report.txt"), key=lambda path: path.stat().st_size)
    return tuple(largest_allocations(reports[-1].read_text())) if reports else ()


def _program(folder: Path) -> Program | None:
    texts = sorted(folder.glob("*after_optimizations.txt"), key=lambda path: path.stat().st_size)
    with contextlib.suppress(IndexError):
        return read_hlo(texts[-1].read_text())
    return None
