"""Random words over an alphabet, drawn many at a time: with replacement, or each once.

A word is a row of letter numbers until it is spelled; so a task can map thousands of letters in one step.
"""

import functools
import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from icl.errors import InputError

_CHUNK = 32
_LISTED = 2**13
"""Up to this many words are listed once and looked up."""
_SHUFFLED = 256
"""Up to this many numbers are shuffled; of more, the few that are needed are drawn."""


def first_letters(family: str, alphabet: str, number: int) -> np.ndarray:
    """The first letters of an alphabet as an array of single letters, to index with letter numbers.

    Args:
      family: settings class, for the message.
      alphabet: distinct printable letters.
      number: how many of them are used.

    Raises:
      InputError: the alphabet repeats a letter, holds a space or control character, or is too short.
    """
    if len(set(alphabet)) != len(alphabet) or not alphabet.isprintable() or " " in alphabet:
        raise InputError(
            f"{family}.alphabet = {alphabet!r}: expected distinct printable letters without a space"
        )
    if not 2 <= number <= len(alphabet):
        raise InputError(f"{family}.letters = {number}: expected 2 to {len(alphabet)} (the alphabet)")
    return np.array(list(alphabet[:number]), dtype="<U1")


def spell(letters_NC: np.ndarray) -> list[str]:
    """Words from an array of single letters [words, length]."""
    length = letters_NC.shape[1]
    words: list[str] = np.ascontiguousarray(letters_NC).view(f"<U{length}").ravel().tolist()
    return words


def endless_words(rng: np.random.Generator, size: int, length: int) -> Iterator[np.ndarray]:
    """Chunks [words, length] of letter numbers below `size`, with replacement."""
    while True:
        yield rng.integers(0, size, (_CHUNK, length))


def distinct_words(
    rng: np.random.Generator, size: int, length: int, *, repeat: bool = True
) -> Iterator[np.ndarray]:
    """Chunks [words, length] of letter numbers below `size`; every word once, in random order.

    Without `repeat`, only the words in which no letter stands twice.
    """
    pool = size**length if repeat else math.perm(size, length)
    if pool <= _LISTED:
        words = _all_words(size, length, repeat)
        for numbers in _distinct_numbers(rng, pool):
            yield words[numbers]
        return
    seen: set[bytes] = set()
    while len(seen) < pool:
        if repeat:
            words = rng.integers(0, size, (_CHUNK, length))
        else:
            words = np.argsort(rng.random((_CHUNK, size)))[:, :length]
        fresh = {word.tobytes(): i for i, word in enumerate(words)}
        yield words[[i for code, i in fresh.items() if code not in seen]]
        seen.update(fresh)


def _distinct_numbers(rng: np.random.Generator, size: int) -> Iterator[list[int]]:
    """Chunks of the numbers below `size`, each once, in random order."""
    if size <= _SHUFFLED:
        order = rng.permutation(size).tolist()
        yield from (order[start : start + _CHUNK] for start in range(0, size, _CHUNK))
        return
    seen: set[int] = set()
    while len(seen) < size:
        fresh = dict.fromkeys(rng.integers(0, size, _CHUNK).tolist())
        yield [number for number in fresh if number not in seen]
        seen.update(fresh)


@functools.cache
def _all_words(size: int, length: int, repeat: bool) -> np.ndarray:
    letters = range(size)
    words = itertools.product(letters, repeat=length) if repeat else itertools.permutations(letters, length)
    return np.array(list(words))


class Lengths:
    """A weighted choice of word lengths; the longest is the full length."""

    def __init__(self, family: str, lengths: Sequence[int], weights: Sequence[float]) -> None:
        """Checks `family`'s lengths and their weights; without weights all lengths are as likely.

        Raises:
          InputError: lengths are below 1 or repeat, or the weights do not go with them.
        """
        if not lengths or min(lengths) < 1 or len(set(lengths)) != len(lengths):
            raise InputError(f"{family}.lengths = {lengths!r}: expected distinct lengths of at least 1")
        weights = weights or [1.0] * len(lengths)
        if len(weights) != len(lengths) or min(weights) < 0 or sum(weights) <= 0:
            raise InputError(
                f"{family}.length_weights = {weights!r}: expected one weight of 0 or more for each of the "
                f"lengths {lengths!r}"
            )
        self.full = max(lengths)
        self._lengths = tuple(lengths)
        self._bounds = (np.cumsum(weights) / sum(weights)).tolist()

    def draw(self, rng: np.random.Generator) -> int:
        """A length in proportion to its weight."""
        point = rng.random()
        return next((n for n, b in zip(self._lengths, self._bounds, strict=True) if point < b), self.full)
