"""Reads files of examples: JSON or JSONL, plain or compressed, in any of these forms.

{"input", "output"}, {"question", "answer"}, {"context", "answer"} and {"context", "continuation"};
{"context", "completion"} and {"prompt", "completion"}, whose texts are taken as they are;
{"query", "choices", "gold"}, also with a "group" that a corpus metric puts together; and {"context_options",
"continuation", "gold"}, contexts that compete for one continuation. Of a list of outputs all are right, and
demonstrations show the first; "aliases" are further ones. Each may have an "instruction". Every defect is an
`InputError` that names the file and the line, or the number of a list's item.
"""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from icl.errors import InputError
from icl.tasks.sources import file_suffix, read_text

RECORD_SUFFIXES = (".json", ".jsonl")
_TEXT_FORMS = (
    ("input", "output"),
    ("context", "completion"),
    ("prompt", "completion"),
    ("context", "continuation"),
    ("context", "answer"),
    ("question", "answer"),
    ("question", "answers"),
)
_EXPECTED = (
    'expected an object of "input" and "output", "context" or "prompt" and "completion", "context" and '
    '"continuation", "question" or "context" and "answer", "query", "choices" and "gold", or '
    '"context_options", "continuation" and "gold"'
)


class Record(NamedTuple):
    """One example as its file has it; `verbatim` texts follow each other without a separator.

    `ending` is what all choices end in, where they are contexts and what is scored is their continuation.
    """

    input: str
    output: str
    choices: tuple[str, ...] = ()
    instruction: str | None = None
    verbatim: bool = False
    where: str = ""
    aliases: tuple[str, ...] = ()
    ending: str = ""
    group: str = ""


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
    if "context_options" in item:
        return _schema(where, item, instruction)
    if "query" in item:
        right, choices = _choices(where, item, "choices")
        group = _text(where, item, "group") if "group" in item else ""
        text = _text(where, item, "query")
        return Record(text, right, choices, instruction, where=where, group=group)
    forms = [form for form in _TEXT_FORMS if form[0] in item] or [_TEXT_FORMS[0]]
    first, second = next((form for form in forms if form[1] in item), forms[0])
    for field in (first, second):
        if field not in item:
            raise InputError(f"{where}: no field {field!r}; {_EXPECTED}")
    given = item[second] if isinstance(item[second], list) and item[second] else [item[second]]
    outputs = [_text(where, {second: each}, second, may_be_empty=first == "prompt") for each in given]
    verbatim = second == "completion"
    text = _text(where, item, first)
    aliases = tuple(dict.fromkeys([*outputs[1:], *_aliases(where, item)]))
    return Record(text, outputs[0], (), instruction, verbatim, where, aliases)


def _aliases(where: str, item: dict[str, Any]) -> list[str]:
    """Further right answers; empty ones are passed over."""
    aliases = item.get("aliases") or []
    if not isinstance(aliases, list):
        raise InputError(f"{where}: aliases = {str(aliases)[:40]!r}; expected a list of texts")
    texts = [_text(where, {"aliases": alias}, "aliases", may_be_empty=True) for alias in aliases]
    return [text for text in texts if text.strip()]


def _schema(where: str, item: dict[str, Any], instruction: str | None) -> Record:
    """Contexts that begin alike: the words they share are the input, and what follows in each is a choice."""
    if "continuation" not in item:
        raise InputError(f"{where}: no field 'continuation'; {_EXPECTED}")
    right, contexts = _choices(where, item, "context_options")
    ending = f" {_text(where, item, 'continuation').strip()}"
    words = [context.split(" ") for context in contexts]
    shared = min(len(os.path.commonprefix(words)), min(map(len, words)) - 1)
    text = " ".join(words[0][:shared])
    if not text.strip() or len(set(contexts)) < len(contexts):
        raise InputError(
            f"{where}: context_options = {str(list(contexts))[:60]}; expected different texts that begin "
            "with the same words"
        )
    heads = {
        context: f"{' '.join(each[shared:]).strip()}{ending}"
        for context, each in zip(contexts, words, strict=True)
    }
    return Record(text, heads[right], tuple(heads.values()), instruction, where=where, ending=ending)


def _choices(where: str, item: dict[str, Any], field: str) -> tuple[str, tuple[str, ...]]:
    """The right option, and all of them."""
    choices, gold = item.get(field), item.get("gold")
    if not isinstance(choices, list) or len(choices) < 2:
        raise InputError(f"{where}: {field} = {str(choices)[:40]}; expected a list of two texts or more")
    texts = tuple(_text(where, {field: choice}, field) for choice in choices)
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
