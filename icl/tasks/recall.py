"""Associative recall: single symbols that each have a value, to be looked up in the context and nowhere else.

The purest task of look-up: without a separator the answer is what followed the same symbol before, which is
what an induction head finds (Olsson et al. 2022, arXiv 2209.11895).
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np

from icl.errors import InputError, check_types
from icl.tasks.generated import GeneratedTask, check_generated, check_hash_split, is_held_out
from icl.tasks.registry import register
from icl.tasks.task import Example, Split, TaskInstance, Template
from icl.tasks.words import first_letters

_CHUNK = 32


@register("recall")
@dataclasses.dataclass(frozen=True)
class Recall:
    """Settings of the family of maps from symbols to symbols.

    An instance gives `num_keys` of the first `letters` of `alphabet` a value each, all different from keys
    and from each other. Which key a demonstration shows follows Zipf's law with exponent `skew`, 0 for all
    alike (Chan et al. 2022, arXiv 2205.05055). `separator` stands between key and value. Of all maps
    `held_out_share` are held out, by a hash of the map. `num_training_instances` 0 draws a fresh one for
    every episode.
    """

    letters: int = 52
    alphabet: str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    num_keys: int = 4
    skew: float = 0.0
    separator: str = ">"
    held_out_share: float = 0.25
    num_training_instances: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        check_generated(self)
        first_letters("Recall", self.alphabet, self.letters)
        if not 2 <= self.num_keys <= self.letters // 2:
            raise InputError(
                f"Recall.num_keys = {self.num_keys}: expected 2 to {self.letters // 2}, half of the letters"
            )
        if not 0 <= self.skew < float("inf"):
            raise InputError(f"Recall.skew = {self.skew}: expected 0 or more")
        if self.separator[-1:].isspace() or set(self.separator) & set(self.alphabet):
            raise InputError(
                f"Recall.separator = {self.separator!r}: expected nothing of the alphabet, no last space"
            )
        check_hash_split(self, math.perm(self.letters, 2 * self.num_keys), 20)

    def build(self, name: str) -> "tuple[RecallTask, ...]":
        """One task, of all maps."""
        return (RecallTask(name, self),)


class RecallTask(GeneratedTask):
    """All maps of some symbols."""

    def __init__(self, name: str, settings: Recall) -> None:
        super().__init__(name, settings)
        self.template = Template(separator=settings.separator)
        self._settings = settings
        self._letters = first_letters("Recall", settings.alphabet, settings.letters)

    def draw(self, split: Split, rng: np.random.Generator) -> TaskInstance:
        number = self._settings.num_keys
        while True:
            symbols = self._letters[rng.permutation(len(self._letters))[: 2 * number]].tolist()
            instance = RecallInstance(
                self.name, symbols[:number], symbols[number:], len(self._letters), self._settings.skew
            )
            if is_held_out(self._settings.held_out_share, instance.name) == (split == "held_out"):
                return instance

    def chance(self) -> float:
        """A guess among all symbols but the key."""
        return 1 / (len(self._letters) - 1)


class RecallInstance(TaskInstance):
    """A few symbols with a value each; no exclusion key, for it is lookup by nature."""

    def __init__(self, task: str, keys: list[str], values: list[str], num_letters: int, skew: float) -> None:
        self.task = task
        self.name = " ".join(sorted(f"{key}={value}" for key, value in zip(keys, values, strict=True)))
        self.instruction: str | None = None
        self._examples = [Example(key, value) for key, value in zip(keys, values, strict=True)]
        self._num_letters = num_letters
        shares = np.arange(1, len(keys) + 1) ** -float(skew)
        self._shares = shares / shares.sum()

    def demonstrations(self, rng: np.random.Generator) -> Iterator[Example]:
        while True:
            for choice in rng.choice(len(self._examples), _CHUNK, p=self._shares).tolist():
                yield self._examples[choice]

    def ceiling(self, query: Example, shown: Sequence[Example]) -> float:
        """Look-up, and a guess among the symbols that are no key or value so far."""
        seen = {example.input: example.target for example in shown}
        if query.input in seen:
            return 1.0
        return 1 / (self._num_letters - 1 - 2 * len(seen))
