"""Where a corpus's documents come from, as pieces that each stream theirs in order.

    books/            every text or JSONL file in a folder, also in folders within
    books/*.txt.gz    the files of a glob; a file of text is one document
    web.jsonl.zst     JSONL: every line is a document, its text in the field "text"
    web.jsonl#body    the same with another field
    tfds:c4/en:3.1.0  a TFDS data set; tfds:lm1b[validation]#text names a split and a field

Files may be plain, .gz or .zst. A piece is small enough to be one process's work where the format allows:
compressed files cannot be divided. No piece holds more than a document, or a file of text, in memory.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from icl.data.keys import digest
from icl.data.tfds_documents import TFDS_PREFIX, TfdsPiece, open_tfds
from icl.errors import InputError
from icl.tasks.sources import file_suffix, find_files, read_chunks, read_text

TEXT_SUFFIXES = (".txt", ".text", ".md", ".rst", ".raw")
JSONL_SUFFIXES = (".jsonl", ".ndjson")
_COMPRESSIONS = ("", ".gz", ".zst")
_FIELD = "text"
_JSON_OF_BUILDERS = "dataset_info.json"


class Piece(Protocol):
    """Consecutive documents of one source.

    Attributes:
      name: What it is, for people.
      size: Bytes on disk, roughly.
    """

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int: ...

    def documents(self) -> Iterator[str]:
        """The documents in order. Raises InputError, naming file and line, where one cannot be read."""
        ...

    def fingerprint(self) -> str:
        """Names the documents by content; reads whole files."""
        ...


@dataclasses.dataclass(frozen=True)
class TextPiece:
    """A file of text, which is one document."""

    path: Path
    size: int

    @property
    def name(self) -> str:
        return str(self.path)

    def documents(self) -> Iterator[str]:
        yield read_text(self.path)

    def fingerprint(self) -> str:
        return digest("text", self.path.name, hash_file(self.path, self.size))


@dataclasses.dataclass(frozen=True)
class JsonlPiece:
    """The lines of a JSONL file that begin in the range of bytes [start, stop)."""

    path: Path
    file_size: int
    field: str
    start: int
    stop: int

    @property
    def name(self) -> str:
        whole = self.stop - self.start == self.file_size
        return f"{self.path}" if whole else f"{self.path}, bytes {self.start} to {self.stop}"

    @property
    def size(self) -> int:
        return self.stop - self.start

    def documents(self) -> Iterator[str]:
        whole = self.path.suffix in _COMPRESSIONS
        for place, line in _lines(self.path, self.start, None if whole else self.stop):
            if not line.strip():
                continue
            try:
                yield self._text(line)
            except ValueError as error:
                number = _line_number(self.path, place)
                raise InputError(f"{self.path}, line {number}: {error}") from error

    def _text(self, line: bytes) -> str:
        """The text of a line; what is wrong with it is a ValueError."""
        try:
            item = json.loads(line.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise ValueError(f"not UTF-8 ({error.reason}); expected JSON in UTF-8") from error
        except json.JSONDecodeError as error:
            raise ValueError(f"not JSON ({error.msg}, column {error.colno})") from error
        except RecursionError as error:
            raise ValueError("not JSON (nested too deeply)") from error
        expected = f"expected an object with text under {self.field!r}"
        if not isinstance(item, dict):
            raise ValueError(f"{str(item)[:40]!r}; {expected}")
        if self.field not in item:
            raise ValueError(f"no field {self.field!r}, but {sorted(item)[:8]}; {expected}")
        text = item[self.field]
        if not isinstance(text, str):
            raise ValueError(f"{self.field} = {str(text)[:40]!r}; {expected}")
        if b"\\u" in line and any("\ud800" <= letter <= "\udfff" for letter in text):
            raise ValueError(f"{self.field} holds a lone surrogate; expected Unicode text")
        return text

    def fingerprint(self) -> str:
        content = hash_file(self.path, self.file_size)
        return digest("jsonl", self.path.name, content, self.field, self.start, self.stop)


def find_pieces(
    sources: Sequence[str], what: str, data_dir: str | None = None, piece_bytes: int | None = None
) -> list[Piece]:
    """The pieces of sources in their order; a file that two sources name is taken once.

    Args:
      sources: paths, globs and TFDS names, see the top of this file.
      what: the setting that named them, for messages.
      data_dir: folder of the TFDS data sets; by default the one of TFDS.
      piece_bytes: size of a piece at most, where the format allows; by default a power of two that makes no
        more than about 256 pieces.

    Raises:
      InputError: a source names nothing that can be read.
    """
    files: list[tuple[Path, str]] = []
    found: list[tuple[Path, str] | str] = []
    for source in sources:
        if source.startswith(TFDS_PREFIX):
            found.append(source)
            continue
        path, field = _split_field(source)
        for file in _files(path, what):
            files.append((file.resolve(), field))
            found.append(files[-1])
    found = list(dict.fromkeys(found))
    sizes = {path: path.stat().st_size for path, _ in files}
    opened = {item: open_tfds(item, data_dir) for item in found if isinstance(item, str)}
    if piece_bytes is None:
        piece_bytes = choose_piece_bytes(
            sum(sizes.values()) + sum(split.num_bytes for split in opened.values())
        )
    pieces: list[Piece] = []
    for item in found:
        if isinstance(item, str):
            pieces += _divide_tfds(opened[item].piece(data_dir), opened[item].num_bytes, piece_bytes)
        else:
            pieces += _divide_file(*item, sizes[item[0]], piece_bytes)
    return pieces


def choose_piece_bytes(total: int) -> int:
    """A power of two, so that it rarely changes when the sources do; at least 1 MiB."""
    return 1 << max(20, (total // 256).bit_length())


def _files(path: str, what: str) -> list[Path]:
    """The files of a path, folder or glob."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return find_files(path, what)
    if (folder / _JSON_OF_BUILDERS).exists():
        raise InputError(f"{what} = {path!r}: is a TFDS data set; write {TFDS_PREFIX}{folder.resolve()}")
    files = [
        file for file in sorted(folder.rglob("*")) if _is_text(file.relative_to(folder)) and file.is_file()
    ]
    if not files:
        suffixes = ", ".join((*TEXT_SUFFIXES, *JSONL_SUFFIXES))
        raise InputError(f"{what} = {path!r}: the folder holds no file of {suffixes}, also with .gz or .zst")
    return files


