"""Finds and reads input files: text, plain or compressed.

Every defect of a file is an `InputError` that names the file and, where there is one, the line.
"""

import glob
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

import zstandard

from icl.errors import InputError

_CHUNK = 2**20


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
    """The suffix of a file, .gz or .zst left off."""
    return Path(path.name.removesuffix(".gz").removesuffix(".zst")).suffix


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, which may be compressed (.gz, .zst); line ends become newlines.

    Raises:
      InputError: the file cannot be read, or is damaged or not UTF-8.
    """
    data = b"".join(read_chunks(path))
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path}, line {line}: not UTF-8 ({error.reason}); expected text in UTF-8"
        ) from error


def read_chunks(path: Path, start: int = 0) -> Iterator[bytes]:
    """The bytes of a file in pieces, unpacked if its name ends in .gz or .zst.

    Args:
      path: the file.
      start: where to begin in a file that is not compressed.

    Raises:
      InputError: the file cannot be read, or its compression is damaged or ends too early.
    """
    try:
        with path.open("rb") as file:
            if path.suffix == ".gz":
                with gzip.open(file) as unpacked:
                    yield from iter(lambda: unpacked.read(_CHUNK), b"")
            elif path.suffix == ".zst":
                yield from _unpack_zstandard(iter(lambda: file.read(_CHUNK), b""))
            else:
                file.seek(start)
                yield from iter(lambda: file.read(_CHUNK), b"")
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"{path}: cannot be read: {reason}") from error


def _unpack_zstandard(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Unpacks frame after frame; the library's own reader takes a cut frame for a whole one."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=2**31)
    frame = None
    for chunk in chunks:
        while chunk:
            frame = frame or decompressor.decompressobj()
            yield frame.decompress(chunk)
            chunk = frame.unused_data if frame.eof else b""
            frame = None if frame.eof else frame
    if frame is not None:
        raise EOFError("the compressed file ends before its last frame does")
