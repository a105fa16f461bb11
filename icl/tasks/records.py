"""Reads files of examples: JSON or JSONL, plain or compressed, in any of four forms.

{"input", "output"}; {"context", "completion"} and {"prompt", "completion"}, whose texts are taken as they
are; {"query", "choices", "gold"}. Of a list of outputs all are right, and demonstrations show the first.
Each may have an "instruction". Every defect is an `InputError` that names
the file and the line, or the number of a list's item.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from icl.errors import InputError
from icl.tasks.sources import file_suffix, read_text

RECORD_SUFFIXES = (".json", ".jsonl")
_TEXT_FORMS = (("input", "output"), ("context", "completion"), ("prompt", "completion"))
_EXPECTED = (
    'expected an object of "input" and "output", "context" or "prompt" and "completion", or "query", '
    '"choices" and "gold"'
)


class Record(NamedTuple):
    """One example as its file has it; `verbatim` texts follow each other without a separator."""

    input: str
    output: str
    choices: tuple[str, ...] = ()
    instruction: str | None = None
    verbatim: bool = False
    where: str = ""
    aliases: tuple[str, ...] = ()


def read_records(path: Path) -> list[Record]:
    """The examples of a file.

    A JSON file is a list of objects, or an object whose "examples" are a list or an object of objects.

    Raises:
      InputError: names the file and line (or the number of the list's item) and what was expected.
    """
    suffix = file_suffix(path)
    if suffix not in RECORD_SUFFIXES:
        raise InputError(
            f"{path}: unknown format {suffix!r}; expected .json or .jsonl, also with .gz or .zst"
        )
    text = read_text(path)
    if suffix == ".json":
        placed = [
            (f"{path}, item {number}", item) for number, item in _items(_parse(text, str(path), 1), path)
        ]
    else:
        lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        placed = [(f"{path}, line {number}", _parse(line, str(path), number)) for number, line in lines]
    if not placed:
        raise InputError(f"{path}: holds no examples; expected at least two")
    return [_record(where, item) for where, item in placed]


def _items(parsed: Any, path: Path) -> list[tuple[int, Any]]:
    found = parsed.get("examples", parsed) if isinstance(parsed, dict) else parsed
    if isinstance(found, dict) and found is not parsed:
        found = list(found.values())
    if not isinstance(found, list):
        raise InputError(f"{path}: holds a JSON {type(found).__name__}; expected a list of objects")
    return list(enumerate(found, 1))


def _parse(text: str, path: str, first_line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise InputError(f"{path}, line {line}: not JSON ({error.msg}, column {error.colno})") from error
    except RecursionError as error:
        raise InputError(f"{path}, line {first_line}: not JSON (nested too deeply)") from error


def _record(where: str, item: Any) -> Record:
    if not isinstance(item, dict):
        raise InputError(f"{where}: {str(item)[:40]!r}; {_EXPECTED}")
    instruction = _text(where, item, "instruction") if "instruction" in item else None
    if "query" in item:
        choices = _choices(where, item)
        return Record(_text(where, item, "query"), choices[0], choices[1], instruction, where=where)
    first, second = next((form for form in _TEXT_FORMS if form[0] in item), _TEXT_FORMS[0])
    for field in (first, second):
        if field not in item:
            raise InputError(f"{where}: no field {field!r}; {_EXPECTED}")
    given = item[second] if isinstance(item[second], list) and item[second] else [item[second]]
    outputs = [_text(where, {second: each}, second, may_be_empty=first == "prompt") for each in given]
    verbatim = second == "completion"
    text = _text(where, item, first)
    return Record(text, outputs[0], (), instruction, verbatim, where, tuple(dict.fromkeys(outputs[1:])))


def _choices(where: str, item: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The right option, and all of them."""
    choices, gold = item.get("choices"), item.get("gold")
    if not isinstance(choices, list) or len(choices) < 2:
        raise InputError(f"{where}: choices = {str(choices)[:40]}; expected a list of two texts or more")
    texts = tuple(_text(where, {"choices": choice}, "choices") for choice in choices)
    if isinstance(gold, bool) or not isinstance(gold, int) or not 0 <= gold < len(choices):
        raise InputError(
            f"{where}: gold = {gold!r}; expected the number of a choice, 0 to {len(choices) - 1}"
        )
    return texts[gold], texts


def _text(where: str, item: dict[str, Any], field: str, *, may_be_empty: bool = False) -> str:
    value = item[field]
    if not isinstance(value, str) or not (value.strip() or may_be_empty):
        raise InputError(f"{where}: {field} = {repr(value)[:60]}; expected text that is not empty")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise InputError(f"{where}: {field} holds a lone surrogate; expected Unicode text")
    return value
