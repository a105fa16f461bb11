"""What will be asked: every query, seed, number of demonstrations and wording, before any model is read.

A plan is a pure function of the settings, the tasks, the tokenizer and the context length, so that an
interrupted evaluation finds its place again and any prompt can be rebuilt from its record.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence

from icl.data.keys import digest
from icl.data.tokenizer import Tokenizer
from icl.errors import InputError
from icl.evaluation.config import EvalConfig
from icl.evaluation.demonstrations import draw
from icl.evaluation.prompts import (
    Context,
    Tokens,
    encode,
    encode_option,
    prefix_text,
    prompt_hash,
    prompt_text,
    without_start,
)
from icl.evaluation.records import Record
from icl.tasks.task import Example, Query, Split, Task, Template

PROBED_QUERIES = 256
"""Queries of a task whose longest answer gives the generation budget; their number is no setting."""


@dataclasses.dataclass(frozen=True, slots=True)
class Trial:
    """A query with its demonstrations and wording; it is asked at every K.

    `number` counts the queries of the task. `query` is as it will be asked, `lost` characters shorter.
    `max_k` is the largest number of demonstrations that fits, `budget` the tokens that may be generated: none
    where the answer is one of given options.
    """

    task: Task
    number: int
    query: Query
    cluster: str
    seed: int
    instruction: str | None
    instructed: bool
    demonstrations: tuple[Example, ...]
    max_k: int
    lost: int
    budget: int

    def prompt(self, k: int) -> str:
        """The text before the answer, with at most k demonstrations."""
        shown = self.demonstrations[: min(k, self.max_k)]
        return prompt_text(self.task.template, self.instruction, shown, self.query.example)

    def tokens(self, tokenizer: Tokenizer, k: int) -> Tokens:
        """The prompt and the gold answer as tokens."""
        template = self.template(k)
        completion = template.completion(self.query.example)
        return encode(tokenizer, self.prompt(k), completion, template.delimiter)

    def template(self, k: int) -> Template:
        """How the query is written after at most k demonstrations."""
        return self.task.template.after(min(k, self.max_k))

    @property
    def is_choice(self) -> bool:
        """Whether the answer is one of given options."""
        return bool(self.query.example.choices)

    def options(self, tokenizer: Tokenizer, k: int) -> list[Tokens]:
        """The prompt with each option; without options, the prompt with the gold answer alone."""
        if not self.is_choice:
            return [self.tokens(tokenizer, k)]
        return self._options(tokenizer, self.prompt(k), self.template(k))

    def unconditional(self, tokenizer: Tokenizer) -> list[Tokens]:
        """The options after the task's answer context alone; none where the task does not compare so."""
        if not self.is_choice or self.task.option_rule != "unconditional":
            return []
        return self._options(tokenizer, self.task.answer_context, self.task.template)

    def _options(self, tokenizer: Tokenizer, prompt: str, template: Template) -> list[Tokens]:
        example = self.query.example
        completions = [
            template.completion(dataclasses.replace(example, target=choice)) for choice in example.choices
        ]
        return [encode_option(tokenizer, prompt, text, example.ending) for text in completions]

    def shared_prefix(self, tokenizer: Tokenizer) -> list[int]:
        """Tokens of instruction and all demonstrations that fit: prompts for all K begin with parts of it."""
        text = prefix_text(self.task.template, self.instruction, self.demonstrations[: self.max_k])
        return [tokenizer.start_id, *tokenizer.encode(text)]

    def query_seen(self, k: int) -> bool:
        """Whether the query stands among its demonstrations."""
        shown = self.demonstrations[: min(k, self.max_k)]
        return any(example.input == self.query.example.input for example in shown)


@dataclasses.dataclass(frozen=True)
class Plan:
    """All trials, by task, in a fixed order; and a name for them by their content."""

    trials: Mapping[str, tuple[Trial, ...]]
    tasks: Mapping[str, Task]
    split: Split
    fingerprint: str

    def __len__(self) -> int:
        return sum(map(len, self.trials.values()))

    def is_single_instance(self, task: str) -> bool:
        """Whether a task has one instance, so that a fixed set of demonstrations serves all its queries."""
        return self.tasks[task].num_instances(self.split) == 1

    def is_lookup(self, task: str) -> bool:
        """Whether a task declares no exclusion key, so that queries may stand among their demonstrations."""
        return any(trial.query.example.key is None for trial in self.trials[task])


