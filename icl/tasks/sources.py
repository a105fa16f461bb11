"""Reads input files: text, and {"input", "output"} records, plain or gzipped.

Every defect of a file is an `InputError` that names the file and, where there is one, the line.
"""

import glob
import gzip
import json
import zlib
from pathlib import Path
from typing import Any

from icl.errors import InputError

RECORD_SUFFIXES = (".json", ".jsonl")
_FIELDS = ("input", "output", "instruction")


def find_files(pattern: str, what: str) -> list[Path]:
    """The files that a path or glob names, sorted.

    Raises:
      InputError: there is none.
    """
    paths = [Path(name) for name in sorted(glob.glob(str(Path(pattern).expanduser()), recursive=True))]
    files = [path for path in paths if path.is_file()]
    if not files:
        raise InputError(f"{what} = {pattern!r}: no such file" + (", only a folder" if paths else ""))
    return files


def file_suffix(path: Path) -> str:
    """The suffix of a file, .gz left off."""
    return Path(path.name.removesuffix(".gz")).suffix


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, which may be gzipped; line ends become newlines.

    Raises:
      InputError: the file cannot be read, or is not gzip or UTF-8.
    """
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"{path}: cannot be read: {reason}") from error
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path}, line {line}: not UTF-8 ({error.reason}); expected text in UTF-8"
        ) from error


def read_records(path: Path) -> list[dict[str, str]]:
    """The {"input", "output"} objects of a JSON or JSONL file, with "instruction" where they have one.

    Raises:
      InputError: names the file and line (or the number of the list's item) and what was expected.
    """
    suffix = file_suffix(path)
    if suffix not in RECORD_SUFFIXES:
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
