"""Settings of an evaluation, checked when they are made."""

import dataclasses
from typing import Literal, NoReturn

from icl.errors import InputError, check_types
from icl.tasks.task import Split

Demonstrations = Literal["per_query", "fixed"]

MAX_SEEDS = 1000


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """What is asked of every checkpoint.

    `tasks` names tasks or whole families; empty takes all that the checkpoint knows. `ks` are the numbers
    of demonstrations, `instruction` the settings with and without one, `seeds` the number of demonstration
    seeds, `queries` the number of queries a task. `demonstrations` are drawn anew for each query
    (`per_query`, GPT-3's protocol) or once for all queries of an instance (`fixed`).

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

    def _refuse(self, field: str, expected: str) -> NoReturn:
        raise InputError(f"EvalConfig.{field} = {getattr(self, field)!r}: expected {expected}")
