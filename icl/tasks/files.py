"""Tasks from files: every JSON or JSONL file of {"input", "output"} objects is one task.

A file is split by a hash of the normalised input into a training part, which feeds rows and
demonstrations, and a test part, which holds the queries. Whole files can be held out of training.
"""

import dataclasses
import fnmatch
import glob
import gzip
import json
import unicodedata
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from icl.data.keys import digest, fraction
from icl.errors import InputError, check_types
from icl.tasks.registry import register
from icl.tasks.task import Example, Query, Split, Task, TaskInstance, Template
from icl.tasks.words import check_share

SUFFIXES = (".json", ".jsonl")
_FIELDS = {"input", "output", "instruction"}


@register("files")
@dataclasses.dataclass(frozen=True)
class FileTasks:
    """Settings of a family of tasks that are files.

    `glob` names the files: .json (a list of objects) or .jsonl (one object a line), also with .gz. Tasks
    are named by file, without folder and suffix. `held_out` lists tasks (wildcards allowed) that never feed
    training rows. `test_share` of every file's examples are queries. `instructions` maps a task to what it
    asks, where the file does not say so in an "instruction" field.
    """

    glob: str = ""
    held_out: tuple[str, ...] = ()
    test_share: float = 0.2
    instructions: Mapping[str, str] | None = None
    separator: str = " ->"
    delimiter: str = "\n"

    def __post_init__(self) -> None:
        check_types(self)
        check_share("FileTasks.test_share", self.test_share)
        if not self.glob:
            raise InputError("FileTasks.glob = '': expected a path or glob of .json or .jsonl files")
        if not self.delimiter or not self.separator or self.separator[-1].isspace():
            raise InputError(
                f"FileTasks.separator = {self.separator!r}, delimiter = {self.delimiter!r}: expected a delimiter, "
                "and a separator that does not end in a space"
            )

    def build(self, name: str) -> "tuple[FileTask, ...]":
        """One task a file, in the order of their names.

        Raises:
          InputError: a file is missing or malformed, or `held_out` or `instructions` names no file.
        """
        paths = find_files(self.glob, f"FileTasks.glob of {name!r}")
        files = {task_name(path): path for path in paths}
        if len(files) < len(paths):
            raise InputError(f"FileTasks.glob = {self.glob!r}: two files would make tasks of one name")
        for field, patterns in (
            ("held_out", self.held_out),
            ("instructions", tuple(self.instructions or ())),
        ):
            for pattern in patterns:
                if not fnmatch.filter(files, pattern):
                    raise InputError(
                        f"FileTasks.{field}: {pattern!r} names none of the files of {self.glob!r}"
                    )
        return tuple(self._task(stem, files[stem]) for stem in sorted(files))

    def _task(self, stem: str, path: Path) -> "FileTask":
        records = read_records(path)
        stated = {record["instruction"] for record in records if "instruction" in record}
        if len(stated) > 1:
            raise InputError(f"{path}: {len(stated)} different instructions, expected one for the whole file")
        instruction = dict(self.instructions or {}).get(stem) or next(iter(stated), None)
        held_out = any(fnmatch.fnmatchcase(stem, pattern) for pattern in self.held_out)
        template = Template(separator=self.separator, target_prefix=" ", delimiter=self.delimiter)
        return FileTask(stem, path, records, instruction, template, self.test_share, trained=not held_out)


