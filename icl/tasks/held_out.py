"""Reads what `DataConfig.exclude` names: files of held-out examples, and tasks of the mixture."""

import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from icl.errors import InputError
from icl.tasks.exclusion import word_identity
from icl.tasks.files import FileTasks
from icl.tasks.sources import find_files
from icl.tasks.task import Task


class HeldOut(NamedTuple):
    """Held-out examples: the names by which episodes are told from them, and their texts for corpora."""

    identities: frozenset[str] = frozenset()
    texts: tuple[str, ...] = ()


def read_held_out(
    patterns: Sequence[str], tasks: Mapping[str, Sequence[Task]], what: str = "DataConfig.exclude"
) -> HeldOut:
    """The held-out examples that patterns name.

    Args:
      patterns: Names of tasks, whose held-out examples are meant (wildcards are allowed); or paths or globs
        of files in a format of `FileTasks`.
      tasks: Tasks by mixture key.
      what: The setting that holds the patterns, for errors.

    Raises:
      InputError: a pattern names neither, a file is malformed, or a task has no end of held-out examples.
    """
    identities: set[str] = set()
    texts: list[str] = []
    for pattern in patterns:
        for task in _named(pattern, tasks) or _of_files(pattern, what):
            if task.size("held_out") is None:
                raise InputError(
                    f"{what}: task {task.name!r} makes its examples without end, and keeps its "
                    "held-out ones from training itself; expected a task of files, or files"
                )
            for query in task.queries("held_out"):
                example = query.example
                identities.update(task.identities(example))
                if example.target.isalpha():
                    identities.add(word_identity(example.target))
                texts.append(f"{example.input} {example.target}")
    return HeldOut(frozenset(identities), tuple(texts))


def _of_files(pattern: str, what: str) -> Sequence[Task]:
    find_files(f"{pattern}/*.json*" if Path(pattern).expanduser().is_dir() else pattern, what)
    return FileTasks(glob=pattern, pool="shared", unfit="skip").build("")


def _named(pattern: str, tasks: Mapping[str, Sequence[Task]]) -> list[Task]:
    every = (task for family in tasks.values() for task in family)
    return [task for task in every if fnmatch.fnmatchcase(task.name, pattern)]
