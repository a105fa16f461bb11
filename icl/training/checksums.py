"""A 64-bit checksum of every array of a tree, computed on the devices that hold it.

Orbax restores flipped bits without a word. The checksum is over raw bits, mixed with each element's
position, and a sum modulo 2^32 twice: any one changed element changes it for certain, two elements that
trade places are caught but for one chance in 2^64, and it is the same under every sharding.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from icl.errors import InputError

_SEEDS = (np.uint32(0x9E3779B1), np.uint32(0x85EBCA77))


def describe_arrays(tree: Any, prefix: str) -> dict[str, str]:
    """Array name -> "float32[4,16]:0123456789abcdef": type, shape and checksum of each array of a tree."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    # One small program a shape, not one for the tree: moments have the shapes of parameters.
    sums = jax.device_get([_checksum(leaf, np.uint32(0)) for _, leaf in leaves])
    return {
        array_name(prefix, path): f"{type_of(leaf)}:{_digits(found)}"
        for (path, leaf), found in zip(leaves, sums, strict=True)
    }


class PartwiseChecksum:
    """What `describe_arrays` says of an array, from slices of its first axis in any order."""

    def __init__(self, leaf: Any) -> None:
        """`leaf` has the type and the shape of the whole array."""
        self._leaf = leaf
        self._sums = [0, 0]

    def add(self, start: int, part: Any) -> None:
        """Takes a part into account that begins at an index of the first axis."""
        elements = start * math.prod(self._leaf.shape[1:])
        found = jax.device_get(_checksum(jnp.asarray(part), np.uint32(elements % 2**32)))
        self._sums = [(total + int(more)) % 2**32 for total, more in zip(self._sums, found, strict=True)]

    @property
    def text(self) -> str:
        """Type, shape and checksum of the parts so far."""
        return f"{type_of(self._leaf)}:{_digits(self._sums)}"


def _digits(sums: Sequence[Any]) -> str:
    return "".join(f"{int(each):08x}" for each in sums)


def verify_arrays(tree: Any, prefix: str, described: Mapping[str, str], where: str) -> None:
    """Holds a restored tree against what its checkpoint says; InputError names `where` and the array."""
    for name, found in describe_arrays(tree, prefix).items():
        if described.get(name) != found:
            raise InputError(
                f"{where}: array {name} is damaged: expected {described.get(name)}, found {found}"
            )


def array_name(prefix: str, path: tuple[Any, ...]) -> str:
    """A name such as params/layers/mlp/up/kernel."""
    return f"{prefix}/{jax.tree_util.keystr(path, simple=True, separator='/')}"


def type_of(leaf: Any) -> str:
    """Type and shape of an array, as "float32[4,16]"."""
    return f"{jnp.dtype(leaf.dtype).name}[{','.join(map(str, leaf.shape))}]"


@jax.jit
def _checksum(x: jax.Array, first: Any) -> tuple[jax.Array, ...]:
    """Of an array whose first element is number `first` of all."""
    bits = _bits(x)
    positions = _positions(bits.shape) + first * np.uint32(bits.size // max(1, x.size))
    return tuple(jnp.sum(_mix(bits ^ (positions * seed + (seed >> 7))), dtype=jnp.uint32) for seed in _SEEDS)


def _bits(x: jax.Array) -> jax.Array:
    """The raw bits as uint32, with a trailing axis where an element has more than 32."""
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    if x.dtype == jnp.bool_:
        return x.astype(jnp.uint32)
    width = min(x.dtype.itemsize, 4)
    return jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * width}")).astype(jnp.uint32)


def _positions(shape: tuple[int, ...]) -> jax.Array:
    """Row-major index of every element modulo 2^32; built axis by axis so that no sharding is disturbed."""
    position = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):
        stride = np.uint32(math.prod(shape[axis + 1 :]) % 2**32)
        position = position + stride * jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
    return position


def _mix(x: jax.Array) -> jax.Array:
    """A bijection of uint32 in which every input bit moves every output bit (MurmurHash3's finalizer)."""
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
