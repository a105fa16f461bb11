"""The few labelled examples of fine-tuning, and rows of them: each is a zero-shot prompt with its answer.

Row i is a pure function of (task, tokenizer, settings, i), as all rows are. Rows have one shape, whatever N
is, so that one compiled step serves all N.
"""

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from icl.data.batch import Batch, empty_row
from icl.data.config import DataConfig
from icl.data.corpus import Corpus
from icl.data.keys import digest, generator
from icl.data.rows import Usage
from icl.data.tokenizer import Tokenizer
from icl.errors import InputError
from icl.tasks.exclusion import Exclusion
from icl.tasks.task import Example, Query, Task
from icl.training.fine_tuning import FineTuneConfig

_NUM_ROWS = 2**40


class Drawn(NamedTuple):
    """N labelled examples: those to train on, and those for development."""

    train: tuple[Example, ...]
    development: tuple[Example, ...]


def fine_tuned_task(config: FineTuneConfig, tasks: Mapping[str, Sequence[Task]]) -> Task:
    """The task that examples are of.

    Raises:
      InputError: none is named and there are several, or there is none of the name.
    """
    by_name = {task.name: task for family in tasks.values() for task in family}
    if not config.task and len(by_name) == 1:
        return next(iter(by_name.values()))
    if config.task not in by_name:
        raise InputError(
            f"FineTuneConfig.task = {config.task!r}: expected one of {', '.join(sorted(by_name)) or 'none'}"
        )
    return by_name[config.task]


def draw_examples(config: FineTuneConfig, task: Task) -> Drawn:
    """N examples of a task, drawn by seed from what it has for training; never one that it is tested on.

    The examples of a seed are nested: those of a smaller N are the first ones of a larger N.

    Raises:
      InputError: the task has no end of examples, several instances, or too few inputs.
    """
    where = f"task {task.name!r}"
    if task.num_instances("held_out") != 1 or task.size("train") is None:
        raise InputError(
            f"{where}: draws a new instance for every query, or has no end of examples; expected a task of"
            " one list of examples: from files, or of OneInstance.family = 'cipher'"
        )
    instance = task.instance("held_out", 0)
    tested = [query.example for query in task.queries("held_out")]
    inputs = {example.input for example in tested}
    keys = {example.key for example in tested if example.key is not None}
    shown = instance.demonstrations(generator("fine-tuning examples", task.name, config.seed))
    pool = list({e.input: e for e in shown if e.input not in inputs and e.key not in keys}.values())
    if len(pool) < config.examples or len(inputs) < config.test_queries:
        raise InputError(
            f"{where}: has {len(pool) + len(inputs):,} different inputs, {len(pool):,} to learn from and"
            f" {len(inputs):,} to be tested on; expected FineTuneConfig.examples = {config.examples:,} and"
            f" FineTuneConfig.test_queries = {config.test_queries:,} of them, and no pool that both share"
        )
    taken = tuple(pool[: config.examples])
    return Drawn(taken[config.development :], taken[: config.development])


def tested_queries(task: Task, number: int) -> list[Query]:
    """The first queries of a task's test part, as an evaluation asks them."""
    return list(itertools.islice(task.queries("held_out"), number))


