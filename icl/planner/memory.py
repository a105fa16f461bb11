"""Bytes of one chip: what the compiler says, or where there is no compiler an estimate from shapes."""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import jax

from icl.model import num_non_embedding_params
from icl.model.config import ModelConfig
from icl.parallel.partition import Partitioner
from icl.training.config import RunConfig
from icl.training.loss import CHUNK

GIB = 2**30
SAFE_SHARE = 0.8
"""Of a chip's memory: what a plan should stay within, as the runtime and the data need some too."""
_UNITS = {"": 1, "B": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Allocation:
    """A piece of memory, and the arrays that stand in it one after the other."""

    bytes: int
    arrays: str


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of one chip, during a step.

    Attributes:
      capacity: of its HBM.
      parameters: float32.
      optimizer: its moments.
      inputs: batch and counters; for an evaluation the KV cache too. Padding of arguments counts here.
      temporaries: gradients, activations and what is gathered.
      code: of the program.
      outputs: results that do not take the place of an argument.
      largest: the largest pieces of the temporaries, where known.
      is_estimate: whether temporaries were estimated from shapes, without a compiler.
    """

    capacity: float
    parameters: int
    optimizer: int
    inputs: int
    temporaries: int
    code: int = 0
    outputs: int = 0
    largest: tuple[Allocation, ...] = ()
    is_estimate: bool = False

    @property
    def parts(self) -> dict[str, int]:
        """Bytes by part."""
        names = ("parameters", "optimizer", "inputs", "temporaries", "code", "outputs")
        return {name: getattr(self, name) for name in names}

    @property
    def total(self) -> int:
        """Bytes of all parts."""
        return sum(self.parts.values())

    @property
    def headroom(self) -> float:
        """Bytes that stay free; negative where it does not fit."""
        return self.capacity - self.total

    @property
    def share(self) -> float:
        """Of the capacity."""
        return self.total / self.capacity

    @property
    def fits(self) -> bool:
        """Whether all parts have room."""
        return self.headroom >= 0


def bytes_a_device(tree: Any) -> int:
    """Bytes of one device's shards of arrays, or of what stands for them, without padding."""

    def one(leaf: Any) -> int:
        shape = leaf.shape if leaf.sharding is None else leaf.sharding.shard_shape(leaf.shape)
        return math.prod(shape) * leaf.dtype.itemsize

    return sum(map(one, jax.tree.leaves(tree)))


def compiled_memory(
    capacity: float, parameters: int, optimizer: int, stats: Any, largest: Sequence[Allocation]
) -> Memory:
    """Memory of a compiled program, from its `memory_analysis()`."""
    return Memory(
        capacity=capacity,
        parameters=parameters,
        optimizer=optimizer,
        inputs=max(0, stats.argument_size_in_bytes - parameters - optimizer),
        temporaries=stats.temp_size_in_bytes,
        code=stats.generated_code_size_in_bytes,
        outputs=max(0, stats.output_size_in_bytes - stats.alias_size_in_bytes),
        largest=tuple(largest),
    )


def needed_bytes(message: str) -> int | None:
    """What a program needs of HBM, from XLA's error that it does not fit; None where it does not say."""
    found = re.search(r"\((\d+(?:\.\d+)?)([KMGT]?)\) exceeds available HBM", message) or re.search(
        r"Used (\d+(?:\.\d+)?)([KMGT]?) of \d+(?:\.\d+)?[KMGT]? hbm", message
    )
    return int(float(found[1]) * _UNITS[found[2]]) if found else None


def largest_allocations(report: str, count: int = 8) -> list[Allocation]:
    """The largest pieces of HBM in XLA's dump `*memory-usage-report.txt`."""
    found = []
    # Further sections are of other, smaller memories.
    section = report.split("Memory Space:")[1] if "Memory Space:" in report else ""
    for line in section.splitlines():
        parts = [part.strip() for part in line.split(";", maxsplit=4)]
        size = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)i?B?", parts[1]) if len(parts) == 5 else None
        if size:
            found.append(Allocation(int(float(size[1]) * _UNITS[size[2]]), parts[4]))
    return found[:count]


def estimated_memory(
    capacity: float,
    config: ModelConfig,
    partitioner: Partitioner,
    run: RunConfig,
    parameters: int,
    moments: int,
    inputs: int,
) -> Memory:
    """Memory of a train step by its shapes alone: gradients, gathered layers, activations, a chunk of logits.

    Of every layer `none` keeps all inputs of its matmuls, norms and activations, `names` its input, the
    output of attention and the MLP's first matmul, `full` its input; one layer is whole while it is
    recomputed.
    """
    sizes, train = partitioner.axis_sizes(), run.train
    rows = run.batch_rows // train.accumulation_steps / partitioner.batch_divisor
    positions = rows * run.data.row_length / sizes["sequence"]
    tensor = sizes["tensor"]
    width, inner = config.embed_dim, config.hidden_dim / tensor
    heads = (config.num_heads + 2 * config.kv_heads) * config.size_per_head / tensor
    of_attention = config.num_heads * config.size_per_head / tensor
    kept = {"full": width, "names": width + of_attention + inner}
    whole = 6 * width + 2 * heads + of_attention + 3 * inner
    narrow = 2 if config.compute_dtype == "bfloat16" else 4
    activations = positions * narrow * (config.num_layers * kept.get(config.remat, whole) + whole)
    layer = num_non_embedding_params(config) / config.num_layers / tensor
    gathered = 0.0 if sizes["fsdp"] == 1 else 2 * layer * narrow + 4 * layer
    logits = min(positions, CHUNK) * config.vocab_size / tensor * (4 + narrow)
    gradients = parameters * (2 if train.accumulation_steps > 1 else 1)
    temporaries = int(gradients + gathered + activations + logits)
    return Memory(capacity, parameters, moments, inputs, temporaries, is_estimate=True)
