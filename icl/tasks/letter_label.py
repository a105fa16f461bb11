"""Words classified by one of their letters: the stand-in for classification by a feature among noise.

An instance gives every letter a label; the label of a word is that of its letter at one place. It is learnt
by finding a demonstration with the same letter there.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from icl.errors import InputError, check_types
from icl.tasks.generated import GeneratedTask, check_generated, check_hash_split, is_held_out
from icl.tasks.registry import register
from icl.tasks.task import Example, Split, TaskInstance
from icl.tasks.words import distinct_words, first_letters, spell


@register("letter_label")
@dataclasses.dataclass(frozen=True)
class LetterLabel:
    """Settings of the family of maps from a letter of a word to a label.

    Words of `length` are written with the first `letters` of `alphabet`; the letter at `place`, from 0,
    decides. An instance draws a label for each letter from the characters of `labels`; several letters may
    share one. Of all maps `held_out_share` are held out, by a hash of the map. `num_training_instances` 0
    draws a fresh one for every episode.
    """

    letters: int = 8
    alphabet: str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    length: int = 5
    place: int = 0
    labels: str = "0123456789"
    held_out_share: float = 0.25
    num_training_instances: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        check_generated(self)
        first_letters("LetterLabel", self.alphabet, self.letters)
        if len(set(self.labels)) < max(2, len(self.labels)) or not self.labels.isprintable():
            raise InputError(
                f"LetterLabel.labels = {self.labels!r}: expected two or more distinct printable characters"
            )
        if " " in self.labels:
            raise InputError(f"LetterLabel.labels = {self.labels!r}: expected no space")
        if self.length < 1:
            raise InputError(f"LetterLabel.length = {self.length}: expected at least 1")
        if not 0 <= self.place < self.length:
            raise InputError(f"LetterLabel.place = {self.place}: expected 0 to {self.length - 1}")
        check_hash_split(self, len(self.labels) ** self.letters, 20)

    def build(self, name: str) -> "tuple[LetterLabelTask, ...]":
        """One task, of all maps."""
        return (LetterLabelTask(name, self),)


class LetterLabelTask(GeneratedTask):
    """All maps from letters to labels."""

    def __init__(self, name: str, settings: LetterLabel) -> None:
        super().__init__(name, settings)
        self._settings = settings
        self._letters = first_letters("LetterLabel", settings.alphabet, settings.letters)

    def draw(self, split: Split, rng: np.random.Generator) -> TaskInstance:
        settings = self._settings
        while True:
            chosen = rng.integers(0, len(settings.labels), len(self._letters))
            labels = "".join(settings.labels[i] for i in chosen)
            if is_held_out(settings.held_out_share, "letter label", labels) == (split == "held_out"):
                return LetterLabelInstance(self.name, self._letters, labels, settings)

    def chance(self) -> float:
        """A guess among all labels."""
        return 1 / len(self._settings.labels)


class LetterLabelInstance(TaskInstance):
    """One map. Words of one letter are lookup by nature and have no key."""

    def __init__(self, task: str, letters: np.ndarray, labels: str, settings: LetterLabel) -> None:
        self.task = task
        self.name = labels
        self.instruction: str | None = "label " + " ".join(
            f"{letter}={label}" for letter, label in zip(letters, labels, strict=True)
        )
        self._letters = letters
        self._settings = settings

    def demonstrations(self, rng: np.random.Generator) -> Iterator[Example]:
        place, length = self._settings.place, self._settings.length
        while True:
            for words in distinct_words(rng, len(self._letters), length):
                for word, number in zip(spell(self._letters[words]), words[:, place], strict=True):
                    yield Example(word, self.name[number], None if length == 1 else word)
            if length > 1:
                return

    def ceiling(self, query: Example, shown: Sequence[Example]) -> float:
        """Look-up of the letter that decides, or a guess among all labels."""
        place = self._settings.place
        seen = any(example.input[place] == query.input[place] for example in shown)
        return 1.0 if seen else 1 / len(self._settings.labels)
