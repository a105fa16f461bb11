"""A keyed permutation of 0..n-1 in closed form: no table, any element in constant time.

A Feistel network permutes the next power of four; walking its cycles until a value falls below n makes a
permutation of exactly n (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002).
"""

from icl.data.keys import generator

_ROUNDS = 4
_MASK = 2**64 - 1
_MULTIPLIER = 0x9E3779B97F4A7C15


class Permutation:
    """The permutation of range(size) that a key decides."""

    def __init__(self, size: int, *key: int | str) -> None:
        self._size = size
        self._bits = max(1, ((size - 1).bit_length() + 1) // 2)
        self._keys = [int(k) for k in generator("permutation", *key).integers(0, 2**63, _ROUNDS)]

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> int:
        """The element that stands at `index`."""
        if not 0 <= index < self._size:
            raise IndexError(f"{index} is outside of a permutation of {self._size}")
        value = self._encrypt(index)
        while value >= self._size:
            value = self._encrypt(value)
        return value

    def _encrypt(self, value: int) -> int:
        left, right = value >> self._bits, value & ((1 << self._bits) - 1)
        for key in self._keys:
            mixed = (right + key) * _MULTIPLIER & _MASK
            mixed = (mixed ^ mixed >> 29) * _MULTIPLIER & _MASK
            left, right = right, left ^ mixed >> (64 - self._bits)
        return left << self._bits | right
