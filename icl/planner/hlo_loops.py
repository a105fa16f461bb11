"""How often a loop of an XLA program runs its body, from the text alone.

The CPU compiler writes it down; the TPU compiler leaves a counter that its condition compares with a constant.
"""

import re

from icl.planner.hlo_text import Computation, Instruction, Module

# A scalar as `carried element + offset` of the loop; the element is None for a constant.
_Linear = tuple[int | None, int]

_TRANSPARENT = ("copy", "bitcast", "convert", "reshape", "copy-start", "copy-done", "optimization-barrier")


def trip_count(module: Module, computation: Computation, loop: Instruction) -> int | None:
    """Executions of the body of `loop`, an instruction of `computation`; None where the text does not tell.

    The condition must compare a counter with a constant. Where the text does not show with what the counter
    starts or how it steps (both may be carried in from outside), 0 and 1 are taken, as JAX writes its scans.
    """
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes)
    if known:
        return int(known.group(1))
    condition = module.computations[loop.computations("condition")[0]]
    compared = _comparison(module, condition)
    if compared is None:
        return None
    direction, (counter, offset), limit = compared
    start = _initial(module, computation, loop, counter)
    if limit[0] is not None:  # the limit is carried along
        if not _is_invariant(module, loop, limit[0]):
            return None
        given = _initial(module, computation, loop, limit[0])
        if given is None:
            return None
        limit = (None, given + limit[1])
    distance = limit[1] - offset - (start or 0)
    step = _step(module, loop, counter)
    return _trips(direction, distance, step)


def _trips(direction: str, distance: int, step: int) -> int | None:
    if direction in ("GT", "GE"):
        direction, distance, step = {"GT": "LT", "GE": "LE"}[direction], -distance, -step
    if direction == "LE":
        direction, distance = "LT", distance + 1
    if direction == "NE" and step and distance % step == 0 and distance // step > 0:
        return distance // step
    if direction != "LT" or distance <= 0 or step <= 0:
        return None
    return -(-distance // step)


def _comparison(module: Module, condition: Computation) -> tuple[str, tuple[int, int], _Linear] | None:
    """Direction, counter (element, offset) and limit of a condition, the counter on the left."""
    root, computation, arguments = condition.instructions[condition.root], condition, None
    if root.opcode == "fusion":
        arguments = [_linear(module, condition, name, None) for name in root.operands]
        computation = module.computations[root.computations("calls")[0]]
        root = computation.instructions[computation.root]
    if root.opcode != "compare":
        return None
    left, right = (_linear(module, computation, name, arguments) for name in root.operands)
    direction = root.attribute("direction")
    if left is None or right is None:
        return None
    if left[0] is None:
        left, right = right, left
        direction = {"LT": "GT", "GT": "LT", "LE": "GE", "GE": "LE"}.get(direction, direction)
    return None if left[0] is None else (direction, (left[0], left[1]), right)


def _initial(module: Module, computation: Computation, loop: Instruction, element: int) -> int | None:
    """What a carried element starts with, where it is a constant."""
    (start,) = computation.operands(loop)
    if start.opcode != "tuple":
        return None
    value = _linear(module, computation, start.operands[element], None)
    return value[1] if value is not None and value[0] is None else None


def _next(module: Module, loop: Instruction, element: int) -> _Linear | None:
    """What the body makes of a carried element."""
    body = module.computations[loop.computations("body")[0]]
    root = body.instructions[body.root]
    return _linear(module, body, root.operands[element], None) if root.opcode == "tuple" else None


def _step(module: Module, loop: Instruction, element: int) -> int:
    after = _next(module, loop, element)
    return after[1] if after is not None and after[0] == element else 1


def _is_invariant(module: Module, loop: Instruction, element: int) -> bool:
    return _next(module, loop, element) == (element, 0)


def _linear(
    module: Module, computation: Computation, name: str, arguments: list[_Linear | None] | None
) -> _Linear | None:
    """A scalar of a loop's body or condition; `arguments` are the parameters of a fusion in it."""
    instruction = computation.instructions[name]
    opcode = instruction.opcode
    if opcode == "constant":
        return (None, int(instruction.literal)) if re.fullmatch(r"-?\d+", instruction.literal) else None
    if opcode == "parameter":
        return arguments[int(instruction.literal)] if arguments is not None else None
    operands = computation.operands(instruction)
    if opcode == "get-tuple-element":
        element = int(instruction.attribute("index"))
        return (element, 0) if arguments is None and operands[0].opcode == "parameter" else None
    if opcode in _TRANSPARENT and len(operands) == 1:
        return _linear(module, computation, operands[0].name, arguments)
    if opcode not in ("add", "subtract", "fusion") or instruction.arrays[0].shape:
        return None
    values = [_linear(module, computation, operand.name, arguments) for operand in operands]
    if opcode == "fusion":
        callee = module.computations[instruction.computations("calls")[0]]
        return _linear(module, callee, callee.root, values)
    return _sum(values[0], values[1], 1 if opcode == "add" else -1)


def _sum(left: _Linear | None, right: _Linear | None, sign: int) -> _Linear | None:
    if left is None or right is None or (right[0] is not None and (sign < 0 or left[0] is not None)):
        return None
    return (left[0] if left[0] is not None else right[0], left[1] + sign * right[1])
