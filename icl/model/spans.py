"""Which positions of packed rows see which others, by segments and positions within them.

Shapes: B batch, T query positions, S key positions.
"""

from typing import NamedTuple

import jax

MASKED = -1e30
"""The score of a key that is not seen."""


class Span(NamedTuple):
    """Where the positions of a row stand: `segments_BT` and `positions_BT` within the segment, int32."""

    segments_BT: jax.Array
    positions_BT: jax.Array

    def cut(self, start: int, end: int) -> "Span":
        """The positions from `start` to before `end` of every row."""
        return Span(self.segments_BT[:, start:end], self.positions_BT[:, start:end])


def visible(queries: Span, keys: Span, band: int | None) -> jax.Array:
    """Which keys a query sees: bool [batch, queries, keys]."""
    same = queries.segments_BT[:, :, None] == keys.segments_BT[:, None, :]
    distance = queries.positions_BT[:, :, None] - keys.positions_BT[:, None, :]
    seen = same & (distance >= 0)
    return seen if band is None else seen & (distance < band)
