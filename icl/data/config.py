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
        The tasks of a family share alike, unless there is a temperature.
      leave_out: Families that never feed training rows, whatever their weight, but are evaluated.
      instruction_share: Share of the episodes that begin with their instruction, where there is one.
      max_examples: Demonstrations of an episode at most; 0 fills the row.
      min_examples: Demonstrations of an episode at least, unless it is alone in its row: a short rest of a
        row stays empty rather than hold an episode from which nothing can be learnt.
      loss_on: "answers" trains on answers and their delimiters, "query" on the last of an episode alone,
        "all" on every token of it. Corpus text is always trained on.
      answer_positions: Answers take at most this many positions of a row, so that the last layer and the
        loss need not be computed at more; 0 sets no limit. Half the row is none where answers are not longer
        than inputs.
      mask_segments: Whether documents of a corpus that share a row are hidden from each other. Episodes
        always are.
      corpora: Corpora by name. Each is a list of sources: text files, folders or globs, JSONL files with a
        text field (`FILE#FIELD`), TFDS data sets (`tfds:wiki40b/en`), or one folder that
        `tools/prepare_corpus.py` made.
      corpus_weights: Shares of the rows' corpus slots by corpus; without any, by size (see `temperature`).
      corpus_share: Share of every row's positions that holds corpus text; without families, all of them do.
      curriculum: New weights of families and corpora, by the number of tokens from which on they hold; what
        is not named keeps its weight. `{1e6: {"cipher": 0}}`.
      temperature: Where it is not 0, a task's weight is multiplied by its number of training examples to the
        power of 1 / temperature, and so is a corpus's by its tokens, if it has no weight of its own.
      size_limit: For the temperature, larger tasks count as this large, and those without end too; 0 for
        the largest.
      exclude: What training must not show: files of held-out examples, as paths or globs, and names of tasks
        of the mixture (wildcards are allowed), whose held-out examples are meant. No episode holds one of
        these inputs, nor operands or words that they are made of, and no corpus text their 13-grams.
    """

    tokenizer: str = "bytes"
    row_length: int = 1024
    seed: int = 0
    weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    leave_out: tuple[str, ...] = ()
    instruction_share: float = 0.5
    max_examples: int = 0
    min_examples: int = 2
    loss_on: Literal["answers", "query", "all"] = "answers"
    answer_positions: int = 0
    mask_segments: bool = True
    corpora: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    corpus_weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    corpus_share: float = 0.5
    curriculum: Mapping[int, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    temperature: float = 0.0
    size_limit: int = 0
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_types(self)
        self._require("row_length", self.row_length >= 8, "at least 8 positions")
        self._require("instruction_share", 0 <= self.instruction_share <= 1, "a share from 0 to 1")
        self._require("max_examples", self.max_examples >= 0, "0 (fill the row) or more")
        self._require("answer_positions", self.answer_positions >= 0, "0 (no limit) or more")
        self._require("min_examples", self.min_examples >= 1, "at least 1")
        self._require("weights", all(0 <= w < float("inf") for w in self.weights.values()), "0 or more each")
        self._require("temperature", self.temperature >= 0, "0 (none) or more")
        self._require("size_limit", self.size_limit >= 0, "0 (the largest) or more")
        self._require("corpora", all(self.corpora.values()), "at least one source each")
        positive = all(0 < w < float("inf") for w in self.corpus_weights.values())
        self._require("corpus_weights", positive, "more than 0 each")
        known = not self.corpus_weights or set(self.corpus_weights) == set(self.corpora)
        self._require("corpus_weights", known, f"one for each of {sorted(self.corpora)}")
        self._check_curriculum()
        trained = bool(self.trained_families)
        self._require("weights", trained or bool(self.corpora), "a family to train on, or DataConfig.corpora")
        self._require("corpus_share", 0 < self.corpus_share <= 1, "a share above 0, up to 1")
        held = 0 < self.corpus_positions < self.row_length or not (trained and self.corpora)
        self._require("corpus_share", held, "a share that leaves positions to both corpora and episodes")

    def _check_curriculum(self) -> None:
        for tokens, weights in self.curriculum.items():
            self._require("curriculum", tokens > 0, "numbers of tokens above 0")
            self._require(
                "curriculum", all(0 <= w < float("inf") for w in weights.values()), "0 or more each"
            )
            for key in weights:
                known = {*self.families, *self.corpora}
                self._require("curriculum", key in known, f"weights of {sorted(known)}, and not of {key!r}")
                self._require("curriculum", key not in self.leave_out, f"{key!r} not among leave_out")
                weighed = key not in self.corpora or bool(self.corpus_weights)
                self._require(
                    "curriculum", weighed, f"DataConfig.corpus_weights, as it changes that of {key!r}"
                )
        for _, families, corpora in self.stages:
            kept = any(families.values()) or not self.trained_families
            self._require("curriculum", kept, "a family above 0 at every stage")
            kept = any(corpora.values()) or not self.corpus_weights
            self._require("curriculum", kept, "a corpus above 0 at every stage")

    def _require(self, field: str, holds: bool, expected: str) -> None:
        if not holds:
            raise InputError(f"DataConfig.{field} = {getattr(self, field)!r}: expected {expected}")

    @property
    def families(self) -> tuple[str, ...]:
        """Mixture keys of all families that are trained on or evaluated."""
        return tuple(dict.fromkeys((*self.weights, *self.leave_out)))

    @property
    def stages(self) -> tuple[tuple[int, dict[str, float], dict[str, float]], ...]:
        """For each stage its first row, and the weights of families trained on and of corpora."""
        families = {key: w for key, w in self.weights.items() if key not in self.leave_out}
        corpora = dict(self.corpus_weights)
        found = [(0, dict(families), dict(corpora))]
        for tokens, weights in sorted(self.curriculum.items()):
            families |= {key: w for key, w in weights.items() if key not in self.corpora}
            corpora |= {key: w for key, w in weights.items() if key in self.corpora}
            found.append((-(-tokens // self.row_length), dict(families), dict(corpora)))
        return tuple(found)

    @property
    def trained_families(self) -> tuple[str, ...]:
        """Families that feed training rows at some stage, in the order of the settings."""
        return tuple(key for key in self.families if any(families.get(key) for _, families, _ in self.stages))

    @property
    def scored_positions(self) -> int:
        """Positions of a row at which there is a loss, at most."""
        if not self.answer_positions or self.loss_on == "all":
            return self.row_length
        return min(self.row_length, self.answer_positions + self.corpus_positions)

    @property
    def corpus_positions(self) -> int:
        """Positions of a row that hold corpus text."""
        if not self.corpora:
            return 0
        return round(self.corpus_share * self.row_length) if self.trained_families else self.row_length
