"""What sharing prefixes saves: tokens and FLOPs to read, against every prompt with every option read whole.

Attention counts: a position that sees n keys costs the model's matmuls and 4 L H K n FLOPs for scores and
values. Logits and generated tokens, which cost the same either way, and padding are left out.
"""

import dataclasses
from collections.abc import Iterable

from icl import model
from icl.evaluation.requests import Request
from icl.model.config import ModelConfig


@dataclasses.dataclass(frozen=True)
class Reading:
    """Tokens and FLOPs of reading requests from shared prefixes, and each prompt with its option alone."""

    tokens: int = 0
    flops: float = 0.0
    tokens_alone: int = 0
    flops_alone: float = 0.0

    def __add__(self, other: "Reading") -> "Reading":
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Reading(*(a + b for a, b in pairs))

    def text(self) -> str:
        """The figures in a line."""
        if not self.tokens:
            return "nothing to read"
        return (
            f"{self.tokens:,} tokens and {self.flops:.2e} FLOPs to read, "
            f"{self.tokens_alone / self.tokens:.1f} and {self.flops_alone / self.flops:.1f} times fewer than "
            "each prompt read alone"
        )


def reading(requests: Iterable[Request], config: ModelConfig, *, is_shared: bool = True) -> Reading:
    """What requests cost; equal prefixes count once where requests of one prefix are read together."""
    total, seen = Reading(), set[tuple[int, ...]]()
    per_token = 2.0 * model.num_non_embedding_params(config)
    per_key = 4.0 * config.num_layers * config.num_heads * config.size_per_head

    def cost(first: int, last: int) -> float:
        """FLOPs of positions first <= p < last, each of which sees p + 1 keys."""
        return per_token * (last - first) + per_key * (last * (last + 1) - first * (first + 1)) / 2

    for request in requests:
        prefix = tuple(request.prefix)
        spans = [] if is_shared and prefix in seen else [(0, len(prefix))]
        seen.add(prefix)
        alone = []
        for branch in request.branches:
            spans.append((branch.cut, len(branch.tokens)))
            spans += [(option.cut, len(option.tokens) - 1) for option in branch.options]
            alone += [(0, len(option.tokens) - 1) for option in branch.options]
        total += Reading(
            sum(last - first for first, last in spans),
            sum(cost(*span) for span in spans),
            sum(last for _, last in alone),
            sum(cost(*span) for span in alone),
        )
    return total