class ExampleWriter:
    """Writes examples of a task as rows, a number of them side by side in each."""

    def __init__(self, data: DataConfig, task: Task, tokenizer: Tokenizer, *, instruction: bool) -> None:
        """Sees that every example of the task fits, and how many fit into a row at most (`per_row`).

        Raises:
          InputError: one is longer than a row.
        """
        self._data = data
        self._task = task
        self._tokenizer = tokenizer
        self._instruction = task.instance("held_out", 0).instruction if instruction else None
        self._encoded = functools.lru_cache(2**16)(self._encode)
        lengths, answers = zip(*map(self._positions, self._every()), strict=True)
        self.per_row = min(data.row_length // min(lengths), data.scored_positions // min(answers))
        if data.row_length < max(lengths) or data.scored_positions < max(answers):
            raise InputError(
                f"DataConfig.row_length = {data.row_length}, answer_positions = {data.answer_positions}:"
                f" expected at least {max(lengths)} and {max(answers)} (or 0), as long as an example of task"
                f" {task.name!r}"
            )

    def __reduce__(self) -> tuple[object, ...]:
        rebuild = functools.partial(ExampleWriter, instruction=self._instruction is not None)
        return rebuild, (self._data, self._task, self._tokenizer)

    def length(self, example: Example) -> int:
        """Positions that an example takes."""
        return self._positions(example)[0]

    def fill(self, examples: Sequence[Example]) -> list[tuple[Example, ...]]:
        """The examples in their order, as many in each row as fit."""
        filled: list[tuple[Example, ...]] = []
        room = answer_room = -1
        for example in examples:
            length, answer = self._positions(example)
            if length > room or answer > answer_room:
                filled.append(())
                room, answer_room = self._data.row_length, self._data.scored_positions
            filled[-1] = (*filled[-1], example)
            room, answer_room = room - length, answer_room - answer
        return filled

    def row(self, examples: Sequence[Example], component: int = 0) -> Batch:
        """A row of examples that fit; `examples_BT` numbers them from 0."""
        arrays = empty_row(self._data.row_length, self._tokenizer.pad_id)
        used = 0
        for number, example in enumerate(examples):
            tokens, start = self._encoded(example)
            at = slice(used, used + len(tokens) - 1)
            is_answer = np.arange(1, len(tokens)) >= start
            segment = Batch(
                inputs_BT=np.array(tokens[:-1], np.int32),
                targets_BT=np.array(tokens[1:], np.int32),
                segments_BT=number + 1,
                positions_BT=np.arange(len(tokens) - 1),
                weights_BT=is_answer,
                examples_BT=np.where(is_answer, number, -1),
                tasks_BT=component,
                excluded_BT=0,
            )
            for array, values in zip(arrays, segment, strict=True):
                np.asarray(array)[at] = values
            used = at.stop
        return arrays

    def _positions(self, example: Example) -> tuple[int, int]:
        """Positions that an example takes, and those of its answer."""
        tokens, start = self._encoded(example)
        return len(tokens) - 1, len(tokens) - start

    def _every(self) -> list[Example]:
        shown = self._task.instance("held_out", 0).demonstrations(generator("longest example"))
        return [*shown, *(query.example for query in self._task.queries("held_out"))]

    def _encode(self, example: Example) -> tuple[tuple[int, ...], int]:
        """Tokens of a prompt with its answer and delimiter, and where the answer begins.

        The text is encoded whole, as an evaluation does it (`icl.evaluation.prompts.encode`).
        """
        template = self._task.template.after(0)
        opening = "" if self._task.template.alone else template.instruction(self._instruction)
        prompt = opening + template.context(example)
        before = self._tokenizer.encode(prompt)
        full = self._tokenizer.encode(prompt + template.completion(example) + template.delimiter)
        shared = next(
            (i for i, (a, b) in enumerate(zip(before, full, strict=False)) if a != b),
            min(len(before), len(full)),
        )
        start = self._tokenizer.prompt_start or (() if before and shared else (self._tokenizer.start_id,))
        return (*start, *full), len(start) + min(shared, len(full) - 1)


class FineTuningRows:
    """Training rows of a few examples, epoch after epoch.

    It stands for `icl.data.rows.Rows`. Which examples share a row stays as it is, and means little, as they
    do not see each other; every epoch has the rows in another order.
    """

    def __init__(
        self,
        config: FineTuneConfig,
        data: DataConfig,
        tasks: Mapping[str, Sequence[Task]],
        tokenizer: Tokenizer,
        writer: ExampleWriter | None = None,
    ) -> None:
        """Draws the examples; `writer` is that of the same task, where there is one already.

        Raises:
          InputError: there is no such task, it has too few inputs, or an example is longer than a row.
        """
        task = fine_tuned_task(config, tasks)
        self.components: tuple[str, ...] = tuple(each.name for family in tasks.values() for each in family)
        self.trained_tasks: tuple[str, ...] = (task.name,)
        self.exclusion = Exclusion()
        self.corpora: dict[str, Corpus] = {}
        self.drawn = draw_examples(config, task)
        self.writer = writer or ExampleWriter(data, task, tokenizer, instruction=config.instruction)
        self._filled = self.writer.fill(self.drawn.train)
        self._component = self.components.index(task.name)
        self._seed = config.seed
        self._content = (tokenizer.fingerprint, task.fingerprint(), str(self.drawn), data.row_length)

    def __len__(self) -> int:
        return _NUM_ROWS

    def __getitem__(self, index: int) -> Batch:
        """Row `index`, 0 <= index < len(self)."""
        if not 0 <= index < _NUM_ROWS:
            raise IndexError(f"row {index}: expected 0 to {_NUM_ROWS - 1}")
        epoch, place = divmod(int(index), self.rows_of_an_epoch)
        return self.writer.row(self._filled[self._order(epoch)[place]], self._component)

    @property
    def rows_of_an_epoch(self) -> int:
        """Rows that show every example once."""
        return len(self._filled)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Names what the rows hold, by content."""
        return digest("fine-tuning", *self._content, self._seed)

    def usage(self, num_rows: int) -> dict[str, Usage]:
        """How often so many rows show the examples that are trained on."""
        number = len(self.drawn.train)
        return {self.trained_tasks[0]: Usage(number * num_rows / self.rows_of_an_epoch, number)}

    @functools.lru_cache(maxsize=64)  # noqa: B019
    def _order(self, epoch: int) -> np.ndarray:
        rng = generator("fine-tuning order", self._seed, epoch)
        return rng.permutation(self.rows_of_an_epoch)
