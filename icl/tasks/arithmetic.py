"""The arithmetic tasks of the GPT-3 paper (arXiv 2005.14165, section 3.9.1), for any number of digits.

Worded and drawn as the paper's public files are: operands uniform below 10^digits, differences that may be
negative, and for three operations single digits from 1 to 9 with the brackets around the first two. (The
paper's text says the last two; its files do not.)
"""

import dataclasses
import re

import numpy as np

from icl.errors import InputError, check_types
from icl.tasks.battery import CHUNK, BatteryTask, content_fractions
from icl.tasks.exclusion import input_identity
from icl.tasks.registry import register
from icl.tasks.task import Example, Split, Template

THREE_OPERATIONS = "single_digit_three_ops"
PAPER = (
    *(f"{digits}_digit_{kind}" for digits in ("two", "three", "four", "five")
      for kind in ("addition", "subtraction")),
    "two_digit_multiplication",
    THREE_OPERATIONS,
)  # fmt: skip
"""The paper's ten tasks, by the names of its files."""

_DIGITS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_WORDS = {"addition": "plus", "subtraction": "minus", "multiplication": "times"}
_NAME = re.compile(rf"({'|'.join(_DIGITS)})_digit_({'|'.join(_WORDS)})")
_QUESTION = re.compile(r"What is (\d+) (plus|times) (\d+)\?")
_TEMPLATE = Template(
    input_prefix="Q: ",
    separator="\n\nA:",
    target_prefix=" ",
    delimiter="\n\n",
    instruction_delimiter="\n\n",
)


@register("arithmetic")
@dataclasses.dataclass(frozen=True)
class Arithmetic:
    """Settings of the arithmetic tasks.

    Attributes:
      tasks: Which: `two_digit_addition` and so on, from one to twelve digits, of addition, subtraction and
        multiplication; or `single_digit_three_ops`.
      held_out_share: Share of the operands, whatever their order and the operation, that training never sees.
    """

    tasks: tuple[str, ...] = PAPER
    held_out_share: float = 0.05

    def __post_init__(self) -> None:
        check_types(self)
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise InputError(f"Arithmetic.tasks = {self.tasks!r}: expected one task at least, each once")
        for name in self.tasks:
            if name != THREE_OPERATIONS and not _NAME.fullmatch(name):
                raise InputError(
                    f"Arithmetic.tasks: no task {name!r}; expected {THREE_OPERATIONS!r}, or one to twelve "
                    "digits and an operation, as in 'two_digit_addition'"
                )
        if not 0 < self.held_out_share < 1:
            raise InputError(
                f"Arithmetic.held_out_share = {self.held_out_share!r}: expected a share between 0 and 1"
            )

    def build(self, name: str) -> tuple[BatteryTask, ...]:
        """The tasks, named as in `tasks`."""
        del name
        return tuple(
            ThreeOperations(self.held_out_share)
            if task == THREE_OPERATIONS
            else TwoOperands(task, self.held_out_share)
            for task in self.tasks
        )


class TwoOperands(BatteryTask):
    """Two numbers that are added, subtracted or multiplied."""

    def __init__(self, name: str, held_out_share: float) -> None:
        super().__init__(name, _TEMPLATE, None, f"operands {held_out_share}")
        digits, _, self._kind = name.split("_")
        self._word = _WORDS[self._kind]
        self._end = 10 ** (_DIGITS.index(digits) + 1)
        self._share = held_out_share

    def draw(self, split: Split, rng: np.random.Generator) -> list[Example]:
        operands_N2 = rng.integers(0, self._end, (CHUNK, 2))
        held_N = content_fractions(np.sort(operands_N2, axis=1)) < self._share
        pairs = operands_N2[held_N == (split == "held_out")].tolist()
        word = self._word
        if self._kind == "subtraction":
            return [Example(f"What is {a} minus {b}?", str(a - b), f"{a} - {b}") for a, b in pairs]
        if self._kind == "addition":
            return [
                Example(f"What is {a} plus {b}?", str(a + b), f"{a} + {b}" if a < b else f"{b} + {a}")
                for a, b in pairs
            ]
        return [
            Example(f"What is {a} {word} {b}?", str(a * b), f"{a} * {b}" if a < b else f"{b} * {a}")
            for a, b in pairs
        ]

    def identities(self, example: Example) -> tuple[str, ...]:
        """The question, also with swapped operands where they commute."""
        asked = example.input.lower()
        parts = _QUESTION.fullmatch(example.input)
        if parts is None:
            return (asked,)
        a, word, b = parts.groups()
        return asked, input_identity(f"what is {b} {word} {a}?")


class ThreeOperations(BatteryTask):
    """`(a + b) * c` over digits from 1 to 9."""

    def __init__(self, held_out_share: float) -> None:
        super().__init__(THREE_OPERATIONS, _TEMPLATE, None, f"three operations {held_out_share}")
        self._share = held_out_share

    def draw(self, split: Split, rng: np.random.Generator) -> list[Example]:
        content_N5 = np.concatenate([rng.integers(1, 10, (CHUNK, 3)), rng.integers(0, 3, (CHUNK, 2))], axis=1)
        held_N = content_fractions(content_N5) < self._share
        found = []
        for a, b, c, first, second in content_N5[held_N == (split == "held_out")].tolist():
            inner = (a + b, a - b, a * b)[first]
            value = (inner + c, inner - c, inner * c)[second]
            question = f"({a} {'+-*'[first]} {b}) {'+-*'[second]} {c}"
            found.append(Example(f"What is {question}?", str(value), question))
        return found
