"""Settings of fine-tuning: the checkpoint that a run starts from, and the few examples that it learns."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from icl.data.keys import digest
from icl.errors import InputError, check_types
from icl.training.description import Description

BEST = "best"
"""Folder, in a run's own, of the checkpoint that did best on the development examples."""


@dataclasses.dataclass(frozen=True)
class FineTuneConfig:
    """Where a run starts, and on how few examples of one task it trains.

    Attributes:
      checkpoint: Whose parameters the run starts with, with a fresh optimizer: a run's folder (its newest
        step), DIR@STEP, DIR/checkpoints/STEP, or hf:DIR for a Hugging Face folder. Model and tokenizer are
        the checkpoint's. "" starts afresh.
      examples: Labelled examples of one task that there are, those for development among them; 0 trains on
        the mixture of `DataConfig` as any run does.
      task: Which task of the mixture; may stay empty where there is one.
      development_share: Share of the examples, one at least, that decides when to stop and which step to
        keep, and is not trained on.
      instruction: Whether the task's instruction stands before every example.
      seed: Which examples are drawn, and the order in which they are trained on.
      eval_every: Steps between measurements on the development examples; there is one before the first step.
      patience: So many measurements in a row that are no better than the best end the run.
      test_queries: The task must have so many inputs left to be tested on.
    """

    checkpoint: str = ""
    examples: int = 0
    task: str = ""
    development_share: float = 0.2
    instruction: bool = False
    seed: int = 0
    eval_every: int = 20
    patience: int = 10
    test_queries: int = 500

    def __post_init__(self) -> None:
        check_types(self)
        self._require("examples", self.examples >= 0 and self.examples != 1, "2 or more, or 0 for none")
        share = self.development_share
        self._require("development_share", 0 < share < 1, "a share between 0 and 1")
        if self.examples:
            self._require("development_share", self.development < self.examples, "examples left to train on")
        for field in ("eval_every", "patience"):
            self._require(field, getattr(self, field) >= 1, "at least 1")
        for field in ("seed", "test_queries"):
            self._require(field, getattr(self, field) >= 0, "0 or more")

    def _require(self, field: str, holds: bool, expected: str) -> None:
        if not holds:
            raise InputError(f"FineTuneConfig.{field} = {getattr(self, field)!r}: expected {expected}")

    @property
    def development(self) -> int:
        """How many of the examples are for development."""
        return max(1, round(self.development_share * self.examples))


@dataclasses.dataclass(frozen=True)
class Start:
    """A checkpoint to start from, open but not read.

    `restore` reads its parameters, given a tree of shardings or None for the first device.
    """

    folder: Path
    step: int
    description: Description
    restore: Callable[[Any], Any]

    @property
    def identity(self) -> dict[str, Any]:
        """Names it by content: its step, and a digest of its parameters and their shapes."""
        sums = self.description.checksums
        of_params = (f"{name} {sums[name]}" for name in sorted(sums) if name.startswith("params/"))
        return {"step": self.step, "parameters": digest(*of_params)}

    @property
    def account(self) -> dict[str, Any]:
        """What a checkpoint says of where its run started."""
        said = self.description
        return {
            "checkpoint": str(self.folder),
            **self.identity,
            "tokens": said.tokens,
            "data_fingerprint": said.data_fingerprint,
            "trained_tasks": list(said.trained_tasks),
            "before": dict(said.start),
        }
