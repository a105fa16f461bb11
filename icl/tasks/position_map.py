"""Position maps of strings (reverse, rotate, swap, repeat ...): the stand-in for repairing words.

An instance is a composition of positions: letter j of the output is letter sigma(j) of the input.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from icl.data.keys import generator
from icl.errors import InputError, check_types
from icl.tasks.generated import GeneratedTask, check_exact_split, check_generated, exact_split
from icl.tasks.registry import register
from icl.tasks.task import Example, Split, TaskInstance
from icl.tasks.words import Lengths, distinct_words, first_letters, spell

_MAX_MAPS = 100_000


@register("position_map")
@dataclasses.dataclass(frozen=True)
class PositionMap:
    """Settings of the family of position maps.

    Strings are written with the first `letters` of `alphabet`. `lengths` are input lengths, an instance has
    one; `length_weights` are their shares in training (empty: equal). The output is as long as the input,
    or `output_length` long where that is not 0. Without `repeat_letters` no letter stands twice in an input,
    so that one demonstration tells the map. Of the maps of each length, `held_out_share` are held out,
    exactly; held-out instances have the longest inputs, unless `held_out_full_length` is off.
    `num_training_instances` is the number of training maps of each length (0: all of them).
    """

    letters: int = 10
    alphabet: str = "klmnopqrstuvwxyz"
    lengths: tuple[int, ...] = (2, 3)
    length_weights: tuple[float, ...] = (0.4, 0.6)
    output_length: int = 0
    repeat_letters: bool = True
    held_out_share: float = 0.25
    held_out_full_length: bool = True
    num_training_instances: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        check_generated(self)
        first_letters("PositionMap", self.alphabet, self.letters)
        longest = Lengths("PositionMap", self.lengths, self.length_weights).full
        if not self.repeat_letters and self.letters < longest:
            raise InputError(
                f"PositionMap.letters = {self.letters}: expected {longest} or more, for words of {longest} "
                "different letters"
            )
        num_maps = longest ** (self.output_length or longest) if self.output_length >= 0 else 0
        if not 2 <= num_maps <= _MAX_MAPS:
            raise InputError(
                f"PositionMap.lengths = {self.lengths}, output_length = {self.output_length}: expected 2 to "
                f"{_MAX_MAPS} maps of the full length, not {num_maps}"
            )
        check_exact_split(self, num_maps)

    def build(self, name: str) -> "tuple[PositionMapTask, ...]":
        """One task, of all maps."""
        return (PositionMapTask(name, self),)


class PositionMapTask(GeneratedTask):
    """All position maps of some lengths."""

    def __init__(self, name: str, settings: PositionMap) -> None:
        super().__init__(name, settings)
        self._settings = settings
        self.letters = first_letters("PositionMap", settings.alphabet, settings.letters)
        self.repeat_letters = settings.repeat_letters
        self._lengths = Lengths("PositionMap", settings.lengths, settings.length_weights)
        self._maps: dict[tuple[Split, int], list[tuple[int, ...]]] = {}
        self._listed: dict[Split, list[tuple[int, tuple[int, ...]]]] = {"train": [], "held_out": []}
        for length in sorted(settings.lengths, reverse=True):
            maps = list(itertools.product(range(length), repeat=settings.output_length or length))
            train, held_out = exact_split([str(m) for m in maps], settings.held_out_share, "position map")
            train = train[: settings.num_training_instances or None]
            evaluated = length == self._lengths.full or not settings.held_out_full_length
            self._maps["train", length] = [maps[i] for i in train]
            self._maps["held_out", length] = [maps[i] for i in held_out] if evaluated else []
            for split, listed in self._listed.items():
                listed += [(length, sigma) for sigma in self._maps[split, length]]

    def num_instances(self, split: Split) -> int | None:
        return len(self._listed[split])

    def instance(self, split: Split, index: int) -> TaskInstance:
        return PositionMapInstance(self, *self._listed[split][index])

    def sample(self, split: Split, rng: np.random.Generator) -> TaskInstance:
        return self.draw(split, rng)

    def draw(self, split: Split, rng: np.random.Generator) -> TaskInstance:
        length = self._lengths.draw(rng)
        length = length if self._maps[split, length] else self._lengths.full
        maps = self._maps[split, length]
        return PositionMapInstance(self, length, maps[rng.integers(len(maps))])

    def chance(self) -> float:
        """A guess among all maps of the full length, which may agree by letters that occur twice.

        For an input whose letter c occurs n_c times, two random maps agree with sum_c (n_c / length)^2 in
        each position of the output; the mean is taken over the inputs.
        """
        length = self._lengths.full
        if not self.repeat_letters:
            return 1 / length ** (self._settings.output_length or length)
        output_length = self._settings.output_length or length
        rng = generator("position map chance")
        words = rng.integers(0, len(self.letters), (2**15, length))
        agree = (words[:, :, None] == words[:, None, :]).mean((1, 2))
        return float((agree**output_length).mean())


class PositionMapInstance(TaskInstance):
    """One position map."""

    def __init__(self, task: PositionMapTask, length: int, sigma: tuple[int, ...]) -> None:
        numbers = " ".join(str(position + 1) for position in sigma)
        self.task = task.name
        self.name = f"{length}:{numbers}"
        self.instruction: str | None = f"apply {numbers}"
        self._letters = task.letters
        self._repeat = task.repeat_letters
        self._length = length
        self._sigma = list(sigma)

    def demonstrations(self, rng: np.random.Generator) -> Iterator[Example]:
        for words in distinct_words(rng, len(self._letters), self._length, repeat=self._repeat):
            inputs = self._letters[words]
            for word, target in zip(spell(inputs), spell(inputs[:, self._sigma]), strict=True):
                yield Example(word, target, word)

    def ceiling(self, query: Example, shown: Sequence[Example]) -> float:
        """Each output position comes from one of the input positions that no demonstration excludes."""
        best = 1.0
        for place in range(len(query.target)):
            letters = [
                query.input[i]
                for i in range(len(query.input))
                if all(example.input[i] == example.target[place] for example in shown)
            ]
            best *= max(map(letters.count, letters)) / len(letters)
        return best
