"""Tasks from files: every JSON or JSONL file of examples is one task, and a glob is many.

The forms that a file may have are those of `icl.tasks.records`. Where texts are verbatim (contexts and
completions), the template follows the file: what the contexts begin with delimits examples, and white space
at the seam belongs to the completion; a prompt is then the texts one after the other.
"""

import dataclasses
import fnmatch
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from icl.errors import InputError, check_types
from icl.tasks.exclusion import normalise
from icl.tasks.pool import Distinct, PoolTask
from icl.tasks.records import Record, read_records
from icl.tasks.registry import register
from icl.tasks.sources import find_files
from icl.tasks.task import AnswerRule, CorpusMetric, Example, OptionRule, Template


@register("files")
@dataclasses.dataclass(frozen=True)
class FileTasks:
    """Settings of a family of tasks that are files.

    Tasks are named by file, without folder and suffix.

    Attributes:
      glob: Path or glob of .json or .jsonl files, also with .gz or .zst; a folder stands for all of these in
        it.
      prefix: Written before the names of the tasks.
      exclude: Files that are left out altogether; wildcards are allowed.
      held_out: Tasks that never feed training rows, by file name; wildcards are allowed.
      test_share: Share of every file's examples that are queries.
      pool: "split" keeps queries from demonstrations; "shared" takes both from all of a file, never the query
        itself, and trains on none of it: the GPT-3 paper's way for tasks with one set.
      exclusion_key: What a query must not share with its demonstrations: its input, or its output (the word
        of a scramble).
      instructions: What a task asks, by name or wildcard, where its file does not say so in an "instruction"
        field.
      input_prefix: Written before an input where texts are not verbatim, as "Q: ".
      separator: Written between input and output where texts are not verbatim, as "\\n\\nA:"; the output
        follows after a space. Contexts that compete for one continuation have none.
      delimiter: Closes a demonstration and ends an answer, unless contexts begin with line ends.
      end_marker: Cut off where an output ends in it, such as "<|endoftext|>".
      max_characters: Examples whose texts are longer together are left out; 0 for none.
      answers: How generated answers are held against the right ones: "exact", or as "squad" does, without
        case, punctuation and articles, with F1 over words beside exact match; "coqa" leaves one human answer
        out in turn.
      option_rule: How options compare, where examples have some.
      answer_context: What stands before an option for the rule "unconditional", as "Answer:".
      corpus_metrics: Metrics of all answers together that are no mean over queries, as "bleu".
      unfit: What happens to examples whose output is empty or holds the delimiter: an "error", or "skip".
    """

    glob: str = ""
    prefix: str = ""
    exclude: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    test_share: float = 0.2
    pool: Literal["split", "shared"] = "split"
    exclusion_key: Literal["input", "output"] = "input"
    instructions: Mapping[str, str] | None = None
    input_prefix: str = ""
    separator: str = " ->"
    delimiter: str = "\n"
    end_marker: str = ""
    max_characters: int = 0
    answers: AnswerRule = "exact"
    option_rule: OptionRule = "token"
    answer_context: str = "Answer:"
    corpus_metrics: tuple[CorpusMetric, ...] = ()
    unfit: Literal["error", "skip"] = "error"

    def __post_init__(self) -> None:
        check_types(self)
        if not 0 < self.test_share < 1:
            raise InputError(f"FileTasks.test_share = {self.test_share}: expected a share between 0 and 1")
        if not self.glob:
            raise InputError("FileTasks.glob = '': expected a path or glob of .json or .jsonl files")
        if not self.delimiter or self.separator[-1:].isspace():
            raise InputError(
                f"FileTasks.separator = {self.separator!r}, delimiter = {self.delimiter!r}: expected a "
                "delimiter, and a separator that does not end in a space"
            )
        if not self.answer_context or self.answer_context[-1].isspace():
            raise InputError(
                f"FileTasks.answer_context = {self.answer_context!r}: expected text that does not end in "
                "a space"
            )
        if self.max_characters < 0:
            raise InputError(f"FileTasks.max_characters = {self.max_characters}: expected 0 (any) or more")

    @property
    def template(self) -> Template:
        """How examples are written where texts are not verbatim."""
        return Template(
            input_prefix=self.input_prefix,
            separator=self.separator,
            target_prefix=" ",
            delimiter=self.delimiter,
        )

    def build(self, name: str) -> "tuple[FileTask, ...]":
        """One task a file, in the order of their names.

        Raises:
          InputError: a file is missing or malformed, or `held_out` or `instructions` names no file.
        """
        files = task_files("FileTasks", self.glob, "*.json*", self.exclude)
        for field, patterns in (
            ("held_out", self.held_out),
            ("instructions", tuple(self.instructions or ())),
        ):
            check_patterns(f"FileTasks.{field}", patterns, files, self.glob)
        return tuple(FileTask(self, stem, files[stem]) for stem in sorted(files))


