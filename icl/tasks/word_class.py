"""Words of a few classes, which have usual names: classification that can be known or shown.

The class of a word is that of most of its letters, the same in all instances. What an instance calls the
classes is either usual, and can be learnt into the weights, or its own, and must be read off demonstrations
(task recognition and task learning; Pan et al. 2023, arXiv 2305.09731).
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from icl.errors import InputError, check_types
from icl.tasks.generated import GeneratedTask, check_generated, check_hash_split, is_held_out
from icl.tasks.registry import register
from icl.tasks.task import Example, Split, TaskInstance
from icl.tasks.words import first_letters, spell

Naming = Literal["usual", "permuted", "drawn"]

_NAME_LETTERS = np.array(list("abcdefghijklmnopqrstuvwxyz"), dtype="<U1")
_MOST_PERMUTED = 6
_MOST_SPELLINGS = 2**18
"""All words are listed, so there must not be too many rows of letters to look through."""


@register("word_class")
@dataclasses.dataclass(frozen=True)
class WordClass:
    """Settings of the family of named word classes.

    There are as many classes as `names`, and the letters of `alphabet` belong to them in turn. A word has
    `word_length` letters of its class, but for `strays` of them, fewer than half, that are of others. Words
    are the same for all namings; `held_out_share` of them never occur in training, by a hash of the word.

    `naming` says what an instance calls the classes. "usual": by `names`, in their order. "permuted": by the
    same names, in another order; rotations of the usual order are held out, so that labels which are flipped
    all alike (`icl.evaluation.conditions`) were never trained on. "drawn": by names of its own, as many
    lower-case letters as the first of `names` has, none of `names` or of `reserved`; `held_out_share` of them
    are held out, by a hash of the name. `num_training_instances` is of drawn ones, 0 for fresh ones without
    end.
    """

    alphabet: str = "BCDFGHJKLMPQRSTVWXYZ"
    names: tuple[str, ...] = ("sun", "fig", "owl", "key")
    naming: Naming = "usual"
    reserved: tuple[str, ...] = ()
    word_length: int = 3
    strays: int = 1
    held_out_share: float = 0.2
    num_training_instances: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        check_generated(self)
        first_letters("WordClass", self.alphabet, len(self.alphabet))
        number = len(self.names)
        if number < 2 or len(set(self.names)) < number or not all(map(str.isalpha, self.names)):
            raise InputError(f"WordClass.names = {self.names!r}: expected two or more different words")
        if len(self.alphabet) % number or len(self.alphabet) < 2 * number:
            raise InputError(
                f"WordClass.alphabet = {self.alphabet!r}: expected as many letters, two or more, for each of"
                f" the {number} names"
            )
        if self.word_length < 1 or not 0 <= 2 * self.strays < self.word_length:
            raise InputError(
                f"WordClass.strays = {self.strays}: expected fewer than half of word_length ="
                f" {self.word_length}"
            )
        if self.naming == "permuted" and not 3 <= number <= _MOST_PERMUTED:
            raise InputError(
                f"WordClass.names = {self.names!r}: expected 3 to {_MOST_PERMUTED} names to permute"
            )
        if self.num_training_instances and self.naming != "drawn":
            raise InputError(
                f"WordClass.num_training_instances = {self.num_training_instances}: expected 0, as only"
                " drawn names are without end"
            )
        if len(self.alphabet) ** self.word_length > _MOST_SPELLINGS:
            raise InputError(
                f"WordClass.word_length = {self.word_length}: expected at most {_MOST_SPELLINGS} rows of so"
                f" many of the {len(self.alphabet)} letters"
            )
        check_hash_split(self, self._num_words(), 20)
        if self.naming == "drawn":
            check_hash_split(self, len(_NAME_LETTERS) ** len(self.names[0]), 10 * number)

    def _num_words(self) -> int:
        own = len(self.alphabet) // len(self.names)
        others = len(self.alphabet) - own
        places = math.comb(self.word_length, self.strays)
        return len(self.names) * places * own ** (self.word_length - self.strays) * others**self.strays

    def build(self, name: str) -> "tuple[WordClassTask, ...]":
        """One task, of all words."""
        return (WordClassTask(name, self),)


class WordClassTask(GeneratedTask):
    """All words, under the names that instances give their classes."""

    def __init__(self, name: str, settings: WordClass) -> None:
        super().__init__(name, settings)
        self._settings = settings
        names = settings.names
        rotations = {names[i:] + names[:i] for i in range(len(names))}
        self._orders: dict[Split, list[tuple[str, ...]]] = {"train": [names], "held_out": [names]}
        if settings.naming == "permuted":
            others = [order for order in itertools.permutations(names) if order not in rotations]
            self._orders = {"train": others, "held_out": sorted(rotations - {names})}

    def num_instances(self, split: Split) -> int | None:
        return super().num_instances(split) if self._settings.naming == "drawn" else len(self._orders[split])

    def instance(self, split: Split, index: int) -> TaskInstance:
        if self._settings.naming == "drawn":
            return super().instance(split, index)
        return self._named(split, self._orders[split][index])

    def draw(self, split: Split, rng: np.random.Generator) -> TaskInstance:
        """An instance whose names are drawn."""
        settings = self._settings
        never = {*settings.names, *settings.reserved}
        found: dict[str, None] = {}
        while len(found) < len(settings.names):
            letters = rng.integers(0, len(_NAME_LETTERS), (2 * len(settings.names), len(settings.names[0])))
            for name in spell(_NAME_LETTERS[letters]):
                if is_held_out(settings.held_out_share, name) == (split == "held_out") and name not in never:
                    found[name] = None
        return self._named(split, tuple(found)[: len(settings.names)])

    def _named(self, split: Split, names: tuple[str, ...]) -> "WordClassInstance":
        orders = None if self._settings.naming == "drawn" else self._orders[split]
        return WordClassInstance(self.name, self._settings, split, names, orders)

    def labels(self) -> tuple[str, ...]:
        """The usual names, unless each instance has its own."""
        return () if self._settings.naming == "drawn" else self._settings.names

    def chance(self) -> float:
        """A guess among the names."""
        return 1 / len(self._settings.names)


class WordClassInstance(TaskInstance):
    """Words of a split, answered with the name that their class has here."""

    def __init__(
        self,
        task: str,
        settings: WordClass,
        split: Split,
        names: tuple[str, ...],
        orders: Sequence[tuple[str, ...]] | None,
    ) -> None:
        """`orders` are those that the names of an instance of the split may have; None where any may."""
        self.task = task
        self.name = " ".join(names)
        self.instruction: str | None = None
        self._settings = settings
        self._split = split
        self._names = names
        self._orders = orders
        # Always in one order, so that the place of an option says nothing of its class.
        self._choices = tuple(sorted(names))

    def demonstrations(self, rng: np.random.Generator) -> Iterator[Example]:
        """Every word of the split once, in random order."""
        words = _words(self._settings)[self._split]
        for number in rng.permutation(len(words)).tolist():
            word, kind = words[number]
            yield Example(word, self._names[kind], key=word, choices=self._choices)

    def ceiling(self, query: Example, shown: Sequence[Example]) -> float | None:
        """For one who knows the classes: what the names shown leave open is guessed."""
        kinds = _classes(self._settings)
        asked = kinds[query.input]
        seen = {kinds[example.input]: example.target for example in shown}
        if self._orders is None:
            return 1.0 if asked in seen else 1 / (len(self._names) - len(seen))
        fitting = [order for order in self._orders if all(order[kind] == seen[kind] for kind in seen)]
        answers = [order[asked] for order in fitting]
        return max(map(answers.count, answers)) / len(answers) if answers else None


@functools.lru_cache(maxsize=8)
def _classes(settings: WordClass) -> dict[str, int]:
    """The class of every word."""
    return {word: kind for words in _words(settings).values() for word, kind in words}


@functools.lru_cache(maxsize=8)
def _words(settings: WordClass) -> dict[Split, list[tuple[str, int]]]:
    """All words of each split with their classes."""
    number, own = len(settings.names), settings.word_length - settings.strays
    found: dict[Split, list[tuple[str, int]]] = {"train": [], "held_out": []}
    for letters in itertools.product(range(len(settings.alphabet)), repeat=settings.word_length):
        counts = [0] * number
        for letter in letters:
            counts[letter % number] += 1
        if own in counts:
            word = "".join(settings.alphabet[letter] for letter in letters)
            is_out = is_held_out(settings.held_out_share, word)
            found["held_out" if is_out else "train"].append((word, counts.index(own)))
    return found
