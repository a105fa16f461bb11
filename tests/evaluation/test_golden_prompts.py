"""Every task's prompt, letter by letter, beside a page that a person can read (tests/evaluation/golden).

    ICL_GOLDEN=write python -m pytest tests/evaluation/test_golden_prompts.py

writes the pages anew; what changed is then for the reader of the difference to judge.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from icl.evaluation.prompts import prompt_text
from icl.tasks import Example, FileTasks, Task, Template
from icl.tasks.tfds_readers import TFDS_TASKS, Reading
from tests.evaluation.golden_rows import golden_rows
from tests.evaluation.test_gpt3_presets import OF_THE_PAPER

FOLDER = Path(__file__).parent / "golden"
BEGIN, END = "⟦", "⟧"


def page(
    asked: Example, shown: Sequence[Example], template: Template, instruction: str | None, rules: str
) -> str:
    """The prompts without demonstrations and with two; the answer stands between marks that are not in it."""
    parts = [f"The answer is what stands between {BEGIN} and {END}; {rules}.\n"]
    for k in (0, 2):
        prompt = prompt_text(template, instruction, shown[:k], asked)
        answer = template.after(k).completion(asked)
        parts.append(f"======== K = {k}\n{prompt}{BEGIN}{answer}{END}\n")
    if asked.choices:
        parts.append("======== Options\n" + "".join(f"{BEGIN} {choice}{END}\n" for choice in asked.choices))
    if asked.ending:
        parts.append(f"======== Scored\n{BEGIN}{asked.ending}{END}\n")
    if asked.aliases:
        parts.append(
            "======== Right as well\n" + "".join(f"{BEGIN} {alias}{END}\n" for alias in asked.aliases)
        )
    return "\n".join(parts)


def of_reading(name: str, reading: Reading) -> str:
    """The page of a task from TFDS."""
    *rows, last = golden_rows(name)
    shown = [example for row in rows for example in list((reading.shown or reading.read)(row))[:1]]
    asked = list(reading.read(last))[-1]
    compared = {
        "token": "options compare by likelihood per token",
        "unconditional": f"options compare by P(option | prompt) / P(option | {reading.answer_context!r})",
    }[reading.option_rule]
    judged = f"generated answers are judged by the rule {reading.answer_rule!r}"
    rules = compared if asked.choices else judged
    if asked.choices and asked.ending:
        rules = f"{compared} of their common end"
    if reading.corpus_metrics:
        rules += f"; over all answers: {', '.join(reading.corpus_metrics)}"
    return page(asked, shown, reading.template, reading.instruction, rules)


def of_file(folder: Path, name: str, lines: Sequence[str], settings: FileTasks) -> str:
    """The page of a task that is a file."""
    (folder / f"{name}.jsonl").write_text("\n".join(lines))
    (task,) = settings.build("files")
    *shown, asked = sorted(_examples(task), key=lambda example: example.target)
    rules = "options compare by likelihood per token" if asked.choices else "answers are judged as they stand"
    return page(asked, shown, task.template, task.instance("held_out", 0).instruction, rules)


def _examples(task: Task) -> Iterator[Example]:
    return (query.example for query in task.queries("held_out"))


def compare(name: str, found: str) -> None:
    """Raises where a page is another, or writes it if the environment says so."""
    path = FOLDER / f"{name}.txt"
    if os.environ.get("ICL_GOLDEN") == "write":
        path.write_text(found, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == found


@pytest.mark.parametrize("name", OF_THE_PAPER)
def test_the_prompt_is_the_golden_one(name: str) -> None:
    compare(name, of_reading(name, TFDS_TASKS[name]))


_SUM = '{{"context": "\\n\\nQ: What is {}?\\n\\nA:", "completion": " {}"}}'
_WORD = '{{"context": "\\n{} =", "completion": " {}"}}'
_PAIR = '{{"query": "{0} is to {1} as", "choices": ["{1} is to {0}", "{2} is to {3}"], "gold": 1}}'
_FILES: dict[str, tuple[list[str], dict[str, Any]]] = {
    "arithmetic": (
        [_SUM.format("21 plus 4", 25), _SUM.format("33 minus 1", 32), _SUM.format("7 times 6", 42)],
        {},
    ),
    "scrambles": (
        [_WORD.format("pplea", "apple"), _WORD.format("emonl", "lemon"), _WORD.format("lump", "plum")],
        {"instructions": {"scrambles": "Please unscramble the letters into a word, and write that word:"}},
    ),
    "sat_analogies": (
        [
            _PAIR.format("hot", "cold", "high", "low"),
            _PAIR.format("nest", "bird", "kennel", "dog"),
            _PAIR.format("oar", "boat", "pedal", "bicycle"),
        ],
        {"separator": "", "delimiter": "\n\n"},
    ),
}


@pytest.mark.parametrize("name", _FILES)
def test_the_prompt_of_a_file_is_the_golden_one(tmp_path: Path, name: str) -> None:
    lines, settings = _FILES[name]
    compare(
        name,
        of_file(tmp_path, name, lines, FileTasks(glob=str(tmp_path / "*.jsonl"), pool="shared", **settings)),
    )


def test_there_is_no_page_without_a_task() -> None:
    assert {path.stem for path in FOLDER.glob("*.txt")} == {*OF_THE_PAPER, *_FILES}
