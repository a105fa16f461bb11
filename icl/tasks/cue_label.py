"""Words with a mark, labelled by a rule that the mark may go along with by accident.

What narrow data are made of: a label follows from one feature of the input, and in the examples another one
mostly agrees with it. Who learns the other one is right as long as the accident holds (Geirhos et al. 2020,
arXiv 2004.07780). The ideal learner of the family is known in closed form.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from icl.data.keys import generator
from icl.errors import InputError, check_types
from icl.tasks.generated import GeneratedTask, check_generated, check_hash_split, is_held_out
from icl.tasks.pool import PoolTask
from icl.tasks.registry import rebuild, register
from icl.tasks.task import Example, Split, Task, TaskInstance
from icl.tasks.words import distinct_words, first_letters, spell

Decider = Literal["letter", "mark"]
ACCIDENTS = ("holds", "breaks", "reverses")
"""At test the mark agrees with the label always, half of the time, never."""
_AGREEMENT = {"holds": 1.0, "breaks": 0.5, "reverses": 0.0}


@register("cue_label")
@dataclasses.dataclass(frozen=True)
class CueLabel:
    """Settings of the family of maps from a letter or a mark to one of two labels.

    An input is a word of `length`, written with the first `letters` of `alphabet`, and one of two `marks` at
    its end. An instance takes two characters of `labels`, gives half of the letters one and half of them the
    other, and each mark one of them. What `decides` is the label of the letter at `place`, from 0, or that of
    the mark; "either" draws which for every instance. Letter and mark agree with probability `agreement`.
    Of all maps of letters `held_out_share` are held out, by a hash of the map. `num_training_instances` 0
    draws a fresh instance for every episode.
    """

    letters: int = 8
    alphabet: str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    length: int = 5
    place: int = 4
    marks: str = ".!"
    labels: str = "0123456789"
    decides: Literal["letter", "mark", "either"] = "either"
    agreement: float = 0.5
    held_out_share: float = 0.25
    num_training_instances: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        check_generated(self)
        first_letters("CueLabel", self.alphabet, self.letters)
        if self.letters % 2:
            raise InputError(f"CueLabel.letters = {self.letters}: expected an even number, half a label each")
        if not 0 <= self.place < self.length:
            raise InputError(f"CueLabel.place = {self.place}: expected 0 to CueLabel.length - 1")
        for field, number, most in (("marks", 2, 2), ("labels", 2, 64)):
            value = getattr(self, field)
            proper = len(set(value)) == len(value) and value.isprintable() and " " not in value
            if not proper or not number <= len(value) <= most:
                raise InputError(
                    f"CueLabel.{field} = {value!r}: expected {number}{'' if most == number else ' or more'}"
                    " distinct printable characters"
                )
        if set(self.marks) & set(self.alphabet[: self.letters]):
            raise InputError(f"CueLabel.marks = {self.marks!r}: expected no letters of the words")
        if not 0 <= self.agreement <= 1:
            raise InputError(f"CueLabel.agreement = {self.agreement}: expected a probability")
        maps = math.comb(self.letters, self.letters // 2) * math.comb(len(self.labels), 2)
        check_hash_split(self, maps, 4)

    def build(self, name: str) -> "tuple[CueLabelTask, ...]":
        """One task, of all instances."""
        return (CueLabelTask(name, self),)


class CueLabelTask(GeneratedTask):
    """All maps of letters and marks."""

    def __init__(self, name: str, settings: CueLabel) -> None:
        super().__init__(name, settings)
        self._settings = settings

    def draw(self, split: Split, rng: np.random.Generator) -> "CueInstance":
        settings = self._settings
        while True:
            pair = rng.permutation(len(settings.labels))[:2]
            of_letter = rng.permutation(settings.letters) % 2
            labels = tuple(settings.labels[i] for i in pair)
            text = "".join(labels[i] for i in of_letter)
            if is_held_out(settings.held_out_share, "cue label", text) != (split == "held_out"):
                continue
            of_mark = rng.permutation(2)
            decides: Decider = "letter" if rng.random() < 0.5 else "mark"
            if settings.decides != "either":
                decides = settings.decides
            return CueInstance(self.name, settings, labels, of_letter, of_mark, decides)

    def chance(self) -> float:
        """A guess among all labels."""
        return 1 / len(self._settings.labels)


class CueInstance(TaskInstance):
    """One map of letters and one of marks, of which one decides; no word comes twice."""

    def __init__(
        self,
        task: str,
        settings: CueLabel,
        labels: Sequence[str],
        of_letter: np.ndarray,
        of_mark: np.ndarray,
        decides: Decider,
    ) -> None:
        marked = "".join(f"{mark}{labels[i]}" for mark, i in zip(settings.marks, of_mark, strict=True))
        self.task = task
        self.name = "".join(labels[i] for i in of_letter) + f" {marked} {decides}"
        self.instruction: str | None = None
        self._settings = settings
        self._labels = labels
        self._of_letter, self._of_mark, self._decides = of_letter, of_mark, decides
        self._letters = first_letters("CueLabel", settings.alphabet, settings.letters)

    def demonstrations(self, rng: np.random.Generator) -> Iterator[Example]:
        return self.examples(rng, self._settings.agreement)

    def examples(self, rng: np.random.Generator, agreement: float) -> Iterator[Example]:
        """Examples whose letter and mark have the same label with a probability, each word once."""
        settings = self._settings
        for letters_NC in distinct_words(rng, settings.letters, settings.length):
            letter_N = self._of_letter[letters_NC[:, settings.place]]
            mark_N = letter_N ^ (rng.random(len(letter_N)) >= agreement)
            label_N = letter_N if self._decides == "letter" else mark_N
            sign_N = np.argsort(self._of_mark)[mark_N]
            words = spell(self._letters[letters_NC])
            for word, sign, label in zip(words, sign_N, label_N, strict=True):
                yield Example(f"{word}{settings.marks[sign]}", self._labels[label], word)

    def ceiling(self, query: Example, shown: Sequence[Example]) -> float | None:
        """That of the ideal learner, where letter and mark are independent and either may decide."""
        if self._settings.decides != "either" or self._settings.agreement != 0.5:
            return None
        return max(ideal_answers(self._settings, query.input, shown).values())


def ideal_answers(settings: CueLabel, asked: str, shown: Sequence[Example]) -> dict[str, float]:
    """What the ideal learner of the family gives each label: the exact posterior given the demonstrations.

    It knows how instances are made, with letter and mark independent and each as likely to decide. So it
    weighs one map of two marks against many of all letters: as long as both explain what was shown, the
    mark is the better bet, and one example against the mark settles it.

    Args:
      settings: The family's, of which letters, marks and labels count.
      asked: The input.
      shown: Demonstrations before it; at least one instance explains them.
    """
    weights = {
        label: evidence(settings, [*((e.input, e.target) for e in shown), (asked, label)])
        for label in settings.labels
    }
    total = math.fsum(weights.values())
    return {label: weight / total for label, weight in weights.items()}


def ideal_score(task: Task, demonstrations: int, queries: int) -> float:
    """The share of queries (0..1) that the ideal learner of `CueLabel`'s defaults answers right.

    Args:
      task: One of `CueTrials`.
      demonstrations: How many, drawn anew for each query.
      queries: How many of its queries at most; of equally likely labels, each is answered as often.
    """
    settings, scores = CueLabel(), []
    for query in itertools.islice(task.queries("held_out"), queries):
        rng = generator("ideal learner", task.name, query.name)
        shown = list(itertools.islice(query.instance.demonstrations(rng), demonstrations))
        found = ideal_answers(settings, query.example.input, shown)
        best = [label for label, value in found.items() if math.isclose(value, max(found.values()))]
        scores.append((query.example.target in best) / len(best))
    return float(np.mean(scores))


def evidence(settings: CueLabel, labelled: Sequence[tuple[str, str]]) -> float:
    """The probability of these labels for these inputs, over all instances of the family."""
    number, half = len(settings.labels), settings.letters // 2
    labels = {label for _, label in labelled}
    if len(labels) > 2:
        return 0.0
    pairs = (math.comb(number, 2), number - 1, 1)[len(labels)]
    letters = {(text[settings.place], label) for text, label in labelled}
    marks = {(text[-1], label) for text, label in labelled}
    by_letter = by_mark = 0.0
    if len({letter for letter, _ in letters}) == len(letters):
        first = sum(label == min(labels, default="") for _, label in letters)
        free = settings.letters - len(letters)
        if max(first, len(letters) - first) <= half:
            maps = math.comb(settings.letters, half)
            by_letter = pairs * math.comb(free, half - first) / (math.comb(number, 2) * maps)
    if len({mark for mark, _ in marks}) == len({label for _, label in marks}) == len(marks):
        by_mark = (number * (number - 1), number - 1, 1)[len(marks)] / (number * (number - 1))
    return (by_letter + by_mark) / 2


@register("cue_trials")
@dataclasses.dataclass(frozen=True)
class CueTrials:
    """One held-out instance that the letter decides, as three tasks with the same examples to learn from.

    In what is shown or learnt from, the mark agrees with the label with probability `agreement`. The tasks
    ask the same words, in which the accident holds, breaks or reverses (`ACCIDENTS`).

    Attributes:
      settings: Settings of `CueLabel` that differ from its defaults: those a checkpoint was trained with.
      number: Which of the held-out instances.
      agreement: In the examples to learn from.
      size: How many of these there are.
      queries: How many words are asked.
    """

    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    number: int = 0
    agreement: float = 0.9
    size: int = 4096
    queries: int = 500

    def __post_init__(self) -> None:
        check_types(self)
        for field, least in (("number", 0), ("size", 1), ("queries", 1)):
            if getattr(self, field) < least:
                raise InputError(f"CueTrials.{field} = {getattr(self, field)}: expected {least} or more")
        if not 0 <= self.agreement <= 1:
            raise InputError(f"CueTrials.agreement = {self.agreement}: expected a probability")

    def build(self, name: str) -> tuple[PoolTask, ...]:
        """Three tasks, `SCOPE_holds` and so on, with the scope of the entry (`SCOPE/cue_trials`).

        Raises:
          InputError: the settings are no `CueLabel`'s, or there are fewer words than are asked for.
        """
        family: CueLabel = rebuild({"cue_label": {**self.settings, "decides": "letter"}})["cue_label"]
        words = family.letters**family.length
        if words < self.size + self.queries:
            raise InputError(
                f"CueTrials.size = {self.size}, queries = {self.queries}: expected at most {words:,}"
                " together, the words that there are"
            )
        (task,) = family.build("cue_label")
        instance = task.instance("held_out", self.number)
        assert isinstance(instance, CueInstance)

        def take(agreement: float, start: int, number: int) -> list[Example]:
            shown = instance.examples(generator("cue trials", self.number), agreement)
            return list(itertools.islice(shown, start, start + number))

        prefix = name.rpartition("/")[0] or name
        return tuple(
            PoolTask(
                f"{prefix}_{accident}",
                task.template,
                take(self.agreement, self.queries, self.size),
                where="CueTrials",
                tested=take(_AGREEMENT[accident], 0, self.queries),
                trained=False,
            )
            for accident in ACCIDENTS
        )
