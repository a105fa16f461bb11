"""Looks for the mesh, remat policy and number of microbatches with which a run fits and is fastest.

All are ranked by their shapes alone; the best are compiled, and ranked again by what the compiler says.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from icl.errors import InputError
from icl.parallel.mesh import MeshConfig
from icl.planner.compiling import Plan, plan_training
from icl.planner.memory import SAFE_SHARE
from icl.planner.report import plan_roofline
from icl.planner.topology import Topology
from icl.training.config import RunConfig

_MOST_TENSOR = 16
_REMATS: tuple[Literal["none", "names", "full"], ...] = ("none", "names", "full")
_RECOMPUTED = {"none": 1.0, "names": 1.2, "full": 4 / 3}
"""Time of matmuls relative to none recomputed: `full` runs the forward pass twice."""


def search(
    run: RunConfig,
    topology: Topology,
    devices: Sequence[Any],
    count: int = 4,
    say: Callable[[str], None] = lambda _: None,
) -> list[Plan]:
    """The plans of the most promising settings, compiled where there is a compiler, the best first.

    Args:
      run: its mesh, remat and accumulation are replaced.
      topology: of the devices.
      devices: that are planned for.
      count: how many to compile.
      say: told of what is going on.

    Raises:
      InputError: nothing divides among the devices.
    """
    shapes = dataclasses.replace(topology, chip=dataclasses.replace(topology.chip, platform="shape"))
    found: list[tuple[float, RunConfig, Plan]] = []
    for candidate in candidates(run, topology.num_chips):
        try:
            plan = plan_training(candidate, shapes, devices)
        except InputError:
            continue
        found.append((_cost(plan), candidate, plan))
    if not found:
        raise InputError(
            f"--search: no mesh of {topology.num_chips} devices divides this run's model and batch"
        )
    fitting = [entry for entry in found if entry[2].memory.share <= SAFE_SHARE] or found
    ranked = sorted(fitting, key=lambda entry: (entry[0], entry[2].memory.share))[:count]
    say(f"{len(found)} settings, {len(fitting)} of which may fit; the {len(ranked)} most promising follow")
    if not topology.is_compiled:
        return [plan for _, _, plan in ranked]
    plans = []
    for _, candidate, _ in ranked:
        say(f"compiling {settings_text(candidate, topology.num_chips)}")
        plans.append(plan_training(candidate, topology, devices))
    return sorted(plans, key=_rank)


def candidates(run: RunConfig, num_devices: int) -> Iterator[RunConfig]:
    """Runs with every mesh of data, fsdp and tensor, remat policy and number of microbatches that may do."""
    for tensor, remat in itertools.product(_powers(min(_MOST_TENSOR, num_devices)), _REMATS):
        if num_devices % tensor or run.model.num_heads % tensor:
            continue
        rest = num_devices // tensor
        for fsdp in {rest, *(size for size in _powers(rest) if rest % size == 0)}:
            mesh = MeshConfig(data=rest // fsdp, fsdp=fsdp, tensor=tensor)
            for parts in _powers(max(1, run.batch_rows // rest)):
                if run.batch_rows % (parts * rest) == 0:
                    yield dataclasses.replace(
                        run,
                        mesh=mesh,
                        model=dataclasses.replace(run.model, remat=remat),
                        train=dataclasses.replace(
                            run.train, accumulation_steps=parts, ramp_from=0, ramp_tokens=0
                        ),
                    )


def settings_text(run: RunConfig, num_devices: int) -> str:
    """What a candidate sets, as gin lines would."""
    data, fsdp, tensor, _ = run.mesh.sizes(num_devices)
    return (
        f"MeshConfig.data = {data}, MeshConfig.fsdp = {fsdp}, MeshConfig.tensor = {tensor},"
        f" ModelConfig.remat = {run.model.remat!r}, TrainConfig.accumulation_steps ="
        f" {run.train.accumulation_steps}"
    )


def _cost(plan: Plan) -> float:
    """Seconds of a step by shapes: matmuls, gathers of parameters, sums over tensor; those hide by half."""
    chip, chips, mesh = plan.topology.chip, plan.topology.num_chips, plan.mesh
    flops, link = chip.flops or 1e12, chip.link or 1e10
    config, parts = plan.run.model, plan.run.train.accumulation_steps
    compute = plan.model_flops * _RECOMPUTED[config.remat] / chips / flops
    narrow = 2 if config.compute_dtype == "bfloat16" else 4
    gathers = 0 if mesh["fsdp"] == 1 else 3 * parts * plan.params / mesh["tensor"] * narrow
    positions = plan.tokens / (mesh["data"] * mesh["fsdp"])
    sums = 0 if mesh["tensor"] == 1 else 8 * config.num_layers * positions * config.embed_dim * narrow
    reduced = 2 * 4 * plan.params / mesh["tensor"] / mesh["fsdp"] if mesh["data"] > 1 else 0
    return max(compute, (gathers + sums + reduced) / link) + 0.5 * min(
        compute, (gathers + sums + reduced) / link
    )


def _rank(plan: Plan) -> tuple[bool, float]:
    time = plan_roofline(plan)
    return plan.memory.share > SAFE_SHARE, (time.least + time.most) / 2 if time else float("inf")


def _powers(limit: int) -> list[int]:
    return [2**i for i in range(limit.bit_length()) if 2**i <= limit]
