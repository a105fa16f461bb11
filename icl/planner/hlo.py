"""What one execution of a compiled XLA program does on a device: collectives, custom calls, FLOPs, arrays.

The text of a program holds the body of a loop once and hides collectives in fusions and asynchronous pairs.
Here they are followed, and weighted by trip counts (`cost_analysis()` counts a loop body once).
"""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping

from icl.planner import hlo_loops
from icl.planner.hlo_flops import instruction_flops
from icl.planner.hlo_text import Array, Computation, Instruction, Module, parse_module

KINDS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective instruction, and how often one execution of the program runs it.

    Attributes:
      name: of the instruction in the text.
      kind: one of `KINDS`. An all-reduce of which a fusion keeps this device's slice only (the form that the
        TPU compiler gives it) is a `reduce-scatter`.
      dtype: of the first operand.
      operands: arrays that this device gives.
      results: arrays that this device gets.
      bytes: of one execution on this device: of the results for all-gather, of the operands for all others
        (padding that the compiler added to them included).
      group_size: devices that take part together; for a permutation those named in its pairs.
      count: executions in one execution of the program; of a conditional, those of the costlier branch.
      where: the traced operation (`jit(step)/while/body/...`); empty where XLA kept none.
    """

    name: str
    kind: str
    dtype: str
    operands: tuple[Array, ...]
    results: tuple[Array, ...]
    bytes: int
    group_size: int
    count: int
    where: str

    @property
    def total_bytes(self) -> int:
        """Bytes of all its executions."""
        return self.count * self.bytes


@dataclasses.dataclass(frozen=True)
class Total:
    """Executions and bytes of all collectives of one kind."""

    count: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Program:
    """What one execution does on one device.

    Attributes:
      collectives: every collective instruction that runs, with its count.
      custom_calls: executions by target (a Pallas kernel's is `tpu_custom_call`).
      flops: of matrix products and convolutions, a multiply-add as two; without those inside custom calls.
      unknown_loops: loops whose trip count the text does not tell; their bodies are counted once.
    """

    collectives: tuple[Collective, ...]
    custom_calls: Mapping[str, int]
    flops: int
    unknown_loops: tuple[str, ...]
    module: Module

    def totals(self) -> dict[str, Total]:
        """Executions and bytes by kind, for the kinds that occur."""
        return {
            kind: Total(sum(c.count for c in found), sum(c.total_bytes for c in found))
            for kind in KINDS
            if (found := [c for c in self.collectives if c.kind == kind])
        }

    def arrays(self, *, in_memory: bool = False) -> frozenset[Array]:
        """Every array that an instruction results in, tuples flattened.

        Args:
          in_memory: leaves out what stands inside fusions, which is computed piece by piece and never held.
        """
        fused = _fused(self.module) if in_memory else frozenset()
        return frozenset(
            array
            for computation in self.module.computations.values()
            if computation.name not in fused
            for instruction in computation.instructions.values()
            for array in instruction.arrays
        )


def read_hlo(text: str) -> Program:
    """Reads an optimised program: `compiled.as_text()`, or a dump `*after_optimizations.txt`.

    Raises:
      InputError: the text is no HLO module.
    """
    module = parse_module(text)
    tally = _Reader(module).tally(module.entry)
    found = [dataclasses.replace(site, count=count) for site, count in tally.collectives.items()]
    return Program(tuple(found), dict(tally.custom_calls), tally.flops, tuple(tally.unknown_loops), module)


@dataclasses.dataclass
class _Tally:
    """What one execution of a computation does; collectives are keys with the count 1."""

    collectives: collections.Counter[Collective] = dataclasses.field(default_factory=collections.Counter)
    custom_calls: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    flops: int = 0
    unknown_loops: dict[str, None] = dataclasses.field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return sum(site.bytes * count for site, count in self.collectives.items())

    def add(self, other: "_Tally", times: int, where: str = "") -> None:
        """Adds `times` executions of a callee; `where` names what has no name of its own."""
        for site, count in other.collectives.items():
            named = site if site.where else dataclasses.replace(site, where=where)
            self.collectives[named] += times * count
        for target, count in other.custom_calls.items():
            self.custom_calls[target] += times * count
        self.flops += times * other.flops
        self.unknown_loops |= other.unknown_loops


def _costliest(branches: list[_Tally]) -> _Tally:
    """The most that any branch does: collectives of the one that moves most, and maxima of the rest."""
    most = _Tally(max(branches, key=lambda branch: branch.bytes).collectives)
    for branch in branches:
        most.custom_calls |= branch.custom_calls
        most.flops = max(most.flops, branch.flops)
        most.unknown_loops |= branch.unknown_loops
    return most


class _Reader:
    """The weighted walk from a computation through all that it calls, each computation tallied once."""

    def __init__(self, module: Module):
        self._module = module
        self._tally = functools.cache(self._tally_of)

    def tally(self, name: str, *, fused: bool = False) -> _Tally:
        return self._tally(name, fused)

    def _tally_of(self, name: str, fused: bool) -> _Tally:
        computation = self._module.computations[name]
        tally = _Tally()
        for instruction in computation.instructions.values():
            opcode = instruction.opcode.removesuffix("-start")
            if opcode in KINDS:
                if not _counted_elsewhere(computation, instruction):
                    tally.collectives[self._collective(computation, instruction, opcode, fused)] += 1
            elif opcode == "custom-call":
                tally.custom_calls[instruction.attribute("custom_call_target").strip('"')] += 1
            elif opcode == "while":
                self._add_loop(tally, computation, instruction)
            elif opcode == "conditional":
                tally.add(_costliest([self.tally(name) for name in _branches(instruction)]), 1)
            else:
                tally.flops += instruction_flops(computation, instruction)
                for callee, is_fused in _callees(instruction, opcode):
                    tally.add(self.tally(callee, fused=is_fused), 1, instruction.op_name)
        return tally

    def _add_loop(self, tally: _Tally, computation: Computation, loop: Instruction) -> None:
        trips = hlo_loops.trip_count(self._module, computation, loop)
        if trips is None:
            tally.unknown_loops[loop.name] = None
        for role in ("body", "condition"):
            for name in loop.computations(role):
                tally.add(self.tally(name), 1 if trips is None else trips, loop.op_name)

    def _collective(
        self, computation: Computation, instruction: Instruction, kind: str, fused: bool
    ) -> Collective:
        operands = tuple(array for op in computation.operands(instruction) for array in op.arrays)
        results = instruction.arrays
        if instruction.opcode.endswith("-start") and kind != "all-reduce":
            # Such a start results in (operands, results, what its end needs).
            results = results[len(operands) : 2 * len(operands)]
        if kind == "all-reduce" and fused and (kept := _kept_slice(computation, instruction)):
            kind, results = "reduce-scatter", kept.arrays
        moved = results if kind == "all-gather" else operands
        return Collective(
            name=instruction.name,
            kind=kind,
            dtype=operands[0].dtype,
            operands=operands,
            results=results,
            bytes=sum(array.bytes for array in moved),
            group_size=_group_size(instruction, self._module.num_devices),
            count=1,
            where=instruction.op_name,
        )


def _counted_elsewhere(computation: Computation, instruction: Instruction) -> bool:
    """Whether a TPU collective is a copy: one that runs beside fusions stands in each, and in its end too."""
    if "async_collective_fusion_config" not in instruction.attributes:
        return False
    targets = [other.attribute("custom_call_target") for other in computation.instructions.values()]
    return '"AsyncCollectiveStart"' not in targets


def _kept_slice(computation: Computation, reduction: Instruction) -> Instruction | None:
    """The slice that is all a fusion keeps of an all-reduce; None where more of it is used."""
    users = [other for other in computation.instructions.values() if reduction.name in other.operands]
    if len(users) != 1:
        return None
    if users[0].opcode in ("bitcast", "copy", "reshape", "convert"):
        return _kept_slice(computation, users[0])
    return users[0] if users[0].opcode == "dynamic-slice" else None


def _group_size(instruction: Instruction, num_devices: int) -> int:
    """Devices of a replica group, in any of the three forms that XLA writes; all where none is written."""
    if pairs := instruction.attribute("source_target_pairs"):
        return len(set(re.findall(r"\d+", pairs)))
    groups = instruction.attribute("replica_groups")
    if groups.startswith("mesh["):  # mesh['data'=4,'model'=2] {'model'}, or a part of an axis: 'data':(1)2
        mesh, axes = groups.split("]", 1)
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", mesh))
        named = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", axes)
        return math.prod(int(part or sizes[axis]) for axis, part in named)
    if groups.startswith("["):  # [groups,devices]<=[devices in order]
        return int(groups[1 : groups.index("]")].split(",")[-1])
    first = re.search(r"\{([\d,\s]+)\}", groups)
    return len(first.group(1).split(",")) if first else num_devices


def _branches(conditional: Instruction) -> tuple[str, ...]:
    named = ("branch_computations", "true_computation", "false_computation")
    return tuple(name for attribute in named for name in conditional.computations(attribute))


def _callees(instruction: Instruction, opcode: str) -> Iterator[tuple[str, bool]]:
    """Computations that run when the instruction does, and whether as a fusion.

    Reducers and comparators (`to_apply` of anything but a call) are arithmetic of the instruction itself.
    """
    if opcode in ("fusion", "async"):
        for name in instruction.computations("calls"):
            yield name, opcode == "fusion"
    elif opcode == "call":
        for name in instruction.computations("to_apply"):
            yield name, False


def _fused(module: Module) -> frozenset[str]:
    """Names of computations that run inside a fusion."""
    found: set[str] = set()
    waiting = [
        name
        for computation in module.computations.values()
        for instruction in computation.instructions.values()
        for name, is_fused in _callees(instruction, instruction.opcode)
        if is_fused
    ]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            for instruction in module.computations[name].instructions.values():
                waiting += [callee for callee, _ in _callees(instruction, instruction.opcode)]
    return frozenset(found)
