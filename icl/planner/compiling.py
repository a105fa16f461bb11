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
    estimated_reading,
    largest_allocations,
    refused_memory,
)
from icl.planner.topology import Topology
from icl.training.checkpoints import abstract
from icl.training.config import RunConfig
from icl.training.setup import Setup

# Counting traces the model; a search asks for the same one often.
_flops_per_token = functools.cache(model.flops_per_token)
_num_params = functools.cache(model.num_params)


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

    @property
    def mesh_text(self) -> str:
        """The axes of the mesh that divide anything."""
        return " x ".join(f"{axis} {size}" for axis, size in self.mesh.items() if size > 1) or "one device"

    @property
    def is_evaluation(self) -> bool:
        """Whether it reads prompts, and trains nothing."""
        return self.total_tokens == 0


@dataclasses.dataclass(frozen=True)
class Layout:
    """A run on a mesh, and bytes of one device: what neither remat nor the number of microbatches changes."""

    setup: Setup
    parameters: int
    moments: int
    batch: int

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Parameters, moments and batch."""
        return self.parameters, self.moments, self.batch


def lay_out(run: RunConfig, topology: Topology, devices: Sequence[Any]) -> Layout:
    """Lays a run out on devices.

    Raises:
      InputError: settings do not fit each other or the devices.
    """
    setup = _setup(run, topology, devices)
    state, batch = setup.abstract_state(), setup.abstract_batch()
    return Layout(setup, *(bytes_a_device(tree) for tree in (state.params, state.moments, batch)))


def plan_training(run: RunConfig, topology: Topology, devices: Sequence[Any]) -> Plan:
    """Plans a run's train step, from its compiled program where there is a compiler.

    Raises:
      InputError: settings do not fit each other or the devices, or the compiler refuses the program.
    """
    layout = lay_out(run, topology, devices)
    if not topology.is_compiled:
        return estimate_training(run, topology, layout)
    setup = layout.setup
    compile_with = functools.partial(setup.compile_train_step, setup.abstract_state(), setup.abstract_batch())
    return _training(run, topology, layout, _compile(topology, layout.sizes, compile_with))


def estimate_training(run: RunConfig, topology: Topology, layout: Layout) -> Plan:
    """Plans a run's train step from its shapes; the layout may be of another remat or accumulation."""
    setup = layout.setup
    config = dataclasses.replace(setup.model, remat=run.model.remat)
    memory = estimated_memory(
        topology.chip.memory, config, setup.partitioner, run, _attention(setup, topology), *layout.sizes
    )
    return _training(run, topology, layout, (memory, None, 0.0))


def _training(
    run: RunConfig, topology: Topology, layout: Layout, compiled: tuple[Memory, Program | None, float]
) -> Plan:
    config, length, tokens = layout.setup.model, run.data.row_length, run.train.batch_tokens
    flops = tokens * _flops_per_token(config, length)
    cost = tokens, run.tokens(run.train.steps), flops, tokens * _attention_flops(config, length)
    return _plan(run, topology, layout.setup, cost, compiled)


def plan_evaluation(run: RunConfig, topology: Topology, devices: Sequence[Any], rows: int) -> Plan:
    """Plans what an evaluation does with `rows` prompts as long as a training row.

    It prefills a KV cache with all but the last eighth of them (what options have in common), and reads that.

    Raises:
      InputError: as for `plan_training`, or the rows do not divide among the devices.
    """
    setup = _setup(run, topology, devices)
    config, partitioner = setup.model, setup.partitioner
    if rows < 1 or rows % partitioner.batch_divisor:
        raise InputError(
            f"--eval_rows = {rows}: expected a multiple of the {partitioner.batch_divisor} devices along the"
            " mesh axes data and fsdp"
        )
    length = run.data.row_length
    params = abstract(model.abstract_params(config), setup.shardings.params)
    prompts = _abstract_prompts(partitioner, rows, length)
    sizes = (bytes_a_device(params), 0, bytes_a_device(prompts))
    if topology.is_compiled:
        read = functools.partial(_read, config, partitioner, length)
        compiled = _compile(
            topology, sizes, lambda options: jax.jit(read).lower(params, *prompts).compile(options)
        )
    else:
        estimate = estimated_reading(
            *(topology.chip.memory, config, partitioner, rows, length, _attention(setup, topology)),
            *(sizes[0], sizes[2]),
        )
        compiled = estimate, None, 0.0
    # Logits are of the last position alone.
    head = 2.0 * config.vocab_size * config.embed_dim * rows * (length - 1)
    flops = rows * length * _flops_per_token(config, length) / 3 - head
    cost = rows * length, 0, flops, rows * length * _attention_flops(config, length) / 3
    return _plan(run, topology, setup, cost, compiled)


