"""What will be asked: every query, seed, number of demonstrations and wording, before any model is read.

A plan is a pure function of the settings, the tasks, the tokenizer and the context length, so that an
interrupted evaluation finds its place again and any prompt can be rebuilt from its record.
"""

import dataclasses
import fnmatch
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from icl.data.keys import digest, generator
from icl.data.tokenizer import Tokenizer
from icl.errors import InputError
from icl.evaluation.conditions import is_defined, relabel
from icl.evaluation.config import Condition, Demonstrations, EvalConfig
from icl.evaluation.demonstrations import draw
from icl.evaluation.formats import channel, channel_template, content_free, template_of, worded
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
from icl.tasks.task import Example, OptionRule, Query, Split, Task, Template
from icl.tasks.tfds_readers import TFDS_TASKS

PROBED_QUERIES = 256
"""Queries of a task whose longest answer gives the generation budget; their number is no setting."""


@dataclasses.dataclass(frozen=True, slots=True)
class Trial:
    """A query with its demonstrations and wording; it is asked at every K of its `settings`.

    `number` counts the queries of the task. `query` is as it will be asked, `lost` characters shorter.
    `template` writes the examples, `format` is its name. `order` 0 is the order in which the demonstrations
    were drawn. `max_k` is the largest number of demonstrations that fits, `budget` the tokens that may be
    generated: none where the answer is only chosen among options.
    """

    task: Task
    number: int
    query: Query
    cluster: str
    seed: int
    order: int
    condition: Condition
    format: str
    template: Template
    instruction: str | None
    instructed: bool
    demonstrations: tuple[Example, ...]
    max_k: int
    lost: int
    budget: int
    settings: EvalConfig

    def shown(self, k: int) -> tuple[Example, ...]:
        """The demonstrations for K = k, as many as fit, in their order."""
        shown = self.demonstrations[: min(k, self.max_k)]
        return in_order(shown, self.query, self.seed, self.order, self.settings.demonstrations)

    def prompt(self, k: int) -> str:
        """The text before the answer, with at most k demonstrations."""
        return prompt_text(self.template, self.instruction, self.shown(k), self.query.example)

    def tokens(self, tokenizer: Tokenizer, k: int) -> Tokens:
        """The prompt and the gold answer as tokens."""
        template = self.template_at(k)
        completion = template.completion(self.query.example)
        return encode(tokenizer, self.prompt(k), completion, template.delimiter)

    def template_at(self, k: int) -> Template:
        """How the query is written after at most k demonstrations."""
        return self.template.after(min(k, self.max_k))

    @property
    def is_choice(self) -> bool:
        """Whether the answer is one of given options."""
        return bool(self.query.example.choices)

    @property
    def rules(self) -> frozenset[OptionRule]:
        """The rules by which its options compare: the task's, and those asked for."""
        if not self.is_choice:
            return frozenset()
        return frozenset((self.task.option_rule, *self.settings.option_rules))

    def options(self, tokenizer: Tokenizer, k: int) -> list[Tokens]:
        """The prompt with each option; without options, the prompt with the gold answer alone."""
        if not self.is_choice:
            return [self.tokens(tokenizer, k)]
        return _options(tokenizer, self.prompt(k), self.template_at(k), self.query.example)

    def unconditional(self, tokenizer: Tokenizer) -> list[Tokens]:
        """The options after the task's answer context alone."""
        return _options(tokenizer, self.task.answer_context, self.template, self.query.example)

    def without_content(self, tokenizer: Tokenizer, k: int) -> list[Tokens]:
        """The options after the same demonstrations and an input that says nothing."""
        example = content_free(self.query.example)
        prompt = prompt_text(self.template, self.instruction, self.shown(k), example)
        return _options(tokenizer, prompt, self.template_at(k), example)

    def through_channel(self) -> "Trial":
        """The trial turned round: likelihoods of its options are those of the input after each option."""
        return dataclasses.replace(
            self,
            template=channel_template(self.template),
            query=dataclasses.replace(self.query, example=channel(self.query.example, self.template)),
            demonstrations=tuple(channel(example, self.template) for example in self.demonstrations),
            budget=0,
        )

    def shared_prefix(self, tokenizer: Tokenizer) -> list[int]:
        """Tokens of instruction and all demonstrations: prompts for all K begin with parts of it."""
        text = prefix_text(self.template, self.instruction, self.shown(self.settings.ks[-1]))
        return [*tokenizer.prompt_start, *tokenizer.encode(text)] or [tokenizer.start_id]

    def query_seen(self, k: int) -> bool:
        """Whether the query stands among its demonstrations."""
        return any(example.input == self.query.example.input for example in self.shown(k))


def in_order(
    shown: tuple[Example, ...], query: Query, seed: int, order: int, demonstrations: Demonstrations
) -> tuple[Example, ...]:
    """Demonstrations in one of their orders: 0 as drawn, others at random, decided by (task, seed, query).

    A fixed set has the same orders for all queries of its instance, so that orders can be told apart.
    """
    if not order or len(shown) < 2:
        return shown
    drawn_for = query.name if demonstrations == "per_query" else query.instance.name
    rng = generator("order", query.instance.task, drawn_for, seed, order, len(shown))
    return tuple(shown[i] for i in rng.permutation(len(shown)))


def _options(tokenizer: Tokenizer, prompt: str, template: Template, example: Example) -> list[Tokens]:
    completions = (
        template.completion(dataclasses.replace(example, target=choice)) for choice in example.choices
    )
    return [encode_option(tokenizer, prompt, text, example.ending) for text in completions]


