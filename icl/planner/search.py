"""Looks for the mesh, remat policy and number of microbatches with which a run fits and is fastest.

All are laid out by their shapes; the most promising are compiled, and ranked by what the compiler says. What
it says of one corrects the estimates of those that are left.
"""

import dataclasses
import itertools
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from icl.errors import InputError
from icl.parallel.mesh import MeshConfig
from icl.planner.compiling import Plan, estimate_training, lay_out, plan_training
from icl.planner.memory import SAFE_SHARE
from icl.planner.roofline import plan_roofline
from icl.planner.topology import Topology
from icl.progress import Say, heartbeat, time_left
from icl.training.config import RunConfig

_MOST_TENSOR = 16
_REMATS: tuple[Literal["none", "names", "full"], ...] = ("none", "names", "full")
_PATIENCE = 2
"""Compilations for each plan asked for, before a search gives up on what does not fit."""


_SAY_EVERY = 5.0


def search(
    run: RunConfig,
    topology: Topology,
    devices: Sequence[Any],
    count: int = 4,
    say: Say = lambda _: None,
) -> list[Plan]:
    """The plans of the most promising settings, the best first: those that fit, then the fastest.

    Where there is a compiler they are compiled, in the order that their shapes suggest, until `count` fit
    within `SAFE_SHARE` and none left should be faster, or twice as many were tried. What cannot fit by its
    shapes is never compiled.

    Args:
      run: its mesh, remat and accumulation are replaced.
      topology: of the devices.
      devices: that are planned for.
      count: how many plans that fit are wanted.
      say: told of what is going on.

    Raises:
      InputError: nothing divides among the devices.
    """
    found = list(_estimates(run, topology, devices, say))
    if not found:
        raise InputError(
            f"--search: no mesh of {topology.num_chips} devices divides this run's model and batch"
        )
    possible = [plan for plan in found if _may_fit(plan)]
    fitting = sum(plan.memory.share <= SAFE_SHARE for plan in possible)
    say(
        f"of {len(found)} settings {len(found) - len(possible)} cannot fit, and {fitting} should within"
        f" {SAFE_SHARE:.0%}, by their shapes"
    )
    if not possible or not topology.is_compiled:
        return sorted(possible or found, key=_rank)[:count]
    return sorted(_compiled(possible, topology, devices, count, say), key=_rank)


def _estimates(run: RunConfig, topology: Topology, devices: Sequence[Any], say: Say) -> Iterator[Plan]:
    """A plan by shapes of every candidate that divides."""
    by_mesh: dict[MeshConfig, list[RunConfig]] = {}
    for candidate in candidates(run, topology):
        by_mesh.setdefault(candidate.mesh, []).append(candidate)
    began = said = time.monotonic()
    for done, settings in enumerate(by_mesh.values()):
        if time.monotonic() - said > _SAY_EVERY:
            said = time.monotonic()
            say(f"{done} of {len(by_mesh)} meshes laid out{time_left(began, said, done, len(by_mesh))}")
        try:
            layout = lay_out(settings[0], topology, devices)
        except InputError:
            continue
        yield from (estimate_training(candidate, topology, layout) for candidate in settings)


def _compiled(
    possible: Sequence[Plan], topology: Topology, devices: Sequence[Any], count: int, say: Say
) -> list[Plan]:
    """Compiled plans of the most promising, until enough fit and none that is left should be faster."""
    left, tried = list(possible), list[tuple[Plan, Plan]]()
    began = time.monotonic()
    while left and len(tried) < _PATIENCE * count:
        safe = [plan for _, plan in tried if plan.memory.fits and plan.memory.share <= SAFE_SHARE]
        estimate = _most_promising(left, tried)
        if len(safe) >= count and _seconds(estimate) >= min(map(_seconds, safe)):
            break
        left.remove(estimate)
        missing = max(1, count - len(safe))
        remaining = time_left(began, time.monotonic(), len(tried), len(tried) + missing)
        what = f"compiling {setting_text(estimate)}"
        say(f"{what}: number {len(tried) + 1}, {len(safe)} of {count} found{remaining}")
        with heartbeat(say, what, first=15.0):
            tried.append((estimate, plan_training(estimate.run, topology, devices)))
    return [plan for _, plan in tried]