class FileTask(PoolTask):
    """The examples of one file.

    `num_repeats` counts examples left out because their input stood before with the same output,
    `num_conflicts` those with another one, `num_unfit` those that are too long, empty, or hold the delimiter.
    """

    def __init__(self, settings: FileTasks, name: str, path: Path) -> None:
        records = read_records(path)
        template = _template(settings, records)
        fit = [example for record in records if (example := _example(settings, template, record)) is not None]
        self.num_unfit = len(records) - len(fit)
        distinct = Distinct(fit)
        self.num_repeats, self.num_conflicts = distinct.num_repeats, distinct.num_conflicts
        super().__init__(
            f"{settings.prefix}{name}",
            template,
            distinct.examples,
            where=str(path),
            instruction=_instruction(records, path, settings, name),
            trained=not matches(name, settings.held_out),
            test_share=settings.test_share,
            shared=settings.pool == "shared",
            answer_rule=settings.answers,
            option_rule=settings.option_rule,
            answer_context=settings.answer_context,
            corpus_metrics=settings.corpus_metrics,
        )


def task_files(family: str, pattern: str, within: str, exclude: Sequence[str]) -> dict[str, Path]:
    """The files of a glob by task name.

    Args:
      family: Settings class, for errors.
      pattern: Path or glob, or a folder.
      within: Which files of a folder.
      exclude: Names that are left out; wildcards are allowed.

    Raises:
      InputError: there is none, or two files make one name.
    """
    found = f"{pattern}/{within}" if Path(pattern).expanduser().is_dir() else pattern
    files: dict[str, Path] = {}
    for path in find_files(found, f"{family}.glob"):
        stem = task_name(path)
        if stem in files:
            raise InputError(f"{family}.glob = {pattern!r}: {files[stem]} and {path} make one task name")
        if not matches(stem, exclude):
            files[stem] = path
    if not files:
        raise InputError(f"{family}.exclude = {exclude!r}: leaves out all files of {pattern!r}")
    return files


def check_patterns(field: str, patterns: Sequence[str], files: Mapping[str, Path], glob: str) -> None:
    """Raises InputError for a pattern that names none of the files."""
    for pattern in patterns:
        if not fnmatch.filter(files, pattern):
            raise InputError(f"{field}: {pattern!r} names none of the files of {glob!r}")


def task_name(path: Path) -> str:
    """The name of a file without .gz or .zst and its suffix."""
    return Path(path.name.removesuffix(".gz").removesuffix(".zst")).stem


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether one of the patterns, with wildcards, is the name's."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _template(settings: FileTasks, records: Sequence[Record]) -> Template:
    """The settings' template, or the one that a verbatim file has.

    Raises:
      InputError: some of the file's texts are verbatim, others not.
    """
    first = records[0]
    for record in records:
        if record.verbatim != first.verbatim or bool(record.ending) != bool(first.ending):
            raise InputError(
                f"{record.where}: of another form than the file's first example; expected either "
                '"completion" throughout, whose texts are taken as they are, or "context_options" '
                "throughout, or the other forms"
            )
    if not first.verbatim:
        return dataclasses.replace(settings.template, separator="") if first.ending else settings.template
    delimiter = _most_common(_leading(record.input) for record in records)
    seam = _most_common(
        record.input[len(record.input.rstrip()) :] + _leading(record.output, " \n\t") for record in records
    )
    delimiter = delimiter or settings.delimiter
    while delimiter in seam:  # an answer would end where it begins
        delimiter += settings.delimiter
    return Template(separator="", target_prefix=seam, delimiter=delimiter)


def _example(settings: FileTasks, template: Template, record: Record) -> Example | None:
    """A record as an example; None where it does not fit.

    Raises:
      InputError: it does not fit and `FileTasks.unfit` is "error".
    """
    text, output = record.input.strip(), record.output.removesuffix(settings.end_marker).strip()
    if settings.max_characters and len(text) + len(output) > settings.max_characters:
        return None
    problem = ""
    if not output:
        problem = "the output is empty"
    elif template.delimiter in output:
        problem = f"the output {output[:40]!r} holds the delimiter {template.delimiter!r}"
    elif any(template.delimiter in choice for choice in record.choices):
        problem = f"a choice holds the delimiter {template.delimiter!r}"
    if problem and settings.unfit == "skip":
        return None
    if problem:
        raise InputError(
            f"{record.where}: {problem}; expected another FileTasks.delimiter, or unfit = 'skip'"
        )
    choices = tuple(choice.strip() for choice in record.choices)
    aliases = tuple(alias for each in record.aliases if (alias := each.strip()) != output)
    key = output if settings.exclusion_key == "output" else text
    ending = record.ending.rstrip()
    if ending:  # the twin of a schema has the same options before another ending
        key = " ".join(choice.removesuffix(ending) for choice in choices)
    return Example(text, output, normalise(key), choices, ending, aliases, record.group)


def _leading(text: str, characters: str = "\n") -> str:
    return text[: len(text) - len(text.lstrip(characters))]


def _most_common(texts: Iterator[str]) -> str:
    return Counter(texts).most_common(1)[0][0]


def _instruction(records: Sequence[Record], path: Path, settings: FileTasks, name: str) -> str | None:
    """What the settings say, or else the file."""
    stated = {record.instruction for record in records if record.instruction is not None}
    if len(stated) > 1:
        raise InputError(f"{path}: {len(stated)} different instructions, expected one for the whole file")
    named = [text for pattern, text in (settings.instructions or {}).items() if matches(name, [pattern])]
    return named[-1] if named else next(iter(stated), None)