@dataclasses.dataclass(frozen=True)
class Plan:
    """All trials, by task, in a fixed order; and a name for them by their content."""

    trials: Mapping[str, tuple[Trial, ...]]
    tasks: Mapping[str, Task]
    split: Split
    settings: Mapping[str, EvalConfig]
    fingerprint: str

    def __len__(self) -> int:
        return sum(map(len, self.trials.values()))

    @property
    def num_prompts(self) -> int:
        """Trials at every K."""
        return sum(len(self.settings[task].ks) * len(trials) for task, trials in self.trials.items())

    def is_crossed(self, task: str) -> bool:
        """Whether each seed's demonstrations serve all queries of a task."""
        return self.settings[task].demonstrations == "fixed" and self.is_single_instance(task)

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
    if not tasks:
        raise InputError(
            "EvalConfig.tasks: there are none, as a public model brings none of its own: expected some by "
            "settings, for instance FileTasks.glob = 'my_tasks/*.jsonl' or --gin_file gin/eval/gpt3_all.gin"
        )
    _check_patterns(config, tasks)
    settings = {name: config.of(name) for name in tasks}
    trials = {
        name: tuple(_trials(settings[name], task, tokenizer, max_length)) for name, task in tasks.items()
    }
    hashes = (
        prompt_hash("\0".join((trial.prompt(trial.settings.ks[-1]), *answers(trial.query.example))))
        for trial in itertools.chain.from_iterable(trials.values())
    )
    rules = (
        str((task.option_rule, task.answer_context, task.answer_rule, task.corpus_metrics))
        for task in tasks.values()
    )
    fingerprint = digest(tokenizer.fingerprint, max_length, *rules, *hashes)
    return Plan(trials, tasks, config.split, settings, fingerprint)


def _check_patterns(config: EvalConfig, tasks: Mapping[str, Task]) -> None:
    """Raises InputError for a pattern of `per_task` that no task has, nor any of the known data sets.

    A preset names all of them, and only some may be asked.
    """
    for pattern in config.per_task:
        if not fnmatch.filter([*tasks, *TFDS_TASKS], pattern):
            raise InputError(f"EvalConfig.per_task: {pattern!r} names none of: {', '.join(tasks)}")


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
    labels = task.labels() if set(config.conditions) - {"gold"} else ()
    conditions = [condition for condition in config.conditions if is_defined(condition, labels)]
    if not conditions:
        raise InputError(
            f"EvalConfig.conditions = {config.conditions!r}: task {task.name!r} has no set of labels; "
            "expected 'gold' among them, or other tasks"
        )
    usual = max(_answer_tokens(task, query.example, tokenizer) for query in probed[:PROBED_QUERIES])
    queries = probed[: config.queries]
    wordings = [False] if not any(q.instance.instruction for q in queries) else config.instruction
    single = task.num_instances(config.split) == 1
    for number, query in enumerate(queries):
        budget = config.max_new_tokens or max(usual, _answer_tokens(task, query.example, tokenizer))
        if query.example.choices and config.choice_answers == "options":
            budget = 0
        cluster = (query.example.key or query.name) if single else query.instance.name
        for seed in range(config.seeds):
            drawn = draw(query, count=config.ks[-1], seed=seed, demonstrations=config.demonstrations)
            variants = [
                _variant(task, query, drawn, labels, seed, condition, name)
                for condition in conditions
                for name in config.templates
            ]
            max_k, lost = _room(Context(tokenizer, max_length, budget), query, variants, config, task)
            for variant, order, instructed in itertools.product(variants, range(config.orders), wordings):
                asked = dataclasses.replace(query, example=without_start(variant.query, lost))
                yield Trial(
                    task,
                    number,
                    asked,
                    cluster,
                    seed,
                    order,
                    variant.condition,
                    variant.format,
                    variant.template,
                    query.instance.instruction if instructed else None,
                    instructed,
                    variant.shown,
                    max_k,
                    lost,
                    budget,
                    config,
                )


class _Variant(NamedTuple):
    """Query and demonstrations under one condition, in one format."""

    condition: Condition
    format: str
    template: Template
    query: Example
    shown: tuple[Example, ...]


def _variant(
    task: Task,
    query: Query,
    drawn: Sequence[Example],
    labels: Sequence[str],
    seed: int,
    condition: Condition,
    name: str,
) -> _Variant:
    asked, shown = relabel(condition, query, drawn, labels, seed)
    return _Variant(
        condition,
        name,
        template_of(task.template, name),
        worded(asked, name),
        tuple(worded(example, name) for example in shown),
    )


def _room(
    context: Context, query: Query, variants: Sequence[_Variant], config: EvalConfig, task: Task
) -> tuple[int, int]:
    """The demonstrations that fit, and the characters that the query loses, the same for all variants."""
    asked: list[tuple[Template, Sequence[Example], Example]]
    asked = [(v.template, v.shown, v.query) for v in variants]
    if query.example.choices and "channel" in (task.option_rule, *config.option_rules):
        asked += [
            (channel_template(t), [channel(each, t) for each in shown], channel(example, t))
            for t, shown, example in asked
        ]
    stated = query.instance.instruction
    max_k = min(context.effective_k(t, stated, shown, example) for t, shown, example in asked)
    if max_k:
        return max_k, 0
    plain = asked[: len(variants)]
    return 0, max(context.lost_characters(template, stated, example) for template, _, example in plain)


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
    drawn = draw(query, count=record.k_effective, seed=record.seed, demonstrations=record.demonstrations)
    labels = () if record.condition == "gold" else task.labels()
    variant = _variant(task, query, drawn, labels, record.seed, record.condition, record.template)
    instruction = query.instance.instruction if record.instruction else None
    shown = in_order(variant.shown, query, record.seed, record.order, record.demonstrations)
    return prompt_text(variant.template, instruction, shown, without_start(variant.query, record.lost))
