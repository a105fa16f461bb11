"""Arbitrary word-to-label maps: the stand-in for classification.

An instance gives a few words a label each; it is learnt by finding the word among the demonstrations.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from icl.errors import InputError, check_types
from icl.tasks.generated import GeneratedTask, check_generated, check_hash_split, is_held_out
from icl.tasks.registry import register
from icl.tasks.task import Example, Split, TaskInstance
from icl.tasks.words import first_letters, spell


@register("word_label")
@dataclasses.dataclass(frozen=True)
class WordLabel:
    """Settings of the family of word-to-label maps.

    An instance labels `num_words` words of `word_length`, written with the first `letters` of `alphabet`,
    each with another character of `labels`. Held-out instances use words that never occur in training:
    `held_out_share` of all words, by a hash of the word. `num_training_instances` 0 draws fresh words and
    labels for every episode.
    """

    letters: int = 10
    alphabet: str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    labels: str = "0123456789"
    num_words: int = 4
    word_length: int = 3
    held_out_share: float = 0.2
    num_training_instances: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        check_generated(self)
        first_letters("WordLabel", self.alphabet, self.letters)
        if len(set(self.labels)) < len(self.labels) or not self.labels.isprintable() or " " in self.labels:
            raise InputError(f"WordLabel.labels = {self.labels!r}: expected distinct printable characters")
        if not 2 <= self.num_words <= len(self.labels):
            raise InputError(
                f"WordLabel.num_words = {self.num_words}: expected 2 to {len(self.labels)} (the labels)"
            )
        if self.word_length < 1:
            raise InputError(f"WordLabel.word_length = {self.word_length}: expected at least 1")
        check_hash_split(self, self.letters**self.word_length, 10 * self.num_words)

    def build(self, name: str) -> "tuple[WordLabelTask, ...]":
        """One task, of all maps."""
        return (WordLabelTask(name, self),)


class WordLabelTask(GeneratedTask):
    """All maps from words to labels."""

    def __init__(self, name: str, settings: WordLabel) -> None:
        super().__init__(name, settings)
        self._settings = settings
        self._letters = first_letters("WordLabel", settings.alphabet, settings.letters)

    def draw(self, split: Split, rng: np.random.Generator) -> TaskInstance:
        settings = self._settings
        words: list[str] = []
        while len(words) < settings.num_words:
            codes = rng.integers(0, len(self._letters), (2 * settings.num_words, settings.word_length))
            for word in spell(self._letters[codes]):
                held_out = is_held_out(settings.held_out_share, word)
                if held_out == (split == "held_out") and word not in words:
                    words.append(word)
        order = rng.permutation(len(settings.labels))[: settings.num_words]
        targets = [settings.labels[i] for i in order]
        return WordLabelInstance(self.name, words[: settings.num_words], targets, len(settings.labels))

    def chance(self) -> float:
        """A guess among all labels."""
        return 1 / len(self._settings.labels)


class WordLabelInstance(TaskInstance):
    """A few words with a label each; no key, for it is lookup by nature."""

    def __init__(self, task: str, words: list[str], targets: list[str], num_labels: int) -> None:
        self.task = task
        self._num_labels = num_labels
        self.name = " ".join(sorted(f"{word}={target}" for word, target in zip(words, targets, strict=True)))
        self.instruction: str | None = "label " + " ".join(sorted(targets))
        self._examples = [Example(word, target) for word, target in zip(words, targets, strict=True)]

    def demonstrations(self, rng: np.random.Generator) -> Iterator[Example]:
        while True:
            for choice in rng.integers(0, len(self._examples), 32).tolist():
                yield self._examples[choice]

    def ceiling(self, query: Example, shown: Sequence[Example]) -> float:
        """Look-up, and a guess among the labels not shown."""
        seen = {example.input: example.target for example in shown}
        return 1.0 if query.input in seen else 1 / (self._num_labels - len(seen))
