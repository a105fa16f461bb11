"""Arbitrary word-to-label maps: the stand-in for classification.

An instance gives a few words a label each; it is learnt by finding the word among the demonstrations.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from icl.errors import InputError, check_types
from icl.tasks.generated import GeneratedTask, is_held_out
from icl.tasks.registry import register
from icl.tasks.task import Example, Split, TaskInstance
from icl.tasks.words import check_alphabet, check_share, letters, spell


@register("word_label")
@dataclasses.dataclass(frozen=True)
class WordLabel:
    """Settings of the family of word-to-label maps.

    An instance labels `num_words` words of `word_length` letters, each with another of `labels`. Held-out
    instances use words that never occur in training: `held_out_share` of all words, by a hash of the word.
    `num_training_instances` 0 draws fresh words and labels for every episode.
    """

    alphabet: str = "ABCDEFGHIJ"
    labels: str = "0123456789"
    num_words: int = 4
    word_length: int = 3
    held_out_share: float = 0.2
    num_training_instances: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        check_alphabet("WordLabel.alphabet", self.alphabet)
        check_alphabet("WordLabel.labels", self.labels)
        check_share("WordLabel.held_out_share", self.held_out_share)
        if not 2 <= self.num_words <= len(self.labels):
            raise InputError(
                f"WordLabel.num_words = {self.num_words}: expected 2 to {len(self.labels)}, the number of labels"
            )
        rarer = min(self.held_out_share, 1 - self.held_out_share)
        if self.word_length < 1 or rarer * len(self.alphabet) ** self.word_length < 4 * self.num_words:
            raise InputError(
                f"WordLabel.word_length = {self.word_length}: expected words long enough that each split holds "
                f"at least {4 * self.num_words} of them"
            )
        if self.num_training_instances < 0:
            raise InputError(
                f"WordLabel.num_training_instances = {self.num_training_instances}: expected 0 or more"
            )

    def build(self, name: str) -> "tuple[WordLabelTask, ...]":
        """One task, of all maps."""
        return (WordLabelTask(name, self),)


class WordLabelTask(GeneratedTask):
    """All maps from words to labels."""

    def __init__(self, name: str, settings: WordLabel) -> None:
        super().__init__(name, settings.num_training_instances)
        self._settings = settings
        self._letters = letters(settings.alphabet)

    def draw(self, split: Split, rng: np.random.Generator) -> TaskInstance:
        settings = self._settings
        words: list[str] = []
        while len(words) < settings.num_words:
            codes = rng.integers(0, len(self._letters), (2 * settings.num_words, settings.word_length))
            for word in spell(self._letters[codes]):
                held_out = is_held_out(settings.held_out_share, "word", word)
                if held_out == (split == "held_out") and word not in words:
                    words.append(word)
        order = rng.permutation(len(settings.labels))[: settings.num_words]
        targets = [settings.labels[i] for i in order]
        return WordLabelInstance(self.name, words[: settings.num_words], targets)

    def chance(self) -> float:
        """A guess among all labels."""
        return 1 / len(self._settings.labels)


class WordLabelInstance(TaskInstance):
    """A few words with a label each; no key, for it is lookup by nature."""

    def __init__(self, task: str, words: list[str], targets: list[str]) -> None:
        self.task = task
        self.name = " ".join(sorted(f"{word}={target}" for word, target in zip(words, targets, strict=True)))
        self.instruction: str | None = "label " + " ".join(sorted(targets))
        self._examples = [Example(word, target) for word, target in zip(words, targets, strict=True)]

    def demonstrations(self, rng: np.random.Generator) -> Iterator[Example]:
        while True:
            for choice in rng.integers(0, len(self._examples), 32).tolist():
                yield self._examples[choice]