def _most_promising(left: Sequence[Plan], tried: Sequence[tuple[Plan, Plan]]) -> Plan:
    """The fastest that should fit, or the smallest, by estimates corrected by what was compiled.

    Estimates are off by the same factor for settings of the same remat, more or less.
    """

    def factor(remat: str) -> float:
        alike = [pair for pair in tried if pair[0].run.model.remat == remat] or tried
        found = [
            (plan.memory.total - estimate.memory.total) / estimate.memory.temporaries + 1
            for estimate, plan in alike
        ]
        return sum(found) / len(found) if found else 1.0

    factors = {remat: factor(remat) for remat in _REMATS}

    def share(plan: Plan) -> float:
        memory = plan.memory
        corrected = memory.temporaries * factors[plan.run.model.remat]
        return (memory.total - memory.temporaries + corrected) / memory.capacity

    fitting = [plan for plan in left if share(plan) <= SAFE_SHARE]
    return min(fitting, key=_seconds) if fitting else min(left, key=share)


def candidates(run: RunConfig, topology: Topology) -> Iterator[RunConfig]:
    """Runs with every mesh of data, fsdp and tensor, remat policy and number of microbatches that may do.

    Slices are along `data`. A batch ramp starts where its batches divide among the devices.
    """
    num_devices, slices = topology.num_chips, topology.slices
    for tensor, remat in itertools.product(_powers(min(_MOST_TENSOR, num_devices // slices)), _REMATS):
        if num_devices // slices % tensor or run.model.num_heads % tensor:
            continue
        inside = num_devices // slices // tensor
        shards = inside * slices
        for fsdp in sorted({inside, *(size for size in _powers(inside) if inside % size == 0)}):
            mesh = MeshConfig(data=shards // fsdp, fsdp=fsdp, tensor=tensor, dcn_data=slices)
            for parts in _powers(max(1, run.batch_rows // shards)):
                if run.batch_rows % (parts * shards) == 0:
                    yield dataclasses.replace(
                        run,
                        mesh=mesh,
                        model=dataclasses.replace(run.model, remat=remat),
                        train=dataclasses.replace(
                            run.train, accumulation_steps=parts, ramp_from=_ramp_from(run, shards)
                        ),
                    )


def gin_lines(run: RunConfig) -> list[str]:
    """What a candidate sets, as gin."""
    mesh, train = run.mesh, run.train
    return [
        f"MeshConfig.data = {mesh.data}",
        f"MeshConfig.fsdp = {mesh.fsdp}",
        f"MeshConfig.tensor = {mesh.tensor}",
        *([f"MeshConfig.dcn_data = {mesh.dcn_data}"] if mesh.dcn_data > 1 else []),
        f"ModelConfig.remat = {run.model.remat!r}",
        f"TrainConfig.accumulation_steps = {train.accumulation_steps}",
        *([f"TrainConfig.ramp_from = {train.ramp_from}"] if train.ramp_from else []),
    ]


def setting_text(plan: Plan) -> str:
    """What a candidate sets, in a line."""
    return (
        f"{plan.mesh_text}, remat {plan.run.model.remat}, {plan.run.train.accumulation_steps} microbatch(es)"
    )


def _ramp_from(run: RunConfig, shards: int) -> int:
    """The first batch, or the next larger one that divides among the devices."""
    unit, whole = shards * run.data.row_length, run.train.batch_tokens
    if not run.train.ramp_from:
        return 0
    sizes = range(unit, whole + 1, unit)
    return next(size for size in sizes if size >= run.train.ramp_from and whole % size == 0)


def _may_fit(plan: Plan) -> bool:
    """Whether parameters, optimizer and batch leave room for temporaries, of which there is an estimate only.

    Of small models the compiler needed down to a third of it, so that much must fit.
    """
    memory = plan.memory
    return memory.total - memory.temporaries * 2 / 3 <= memory.capacity


def _rank(plan: Plan) -> tuple[float, ...]:
    """Fitting first, then by time."""
    memory = plan.memory
    if not memory.fits:
        return 2, memory.share
    return int(memory.share > SAFE_SHARE), *_seconds(plan)


def _seconds(plan: Plan) -> tuple[float, int, float]:
    """Time halfway between all at once and one after the other, then fewer microbatches, then less memory."""
    time = plan_roofline(plan)
    middle = (time.least + time.most) / 2 if time else 0.0
    return middle, plan.run.train.accumulation_steps, plan.memory.share


def _powers(limit: int) -> list[int]:
    return [2**i for i in range(limit.bit_length()) if 2**i <= limit]
