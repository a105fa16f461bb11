"""Where a block lets its activations be read and changed (`icl.analysis.hooks` does so).

Shapes: B batch, T query positions, S key positions, H heads, G key/value heads, K head size.
"""

from typing import Literal, Protocol

import jax

Output = Literal["attention", "mlp"]
"""What a block adds to the residual stream."""


class Taps(Protocol):
    """What reads and changes the activations of one block while it is traced."""

    def __call__(self, site: Output, value: jax.Array) -> jax.Array:
        """What goes on in place of an output, [batch, length, embed]."""

    def attend(
        self,
        o_BTHK: jax.Array,
        q_BTHK: jax.Array,
        k_BGSK: jax.Array,
        v_BGSK: jax.Array,
        seen_BTS: jax.Array,
    ) -> jax.Array:
        """What goes on in place of the heads' outputs `o`, which stand before the output projection.

        Queries, keys and values are those that attention saw: after short convolution, norm and rotation.
        """
