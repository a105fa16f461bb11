"""Tasks whose examples are a finite pool: of a file, or of a list of pairs.

A pool is split by a hash of the normalised input into a training part, which feeds rows and demonstrations,
and a test part, which holds the queries. So an input that stands in several pools is in the same part of
each. A shared pool is not split: it never feeds training rows, and its examples are queries and, for other
queries, demonstrations.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from icl.data.keys import digest, fraction
from icl.errors import InputError
from icl.tasks.exclusion import normalise
from icl.tasks.task import (
    AnswerRule,
    CorpusMetric,
    Example,
    OptionRule,
    Query,
    Split,
    Task,
    TaskInstance,
    Template,
)

MAX_LABELS = 32
"""More answers than these are no set of labels."""


class PoolTask(Task):
    """The examples of one pool, and its one instance a split."""

    def __init__(
        self,
        name: str,
        template: Template,
        examples: Sequence[Example],
        *,
        where: str,
        instruction: str | None = None,
        trained: bool = True,
        test_share: float = 0.2,
        shared: bool = False,
        tested: Sequence[Example] | None = None,
        answer_rule: AnswerRule = "exact",
        option_rule: OptionRule = "token",
        answer_context: str = "Answer:",
        corpus_metrics: tuple[CorpusMetric, ...] = (),
    ) -> None:
        """Splits the pool.

        Args:
          name: The task's name.
          template: How examples are written.
          examples: The pool, each input once (`distinct`).
          where: The file, for errors.
          instruction: What the task asks, in words.
          trained: Whether its training part feeds training rows.
          test_share: Share of the pool that is the test part.
          shared: Whether the pool is not split; it is not trained on then.
          tested: The test part, where it is a set of its own: the pool is all training part then, less what
            shares an exclusion key with the test part.
          answer_rule: How a generated answer is held against the right ones.
          option_rule: How options compare.
          answer_context: What stands before an option for the rule "unconditional".
          corpus_metrics: Metrics of all its answers together.

        Raises:
          InputError: a part is empty.
        """
        self.name = name
        self.template = template
        self.trained = trained and not shared
        self.answer_rule = answer_rule
        self.option_rule = option_rule
        self.answer_context = answer_context
        self.corpus_metrics = corpus_metrics
        parts: tuple[list[Example], list[Example]] = ([], [])
        if shared:
            parts = (list(examples), list(examples))
        elif tested is not None:
            keys = {example.key for example in tested}
            parts = ([example for example in examples if example.key not in keys], list(tested))
        else:
            for example in examples:
                parts[fraction("test part", normalise(example.input)) < test_share].append(example)
        train, test = parts
        self.num_test = len(test)
        if not train or not test:
            raise InputError(
                f"{where}: {len(train)} training and {len(test)} test examples; expected at least one of each"
            )
        self._instances: dict[Split, PoolInstance] = {
            "train": PoolInstance(name, instruction, train, train),
            "held_out": PoolInstance(name, instruction, train, test),
        }
        self._num_answers = len({example.target for example in (*train, *test)})
        self._labels = _labels(train if shared else (*train, *test))
        self._fingerprint = digest(name, str((instruction, self.template, self.trained, train, test)))

    def num_instances(self, split: Split) -> int | None:
        return int(self.trained or split == "held_out")

    def instance(self, split: Split, index: int) -> TaskInstance:
        if not 0 <= index < (self.num_instances(split) or 0):
            raise IndexError(f"task {self.name!r} has no {split} instance {index}")
        return self._instances[split]

    def size(self, split: Split) -> int | None:
        return len(self._instances[split].tested)

    def queries(self, split: Split) -> Iterator[Query]:
        """Each example to test once: the test part, or the training part for the split "train"."""
        for index in range(self.num_instances(split) or 0):
            instance = self.instance(split, index)
            named = [(digest(*_asked(example)), example) for example in self._instances[split].tested]
            for name, example in sorted(named, key=lambda pair: pair[0]):
                yield Query(instance, example, f"{self.name}:{name}")

    def fingerprint(self) -> str:
        return self._fingerprint

    def labels(self) -> tuple[str, ...]:
        """The options that all examples have; without options, the few answers that many examples share."""
        return self._labels

    def chance(self) -> float:
        """A guess among the options, or else among the different outputs of the pool."""
        options = [len(example.choices) for example in self._instances["held_out"].tested]
        if all(options):
            return float(np.mean([1 / number for number in options]))
        return 1 / self._num_answers


class PoolInstance(TaskInstance):
    """The one instance of a pool: demonstrations from one part, tests from another."""

    def __init__(
        self, task: str, instruction: str | None, shown: list[Example], tested: list[Example]
    ) -> None:
        self.task = task
        self.name = task
        self.instruction: str | None = instruction
        self.tested = tested
        self._shown = shown

    def demonstrations(self, rng: np.random.Generator) -> Iterator[Example]:
        return (self._shown[i] for i in rng.permutation(len(self._shown)))

    def episode(self, rng: np.random.Generator) -> Iterator[Example]:
        return (self.tested[i] for i in rng.permutation(len(self.tested)))


class Distinct:
    """The first example of every input; with the same input, another set of options is another example.

    `num_repeats` counts those left out because their input stood before with the same output, `num_conflicts`
    those with another one.
    """

    def __init__(self, examples: Iterable[Example]) -> None:
        found: dict[tuple[str, ...], Example] = {}
        self.num_repeats = self.num_conflicts = 0
        for example in examples:
            known = found.setdefault(_asked(example), example)
            if known is not example:
                self.num_repeats += known.target == example.target
                self.num_conflicts += known.target != example.target
        self.examples = list(found.values())


def _asked(example: Example) -> tuple[str, ...]:
    """What is asked: the input and its options in any order; twins of a schema may share the input."""
    return (example.input, *sorted(example.choices))


def _labels(examples: Sequence[Example]) -> tuple[str, ...]:
    options = {frozenset(example.choices) for example in examples}
    if any(options):
        return examples[0].choices if len(options) == 1 else ()
    targets = sorted({example.target for example in examples})
    return tuple(targets) if len(targets) <= MAX_LABELS and 2 * len(targets) < len(examples) else ()
