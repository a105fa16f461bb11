"""What needs no model: chance, copying the input, the most frequent answer, looking the query up; a ceiling.

Each rule sees what the model sees, so a K-curve above all of them shows more than these rules. The ceiling is
what the demonstrations allow at best, where the task can say so.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from icl.data.keys import generator
from icl.evaluation.plan import Trial
from icl.tasks.task import Example, Split, Task

CHANCE = "baseline:chance"
CEILING = "baseline:ceiling"
TRAINING_MAJORITY = "baseline:training_majority"
MAX_POOL = 100_000


def copy(query: Example, shown: Sequence[Example]) -> str:
    """Answers with the input itself."""
    del shown
    return query.input


def majority(query: Example, shown: Sequence[Example]) -> str:
    """Answers with the most frequent target shown, of several the one shown first; with nothing at K = 0."""
    del query
    return Counter(example.target for example in shown).most_common(1)[0][0] if shown else ""


def lookup(query: Example, shown: Sequence[Example]) -> str:
    """Answers with the target last shown for the same input; where it was not shown, as `majority`."""
    found = [example.target for example in shown if example.input == query.input]
    return found[-1] if found else majority(query, shown)


RULES: Mapping[str, Callable[[Example, Sequence[Example]], str]] = {
    "baseline:copy": copy,
    "baseline:majority": majority,
    "baseline:lookup": lookup,
}
"""Rules by the name that stands as `scoring` in the results."""


def predictions(trial: Trial, k: int) -> dict[str, str]:
    """The answer of every rule to a trial's query after min(k, max_k) demonstrations."""
    shown = trial.demonstrations[: min(k, trial.max_k)]
    return {name: rule(trial.query.example, shown) for name, rule in RULES.items()}


def ceiling(trial: Trial, k: int) -> float | None:
    """The best exact-match rate that min(k, max_k) demonstrations allow; None where the task cannot say."""
    shown = trial.demonstrations[: min(k, trial.max_k)]
    return trial.query.instance.ceiling(trial.query.example, shown)


def training_majority(task: Task, split: Split) -> str | None:
    """The most frequent target of all examples that demonstrations come from; None where they have no end.

    For tasks of one instance, a file for example: of many instances, each has its own answers.
    """
    if task.num_instances(split) != 1:
        return None
    examples = task.instance(split, 0).demonstrations(generator("training majority"))
    pool = list(itertools.islice(examples, MAX_POOL + 1))
    return None if len(pool) > MAX_POOL else Counter(example.target for example in pool).most_common(1)[0][0]
