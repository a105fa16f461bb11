"""What a task is: examples, how they are worded, task instances, and queries to evaluate.

A `Task` yields `TaskInstance`s (one cipher, one file of word pairs), an instance yields `Example`s.
Everything random is drawn from the generator that the caller passes, so a row or a prompt is a pure
function of its key.
"""

import abc
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from icl.tasks.exclusion import input_identity

Split = Literal["train", "held_out"]
AnswerRule = Literal["exact", "squad", "coqa", "drop"]
OptionRule = Literal["sum", "token", "char", "byte", "unconditional", "calibrated", "channel"]
CorpusMetric = Literal["bleu", "macro_f1", "f1a", "group_accuracy", "record_em", "record_f1", "perplexity"]
SPLITS: tuple[Split, ...] = ("train", "held_out")


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """One input and its target.

    `key` is the exclusion key: no demonstration may share it with the query. None says that the task is
    lookup by nature (design page, 5.4): the query may stand among its demonstrations, and records say so.
    `choices` holds the options of a multiple-choice example, the target among them. `ending` is the text that
    all of them end in, where only that is scored (partial evaluation, as of Winograd schemas). `aliases` are
    further right answers; demonstrations show the target. `group` names what a corpus metric puts together:
    the question whose answers MultiRC judges one by one.
    """

    input: str
    target: str
    key: str | None = None
    choices: tuple[str, ...] = ()
    ending: str = ""
    aliases: tuple[str, ...] = ()
    group: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Template:
    """How an example and an instruction are written.

    A context never ends in a space; the completion owns its leading space (`target_prefix`). `alone` writes a
    query without demonstrations, where that has another form; its delimiter is the same, and no instruction
    stands before it.
    """

    input_prefix: str = ""
    separator: str = ">"
    target_prefix: str = ""
    delimiter: str = "\n"
    instruction_delimiter: str = "\n"
    alone: "Template | None" = None

    def after(self, demonstrations: int) -> "Template":
        """How a query is written after so many demonstrations."""
        return self if demonstrations or self.alone is None else self.alone

    def context(self, example: Example) -> str:
        """The text of the input up to where the answer begins."""
        return f"{self.input_prefix}{example.input}{self.separator}"

    def completion(self, example: Example) -> str:
        """The answer as it stands after the context, without the delimiter that closes it."""
        return f"{self.target_prefix}{example.target}"

    def instruction(self, text: str | None) -> str:
        """The instruction line, or nothing."""
        return "" if not text else f"{text}{self.instruction_delimiter}"


class TaskInstance(abc.ABC):
    """One concrete task: a cipher, a position map, a file of word pairs."""

    task: str
    """Name of the task it belongs to."""
    name: str
    """Stable and unique among the instances of the task; the statistics cluster by it."""
    instruction: str | None
    """What it asks, in words; None where it has none."""

    @abc.abstractmethod
    def demonstrations(self, rng: np.random.Generator) -> Iterator[Example]:
        """Examples in random order: endless for generated tasks, each once for a finite pool.

        An iterator, so the first K of K+1 are the first K: nested by construction.
        """

    def episode(self, rng: np.random.Generator) -> Iterator[Example]:
        """Examples in random order of which each is a test, for K-curves from one pass.

        They are the demonstrations, unless the instance keeps examples to test apart from them.
        """
        return self.demonstrations(rng)

    def ceiling(self, query: Example, shown: Sequence[Example]) -> float | None:
        """The best exact-match rate (0..1) that these demonstrations allow, without the instruction.

        For one who knows how the family is made, but of this instance only what they show: what can be read
        off them or excluded, and a guess among what remains. None where that is not known.
        """
        del query, shown
        return None


@dataclasses.dataclass(frozen=True, slots=True)
class Query:
    """An example to answer, and the instance whose demonstrations go before it."""

    instance: TaskInstance
    example: Example
    name: str
    """Stable and unique within (task, split); keyed by content, never by position in a limited list."""


class Task(abc.ABC):
    """A named source of task instances with a training and a held-out split."""

    name: str
    template: Template
    trained: bool = True
    """Whether the task feeds training rows; a task that is held out as a whole does not."""
    answer_rule: AnswerRule = "exact"
    """How a generated answer is held against the right ones: as it stands, or without case, punctuation and
    articles, as a share of words too (SQuAD, arXiv 1606.05250); "coqa" leaves one human answer out in turn
    (CoQA, arXiv 1808.07042); "drop" compares numbers by value and sets of words (DROP, arXiv 1903.00161)."""
    option_rule: OptionRule = "token"
    """How its options compare, where its examples have some."""
    answer_context: str = "Answer:"
    """What stands before an option for the rule "unconditional"."""
    corpus_metrics: tuple[CorpusMetric, ...] = ()
    """Metrics of all its records together that are no mean over queries."""

    @abc.abstractmethod
    def num_instances(self, split: Split) -> int | None:
        """How many instances the split has; None where each index is a fresh one without end."""

    @abc.abstractmethod
    def instance(self, split: Split, index: int) -> TaskInstance:
        """Instance number `index` of a split, 0 <= index < num_instances(split); a pure function."""

    @abc.abstractmethod
    def queries(self, split: Split) -> Iterator[Query]:
        """Queries of a split in a fixed order that spreads over instances; take as many as wanted."""

    def size(self, split: Split) -> int | None:
        """How many examples the split has; None where they have no end."""
        del split
        return None

    def sample(self, split: Split, rng: np.random.Generator) -> TaskInstance:
        """A random instance of the split, as training rows take it."""
        number = self.num_instances(split)
        return self.instance(split, int(rng.integers(2**62 if number is None else number)))

    def identities(self, example: Example) -> tuple[str, ...]:
        """Names under which a list of held-out examples may know this one (`icl.tasks.exclusion`)."""
        return (input_identity(example.input),)

    def labels(self) -> tuple[str, ...]:
        """The answers that all of its examples choose from; none where each has answers of its own."""
        return ()

    def fingerprint(self) -> str:
        """Names what the task holds by its content; rows made of other content are other rows."""
        return self.name

    def chance(self) -> float:
        """Exact-match rate of a guess among the answers that the form allows (0..1)."""
        return 0.0
