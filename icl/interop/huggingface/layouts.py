"""How arrays of Hugging Face models hold ours: as they are, transposed, side by side, or head by head.

A layout works in both directions, on NumPy arrays of one layer. Ours are kernels [in, out], and vectors.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Shape = tuple[int, ...]


class Layout(Protocol):
    """How one of their arrays is made of one or more of ours."""

    def shape(self, shapes: Sequence[Shape]) -> Shape:
        """The shape of theirs, given those of ours."""
        ...

    def join(self, arrays: Sequence[Array]) -> Array:
        """Theirs, made of ours."""
        ...

    def split(self, array: Array, shapes: Sequence[Shape]) -> list[Array]:
        """Ours, of these shapes, taken from theirs."""
        ...


class AsIs(NamedTuple):
    """One array, the same in both."""

    def shape(self, shapes: Sequence[Shape]) -> Shape:
        return shapes[0]

    def join(self, arrays: Sequence[Array]) -> Array:
        return arrays[0]

    def split(self, array: Array, shapes: Sequence[Shape]) -> list[Array]:
        return [array]


class Transposed(NamedTuple):
    """One kernel, which torch's Linear keeps as [out, in]."""

    def shape(self, shapes: Sequence[Shape]) -> Shape:
        return shapes[0][::-1]

    def join(self, arrays: Sequence[Array]) -> Array:
        return arrays[0].T

    def split(self, array: Array, shapes: Sequence[Shape]) -> list[Array]:
        return [array.T]


class SideBySide(NamedTuple):
    """Queries, keys and values one after the other along the last axis: GPT-2's Conv1D, [in, 3 x embed]."""

    def shape(self, shapes: Sequence[Shape]) -> Shape:
        return (*shapes[0][:-1], sum(shape[-1] for shape in shapes))

    def join(self, arrays: Sequence[Array]) -> Array:
        return np.concatenate(arrays, axis=-1)

    def split(self, array: Array, shapes: Sequence[Shape]) -> list[Array]:
        return np.split(array, np.cumsum([shape[-1] for shape in shapes])[:-1], axis=-1)


class HeadByHead(NamedTuple):
    """Query, key and value of each head together: GPT-NeoX's [heads x 3 x head size, in], or a bias so."""

    heads: int

    def shape(self, shapes: Sequence[Shape]) -> Shape:
        return (sum(shape[-1] for shape in shapes), *shapes[0][:-1])

    def join(self, arrays: Sequence[Array]) -> Array:
        by_head = [array.T.reshape(self.heads, -1, *array.shape[:-1]) for array in arrays]
        return np.stack(by_head, axis=1).reshape(self.shape([array.shape for array in arrays]))

    def split(self, array: Array, shapes: Sequence[Shape]) -> list[Array]:
        by_head = array.reshape(self.heads, len(shapes), -1, *array.shape[1:])
        return [
            by_head[:, number].reshape(math.prod(shape[-1:]), *shape[:-1]).T
            for number, shape in enumerate(shapes)
        ]


AS_IS, TRANSPOSED, SIDE_BY_SIDE = AsIs(), Transposed(), SideBySide()
