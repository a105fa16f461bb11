"""Affine maps modulo a prime, y = a x + b: the stand-in for arithmetic.

An instance is a pair (a, b). With a small prime, looking the input up among the demonstrations goes a
long way, so the family declares no exclusion key and stands beside a lookup baseline.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from icl.errors import InputError, check_types
from icl.tasks.generated import GeneratedTask, check_exact_split, check_generated, exact_split
from icl.tasks.registry import register
from icl.tasks.task import Example, Split, TaskInstance


@register("affine")
@dataclasses.dataclass(frozen=True)
class Affine:
    """Settings of the family of affine maps modulo `prime`.

    Of the pairs (a, b) with a != 0, `held_out_share` are held out, exactly. `num_training_instances` is the
    number of training pairs (0: all of them).
    """

    prime: int = 11
    held_out_share: float = 0.2
    num_training_instances: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        check_generated(self)
        if not 3 <= self.prime < 1000 or any(self.prime % d == 0 for d in range(2, self.prime)):
            raise InputError(f"Affine.prime = {self.prime}: expected a prime number from 3 to 997")
        check_exact_split(self, self.prime * (self.prime - 1))

    def build(self, name: str) -> "tuple[AffineTask, ...]":
        """One task, of all pairs."""
        return (AffineTask(name, self),)


class AffineTask(GeneratedTask):
    """All affine maps modulo a prime."""

    def __init__(self, name: str, settings: Affine) -> None:
        super().__init__(name, settings)
        self._prime = settings.prime
        pairs = [(a, b) for a in range(1, settings.prime) for b in range(settings.prime)]
        salt = f"affine mod {settings.prime}"
        train, held_out = exact_split([str(pair) for pair in pairs], settings.held_out_share, salt)
        train = train[: settings.num_training_instances or None]
        self._pairs = {"train": [pairs[i] for i in train], "held_out": [pairs[i] for i in held_out]}

    def num_instances(self, split: Split) -> int | None:
        return len(self._pairs[split])

    def instance(self, split: Split, index: int) -> TaskInstance:
        return AffineInstance(self.name, self._prime, *self._pairs[split][index])

    def draw(self, split: Split, rng: np.random.Generator) -> TaskInstance:
        return self.instance(split, int(rng.integers(len(self._pairs[split]))))

    def chance(self) -> float:
        """A guess among all residues."""
        return 1 / self._prime


class AffineInstance(TaskInstance):
    """One pair (a, b) modulo a prime; no key, for it is lookup by nature."""

    def __init__(self, task: str, prime: int, a: int, b: int) -> None:
        self.task = task
        self.name = f"{a} {b} mod {prime}"
        self.instruction: str | None = f"affine {a} {b}"
        self._examples = [Example(str(x), str((a * x + b) % prime)) for x in range(prime)]

    def demonstrations(self, rng: np.random.Generator) -> Iterator[Example]:
        while True:
            for x in rng.integers(0, len(self._examples), 32).tolist():
                yield self._examples[x]

    def ceiling(self, query: Example, shown: Sequence[Example]) -> float:
        """Look-up, and a guess among the values not shown: two demonstrations would do for arithmetic."""
        seen = {example.input: example.target for example in shown}
        return 1.0 if query.input in seen else 1 / (len(self._examples) - len(seen))
