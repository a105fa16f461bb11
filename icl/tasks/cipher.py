"""Substitution ciphers on short words: the synthetic stand-in for word translation.

An instance is one bijection of the alphabet; it is learnt from the letters that the demonstrations cover.
"""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from icl.errors import InputError, check_types
from icl.tasks.generated import GeneratedTask, is_held_out
from icl.tasks.registry import register
from icl.tasks.task import Example, Split, TaskInstance
from icl.tasks.words import (
    Lengths,
    check_alphabet,
    check_share,
    distinct_words,
    endless_words,
    letters,
    spell,
)


@register("cipher")
@dataclasses.dataclass(frozen=True)
class Cipher:
    """Settings of the family of ciphers.

    `lengths` are word lengths, an instance has one; `length_weights` their shares in training (empty:
    equal): short words are the curriculum. Held-out instances have the longest words, unless
    `held_out_full_length` is off. `held_out_share` of all bijections is held out, by a hash of the
    bijection. `num_training_instances` 0 draws a fresh bijection for every episode.
    """

    alphabet: str = "abcdef"
    lengths: tuple[int, ...] = (1, 2, 3)
    length_weights: tuple[float, ...] = (0.2, 0.2, 0.6)
    held_out_share: float = 0.25
    held_out_full_length: bool = True
    num_training_instances: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        check_alphabet("Cipher.alphabet", self.alphabet)
        check_share("Cipher.held_out_share", self.held_out_share)
        Lengths("Cipher.", self.lengths, self.length_weights)
        if len(self.alphabet) < 4:
            raise InputError(f"Cipher.alphabet = {self.alphabet!r}: expected at least 4 letters")
        if self.num_training_instances < 0:
            raise InputError(
                f"Cipher.num_training_instances = {self.num_training_instances}: expected 0 or more"
            )

    def build(self, name: str) -> "tuple[CipherTask, ...]":
        """One task, of all ciphers."""
        return (CipherTask(name, self),)


class CipherTask(GeneratedTask):
    """All ciphers of an alphabet."""

    def __init__(self, name: str, settings: Cipher) -> None:
        super().__init__(name, settings.num_training_instances)
        self._settings = settings
        self._letters = letters(settings.alphabet)
        self._lengths = Lengths("Cipher.", settings.lengths, settings.length_weights)

    def draw(self, split: Split, rng: np.random.Generator) -> TaskInstance:
        settings = self._settings
        full = split == "held_out" and settings.held_out_full_length
        length = self._lengths.full if full else self._lengths.draw(rng)
        while True:
            image = self._letters[rng.permutation(len(self._letters))]
            code = "".join(image.tolist())
            held_out = is_held_out(settings.held_out_share, "cipher", settings.alphabet, code)
            if held_out == (split == "held_out"):
                return CipherInstance(self.name, self._letters, image, f"{code}-{length}", length)

    def chance(self) -> float:
        """A guess among the words that some cipher makes of the input: Bell(length) / letters^length.

        Words of d distinct letters have letters! / (letters - d)! images, and there are as many such words
        for each of the ways to repeat letters, so every pattern of repeats adds 1 / letters^length.
        """
        length = self._lengths.full
        patterns = sum(_stirling(length, d) for d in range(1, min(length, len(self._letters)) + 1))
        return patterns / len(self._letters) ** length


class CipherInstance(TaskInstance):
    """One cipher on words of one length. One-letter ciphers are lookup by nature and have no key."""

    def __init__(self, task: str, alphabet: np.ndarray, image: np.ndarray, name: str, length: int) -> None:
        self.task = task
        self.name = name
        self.instruction: str | None = "cipher"
        self._alphabet = alphabet
        self._image = image
        self._length = length

    def demonstrations(self, rng: np.random.Generator) -> Iterator[Example]:
        draw = endless_words if self._length == 1 else distinct_words
        for words in draw(rng, len(self._alphabet), self._length):
            for word, code in zip(spell(self._alphabet[words]), spell(self._image[words]), strict=True):
                yield Example(word, code, None if self._length == 1 else word)


def _stirling(items: int, blocks: int) -> int:
    """Ways to part `items` things into `blocks` groups (Stirling numbers of the second kind)."""
    terms = ((-1) ** i * math.comb(blocks, i) * (blocks - i) ** items for i in range(blocks + 1))
    return sum(terms) // math.factorial(blocks)
