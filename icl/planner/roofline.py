"""How long a step takes at least: its matmuls at the chip's peak, its transfers at the peak of its links.

Both are bounds, as neither reaches its peak. If every transfer hides behind a matmul a step takes the longer
of the two; if none does, their sum. Traffic to HBM is left out.
"""

import dataclasses

from icl.parallel.chips import Chip
from icl.planner.hlo import Program

_TIMES_SENT = {"all-reduce": 2.0}
"""How often a ring sends what a collective counts; once, but for an all-reduce: scatter, then gather."""


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds of one execution: `compute` of matmuls (recomputed ones too), `transfer` of collectives."""

    compute: float
    transfer: float

    @property
    def least(self) -> float:
        """If transfers hide behind matmuls."""
        return max(self.compute, self.transfer)

    @property
    def most(self) -> float:
        """If none does."""
        return self.compute + self.transfer


def roofline(chip: Chip, num_chips: int, program: Program, attention_flops: float) -> Roofline | None:
    """The roofline of a compiled program; None for a chip whose speed is not known.

    Args:
      chip: that it runs on.
      num_chips: how many of them.
      program: what each of them does.
      attention_flops: of all chips, which fused kernels do and the program does not show.
    """
    if chip.flops is None or chip.link is None:
        return None
    hidden = attention_flops / num_chips if program.custom_calls.get("tpu_custom_call") else 0.0
    compute = (program.flops + hidden) / chip.flops
    sent = sum(
        found.total_bytes * (found.group_size - 1) / found.group_size * _TIMES_SENT.get(found.kind, 1.0)
        for found in program.collectives
        if found.group_size > 1
    )
    return Roofline(compute, sent / chip.link)
