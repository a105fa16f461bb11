"""A task of given examples, and trials of it, for tests that need no family and no file."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from icl.evaluation.config import EvalConfig
from icl.evaluation.plan import Trial
from icl.tasks import Example, Query, Split, Task, TaskInstance, Template

KS = (0, 1, 2, 4)
"""The numbers of demonstrations of trials made here."""


class ToyInstance(TaskInstance):
    """Shows every example once, in random order."""

    def __init__(self, task: str, name: str, examples: Sequence[Example], instruction: str | None) -> None:
        self.task = task
        self.name = name
        self.instruction: str | None = instruction
        self.examples = examples

    def demonstrations(self, rng: np.random.Generator) -> Iterator[Example]:
        return (self.examples[i] for i in rng.permutation(len(self.examples)))


class ToyTask(Task):
    """Instances with the same examples; each example is a query to each instance."""

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        name: str = "toy",
        instances: int = 1,
        instruction: str | None = "do it",
        template: Template | None = None,
        trained: bool = True,
    ) -> None:
        self.name = name
        self.template = template or Template()
        self.trained = trained
        self._instances = [ToyInstance(name, f"{name}{i}", examples, instruction) for i in range(instances)]

    def num_instances(self, split: Split) -> int:
        return len(self._instances)

    def instance(self, split: Split, index: int) -> ToyInstance:
        return self._instances[index]

    def queries(self, split: Split) -> Iterator[Query]:
        for instance in self._instances:
            for example in instance.examples:
                yield Query(instance, example, f"{instance.name}:{example.input}")

    def chance(self) -> float:
        return 0.25


def pairs(count: int, *, keyed: bool = True) -> list[Example]:
    """Examples w0>t0, w1>t1, ... with their inputs as keys, or with none."""
    return [Example(f"w{i}", f"t{i}", f"w{i}" if keyed else None) for i in range(count)]


def trial(task: Task, demonstrations: Sequence[Example], query: Example, **changes: Any) -> Trial:
    """A trial of one query after given demonstrations."""
    made = Trial(
        task=task,
        number=0,
        query=Query(task.instance("held_out", 0), query, query.input),
        cluster=query.input,
        seed=0,
        order=0,
        condition="gold",
        format="default",
        template=task.template,
        instruction=None,
        instructed=False,
        demonstrations=tuple(demonstrations),
        max_k=len(demonstrations),
        lost=0,
        budget=4,
        settings=EvalConfig(ks=KS),
    )
    return dataclasses.replace(made, **changes)
