"""How long a step takes at least: each of a chip's resources at its peak, for what the step asks of it.

Matmuls at the peak of bfloat16; parameters and optimizer state once through HBM and back (activations are
left out); collectives at the peak of all of a chip's fast links; what goes between slices at the network's.
If all that happens at once a step takes the longest of the four; if nothing does, their sum. A ring sends
(n - 1) / n of an array among n devices, and that twice for an all-reduce (scatter, then gather).
"""

import dataclasses

from icl.parallel.chips import GPUS_A_HOST, Chip
from icl.planner.compiling import Plan
from icl.planner.hlo import Program
from icl.planner.slices import bytes_to_other_slices

_TIMES_SENT = {"all-reduce": 2.0}
_RECOMPUTED = {"none": 1.0, "names": 1.2, "full": 4 / 3}
"""Time of matmuls relative to none recomputed: `full` runs the forward pass twice."""
_SUMS = {"none": 4, "names": 5, "full": 6}
"""Sums of activations over the tensor axis in a layer: two forward, two backward, and those recomputed."""


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds of one execution, by resource.

    Attributes:
      compute: of matmuls, recomputed ones too.
      memory: of reading and writing parameters and optimizer state.
      transfer: of collectives over the fast links.
      network: of transfers between slices; 0 where there is one, or where the network's speed is not known.
      is_estimate: whether these come from shapes, without a compiled program.
    """

    compute: float
    memory: float = 0.0
    transfer: float = 0.0
    network: float = 0.0
    is_estimate: bool = False

    @property
    def parts(self) -> dict[str, float]:
        """Seconds by resource."""
        names = ("compute", "memory", "transfer", "network")
        return {name: getattr(self, name) for name in names}

    @property
    def least(self) -> float:
        """If all resources are busy at once."""
        return max(self.parts.values())

    @property
    def most(self) -> float:
        """If they are busy one after the other."""
        return sum(self.parts.values())


def plan_roofline(plan: Plan) -> Roofline | None:
    """The roofline of a plan, from its program or else its shapes; None for a chip of unknown speed."""
    chip = plan.topology.chip
    if chip.flops is None or chip.link is None or chip.bandwidth is None:
        return None
    if plan.program is None:
        return _estimate(plan, chip.flops, chip.bandwidth, _link(plan, chip.link))
    chips = plan.topology.num_chips
    # Fused kernels do the attention, and the program does not show what is in them.
    hidden = plan.attention_flops if plan.program.custom_calls.get("tpu_custom_call") else 0.0
    flops = max(plan.program.flops + hidden / chips, plan.model_flops / chips)
    sent = _ring(plan.topology.slices) * _TIMES_SENT["all-reduce"]
    return Roofline(
        compute=flops / chip.flops,
        memory=_state_bytes(plan) / chip.bandwidth,
        transfer=bytes_sent(plan.program) / chip.link,
        network=_network_seconds(chip, sent * bytes_to_other_slices(plan.program.module)),
    )


def bytes_sent(program: Program) -> float:
    """Bytes that a device sends over its links in one execution, by rings."""
    return sum(
        found.total_bytes * _ring(found.group_size) * _TIMES_SENT.get(found.kind, 1.0)
        for found in program.collectives
    )


def model_flops_utilisation(plan: Plan, seconds: float) -> float:
    """Share of the peak that the model's FLOPs are, in a step of so many seconds."""
    return plan.model_flops / (seconds * (plan.topology.chip.flops or 1.0) * plan.topology.num_chips)


def _estimate(plan: Plan, flops: float, bandwidth: float, link: float) -> Roofline:
    """What the rules imply: gathers of parameters, sums of activations, sums of gradients over data."""
    config, train, mesh = plan.run.model, plan.run.train, plan.mesh
    narrow = 2 if config.compute_dtype == "bfloat16" else 4
    passes = 1 if plan.is_evaluation else 3 * train.accumulation_steps
    recomputed = 1.0 if plan.is_evaluation else _RECOMPUTED[config.remat]
    sums = 2 if plan.is_evaluation else _SUMS[config.remat]
    positions = plan.tokens / (mesh["data"] * mesh["fsdp"] * mesh["sequence"])
    gathers = passes * _ring(mesh["fsdp"]) * plan.params / mesh["tensor"] * narrow
    activations = 2 * _ring(mesh["tensor"]) * sums * config.num_layers * positions * config.embed_dim * narrow
    keys = 2 * config.kv_heads * config.size_per_head / mesh["tensor"]
    keys *= _ring(mesh["sequence"]) * sums / 2 * config.num_layers * positions * mesh["sequence"] * narrow
    slices = plan.topology.slices
    # Gradients are summed in every microbatch.
    summed = 0 if plan.is_evaluation else train.accumulation_steps
    shard = 4 * summed * plan.params / mesh["tensor"] / mesh["fsdp"]
    inside = mesh["data"] // slices
    return Roofline(
        compute=plan.model_flops * recomputed / plan.topology.num_chips / flops,
        memory=_state_bytes(plan) / bandwidth,
        transfer=(gathers + activations + keys + 2 * _ring(inside) * shard) / link,
        network=_network_seconds(plan.topology.chip, 2 * _ring(slices) * shard / max(1, inside)),
        is_estimate=True,
    )


def _state_bytes(plan: Plan) -> int:
    """Bytes through HBM: training reads and writes the state, an evaluation reads parameters."""
    state = plan.memory.parameters + plan.memory.optimizer
    return plan.memory.parameters if plan.is_evaluation else 2 * state


def _link(plan: Plan, link: float) -> float:
    """Bytes/s of the links that all chips share: those between hosts of GPUs are slower."""
    topology = plan.topology
    crosses = topology.chip.platform == "gpu" and topology.num_chips > GPUS_A_HOST
    return min(link, topology.chip.network or link) if crosses else link


def _network_seconds(chip: Chip, size: float) -> float:
    return size / chip.network if chip.network else 0.0


def _ring(devices: int) -> float:
    """Share of an array that each of so many devices sends to its neighbour until all are done."""
    return (devices - 1) / devices if devices > 1 else 0.0
