"""Tasks from files: every JSON or JSONL file of {"input", "output"} objects is one task.

A file is split by a hash of the normalised input into a training part, which feeds rows and
demonstrations, and a test part, which holds the queries. Whole files can be held out of training.
"""

import dataclasses
import fnmatch
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from icl.data.keys import digest, fraction
from icl.errors import InputError, check_types
from icl.tasks.registry import register
from icl.tasks.sources import find_files, read_records
from icl.tasks.task import Example, Query, Split, Task, TaskInstance, Template


@register("files")
@dataclasses.dataclass(frozen=True)
class FileTasks:
    """Settings of a family of tasks that are files.

    Tasks are named by file, without folder and suffix.

    Attributes:
      glob: Path or glob of .json (a list of objects) or .jsonl (one object a line) files, also with .gz; a
        folder stands for all of these in it.
      exclude: Tasks that are left out altogether; wildcards are allowed.
      held_out: Tasks that never feed training rows; wildcards are allowed.
      test_share: Share of every file's examples that are queries.
      instructions: What a task asks, where its file does not say so in an "instruction" field.
      separator: Written between input and output; the output follows after a space.
      delimiter: Closes a demonstration and ends an answer.
    """

    glob: str = ""
    exclude: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    test_share: float = 0.2
    instructions: Mapping[str, str] | None = None
    separator: str = " ->"
    delimiter: str = "\n"

    def __post_init__(self) -> None:
        check_types(self)
        if not 0 < self.test_share < 1:
            raise InputError(f"FileTasks.test_share = {self.test_share}: expected a share between 0 and 1")
        if not self.glob:
            raise InputError("FileTasks.glob = '': expected a path or glob of .json or .jsonl files")
        if not self.delimiter or not self.separator or self.separator[-1].isspace():
            raise InputError(
                f"FileTasks.separator = {self.separator!r}, delimiter = {self.delimiter!r}: expected a "
                "delimiter, and a separator that does not end in a space"
            )

    @property
    def template(self) -> Template:
        """How examples are written."""
        return Template(separator=self.separator, target_prefix=" ", delimiter=self.delimiter)

    def build(self, name: str) -> "tuple[FileTask, ...]":
        """One task a file, in the order of their names.

        Raises:
          InputError: a file is missing or malformed, or `held_out` or `instructions` names no file.
        """
        pattern = f"{self.glob}/*.json*" if Path(self.glob).expanduser().is_dir() else self.glob
        files: dict[str, Path] = {}
        for path in find_files(pattern, "FileTasks.glob"):
            stem = task_name(path)
            if stem in files:
                raise InputError(
                    f"FileTasks.glob = {self.glob!r}: {files[stem]} and {path} make one task name"
                )
            if not _matches(stem, self.exclude):
                files[stem] = path
        if not files:
            raise InputError(f"FileTasks.exclude = {self.exclude!r}: leaves out all files of {self.glob!r}")
        for field, patterns in (
            ("held_out", self.held_out),
            ("instructions", tuple(self.instructions or ())),
        ):
            for pattern in patterns:
                if not fnmatch.filter(files, pattern):
                    raise InputError(
                        f"FileTasks.{field}: {pattern!r} names none of the files of {self.glob!r}"
                    )
        return tuple(FileTask(self, stem, files[stem]) for stem in sorted(files))


class FileTask(Task):
    """The examples of one file. Its one instance takes demonstrations from the training part.

    The part of an example depends on its normalised input alone, so that an input which stands in several
    files is in the same part of each. `num_test` examples are kept from training. `num_repeats` counts
    examples left out because their input stood before with the same output, `num_conflicts` those with
    another one.
    """

    def __init__(self, settings: FileTasks, name: str, path: Path) -> None:
        self.name = name
        self.template = settings.template
        self.trained = not _matches(name, settings.held_out)
        self.num_repeats = self.num_conflicts = 0
        records = read_records(path)
        examples = self._distinct(records, path)
        parts: tuple[list[Example], list[Example]] = ([], [])
        for example in examples:
            parts[fraction("test part", str(example.key)) < settings.test_share].append(example)
        train, test = parts
        self.num_test = len(test)
        if not train or not test:
            raise InputError(
                f"{path}: {len(train)} training and {len(test)} test examples; expected at least one of each"
            )
        instruction = _instruction(records, path, settings, name)
        self._instances: dict[Split, FileInstance] = {
            "train": FileInstance(name, instruction, train, train),
            "held_out": FileInstance(name, instruction, train, test),
        }
        self._num_answers = len({example.target for example in examples})
        self._fingerprint = digest(name, str((instruction, self.template, self.trained, train, test)))

    def _distinct(self, records: list[dict[str, str]], path: Path) -> list[Example]:
        """The first example of every input."""
        examples: dict[str, Example] = {}
        for record in records:
            if self.template.delimiter in record["output"].strip():
                raise InputError(
                    f"{path}: the output {record['output'][:40]!r} holds the delimiter "
                    f"{self.template.delimiter!r}; expected another FileTasks.delimiter"
                )
            example = Example(record["input"].strip(), record["output"].strip(), normalise(record["input"]))
            known = examples.setdefault(example.input, example)
            if known is not example:
                self.num_repeats += known.target == example.target
                self.num_conflicts += known.target != example.target
        return list(examples.values())

    def num_instances(self, split: Split) -> int | None:
        return int(self.trained or split == "held_out")

    def instance(self, split: Split, index: int) -> TaskInstance:
        if not 0 <= index < (self.num_instances(split) or 0):
            raise IndexError(f"task {self.name!r} has no {split} instance {index}")
        return self._instances[split]

    def queries(self, split: Split) -> Iterator[Query]:
        """Each example to test once: the test part, or the training part for the split "train"."""
        for index in range(self.num_instances(split) or 0):
            instance = self.instance(split, index)
            examples = sorted(self._instances[split].tested, key=lambda example: digest(example.input))
            for example in examples:
                yield Query(instance, example, f"{self.name}:{digest(example.input)}")

    def fingerprint(self) -> str:
        return self._fingerprint

    def chance(self) -> float:
        """A guess among the different outputs of the file."""
        return 1 / self._num_answers


class FileInstance(TaskInstance):
    """The one instance of a file: demonstrations from one part, tests from another."""

    def __init__(
        self, task: str, instruction: str | None, shown: list[Example], tested: list[Example]
    ) -> None:
        self.task = task
        self.name = task
        self.instruction: str | None = instruction
        self.tested = tested
        self._shown = shown

    def demonstrations(self, rng: np.random.Generator) -> Iterator[Example]:
        return (self._shown[i] for i in rng.permutation(len(self._shown)))

    def episode(self, rng: np.random.Generator) -> Iterator[Example]:
        return (self.tested[i] for i in rng.permutation(len(self.tested)))


def normalise(text: str) -> str:
    """Text for comparison: compatibility forms, case and runs of white space do not count."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def task_name(path: Path) -> str:
    """The name of a file without .gz and its suffix."""
    return Path(path.name.removesuffix(".gz")).stem


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _instruction(records: list[dict[str, str]], path: Path, settings: FileTasks, name: str) -> str | None:
    """What the settings say, or else the file."""
    stated = {record["instruction"] for record in records if "instruction" in record}
    if len(stated) > 1:
        raise InputError(f"{path}: {len(stated)} different instructions, expected one for the whole file")
    return (settings.instructions or {}).get(name) or next(iter(stated), None)
