"""How many rows each step takes: a batch that grows in stages, as GPT-3's did (arXiv 2005.14165, appendix B).

Everything is a closed form of the step: the rows before it, the rows it takes, the stage it lies in. So a
run resumes at any step, and any host finds its rows, without counting through the steps before.
"""

import bisect
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


class Stage(NamedTuple):
    """Steps of one size: from `first_step` on, before which `first_row` rows were taken, `rows` each."""

    first_step: int
    first_row: int
    rows: int


@dataclasses.dataclass(frozen=True)
class Ramp:
    """The stages of a run, in order; the first begins at step 0 and row 0, the last has no end."""

    stages: tuple[Stage, ...]

    def stage(self, step: int) -> Stage:
        """The stage of a step (counted from 0)."""
        return self.stages[bisect.bisect_right(self.stages, step, key=lambda stage: stage.first_step) - 1]

    def rows(self, step: int) -> int:
        """Rows of a step."""
        return self.stage(step).rows

    def first_row(self, step: int) -> int:
        """The first row of a step: the number of rows of all steps before it."""
        stage = self.stage(step)
        return stage.first_row + (step - stage.first_step) * stage.rows

    def steps(self, rows: int) -> int:
        """The least number of steps that take at least so many rows."""
        last = max((stage for stage in self.stages if stage.first_row < rows), default=self.stages[0])
        return last.first_step + -(-(rows - last.first_row) // last.rows)

    def full_steps(self, step: ArrayLike) -> jax.Array:
        """Rows before a step in units of the full batch, float32; the step itself where nothing ramps."""
        step = jnp.asarray(step, jnp.float32)
        full = self.stages[-1].rows
        found = jnp.zeros_like(step)
        for stage in self.stages:
            here = stage.first_row / full + (step - stage.first_step) * (stage.rows / full)
            found = jnp.where(step >= stage.first_step, here, found)
        return found


def make_ramp(full: int, start: int = 0, rows_to_full: int = 0, stages: int = 8) -> Ramp:
    """A batch that rises from `start` rows to `full`, linearly with the rows taken, in equal parts of them.

    Args:
      full: rows of a step after the ramp.
      start: rows of the first step, a divisor of `full`, of which every batch is a multiple; 0 for no ramp.
      rows_to_full: rows over which the batch rises; a stage ends with the first step that reaches its share.
      stages: sizes before the full one, at most.
    """
    if not start or start == full or not rows_to_full:
        return Ramp((Stage(0, 0, full),))
    sizes = sorted({start * round(1 + (full // start - 1) * i / stages) for i in range(stages)} - {full})
    made, step, row = [], 0, 0
    for number, rows in enumerate(sizes, start=1):
        made.append(Stage(step, row, rows))
        count = max(-(-(rows_to_full * number // len(sizes) - row) // rows), 1)
        step, row = step + count, row + count * rows
    return Ramp((*made, Stage(step, row, full)))