def _abstract_prompts(partitioner: Partitioner, rows: int, length: int) -> tuple[jax.ShapeDtypeStruct, ...]:
    """Beginnings, how many of their tokens count, endings, and how many of theirs."""
    tail = max(1, length // 8)
    shapes = ((rows, length - tail), (rows,), (rows, tail), (rows,))
    return tuple(
        jax.ShapeDtypeStruct(shape, jnp.int32, sharding=partitioner.sharding(("batch", None)[: len(shape)]))
        for shape in shapes
    )


def _read(
    config: ModelConfig,
    partitioner: Partitioner,
    capacity: int,
    params: Any,
    prefix_BP: jax.Array,
    prefix_counts_B: jax.Array,
    tokens_BT: jax.Array,
    counts_B: jax.Array,
) -> Any:
    """What comes after each prompt, for every host: log-likelihoods of all tokens, and the likeliest."""
    cache = model.init_cache(config, len(prefix_BP), capacity)
    cache = model.prefill(config, params, cache, prefix_BP, prefix_counts_B, partitioner)
    logits_BV, _ = model.extend_to_last(config, params, cache, tokens_BT, counts_B, partitioner)
    said = jax.nn.log_softmax(logits_BV), jnp.argmax(logits_BV, axis=1)
    return jax.lax.with_sharding_constraint(said, partitioner.replicated)


def default_rows(run: RunConfig, num_devices: int) -> int:
    """Prompts that an evaluation reads together if nothing else is said: as many as a microbatch has rows."""
    data, fsdp, *_ = run.mesh.sizes(num_devices)
    rows = run.batch_rows // run.train.accumulation_steps
    return -(-rows // (data * fsdp)) * data * fsdp


def _setup(run: RunConfig, topology: Topology, devices: Sequence[Any]) -> Setup:
    if topology.is_compiled and run.mesh.dcn_data != topology.slices:
        raise InputError(
            f"MeshConfig.dcn_data = {run.mesh.dcn_data}: expected {topology.slices}, the number of slices of"
            f" {topology.name}"
        )
    run.mesh.sizes(len(devices))
    if not topology.is_compiled:  # Simulated devices are of one host.
        run = dataclasses.replace(run, mesh=dataclasses.replace(run.mesh, dcn_data=1))
    return Setup(run, devices, num_components=max(1, len(run.data.weights) + len(run.data.corpora)))


def _plan(
    run: RunConfig,
    topology: Topology,
    setup: Setup,
    cost: tuple[int, int, float, float],
    compiled: tuple[Memory, Program | None, float],
) -> Plan:
    memory, program, seconds = compiled
    tokens, total_tokens, model_flops, attention_flops = cost
    return Plan(
        name=run.rung or "run",
        topology=topology,
        mesh=dict(setup.partitioner.axis_sizes()),
        attention=_attention(setup, topology),
        run=run,
        params=_num_params(setup.model),
        tokens=tokens,
        total_tokens=total_tokens,
        model_flops=model_flops,
        attention_flops=attention_flops,
        memory=memory,
        program=program,
        seconds=seconds,
    )


def _attention(setup: Setup, topology: Topology) -> str:
    """Which attention the devices will run; those that stand for them may run another."""
    config = setup.model
    if config.attention != "auto" or topology.chip.platform != "gpu":
        return attention_of(config, setup.partitioner)
    whole_rows = setup.partitioner.axis_sizes()["sequence"] == 1
    return "cudnn" if whole_rows and config.compute_dtype == "bfloat16" else "reference"


def _attention_flops(config: ModelConfig, length: int) -> float:
    return _flops_per_token(config, length) - _flops_per_token(config, 0)


def _compile(
    topology: Topology, sizes: tuple[int, int, int], compile_with: Any
) -> tuple[Memory, Program | None, float]:
    """Compiles, and reads the program and what it takes; where it does not fit, what it would take."""
    capacity, (parameters, moments, inputs) = topology.chip.memory, sizes
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, str | bool] = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True}
        try:
            stats = compile_with(options).memory_analysis()
        except jax.errors.JaxRuntimeError as error:
            seconds = time.monotonic() - began
            refused = refused_memory(
                capacity, parameters, moments, inputs, str(error), _largest(Path(folder))
            )
            if refused is None:
                reason = " ".join(str(error).split())[:300]
                raise InputError(f"the compiler refuses the program for {topology.name}: {reason}") from error
            return refused, None, seconds
        seconds = time.monotonic() - began
        memory = compiled_memory(capacity, parameters, moments, stats, _largest(Path(folder)))
        return memory, _program(Path(folder)), seconds


def _largest(folder: Path) -> tuple[Allocation, ...]:
    reports = sorted(folder.glob("*memory-usage-report.txt"), key=lambda path: path.stat().st_size)
    return tuple(largest_allocations(reports[-1].read_text())) if reports else ()


def _program(folder: Path) -> Program | None:
    texts = sorted(folder.glob("*after_optimizations.txt"), key=lambda path: path.stat().st_size)
    with contextlib.suppress(IndexError):
        return read_hlo(texts[-1].read_text())
    return None
