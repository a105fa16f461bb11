"""Substitution ciphers on short words: the synthetic stand-in for word translation.

An instance is one bijection of the letters; it is learnt from the letters that the demonstrations cover.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np

from icl.errors import check_types
from icl.tasks.generated import GeneratedTask, check_generated, check_hash_split, is_held_out
from icl.tasks.registry import register
from icl.tasks.task import Example, Split, TaskInstance
from icl.tasks.words import Lengths, distinct_words, endless_words, first_letters, spell


@register("cipher")
@dataclasses.dataclass(frozen=True)
class Cipher:
    """Settings of the family of ciphers.

    Words are written with the first `letters` of `alphabet`. `lengths` are word lengths, an instance has
    one; `length_weights` are their shares in training (empty: equal): short words are the curriculum.
    Held-out instances have the longest words, unless `held_out_full_length` is off. Of all bijections,
    `held_out_share` are held out, by a hash of the bijection. `num_training_instances` 0 draws a fresh
    one for every episode.
    """

    letters: int = 6
    alphabet: str = "abcdefghijklmnopqrstuvwxyz"
    lengths: tuple[int, ...] = (1, 2, 3)
    length_weights: tuple[float, ...] = (0.2, 0.2, 0.6)
    held_out_share: float = 0.25
    held_out_full_length: bool = True
    num_training_instances: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        check_generated(self)
        first_letters("Cipher", self.alphabet, self.letters)
        Lengths("Cipher", self.lengths, self.length_weights)
        check_hash_split(self, math.factorial(self.letters), 20)

    def build(self, name: str) -> "tuple[CipherTask, ...]":
        """One task, of all ciphers."""
        return (CipherTask(name, self),)


class CipherTask(GeneratedTask):
    """All ciphers of some letters."""

    def __init__(self, name: str, settings: Cipher) -> None:
        super().__init__(name, settings)
        self._settings = settings
        self._letters = first_letters("Cipher", settings.alphabet, settings.letters)
        self._lengths = Lengths("Cipher", settings.lengths, settings.length_weights)

    def draw(self, split: Split, rng: np.random.Generator) -> TaskInstance:
        full = split == "held_out" and self._settings.held_out_full_length
        length = self._lengths.full if full else self._lengths.draw(rng)
        letters = "".join(self._letters)
        while True:
            image = self._letters[rng.permutation(len(letters))]
            held_out = is_held_out(self._settings.held_out_share, letters, "".join(image))
            if held_out == (split == "held_out"):
                return CipherInstance(self.name, self._letters, image, length)

    def chance(self) -> float:
        """A guess among the words that some cipher makes of the input.

        A word of d distinct letters has letters! / (letters - d)! images, and there are as many such words
        for each way to repeat letters: so each way adds 1 / letters^length to the mean over all words.
        """
        length, size = self._lengths.full, len(self._letters)
        return sum(_partitions(length, d) for d in range(1, min(length, size) + 1)) / size**length


class CipherInstance(TaskInstance):
    """One cipher on words of one length. One-letter ciphers are lookup by nature and have no key."""

    def __init__(self, task: str, letters: np.ndarray, image: np.ndarray, length: int) -> None:
        self.task = task
        self.name = f"{''.join(image)}-{length}"
        self.instruction: str | None = "cipher"
        self._letters = letters
        self._image = image
        self._length = length

    def demonstrations(self, rng: np.random.Generator) -> Iterator[Example]:
        draw = endless_words if self._length == 1 else distinct_words
        for words in draw(rng, len(self._letters), self._length):
            for word, code in zip(spell(self._letters[words]), spell(self._image[words]), strict=True):
                yield Example(word, code, None if self._length == 1 else word)

    def ceiling(self, query: Example, shown: Sequence[Example]) -> float:
        """Letters shown are known; the others are a bijection of what remains."""
        known = set("".join(example.input for example in shown))
        unknown = len(set(query.input) - known)
        return 1 / math.perm(len(self._letters) - len(known), unknown)


def _partitions(items: int, blocks: int) -> int:
    """Ways to part `items` things into `blocks` groups (Stirling numbers of the second kind)."""
    terms = ((-1) ** i * math.comb(blocks, i) * (blocks - i) ** items for i in range(blocks + 1))
    return sum(terms) // math.factorial(blocks)
