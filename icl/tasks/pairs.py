"""Tasks from lists of pairs: word translation, typo correction, inflection.

Every line of a file is an example, cut into columns; input and output are written from the columns.
"""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from icl.errors import InputError, check_types
from icl.tasks.exclusion import normalise
from icl.tasks.files import check_patterns, matches, task_files
from icl.tasks.pool import Distinct, PoolTask
from icl.tasks.registry import register
from icl.tasks.sources import read_text
from icl.tasks.task import Example, Template

_PLACE = re.compile(r"\{(\d+)\}")


@register("pairs")
@dataclasses.dataclass(frozen=True)
class PairTasks:
    """Settings of a family of tasks that are lists, one file a task, or two for both directions.

    Attributes:
      glob: Path or glob of text files, also with .gz or .zst.
      prefix: Written before the names of the tasks.
      columns: What stands between the columns of a line: a tab, or "->" for lists of typos.
      input: The input, with `{0}` for the first column and so on.
      output: The output, likewise.
      reverse: Whether there is a second task, `NAME-reversed`, from output to input.
      several: What happens to a line whose output lists several, separated by commas: the "first" is taken,
        the line is left out ("skip"), or the output is taken as it stands ("whole").
      exclude: Files that are left out altogether; wildcards are allowed.
      held_out: Tasks that never feed training rows, by file name, in both directions; wildcards are allowed.
      test_share: Share of every file's examples that are queries.
      instruction: What the tasks ask, in words.
      separator: Written between input and output; the output follows after a space.
    """

    glob: str = ""
    prefix: str = ""
    columns: str = "\t"
    input: str = "{0}"
    output: str = "{1}"
    reverse: bool = False
    several: Literal["first", "skip", "whole"] = "whole"
    exclude: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    test_share: float = 0.2
    instruction: str = ""
    separator: str = " ->"

    def __post_init__(self) -> None:
        check_types(self)
        if not self.glob:
            raise InputError("PairTasks.glob = '': expected a path or glob of text files")
        if not 0 < self.test_share < 1:
            raise InputError(f"PairTasks.test_share = {self.test_share}: expected a share between 0 and 1")
        if not self.columns.strip(" "):
            raise InputError(f"PairTasks.columns = {self.columns!r}: expected what separates columns")
        if not self.separator or self.separator[-1].isspace():
            raise InputError(
                f"PairTasks.separator = {self.separator!r}: expected one that does not end in a space"
            )
        for field in ("input", "output"):
            if not _PLACE.search(getattr(self, field)):
                raise InputError(
                    f"PairTasks.{field} = {getattr(self, field)!r}: expected a text with a column, as '{{0}}'"
                )

    def build(self, name: str) -> tuple[PoolTask, ...]:
        """One task a file, or two, in the order of their names.

        Raises:
          InputError: a file is missing or malformed, or `held_out` names no file.
        """
        del name
        files = task_files("PairTasks", self.glob, "*", self.exclude)
        check_patterns("PairTasks.held_out", self.held_out, files, self.glob)
        tasks = []
        for stem in sorted(files):
            examples = list(self._examples(files[stem]))
            tasks.append(self._task(stem, stem, files[stem], examples))
            if self.reverse:
                turned = [Example(e.target, e.input, normalise(e.target)) for e in examples]
                tasks.append(self._task(f"{stem}-reversed", stem, files[stem], turned))
        return tuple(tasks)

    def _task(self, name: str, stem: str, path: Path, examples: list[Example]) -> PoolTask:
        return PoolTask(
            f"{self.prefix}{name}",
            Template(separator=self.separator, target_prefix=" "),
            Distinct(examples).examples,
            where=str(path),
            instruction=self.instruction or None,
            trained=not matches(stem, self.held_out),
            test_share=self.test_share,
        )

    def _examples(self, path: Path) -> Iterator[Example]:
        needed = 1 + max(int(place) for place in _PLACE.findall(self.input + self.output))
        for number, line in enumerate(read_text(path).split("\n"), 1):
            if not line.strip():
                continue
            columns = [column.strip() for column in line.split(self.columns)]
            if len(columns) < needed:
                raise InputError(
                    f"{path}, line {number}: {len(columns)} columns between {self.columns!r}; expected "
                    f"at least {needed}"
                )
            text, output = (
                _PLACE.sub(lambda place: columns[int(place[1])], form).strip()  # noqa: B023
                for form in (self.input, self.output)
            )
            several = [one.strip() for one in output.split(",") if one.strip()]
            if self.several != "whole" and several:
                if len(several) > 1 and self.several == "skip":
                    continue
                output = several[0]
            if not text or not output:
                raise InputError(f"{path}, line {number}: an empty input or output; expected text in both")
            yield Example(text, output, normalise(text))
