"""Tasks from TFDS data sets: every name of the table `TFDS_TASKS` is one task.

Training rows and demonstrations come from a data set's training split, queries from its validation or test
split. Data sets are read by index, in ArrayRecord format, without TensorFlow.
"""

import dataclasses
import difflib
import fnmatch
from collections.abc import Hashable, Iterator

import numpy as np

from icl.data.keys import generator
from icl.errors import InputError, check_types
from icl.tasks.files import matches
from icl.tasks.pool import Distinct, PoolTask
from icl.tasks.registry import register
from icl.tasks.task import Example
from icl.tasks.tfds_readers import TFDS_TASKS, Reading
from icl.tasks.tfds_rows import TOGETHER, Reader, Row, plain
from icl.tasks.tfds_source import TFDS_PREFIX, check_prepared, data_source, open_builder, read_rows


@register("tfds")
@dataclasses.dataclass(frozen=True)
class TfdsTasks:
    """Settings of a family of tasks that are TFDS data sets.

    Attributes:
      names: Names of `icl.tasks.tfds_readers.TFDS_TASKS`; wildcards are allowed.
      prefix: Written before the names of the tasks.
      held_out: Tasks that never feed training rows; wildcards are allowed.
      data_dir: Folder of the data sets, also on a bucket; by default the one of TFDS.
      max_train: Rows of the training split that are read at most, drawn at random; 0 for all.
      max_test: Rows of the test split that are read at most, drawn at random; 0 for all.
      max_characters: Examples whose texts are longer together are left out; 0 for none.
    """

    names: tuple[str, ...] = ()
    prefix: str = ""
    held_out: tuple[str, ...] = ()
    data_dir: str = ""
    max_train: int = 20_000
    max_test: int = 5_000
    max_characters: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        if not self.names:
            raise InputError(f"TfdsTasks.names = (): expected names of {sorted(TFDS_TASKS)}")
        for field in ("max_train", "max_test", "max_characters"):
            if getattr(self, field) < 0:
                raise InputError(f"TfdsTasks.{field} = {getattr(self, field)}: expected 0 (all) or more")
        for pattern in self.names:
            if not fnmatch.filter(TFDS_TASKS, pattern):
                close = difflib.get_close_matches(pattern, TFDS_TASKS, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"there are {sorted(TFDS_TASKS)}"
                raise InputError(f"TfdsTasks.names: no TFDS task {pattern!r}; {hint}")
        for pattern in self.held_out:
            if not any(fnmatch.fnmatchcase(name, pattern) for name in self._chosen()):
                raise InputError(f"TfdsTasks.held_out: {pattern!r} names none of {self._chosen()}")

    def build(self, name: str) -> "tuple[TfdsTask, ...]":
        """One task a name, in the table's order.

        Raises:
          InputError: a data set is not there, cannot be read by index, or holds no fitting example.
        """
        del name
        return tuple(TfdsTask(self, chosen) for chosen in self._chosen())

    def _chosen(self) -> list[str]:
        return [name for name in TFDS_TASKS if matches(name, self.names)]


class TfdsTask(PoolTask):
    """The examples of one data set.

    `num_unfit` counts examples left out because they are too long or their answer holds the delimiter,
    `num_repeats` and `num_conflicts` those whose input stood before with the same or another answer.
    """

    def __init__(self, settings: TfdsTasks, name: str) -> None:
        reading = TFDS_TASKS[name]
        data_dir = settings.data_dir or None
        check_prepared(open_builder(reading.builder, data_dir), reading.builder, data_dir)
        self.num_unfit = 0
        shown = reading.shown or reading.read
        train = Distinct(self._read(settings, reading, shown, reading.train, settings.max_train))
        shared = reading.train == reading.test
        tested = (
            None
            if shared
            else Distinct(self._read(settings, reading, reading.read, reading.test, settings.max_test))
        )
        parts = (train,) if tested is None else (train, tested)
        self.num_repeats = sum(part.num_repeats for part in parts)
        self.num_conflicts = sum(part.num_conflicts for part in parts)
        super().__init__(
            f"{settings.prefix}{name}",
            reading.template,
            train.examples,
            where=f"{TFDS_PREFIX}{reading.builder}",
            instruction=reading.instruction,
            trained=not matches(name, settings.held_out),
            shared=shared,
            tested=None if tested is None else tested.examples,
            answer_rule=reading.answer_rule,
            option_rule=reading.option_rule,
            answer_context=reading.answer_context,
            corpus_metrics=reading.corpus_metrics,
        )

    def _read(
        self, settings: TfdsTasks, reading: Reading, read: Reader, split: str, limit: int
    ) -> Iterator[Example]:
        """The fitting examples of a split, or of a random part of its rows."""
        for row in _rows(reading, settings.data_dir or None, split, limit):
            for example in read(row):
                size = len(example.input) + len(example.target)
                too_long = settings.max_characters and size > settings.max_characters
                texts = (example.target, *example.choices)
                if too_long or any(not text or reading.template.delimiter in text for text in texts):
                    self.num_unfit += 1
                else:
                    yield example


def _rows(reading: Reading, data_dir: str | None, split: str, limit: int) -> Iterator[Row]:
    """The rows of a split, or at most so many drawn at random; what is read together is drawn together."""
    count = len(data_source(reading.builder, data_dir, split))
    limit = min(limit, count) or count
    rng = generator("tfds rows", reading.builder, split)
    if reading.together is None:
        numbers = np.arange(count) if limit == count else np.sort(rng.choice(count, limit, replace=False))
        yield from map(plain, read_rows(reading.builder, data_dir, split, numbers.tolist()))
        return
    groups: dict[Hashable, list[Row]] = {}
    for row in map(plain, read_rows(reading.builder, data_dir, split, range(count))):
        groups.setdefault(reading.together(row), []).append(row)
    left, found = limit, list(groups.values())
    for index in rng.permutation(len(found)):
        if left <= 0:
            return
        left -= len(found[index])
        yield {TOGETHER: found[index]}
