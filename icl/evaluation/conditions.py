"""What happens to the labels of the demonstrations, to see what a model takes from them.

`random_labels`: each demonstration is answered at random (Min et al. 2022, arXiv 2202.12837).
`flipped_labels`: each is answered wrongly, the same label always by the same other one where the task has
one set of labels (Wei et al. 2023, arXiv 2303.03846); the right answer to the query stays, so a model that
follows the demonstrations falls below chance. `abstract_labels`: labels are words that mean nothing here
("foo", "bar"), in the demonstrations and in the query (ibid.); only for tasks with one set of labels.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from icl.data.keys import generator
from icl.evaluation.config import Condition
from icl.tasks.task import Example, Query

ABSTRACT = (
    "foo",
    "bar",
    "baz",
    "qux",
    "quux",
    "corge",
    "grault",
    "garply",
    "waldo",
    "fred",
    "plugh",
    "xyzzy",
)
_TRIES = 100


def is_defined(condition: Condition, labels: Sequence[str]) -> bool:
    """Whether a task with these labels (none, where each example has answers of its own) can be asked so."""
    return condition != "abstract_labels" or 2 <= len(labels) <= len(ABSTRACT)


def relabel(
    condition: Condition, query: Query, shown: Sequence[Example], labels: Sequence[str], seed: int
) -> tuple[Example, tuple[Example, ...]]:
    """The query's example and its demonstrations under a condition.

    What a demonstration becomes depends on (task, seed, query, its place): the first K stay the first K.

    Args:
      condition: What to do.
      query: The query and its instance.
      shown: Its demonstrations.
      labels: The task's set of labels, if it has one.
      seed: The demonstration seed.
    """
    asked = query.example
    if condition == "gold":
        return asked, tuple(shown)
    if condition == "abstract_labels":
        meaning = dict(zip(labels, ABSTRACT, strict=False))
        return _renamed(asked, meaning), tuple(_renamed(example, meaning) for example in shown)
    rng = generator("labels", condition, query.instance.task, seed, query.name)
    others = _targets(query, rng)
    change = _random if condition == "random_labels" else _wrong
    return asked, tuple(_answered(example, change(example, labels, others, rng)) for example in shown)


def _renamed(example: Example, meaning: dict[str, str]) -> Example:
    choices = tuple(meaning[choice] for choice in example.choices)
    return dataclasses.replace(example, target=meaning[example.target], choices=choices, aliases=())


def _answered(example: Example, target: str) -> Example:
    return dataclasses.replace(example, target=target, aliases=())


def _targets(query: Query, rng: np.random.Generator) -> Iterator[str]:
    """Targets of random examples of the instance, without end."""
    while True:
        for example in query.instance.demonstrations(rng):
            yield example.target


def _random(example: Example, labels: Sequence[str], others: Iterator[str], rng: np.random.Generator) -> str:
    options = example.choices or labels
    return options[int(rng.integers(len(options)))] if options else next(others)


def _wrong(example: Example, labels: Sequence[str], others: Iterator[str], rng: np.random.Generator) -> str:
    del rng
    for options in (labels, example.choices):
        if example.target in options:
            return options[(options.index(example.target) + 1) % len(options)]
    found = (next(others) for _ in range(_TRIES))
    return next((target for target in found if target != example.target), example.target)
