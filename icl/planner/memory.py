"""Bytes of one chip: what the compiler says, or where there is no compiler an estimate from shapes."""

import dataclasses
import functools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from icl.model import num_non_embedding_params
from icl.model.config import ModelConfig
from icl.parallel.partition import Partitioner
from icl.training.config import RunConfig
from icl.training.loss import CHUNK

GIB = 2**30
_num_non_embedding_params = functools.cache(num_non_embedding_params)  # counting traces the model
SAFE_SHARE = 0.8
"""Of a chip's memory: what a plan should stay within, as the runtime and the data need some too."""
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


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
      is_refused: whether the compiler would not make the program, as it does not fit.
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
    is_refused: bool = False

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
        return self.headroom >= 0 and not self.is_refused


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


def refused_memory(
    capacity: float, parameters: int, optimizer: int, inputs: int, message: str, largest: Sequence[Allocation]
) -> Memory | None:
    """Memory of a program that XLA refuses as it does not fit, from its error; None for another error.

    What XLA leaves of the chip's memory takes the place of `capacity`.
    """
    found = re.search(
        r"\((?P<needed>[\d.]+[KMGT]?)\) exceeds available HBM \((?P<free>[\d.]+[KMGT]?)\)", message
    ) or re.search(r"Used (?P<needed>[\d.]+[KMGT]?) of (?P<free>[\d.]+[KMGT]?) hbm", message)
    if not found:
        return None
    # XLA calls what it needs temporaries, but arguments are among them.
    temporaries = max(0, _bytes(found["needed"]) - parameters - optimizer - inputs)
    return Memory(
        capacity=min(capacity, _bytes(found["free"])),
        parameters=parameters,
        optimizer=optimizer,
        inputs=inputs,
        temporaries=temporaries,
        largest=tuple(largest),
        is_refused=True,
    )


def largest_allocations(report: str, count: int = 8) -> list[Allocation]:
    """The largest pieces of HBM in XLA's dump `*memory-usage-report.txt`."""
    found = []
    # Further sections are of other, smaller memories.
    section = report.split("Memory Space:")[1] if "Memory Space:" in report else ""
    for line in section.splitlines():
        parts = [part.strip() for part in line.split(";", maxsplit=4)]
        if len(parts) == 5 and re.fullmatch(r"[\d.]+[KMGT]?i?B?", parts[1]):
            found.append(Allocation(_bytes(parts[1]), parts[4]))
    return found[:count]


def _bytes(text: str) -> int:
    """Bytes of a size as XLA writes it: `15.75G`, `64.00GiB`, `512B`."""
    number = text.rstrip("KMGTiB")
    return int(float(number) * _UNITS[text[len(number) :].removesuffix("B").removesuffix("i")])


def estimated_memory(
    capacity: float,
    config: ModelConfig,
    partitioner: Partitioner,
    run: RunConfig,
    attention: str,
    parameters: int,
    moments: int,
    inputs: int,
) -> Memory:
    """Memory of a train step by its shapes alone: gradients, gathered layers, activations, a chunk of logits.

    Of every layer `none` keeps all inputs of its matmuls, norms and activations, `names` its input, the
    output of attention and the MLP's first matmul, `full` its input; one layer is whole while it is
    recomputed. Attention without a kernel holds the scores of a layer too, and with `none` of all.
    """
    sizes, train = partitioner.axis_sizes(), run.train
    rows = run.batch_rows / train.accumulation_steps / partitioner.batch_divisor
    positions = rows * run.data.row_length / sizes["sequence"]
    tensor, narrow = sizes["tensor"], _narrow(config)
    of_attention = config.num_heads * config.size_per_head / tensor
    kept = {"full": config.embed_dim, "names": config.embed_dim + of_attention + config.hidden_dim / tensor}
    whole = _layer_width(config, tensor)
    layers = config.num_layers * kept.get(config.remat, whole) + whole
    scores = positions * run.data.row_length * config.num_heads / tensor * (4 + narrow)
    held = 1 + (config.num_layers if config.remat == "none" else 0)
    pieces = {
        "gradients": parameters * (2 if train.accumulation_steps > 1 else 1),
        "activations kept of layers": positions * narrow * layers,
        "scores of attention": scores * held if attention == "reference" else 0,
        "parameters and gradients of the layer at work": _gathered(config, sizes, gradients=True),
        "a chunk of logits": min(positions, CHUNK) * config.vocab_size / tensor * (4 + narrow),
    }
    return _estimate(capacity, parameters, moments, inputs, pieces)


def estimated_reading(
    capacity: float,
    config: ModelConfig,
    partitioner: Partitioner,
    rows: int,
    length: int,
    attention: str,
    parameters: int,
    inputs: int,
) -> Memory:
    """Memory of reading prompts into a KV cache by its shapes alone, the last eighth without a kernel."""
    sizes = partitioner.axis_sizes()
    positions = rows / partitioner.batch_divisor * length / sizes["sequence"]
    tensor, narrow = sizes["tensor"], _narrow(config)
    keys = 2 * config.kv_heads * config.size_per_head / tensor
    if config.conv_width:
        keys += (config.num_heads + 2 * config.kv_heads) * config.size_per_head / tensor
    scores = positions * length * config.num_heads / tensor * (4 + narrow)
    scores *= 1 if attention == "reference" else 1 / 8
    pieces = {
        "KV cache": positions * narrow * keys * config.num_layers,
        "activations of the layer at work": positions * narrow * _layer_width(config, tensor),
        "scores of attention": scores,
        "parameters of the layer at work": _gathered(config, sizes, gradients=False),
        "logits": rows / partitioner.batch_divisor * config.vocab_size / tensor * (4 + narrow),
    }
    return _estimate(capacity, parameters, 0, inputs, pieces)


def _estimate(
    capacity: float, parameters: int, moments: int, inputs: int, pieces: dict[str, float]
) -> Memory:
    largest = sorted(
        (Allocation(int(size), name) for name, size in pieces.items() if size),
        key=lambda piece: -piece.bytes,
    )
    temporaries = sum(piece.bytes for piece in largest)
    return Memory(
        capacity, parameters, moments, inputs, temporaries, largest=tuple(largest), is_estimate=True
    )


def _layer_width(config: ModelConfig, tensor: int) -> float:
    """Numbers that a layer makes of a position."""
    heads = (config.num_heads + 2 * config.kv_heads) * config.size_per_head / tensor
    of_attention = config.num_heads * config.size_per_head / tensor
    return 6 * config.embed_dim + 2 * heads + of_attention + 3 * config.hidden_dim / tensor


def _gathered(config: ModelConfig, sizes: Mapping[str, int], *, gradients: bool) -> float:
    """Bytes of a layer's parameters whole over `fsdp`, twice as the next is fetched, and its gradients."""
    layer = _num_non_embedding_params(config) / config.num_layers / sizes["tensor"]
    return 0.0 if sizes["fsdp"] == 1 else layer * (2 * _narrow(config) + 4 * gradients)


def _narrow(config: ModelConfig) -> int:
    return 2 if config.compute_dtype == "bfloat16" else 4
