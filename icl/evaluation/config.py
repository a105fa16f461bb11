"""Settings of an evaluation, checked when they are made."""

import dataclasses
import fnmatch
from collections.abc import Mapping
from typing import Any, Literal, NoReturn

from icl.errors import InputError, check_types
from icl.evaluation.formats import check_formats
from icl.tasks.task import OptionRule, Split

Demonstrations = Literal["per_query", "fixed"]
Condition = Literal["gold", "random_labels", "flipped_labels", "abstract_labels"]
ChoiceAnswers = Literal["options", "generated", "both"]
LengthRule = Literal["gnmt", "hf"]

MAX_SEEDS = 1000

PER_TASK = (
    "ks",
    "instruction",
    "seeds",
    "demonstrations",
    "queries",
    "conditions",
    "orders",
    "templates",
    "choice_answers",
    "option_rules",
    "beam_width",
    "length_penalty",
    "length_rule",
    "temperature",
    "max_new_tokens",
)
"""Settings that single tasks may have of their own."""


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """What is asked of every checkpoint.

    `tasks` names tasks or whole families; empty takes all that the checkpoint knows. `ks` are the numbers
    of demonstrations, `instruction` the settings with and without one, `seeds` the number of demonstration
    seeds, `queries` the number of queries a task. `demonstrations` are drawn anew for each query
    (`per_query`, GPT-3's protocol) or once for all queries of an instance (`fixed`). `per_task` gives tasks,
    by name or wildcard, other values of these and of how answers come about: {'winograd': {'ks': (0, 1, 7)}}.

    `conditions` change the labels of the demonstrations (`icl.evaluation.conditions`), `orders` is the number
    of orders in which the same demonstrations stand (those of a fixed set are the same for all queries),
    `templates` names formats of the prompt (`icl.evaluation.formats`); "default" is the task's own.

    A query with options is answered by the likeliest of them, `generated` text, or `both`; `option_rules` are
    ways to compare options beside those that cost nothing. Text is generated greedily, by beam search where
    `beam_width` is above 1 (the score of n tokens is their log-likelihood over ((5 + n) / 6)^`length_penalty`
    by the rule `gnmt`, arXiv 1609.08144, or over n^`length_penalty` by `hf`), or sampled where `temperature`
    is above 0.

    `max_new_tokens` is the generation budget, delimiter included; 0 takes the longest answer among the
    first 256 queries of the task. `max_length` is the context in tokens; 0 takes the model's.
    `batch_rows` prompts are read together, padded to one of at most `shapes` lengths: they change speed,
    never scores. `sample_prompts` queries a task keep their whole prompts in the records and the report.
    """

    tasks: tuple[str, ...] = ()
    split: Split = "held_out"
    ks: tuple[int, ...] = (0, 1, 2, 4, 8, 16)
    instruction: tuple[bool, ...] = (False, True)
    seeds: int = 5
    demonstrations: Demonstrations = "per_query"
    queries: int = 64
    conditions: tuple[Condition, ...] = ("gold",)
    orders: int = 1
    templates: tuple[str, ...] = ("default",)
    per_task: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    choice_answers: ChoiceAnswers = "options"
    option_rules: tuple[OptionRule, ...] = ()
    beam_width: int = 1
    length_penalty: float = 0.6
    length_rule: LengthRule = "gnmt"
    temperature: float = 0.0
    max_new_tokens: int = 0
    max_length: int = 0
    batch_rows: int = 64
    shapes: int = 2
    bootstrap: int = 2000
    sample_prompts: int = 1

    def __post_init__(self) -> None:
        """Checks every field.

        Raises:
          InputError: names the field, its value and what was expected.
        """
        check_types(self)
        if not self.ks or min(self.ks) < 0 or list(self.ks) != sorted(set(self.ks)):
            self._refuse("ks", "numbers of demonstrations, 0 or more, rising")
        if not self.instruction or len(set(self.instruction)) != len(self.instruction):
            self._refuse("instruction", "(False,), (True,) or (False, True)")
        if len(set(self.tasks)) != len(self.tasks):
            self._refuse("tasks", "each name once")
        if not 1 <= self.seeds <= MAX_SEEDS:
            self._refuse("seeds", f"1 to {MAX_SEEDS}")
        for name in ("queries", "batch_rows", "shapes"):
            if getattr(self, name) < 1:
                self._refuse(name, "a positive number")
        for name in ("max_new_tokens", "max_length", "sample_prompts"):
            if getattr(self, name) < 0:
                self._refuse(name, "0 or more")
        if self.bootstrap < 100:
            self._refuse("bootstrap", "at least 100 resamples")
        for name in ("conditions", "templates", "option_rules"):
            if len(set(getattr(self, name))) != len(getattr(self, name)):
                self._refuse(name, "each once")
        for name in ("conditions", "templates"):
            if not getattr(self, name):
                self._refuse(name, "at least one")
        check_formats(self.templates)
        for name in ("orders", "beam_width"):
            if getattr(self, name) < 1:
                self._refuse(name, "a positive number")
        for name in ("length_penalty", "temperature"):
            if getattr(self, name) < 0:
                self._refuse(name, "0 or more")
        if self.temperature and self.beam_width > 1:
            self._refuse("temperature", "0 with a beam search")
        self._check_per_task()

    def _check_per_task(self) -> None:
        """Raises InputError for a setting that no single task can have, or a value that is none."""
        for pattern, settings in self.per_task.items():
            for field in settings:
                if field not in PER_TASK:
                    raise InputError(
                        f"EvalConfig.per_task[{pattern!r}]: no setting {field!r} of a task; expected of: "
                        f"{', '.join(PER_TASK)}"
                    )
            try:
                dataclasses.replace(self, per_task={}, **settings)
            except InputError as error:
                raise InputError(f"EvalConfig.per_task[{pattern!r}]: {error}") from None

    def of(self, task: str) -> "EvalConfig":
        """What is asked of one task: these settings with its own, the last pattern that fits winning."""
        own: dict[str, Any] = {}
        for pattern, settings in self.per_task.items():
            if fnmatch.fnmatchcase(task, pattern):
                own |= settings
        return dataclasses.replace(self, per_task={}, **own) if own else self

    def _refuse(self, field: str, expected: str) -> NoReturn:
        raise InputError(f"EvalConfig.{field} = {getattr(self, field)!r}: expected {expected}")
