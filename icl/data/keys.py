"""Random numbers and names as pure functions of a key.

Every draw in the project comes from `generator(...)`, keyed by what it is for ("row", seed, index), so a
row or a prompt never depends on what was drawn before it. `digest(...)` names content.
"""

import hashlib

import numpy as np


def _hash(parts: tuple[int | str | bytes, ...], size: int) -> bytes:
    """Hash of the parts with their types and lengths, so that no two lists of parts look alike."""
    state = hashlib.blake2b(digest_size=size)
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass")
        state.update(f"{type(part).__name__[0]}{len(data)}:".encode())
        state.update(data)
    return state.digest()


def generator(*parts: int | str) -> np.random.Generator:
    """A counter-based generator (Philox) for the key that the parts make."""
    key = int.from_bytes(_hash(parts, 16), "little")
    return np.random.Generator(np.random.Philox(key=key))


def digest(*parts: int | str | bytes) -> str:
    """32 hexadecimal digits that name the parts."""
    return _hash(parts, 16).hex()


def fraction(*parts: int | str) -> float:
    """A number in [0, 1) that the parts decide, for splits by content."""
    return int.from_bytes(_hash(parts, 7), "little") / 2**56
