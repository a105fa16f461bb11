"""Settings of the rows: tokenizer, mixture, row length, loss, corpora."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from icl.errors import InputError, check_types


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What rows hold.

    `tokenizer` is "bytes" or the path of a SentencePiece model. `weights` maps families (mixture keys) to
    their shares of the rows; families in `leave_out` never feed training rows but are evaluated. A share
    `instruction_share` of the episodes begins with the instruction, where there is one. An episode holds at
    most `max_examples` demonstrations (0: as many as the row takes), and at least `min_examples` unless the
    row takes fewer. `loss_on` "answers" trains on answers and their delimiters; "all" on every token of an
    episode; corpus text is always trained on. `corpus` lists text files or globs; every row keeps
    `corpus_share` of its positions for it, and without families all of them. With `mask_segments` the
    documents of a row do not see each other; episodes never do.
    """

    tokenizer: str = "bytes"
    row_length: int = 1024
    seed: int = 0
    weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    leave_out: tuple[str, ...] = ()
    instruction_share: float = 0.5
    max_examples: int = 0
    min_examples: int = 2
    loss_on: Literal["answers", "all"] = "answers"
    mask_segments: bool = True
    corpus: tuple[str, ...] = ()
    corpus_share: float = 0.5

    def __post_init__(self) -> None:
        check_types(self)
        self._check("row_length", self.row_length >= 8, "at least 8 positions")
        self._check("instruction_share", 0 <= self.instruction_share <= 1, "a share from 0 to 1")
        self._check("corpus_share", 0 < self.corpus_share <= 1, "a share above 0, up to 1")
        self._check("max_examples", self.max_examples >= 0, "0 (fill the row) or a number of demonstrations")
        least = 1 <= self.min_examples <= (self.max_examples or self.min_examples)
        self._check("min_examples", least, "from 1 to max_examples")
        self._check("weights", all(w >= 0 for w in self.weights.values()), "weights of 0 or more")
        self._check(
            "weights", bool(self.families or self.corpus), "at least one family, or a DataConfig.corpus"
        )

    def _check(self, field: str, holds: bool, expected: str) -> None:
        if not holds:
            raise InputError(f"DataConfig.{field} = {getattr(self, field)!r}: expected {expected}")

    @property
    def families(self) -> tuple[str, ...]:
        """Mixture keys of all families that are trained on or evaluated."""
        return tuple(dict.fromkeys((*self.weights, *self.leave_out)))

    @property
    def trained_weights(self) -> dict[str, float]:
        """Shares of the families that feed training rows, in the order of the settings; they sum to 1."""
        weights = {key: w for key, w in self.weights.items() if w > 0 and key not in self.leave_out}
        return {key: w / sum(weights.values()) for key, w in weights.items()}

    @property
    def corpus_positions(self) -> int:
        """Positions of a row that hold corpus text."""
        if not self.corpus:
            return 0
        return round(self.corpus_share * self.row_length) if self.trained_weights else self.row_length
