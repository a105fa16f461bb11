"""Classes that can be known by heart or read off the context: the choice of Chan et al. (arXiv 2205.05055).

In training every class has one label for good, and a bursty episode also shows the query's class among its
demonstrations. So the query can be answered from the weights, or from the context; the held-out tasks leave
only one of the two.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from icl.errors import InputError, check_types
from icl.tasks.generated import GeneratedTask, check_generated, exact_split
from icl.tasks.registry import register
from icl.tasks.task import Example, Query, Split, TaskInstance, Template
from icl.tasks.words import first_letters, spell

Probe = Literal["novel", "relabelled", "in_weights", "in_weights_even"]
_MOST_KEYS = 2**17


@register("class_label")
@dataclasses.dataclass(frozen=True)
class ClassLabel:
    """Settings of the family of classes with labels.

    A class is a key of `key_length` of the first `letters` of `alphabet`. Of all keys `held_out_share` are
    held out, by their hash; of the others the first `num_classes` in the order of their hashes are trained
    on, class i with a fixed one of `labels` in turn. Which class a query asks for follows Zipf's law over
    that order with exponent `skew`, 0 for all alike.

    An episode is `context` demonstrations and the query. It is bursty with probability `burstiness`: its
    demonstrations then are of `context / copies` classes, the query's among them, `copies` times each. Else
    they are of so many classes once each, the query's not among them. No two classes of an episode share a
    label. `num_training_instances` 0 draws a fresh episode every time.
    """

    num_classes: int = 256
    key_length: int = 2
    letters: int = 26
    alphabet: str = "abcdefghijklmnopqrstuvwxyz"
    labels: str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    context: int = 8
    copies: int = 2
    burstiness: float = 0.9
    skew: float = 0.0
    separator: str = ""
    held_out_share: float = 0.25
    num_training_instances: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        check_generated(self)
        first_letters("ClassLabel", self.alphabet, self.letters)
        if self.key_length < 1 or self.letters**self.key_length > _MOST_KEYS:
            self._refuse("key_length", f"1 or more, and at most {_MOST_KEYS} keys in all")
        if self.copies < 1 or self.context % self.copies or self.context // self.copies < 2:
            self._refuse("context", f"a multiple of copies = {self.copies}, twice that or more")
        if len(set(self.labels)) < len(self.labels) or not self.labels.isprintable() or " " in self.labels:
            self._refuse("labels", "distinct printable characters")
        if set(self.labels) & set(self.alphabet[: self.letters]):
            self._refuse("labels", "no letter of the keys")
        if len(self.labels) <= self.context:
            self._refuse("labels", f"more than context = {self.context}")
        if not 0 <= self.burstiness <= 1:
            self._refuse("burstiness", "a probability from 0 to 1")
        if not 0 <= self.skew < float("inf"):
            self._refuse("skew", "0 or more")
        if self.separator[-1:].isspace() or set(self.separator) & set(self.alphabet + self.labels):
            self._refuse("separator", "nothing of alphabet and labels, and no space at its end")
        num_held_out = round(self.held_out_share * self.num_keys)
        if num_held_out <= self.context:
            self._refuse("held_out_share", f"one that holds out more than context = {self.context} keys")
        if not len(self.labels) <= self.num_classes <= self.num_keys - num_held_out:
            self._refuse(
                "num_classes",
                f"{len(self.labels)} (the labels) to {self.num_keys - num_held_out} (keys not held out)",
            )

    def _refuse(self, field: str, expected: str) -> None:
        raise InputError(f"ClassLabel.{field} = {getattr(self, field)!r}: expected {expected}")

    @property
    def num_keys(self) -> int:
        """How many keys there are."""
        return int(self.letters**self.key_length)

    def build(self, name: str) -> "tuple[ClassLabelTask, ...]":
        """The task that is trained on, and three that are only evaluated.

        NAME: held out are novel classes with random labels, in bursty episodes: only the context tells.
        NAME_relabelled: classes of training with other labels than theirs, likewise.
        NAME_in_weights: classes of training with their labels, the query's not in the context.
        NAME_in_weights_even: the same with all classes alike, whatever the skew.
        """
        return (
            ClassLabelTask(name, self, "novel"),
            ClassLabelTask(f"{name}_relabelled", self, "relabelled"),
            ClassLabelTask(f"{name}_in_weights", self, "in_weights"),
            ClassLabelTask(f"{name}_in_weights_even", self, "in_weights_even"),
        )


class ClassLabelTask(GeneratedTask):
    """Episodes over classes; what its held-out split asks is its probe."""

    def __init__(self, name: str, settings: ClassLabel, probe: Probe) -> None:
        super().__init__(name, settings)
        self.template = Template(separator=settings.separator)
        self.trained = probe == "novel"
        self._settings = settings
        self._probe = probe
        letters = first_letters("ClassLabel", settings.alphabet, settings.letters)
        codes = np.indices((settings.letters,) * settings.key_length).reshape(settings.key_length, -1).T
        keys = spell(letters[codes])
        training, held_out = exact_split(keys, settings.held_out_share, "class")
        self.classes = [keys[i] for i in training[: settings.num_classes]]
        """Keys of the trained classes, the most frequent first."""
        self.novel = [keys[i] for i in held_out]
        """Keys that training never shows."""
        self._shares = np.arange(1, settings.num_classes + 1) ** -float(settings.skew)

    def label(self, number: int) -> str:
        """The fixed label of a trained class."""
        return self._settings.labels[number % len(self._settings.labels)]

    def num_instances(self, split: Split) -> int | None:
        return super().num_instances(split) if self.trained or split == "held_out" else 0

    def draw(self, split: Split, rng: np.random.Generator) -> TaskInstance:
        """An episode; instances of the training split are those of training, whatever the probe."""
        settings = self._settings
        if split == "train":
            bursty = rng.random() < settings.burstiness
            return self._episode(self._known(rng, self._shares, bursty), bursty, known=True)
        if self._probe == "novel":
            numbers = rng.permutation(len(self.novel))[: self._num_shown(True)]
            labels = rng.permutation(len(settings.labels))
            pairs = [
                (self.novel[number], settings.labels[label])
                for number, label in zip(numbers, labels, strict=False)
            ]
            return self._episode(pairs, True, known=False)
        if self._probe == "relabelled":
            pairs = self._known(rng, self._shares, True)
            return self._episode(self._relabelled(pairs, rng), True, known=False)
        shares = self._shares if self._probe == "in_weights" else np.ones_like(self._shares)
        return self._episode(self._known(rng, shares, False), False, known=True)

    def queries(self, split: Split) -> Iterator[Query]:
        """The query of each episode in turn."""
        number = self.num_instances(split)
        for index in itertools.count() if number is None else range(number):
            instance = self.instance(split, index)
            assert isinstance(instance, ClassLabelInstance)
            yield Query(instance, instance.query, f"{index}:{instance.name}")

    def chance(self) -> float:
        """A guess among all labels."""
        return 1 / len(self._settings.labels)

    def _num_shown(self, bursty: bool) -> int:
        """Different classes of an episode, the query's included."""
        context = self._settings.context
        return context // self._settings.copies if bursty else context + 1

    def _known(self, rng: np.random.Generator, shares: np.ndarray, bursty: bool) -> list[tuple[str, str]]:
        """Classes of training by their shares, without repeating a class or label; the first is the query's.

        Ordered by exponential waiting times over shares, classes come as if drawn one after the other.
        """
        order = np.argsort(rng.standard_exponential(len(shares)) / shares)
        pairs: dict[str, str] = {}
        for number in order.tolist():
            pairs.setdefault(self.label(number), self.classes[number])
            if len(pairs) == self._num_shown(bursty):
                break
        return [(key, label) for label, key in pairs.items()]

    def _relabelled(self, pairs: list[tuple[str, str]], rng: np.random.Generator) -> list[tuple[str, str]]:
        """The same keys with other labels, none with its own."""
        while True:
            labels = [self._settings.labels[i] for i in rng.permutation(len(self._settings.labels))]
            if all(own != other for (_, own), other in zip(pairs, labels, strict=False)):
                return [(key, other) for (key, _), other in zip(pairs, labels, strict=False)]

    def _episode(self, pairs: list[tuple[str, str]], bursty: bool, *, known: bool) -> "ClassLabelInstance":
        """An instance of these classes, the query's first; `known` where the weights can tell them."""
        examples = [Example(key, label) for key, label in pairs]
        shown = examples * self._settings.copies if bursty else examples[1:]
        number = len(self._settings.labels)
        return ClassLabelInstance(self.name, shown, examples[0], number, known=known)


class ClassLabelInstance(TaskInstance):
    """The demonstrations of one episode, in any order, and its query after them.

    They have no exclusion key: the query stands among them by design, or does not.
    """

    def __init__(
        self, task: str, shown: Sequence[Example], query: Example, num_labels: int, *, known: bool
    ) -> None:
        self.task = task
        pairs = " ".join(sorted(f"{example.input}={example.target}" for example in shown))
        self.name = f"{pairs} ? {query.input}={query.target}"
        self.instruction: str | None = None
        self.query = query
        self._shown = list(shown)
        self._num_labels = num_labels
        self._known = known

    def demonstrations(self, rng: np.random.Generator) -> Iterator[Example]:
        for number in rng.permutation(len(self._shown)).tolist():
            yield self._shown[number]
        yield self.query

    def ceiling(self, query: Example, shown: Sequence[Example]) -> float:
        """Known by heart or looked up; else a guess among the labels that nothing shown has."""
        seen = {example.input: example.target for example in shown}
        if self._known or query.input in seen:
            return 1.0
        return 1 / (self._num_labels - len(set(seen.values())))
