"""Settings of the rows: tokenizer, mixture, row length, loss, corpora."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from icl.errors import InputError, check_types


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What rows hold.

    Attributes:
      tokenizer: "bytes", or the path of a SentencePiece model.
      row_length: Positions of a row.
      seed: Seed of the rows; held-out rows do not depend on it.
      weights: Shares of the episodes by family (mixture key); 0 evaluates a family without training on it.
      leave_out: Families that never feed training rows, whatever their weight, but are evaluated.
      instruction_share: Share of the episodes that begin with their instruction, where there is one.
      max_examples: Demonstrations of an episode at most; 0 fills the row.
      min_examples: Demonstrations of an episode at least, unless it is alone in its row: a short rest of a
        row stays empty rather than hold an episode from which nothing can be learnt.
      loss_on: "answers" trains on answers and their delimiters, "all" on every token of an episode. Corpus
        text is always trained on.
      answer_positions: Answers take at most this many positions of a row, so that the last layer and the
        loss need not be computed at more; 0 sets no limit. Half the row is none where answers are not longer
        than inputs.
      mask_segments: Whether documents of a corpus that share a row are hidden from each other. Episodes
        always are.
      corpus: Text files, as paths or globs, plain or gzipped; one file is one document.
      corpus_share: Share of every row's positions that holds corpus text; without families, all of them do.
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
    answer_positions: int = 0
    mask_segments: bool = True
    corpus: tuple[str, ...] = ()
    corpus_share: float = 0.5

    def __post_init__(self) -> None:
        check_types(self)
        self._require("row_length", self.row_length >= 8, "at least 8 positions")
        self._require("instruction_share", 0 <= self.instruction_share <= 1, "a share from 0 to 1")
        self._require("max_examples", self.max_examples >= 0, "0 (fill the row) or more")
        self._require("answer_positions", self.answer_positions >= 0, "0 (no limit) or more")
        self._require("min_examples", self.min_examples >= 1, "at least 1")
        self._require("weights", all(0 <= w < float("inf") for w in self.weights.values()), "0 or more each")
        trained = bool(self.trained_weights)
        self._require("weights", trained or bool(self.corpus), "a family to train on, or a DataConfig.corpus")
        self._require("corpus_share", 0 < self.corpus_share <= 1, "a share above 0, up to 1")
        held = 0 < self.corpus_positions < self.row_length or not (trained and self.corpus)
        self._require("corpus_share", held, "a share that leaves positions to both corpus and episodes")

    def _require(self, field: str, holds: bool, expected: str) -> None:
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
    def scored_positions(self) -> int:
        """Positions of a row at which there is a loss, at most."""
        if not self.answer_positions or self.loss_on == "all":
            return self.row_length
        return min(self.row_length, self.answer_positions + self.corpus_positions)

    @property
    def corpus_positions(self) -> int:
        """Positions of a row that hold corpus text."""
        if not self.corpus:
            return 0
        return round(self.corpus_share * self.row_length) if self.trained_weights else self.row_length
