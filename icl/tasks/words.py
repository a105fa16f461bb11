"""Random words over an alphabet, drawn many at a time: with replacement, or each once.

A word is a row of letter numbers until it is spelled; so a task can map thousands of letters in one step.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from icl.errors import InputError

_CHUNK = 32
_SMALL = 4096


def check_alphabet(field: str, alphabet: str) -> None:
    """Raises InputError unless the letters are distinct, printable and no space."""
    if len(set(alphabet)) != len(alphabet) or not alphabet.isprintable() or " " in alphabet or not alphabet:
        raise InputError(f"{field} = {alphabet!r}: expected distinct printable letters without a space")


def check_share(field: str, share: float) -> None:
    """Raises InputError unless 0 < share < 1."""
    if not 0 < share < 1:
        raise InputError(f"{field} = {share!r}: expected a share between 0 and 1")


def letters(alphabet: str) -> np.ndarray:
    """The alphabet as an array of single letters, to index with letter numbers."""
    return np.array(list(alphabet), dtype="<U1")


def spell(letters_C: np.ndarray) -> list[str]:
    """Words from an array of single letters [words, length]."""
    length = letters_C.shape[1]
    return np.ascontiguousarray(letters_C).view(f"<U{length}").ravel().tolist()


def endless_words(rng: np.random.Generator, size: int, length: int) -> Iterator[np.ndarray]:
    """Chunks [words, length] of letter numbers below `size`, with replacement."""
    while True:
        yield rng.integers(0, size, (_CHUNK, length))


def distinct_words(rng: np.random.Generator, size: int, length: int) -> Iterator[np.ndarray]:
    """Chunks [words, length] of letter numbers below `size`; every word once, in random order."""
    pool = size**length
    powers = size ** np.arange(length - 1, -1, -1)
    if pool <= _SMALL:
        order = rng.permutation(pool)
        for start in range(0, pool, _CHUNK):
            yield order[start : start + _CHUNK, None] // powers % size
        return
    seen: set[bytes] = set()
    while len(seen) < pool:
        words = rng.integers(0, size, (_CHUNK, length))
        fresh = []
        for i, word in enumerate(words):
            key = word.tobytes()
            if key not in seen:
                seen.add(key)
                fresh.append(i)
        yield words[fresh]


class Lengths:
    """A weighted choice of lengths; the longest is the full length."""

    def __init__(self, field: str, lengths: Sequence[int], weights: Sequence[float]) -> None:
        if not lengths or min(lengths) < 1 or len(set(lengths)) != len(lengths):
            raise InputError(f"{field}lengths = {lengths!r}: expected distinct lengths of at least 1")
        if weights and (len(weights) != len(lengths) or min(weights) < 0 or sum(weights) <= 0):
            raise InputError(
                f"{field}length_weights = {weights!r}: expected {len(lengths)} weights, one for each length"
            )
        self.full = max(lengths)
        self._lengths = tuple(lengths)
        shares = np.array(weights if weights else [1.0] * len(lengths), dtype=np.float64)
        self._bounds = np.cumsum(shares / shares.sum()).tolist()

    def draw(self, rng: np.random.Generator) -> int:
        """A length in proportion to its weight."""
        point = rng.random()
        for length, bound in zip(self._lengths, self._bounds, strict=True):
            if point < bound:
                return length
        return self._lengths[-1]
