"""What a compiled program sends to the other slices of a TPU, over the data-centre network.

Transfers between slices are no collectives in the program's text: a host takes the array and passes it on.
"""

import functools

from icl.planner.hlo_loops import trip_count
from icl.planner.hlo_text import Computation, Instruction, Module

_RUNTIME = "xla_megascale_runtime"


def bytes_to_other_slices(module: Module) -> int:
    """Bytes of the arrays that one device gives to the network in one execution, loop bodies multiplied."""

    @functools.cache
    def sent(name: str) -> int:
        computation = module.computations[name]
        return sum(of(computation, instruction) for instruction in computation.instructions.values())

    def of(computation: Computation, instruction: Instruction) -> int:
        if instruction.opcode == "send" and _RUNTIME in instruction.attributes:
            array, *_ = computation.operands(instruction)
            return sum(part.bytes for part in array.arrays)
        if instruction.opcode == "while":
            trips = trip_count(module, computation, instruction) or 1
            return trips * sum(map(sent, instruction.computations("body")))
        if instruction.opcode == "conditional":
            return max(map(sent, instruction.computations("branch_computations")), default=0)
        callees = {"call": "to_apply", "fusion": "calls", "async-start": "calls"}.get(instruction.opcode)
        return sum(map(sent, instruction.computations(callees))) if callees else 0

    return sent(module.entry)