def make_plan(
    config: EvalConfig, families: Mapping[str, Sequence[Task]], tokenizer: Tokenizer, max_length: int
) -> Plan:
    """The plan of an evaluation.

    Args:
      config: What to ask.
      families: Tasks by mixture entry.
      tokenizer: The checkpoint's.
      max_length: Tokens that the context holds.

    Raises:
      InputError: a task is unknown, has no queries or fewer examples than the largest K.
    """
    tasks = {task.name: task for task in select_tasks(config.tasks, families)}
    trials = {name: tuple(_trials(config, task, tokenizer, max_length)) for name, task in tasks.items()}
    hashes = (
        prompt_hash("\0".join((trial.prompt(config.ks[-1]), *answers(trial.query.example))))
        for trial in itertools.chain.from_iterable(trials.values())
    )
    return Plan(trials, tasks, config.split, digest(tokenizer.fingerprint, max_length, *hashes))


def select_tasks(names: Sequence[str], families: Mapping[str, Sequence[Task]]) -> list[Task]:
    """The tasks that names of tasks or of families choose.

    Without names: of every family the tasks that never fed training rows, or all where each of them did.

    Raises:
      InputError: there is no task or family of a name.
    """
    if not names:
        return [task for family in families.values() for task in _untrained(family) or family]
    by_name = {task.name: (task,) for family in families.values() for task in family}
    chosen: dict[str, Task] = {}
    for name in names:
        found = by_name.get(name) or families.get(name)
        if not found:
            known = ", ".join(dict.fromkeys([*families, *by_name]))
            raise InputError(f"EvalConfig.tasks: no task {name!r} in the checkpoint; expected of: {known}")
        chosen |= {task.name: task for task in found}
    return list(chosen.values())


def _untrained(family: Sequence[Task]) -> list[Task]:
    return [task for task in family if not task.trained]


def _trials(config: EvalConfig, task: Task, tokenizer: Tokenizer, max_length: int) -> Iterator[Trial]:
    probed = list(itertools.islice(task.queries(config.split), max(config.queries, PROBED_QUERIES)))
    if not probed:
        raise InputError(f"task {task.name!r}: no queries in its split {config.split!r}; expected some")
    usual = max(_answer_tokens(task, query.example, tokenizer) for query in probed[:PROBED_QUERIES])
    queries = probed[: config.queries]
    wordings = [False] if not any(q.instance.instruction for q in queries) else config.instruction
    single = task.num_instances(config.split) == 1
    for number, query in enumerate(queries):
        budget = config.max_new_tokens or max(usual, _answer_tokens(task, query.example, tokenizer))
        if query.example.choices:
            budget = 0
        context = Context(tokenizer, max_length, budget)
        stated, example = query.instance.instruction, query.example
        cluster = (example.key or query.name) if single else query.instance.name
        for seed in range(config.seeds):
            shown = draw(query, count=config.ks[-1], seed=seed, demonstrations=config.demonstrations)
            max_k = context.effective_k(task.template, stated, shown, example)
            lost = 0 if max_k else context.lost_characters(task.template, stated, example)
            asked = dataclasses.replace(query, example=without_start(example, lost))
            for instructed in wordings:
                instruction = stated if instructed else None
                yield Trial(
                    task, number, asked, cluster, seed, instruction, instructed, shown, max_k, lost, budget
                )


def answers(example: Example) -> tuple[str, ...]:
    """What is scored after a query: its gold answer, and its options."""
    return (example.target, *example.choices, *filter(None, [example.ending]))


def _answer_tokens(task: Task, example: Example, tokenizer: Tokenizer) -> int:
    context = task.template.context(example)
    completion = task.template.completion(example)
    return len(encode(tokenizer, context, completion, task.template.delimiter).gold)


def rebuild_prompt(record: Record, task: Task) -> str:
    """The prompt of a record, from the task alone; its hash is the record's `prompt_sha256`.

    Raises:
      InputError: the task has no such query, so it is not the one that was evaluated.
    """
    query = next((query for query in task.queries(record.split) if query.name == record.query), None)
    if query is None:
        raise InputError(f"task {task.name!r}: no query {record.query!r}; expected the task of the record")
    shown = draw(query, count=record.k_effective, seed=record.seed, demonstrations=record.demonstrations)
    instruction = query.instance.instruction if record.instruction else None
    return prompt_text(task.template, instruction, shown, without_start(query.example, record.lost))
