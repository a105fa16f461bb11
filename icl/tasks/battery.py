"""What the generated tasks of the GPT-3 paper share (arXiv 2005.14165, section 3.9): endless examples.

One instance a split, whose examples are drawn in chunks: those of the held-out split are decided by a hash of
their content, the same for all tasks.
"""

import abc
import itertools
from collections.abc import Iterator

import numpy as np

from icl.data.keys import digest, generator
from icl.tasks.task import Example, Query, Split, Task, TaskInstance, Template

CHUNK = 48
_MAX_REPEATS = 1000


class BatteryTask(Task):
    """A task with one instance a split; subclasses draw its examples."""

    def __init__(self, name: str, template: Template, instruction: str | None, content: str) -> None:
        """`content` names by content what examples are made of."""
        self.name = name
        self.template = template
        self.instruction = instruction
        self._fingerprint = digest(name, str(template), str(instruction), content)

    @abc.abstractmethod
    def draw(self, split: Split, rng: np.random.Generator) -> list[Example]:
        """Up to a chunk of examples of the split."""

    def num_instances(self, split: Split) -> int | None:
        return 1

    def instance(self, split: Split, index: int) -> TaskInstance:
        if index:
            raise IndexError(f"task {self.name!r} has no {split} instance {index}")
        return _Instance(self, split)

    def queries(self, split: Split) -> Iterator[Query]:
        """Distinct examples in a fixed order; ends when no new one is found."""
        instance = self.instance(split, 0)
        seen: set[str] = set()
        repeats = 0
        for example in instance.demonstrations(generator("queries", self.name, split)):
            repeats += 1
            if example.input not in seen:
                repeats = 0
                seen.add(example.input)
                yield Query(instance, example, f"{self.name}:{example.input}")
            if repeats == _MAX_REPEATS:
                return

    def fingerprint(self) -> str:
        return self._fingerprint


class _Instance(TaskInstance):
    """All examples of one split."""

    def __init__(self, task: BatteryTask, split: Split) -> None:
        self.task = self.name = task.name
        self.instruction = task.instruction
        self._draw = task.draw
        self._split = split

    def demonstrations(self, rng: np.random.Generator) -> Iterator[Example]:
        return itertools.chain.from_iterable(self._draw(self._split, rng) for _ in itertools.count())


def content_fractions(content_NC: np.ndarray) -> np.ndarray:
    """A number in [0, 1) for each row of integers that the row decides (splitmix64, a column at a time)."""
    with np.errstate(over="ignore"):
        hash_N = np.zeros(len(content_NC), np.uint64)
        for column_N in content_NC.astype(np.uint64).T:
            hash_N = (hash_N ^ column_N) + np.uint64(0x9E3779B97F4A7C15)
            hash_N = (hash_N ^ hash_N >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
            hash_N = (hash_N ^ hash_N >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
            hash_N ^= hash_N >> np.uint64(31)
    return hash_N.astype(np.float64) / 2.0**64