class FileTask(Task):
    """The examples of one file. Its one instance takes demonstrations from the training part.

    `num_repeats` counts examples left out because their normalised input stood before with the same
    output, `num_conflicts` those with another one.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        records: list[dict[str, str]],
        instruction: str | None,
        template: Template,
        test_share: float,
        *,
        trained: bool,
    ) -> None:
        self.name = name
        self.template = template
        self.trained = trained
        self.num_repeats = self.num_conflicts = 0
        examples: dict[str, Example] = {}
        for record in records:
            key = normalise(record["input"])
            if template.delimiter in record["output"]:
                raise InputError(
                    f"{path}: the output {record['output']!r} holds the delimiter {template.delimiter!r}; "
                    "expected outputs without it, or another FileTasks.delimiter"
                )
            example = Example(record["input"].strip(), record["output"].strip(), key)
            known = examples.setdefault(key, example)
            self.num_repeats += known is not example and known.target == example.target
            self.num_conflicts += known.target != example.target
        is_test = {key: fraction("test part", key) < test_share for key in examples}
        train = [example for key, example in examples.items() if not is_test[key]]
        self._test = sorted((examples[key] for key in examples if is_test[key]), key=_hash_order)
        if not train or not self._test:
            raise InputError(
                f"{path}: {len(train)} training and {len(self._test)} test examples; expected at least one of each"
            )
        self._train = train
        self._instance = FileInstance(name, instruction, train, self._test)
        self._training_instance = FileInstance(name, instruction, train, train)
        self._num_answers = len({example.target for example in examples.values()})

    def num_instances(self, split: Split) -> int | None:
        return int(self.trained or split == "held_out")

    def instance(self, split: Split, index: int) -> TaskInstance:
        if not 0 <= index < (self.num_instances(split) or 0):
            raise IndexError(f"task {self.name!r} has no {split} instance {index}")
        return self._instance if split == "held_out" else self._training_instance

    def queries(self, split: Split) -> Iterator[Query]:
        """Each example of the test part once; of the training part where a trained task is asked for it."""
        if split == "held_out":
            examples = self._test
        else:
            examples = sorted(self._train, key=_hash_order) if self.trained else []
        for example in examples:
            yield Query(self._instance, example, f"{self.name}:{digest(example.input)}")

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
        self._shown = shown
        self._tested = tested

    def demonstrations(self, rng: np.random.Generator) -> Iterator[Example]:
        return (self._shown[i] for i in rng.permutation(len(self._shown)))

    def episode(self, rng: np.random.Generator) -> Iterator[Example]:
        return (self._tested[i] for i in rng.permutation(len(self._tested)))


def normalise(text: str) -> str:
    """Text for comparison: compatibility forms, case and runs of white space do not count."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def task_name(path: Path) -> str:
    """The name of a file without .gz and its suffix."""
    return Path(path.name.removesuffix(".gz")).stem


def find_files(pattern: str, what: str) -> list[Path]:
    """The files that a path or glob names, sorted.

    Raises:
      InputError: there is none, or one of them is a folder.
    """
    paths = [Path(name) for name in sorted(glob.glob(str(Path(pattern).expanduser()), recursive=True))]
    files = [path for path in paths if path.is_file()]
    if not files:
        raise InputError(f"{what} = {pattern!r}: no such file" + (", only a folder" if paths else ""))
    return files


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, which may be gzipped.

    Raises:
      InputError: the file cannot be read, or is not gzip or UTF-8.
    """
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path}, line {line}: not UTF-8 ({error.reason}); expected text in UTF-8"
        ) from error


def read_records(path: Path) -> list[dict[str, str]]:
    """The {"input", "output"} objects of a JSON or JSONL file.

    Raises:
      InputError: names the file and line (or the number of the list's item) and what was expected.
    """
    suffix = Path(path.name.removesuffix(".gz")).suffix
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: unknown format {suffix!r}; expected .json or .jsonl, also with .gz")
    text = read_text(path)
    if suffix == ".json":
        items = _parse(text, str(path), 1)
        if not isinstance(items, list):
            raise InputError(f"{path}: holds a JSON {type(items).__name__}; expected a list of objects")
        placed = [(f"{path}, item {i}", item) for i, item in enumerate(items, 1)]
    else:
        lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        placed = [(f"{path}, line {number}", _parse(line, str(path), number)) for number, line in lines]
    if not placed:
        raise InputError(f"{path}: holds no examples; expected at least two")
    return [_checked(where, item) for where, item in placed]


def _parse(text: str, path: str, first_line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise InputError(f"{path}, line {line}: not JSON ({error.msg}, column {error.colno})") from error
    except RecursionError as error:
        raise InputError(f"{path}, line {first_line}: not JSON (nested too deeply)") from error


def _checked(where: str, item: Any) -> dict[str, str]:
    """The object's known fields; other fields are left out."""
    expected = 'expected an object {"input": text, "output": text}'
    if not isinstance(item, dict):
        raise InputError(f"{where}: {str(item)[:40]!r}; {expected}")
    record = {field: item[field] for field in item if field in _FIELDS}
    for field in ("input", "output"):
        if field not in record:
            raise InputError(f"{where}: no field {field!r}; {expected}")
    for field, value in record.items():
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"{where}: {field} = {value!r}; expected text that is not empty")
        if any("\ud800" <= letter <= "\udfff" for letter in value):
            raise InputError(f"{where}: {field} holds a lone surrogate; expected Unicode text")
    return record


def _hash_order(example: Example) -> str:
    return digest("query order", example.input)