def _is_text(path: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.parts)
    return not hidden and file_suffix(path) in (*TEXT_SUFFIXES, *JSONL_SUFFIXES)


def _split_field(source: str) -> tuple[str, str]:
    """A path and the field of its JSONL lines."""
    path, mark, field = source.rpartition("#")
    if not mark or Path(source).expanduser().exists():
        return source, _FIELD
    return path, field


def _divide_file(path: Path, field: str, size: int, piece_bytes: int) -> list[Piece]:
    if file_suffix(path) not in JSONL_SUFFIXES:
        return [TextPiece(path, size)]
    divides = path.suffix in JSONL_SUFFIXES
    bounds = [*range(0, size, piece_bytes), size] if divides and size else [0, size]
    return [
        JsonlPiece(path, size, field, start, stop)
        for start, stop in zip(bounds[:-1], bounds[1:], strict=True)
    ]


def _divide_tfds(whole: TfdsPiece, num_bytes: int, piece_bytes: int) -> list[Piece]:
    num_pieces = max(1, min(whole.stop, -(-num_bytes // piece_bytes)))
    bounds = [whole.stop * i // num_pieces for i in range(num_pieces + 1)]
    return [
        dataclasses.replace(whole, start=start, stop=stop, size=num_bytes // num_pieces)
        for start, stop in zip(bounds[:-1], bounds[1:], strict=True)
    ]


def _lines(path: Path, start: int, stop: int | None) -> Iterator[tuple[int, bytes]]:
    """Lines, each with the place of its first byte, that begin in the range [start, stop)."""
    place = max(0, start - 1)  # the byte before tells whether a line begins at `start`
    skip = start > 0
    rest = b""
    for chunk in read_chunks(path, place):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if stop is not None and place >= stop:
                return
            if not skip:
                yield place, line
            skip = False
            place += len(line) + 1
    if rest and not skip and (stop is None or place < stop):
        yield place, rest


def _line_number(path: Path, place: int) -> int:
    """The number of the line that begins at a place of the unpacked file."""
    number, left = 1, place
    for chunk in read_chunks(path):
        number += chunk[:left].count(b"\n")
        left -= len(chunk)
        if left <= 0:
            break
    return number


@functools.lru_cache(maxsize=2**17)
def hash_file(path: Path, size: int) -> str:
    """The hash of a file's bytes.

    Raises:
      InputError: it cannot be read, or its size has changed since it was found.
    """
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, functools.partial(hashlib.blake2b, digest_size=16)).hexdigest()
            end = file.tell()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    if end != size:
        raise InputError(
            f"{path}: has {end} bytes and had {size} before; expected a file that does not change"
        )
    return found
