"""What the model is trained on: rows of packed segments, as plain arrays.

Dimension letters: B batch, T positions of a row.
"""

from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

NO_SEGMENT = 0
NO_EXAMPLE = -1


class Batch(NamedTuple):
    """Rows as they go through `jit`; one source of truth for each of masking, positions and loss.

    `inputs_BT`    int32  token ids; unused positions hold the pad id.
    `targets_BT`   int32  the token that follows each input within its segment.
    `segments_BT`  int32  1, 2, ... within a row; 0 where nothing stands. Attention and convolution never
                          cross from one segment to another.
    `positions_BT` int32  position within the segment, from 0.
    `weights_BT`   f32    loss weight of predicting the target.
    `examples_BT`  int32  index K of the example whose answer the target belongs to (= the number of
                          demonstrations before it); -1 where the target is no answer.
    `tasks_BT`     int32  index of the task or corpus in the mixture; -1 where nothing stands.
    `excluded_BT`  int32  at a segment's first position, held-out examples passed over in drawing it.
    """

    inputs_BT: ArrayLike
    targets_BT: ArrayLike
    segments_BT: ArrayLike
    positions_BT: ArrayLike
    weights_BT: ArrayLike
    examples_BT: ArrayLike
    tasks_BT: ArrayLike
    excluded_BT: ArrayLike


def empty_row(length: int, pad_id: int) -> Batch:
    """A row of `length` positions with nothing in it; the arrays are [length] and writable."""
    return Batch(
        inputs_BT=np.full(length, pad_id, np.int32),
        targets_BT=np.full(length, pad_id, np.int32),
        segments_BT=np.zeros(length, np.int32),
        positions_BT=np.zeros(length, np.int32),
        weights_BT=np.zeros(length, np.float32),
        examples_BT=np.full(length, NO_EXAMPLE, np.int32),
        tasks_BT=np.full(length, -1, np.int32),
        excluded_BT=np.zeros(length, np.int32),
    )
