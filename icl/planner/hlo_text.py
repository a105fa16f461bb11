"""The text of an optimised XLA program as computations of instructions.

Only what counting needs is kept: names, result arrays, opcodes, operands, attributes. Layouts, tilings and
memory spaces are dropped.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from icl.errors import InputError


class Array(NamedTuple):
    """One array of a program: XLA's name of its dtype (`bf16`, `s32`, `pred`), its shape on one device."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Bytes without padding; tokens have none."""
        return -(-math.prod(self.shape) * _bits(self.dtype) // 8)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line: `name = arrays opcode(operands), attributes`.

    `arrays` is the result with tuples flattened; `literal` is what stands between the parentheses, for
    constants and parameters; `operands` are names of instructions of the same computation.
    """

    name: str
    arrays: tuple[Array, ...]
    opcode: str
    literal: str
    attributes: str

    @functools.cached_property
    def operands(self) -> tuple[str, ...]:
        if self.opcode in ("constant", "parameter"):
            return ()
        return tuple(part.split()[-1].lstrip("%") for part in self.literal.split(", ") if part.strip())

    def attribute(self, name: str) -> str:
        """The value of `name=...` up to the next comma outside brackets; empty where it is not given."""
        found = re.search(rf"(?:^|, ){re.escape(name)}=", self.attributes)
        return _until_comma(self.attributes, found.end()) if found else ""

    def computations(self, name: str) -> tuple[str, ...]:
        """The computations that an attribute names, one or a list in braces."""
        return tuple(part.lstrip("%") for part in re.split(r",\s*", self.attribute(name).strip("{}")) if part)

    @property
    def op_name(self) -> str:
        """Where the instruction comes from in the traced program; empty where XLA kept nothing."""
        found = re.search(r'op_name="((?:[^"\\]|\\.)*)"', self.attributes)
        return found.group(1) if found else ""


@dataclasses.dataclass(frozen=True)
class Computation:
    """Instructions in order, and the name of the one whose value is returned."""

    name: str
    instructions: Mapping[str, Instruction]
    root: str

    def operands(self, instruction: Instruction) -> tuple[Instruction, ...]:
        """The instructions whose values an instruction takes, in order."""
        return tuple(self.instructions[name] for name in instruction.operands)


@dataclasses.dataclass(frozen=True)
class Module:
    """All computations, the one that runs, and the number of devices that run it together."""

    computations: Mapping[str, Computation]
    entry: str
    num_devices: int


_HEADER = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_END = re.compile(r"\}(, execution_thread=\"\w+\")?\s*(//.*)?$")
_NAME = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = ")
_OPCODE = re.compile(r" *([\w\-]+)\(")
_ARRAY = re.compile(r"\b([a-z]\w*)\[([^\]]*)\]")
_COMMENT = re.compile(r"/\*index=\d+\*/")


def parse_module(text: str) -> Module:
    """Reads a module as `compiled.as_text()` or a dump `*after_optimizations.txt` has it.

    Raises:
      InputError: the text has no `ENTRY` computation.
    """
    computations: dict[str, Computation] = {}
    entry = name = root = ""
    instructions: dict[str, Instruction] = {}
    for line in _whole_lines(text):
        if header := _HEADER.match(line):
            name, root, instructions = header.group(2), "", {}
            entry = name if header.group(1) else entry
        elif _END.match(line) and name:
            computations[name] = Computation(name, instructions, root or next(reversed(instructions), ""))
            name = ""
        elif name and (start := _NAME.match(line)):
            instruction = _parse_instruction(start.group(2), _COMMENT.sub("", line[start.end() :]))
            instructions[instruction.name] = instruction
            root = instruction.name if start.group(1) else root
    if entry not in computations:
        raise InputError("HLO text: no ENTRY computation in it, expected an optimised XLA program")
    return Module(computations, entry, _num_devices(text))


def _whole_lines(text: str) -> Iterator[str]:
    """Lines, with what a kernel's metadata breaks over several put back together."""
    whole = ""
    for line in text.splitlines():
        if _NAME.match(line) or _HEADER.match(line) or _END.match(line):
            yield whole
            whole = line
        elif line.strip():
            whole = f"{whole} {line}"
    yield whole


def _parse_instruction(name: str, text: str) -> Instruction:
    end = _closing(text, 0) if text.startswith("(") else text.index(" ")
    opcode = _OPCODE.match(text, end)
    assert opcode, f"HLO instruction without an opcode: {text[:200]}"
    close = _closing(text, opcode.end() - 1)
    return Instruction(
        name, _arrays(text[:end]), opcode.group(1), text[opcode.end() : close - 1], text[close:].lstrip(", ")
    )


def _arrays(text: str) -> tuple[Array, ...]:
    """Array types of a result, in order; a dimension bounded above (`<=8`) counts in full."""
    return tuple(
        Array(dtype, tuple(int(size.lstrip("<=")) for size in sizes.split(",") if size))
        for dtype, sizes in _ARRAY.findall(text)
    )


@functools.cache
def _bits(dtype: str) -> int:
    """XLA writes the width first: bf16, f8e4m3fn, c64; `pred` takes a byte, `token` nothing."""
    width = re.search(r"\d+", dtype)
    return int(width.group()) if width else 8 * (dtype == "pred")


_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"|[(){}\[\]]')


def _closing(text: str, start: int) -> int:
    """The position after the bracket that closes the one at `start`; strings are skipped."""
    depth = 0
    for bracket in _BRACKET.finditer(text, start):
        depth += (bracket.group() in "({[") - (bracket.group() in ")}]")
        if depth == 0:
            return bracket.end()
    raise InputError(f"HLO text: no closing bracket in {text[:100]!r}, expected whole lines")


_PIECE = re.compile(r'"(?:[^"\\]|\\.)*"|[^,(){}\[\]"]+')


def _until_comma(text: str, position: int) -> str:
    start = position
    while position < len(text) and text[position] not in ",)":
        if text[position] in "({[":
            position = _closing(text, position)
        else:
            piece = _PIECE.match(text, position)
            position = piece.end() if piece else position + 1
    return text[start:position]


def _num_devices(text: str) -> int:
    header = text[: text.find("\n")]
    counts = re.findall(r"\b(?:num_partitions|replica_count)=(\d+)", header)
    return math.prod(int(count) for count in counts)
