"""Arrays in the safetensors files of a folder: read one at a time, and written one at a time.

Only safetensors and JSON are read, never pickles. A model may be split into shards, which an index lists.
"""

import json
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from icl.errors import InputError
from icl.interop.huggingface.layouts import Array, Shape

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
Dtype = Literal["float32", "bfloat16", "float16"]
DTYPES: Mapping[str, tuple[str, Any]] = {
    "float32": ("F32", np.dtype("<f4")),
    "bfloat16": ("BF16", np.dtype(ml_dtypes.bfloat16)),
    "float16": ("F16", np.dtype("<f2")),
}
_READABLE = {name for name, _ in DTYPES.values()}
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt", "*.msgpack", "*.h5")
_STORED_ELSEWHERE = b"version https://git-lfs"


class Entry(NamedTuple):
    """Where an array lies: its file, the name there, type and shape."""

    file: Path
    name: str
    dtype: str
    shape: Shape


def read_entries(folder: Path) -> dict[str, Entry]:
    """What the safetensors files of a folder hold, by name; reads their headers only.

    Raises:
      InputError: there are none, a shard is missing, or a file is damaged.
    """
    index, single = folder / INDEX, folder / WEIGHTS
    if not index.exists():
        if not single.exists():
            _refuse_no_weights(folder)
        return {entry.name: entry for entry in _header(single)}
    listed = _read_index(index)
    files = sorted(set(listed.values()))
    missing = [file for file in files if not (folder / file).is_file()]
    if missing:
        raise InputError(
            f"{folder}: {missing[0]} is missing: {INDEX} lists {len(files)} shards, {len(missing)} not there"
        )
    entries = {entry.name: entry for file in files for entry in _header(folder / file)}
    for name, file in listed.items():
        if name not in entries or entries[name].file != folder / file:
            raise InputError(f"{folder / file}: holds no array {name}, which {INDEX} says it does")
    return entries


def _refuse_no_weights(folder: Path) -> None:
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise InputError(
            f"{folder}: holds weights as {pickles[0]}, which could run code and is not read; "
            f"expected {WEIGHTS}"
        )
    shards = sorted(path.name for path in folder.glob("*.safetensors"))
    found = f"; {shards[0]} is there, but no {INDEX}" if shards else ""
    raise InputError(f"{folder}: holds no {WEIGHTS} and no {INDEX}{found}")


def _read_index(path: Path) -> dict[str, str]:
    content = read_json(path)
    listed = content.get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise InputError(f"{path}: expected the shard of every array under 'weight_map'")
    for name, file in listed.items():
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
            raise InputError(f"{path}: weight_map.{name} = {file!r}: expected a safetensors file beside it")
    return listed


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object of a file; InputError if it is none."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected a JSON object") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def _header(path: Path) -> list[Entry]:
    try:
        with safe_open(path, framework="np") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return [
                Entry(path, name, str(part.get_dtype()), tuple(part.get_shape()))
                for name, part in slices.items()
            ]
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> InputError:
    try:
        with path.open("rb") as file:
            start = file.read(len(_STORED_ELSEWHERE))
    except OSError as unreadable:
        return InputError(f"{path}: {unreadable.strerror}")
    if start == _STORED_ELSEWHERE:
        return InputError(f"{path}: a pointer of Git LFS, not the file itself; fetch it with 'git lfs pull'")
    return InputError(f"{path}: not a whole safetensors file: {error}")


def read_array(entry: Entry, shape: Shape) -> Array:
    """An array as float32.

    Raises:
      InputError: it has another shape, a type that is no 16- or 32-bit float, or holds what is no number.
    """
    check_entry(entry, shape)
    try:
        with safe_open(entry.file, framework="np") as file:
            array = file.get_tensor(entry.name).astype(np.float32)
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(entry.file, error) from error
    if not np.isfinite(array).all():
        raise InputError(f"{entry.file}: array {entry.name} holds NaN or infinity; expected finite weights")
    return array


def check_entry(entry: Entry, shape: Shape) -> None:
    """Raises InputError unless the array has a type that can be read, and this shape."""
    if entry.dtype not in _READABLE:
        expected = ", ".join(sorted(_READABLE))
        raise InputError(f"{entry.file}: array {entry.name} is {entry.dtype}: expected one of {expected}")
    if entry.shape != shape:
        raise InputError(
            f"{entry.file}: array {entry.name} has shape {list(entry.shape)}: expected {list(shape)}, by "
            "config.json"
        )


class Pending(NamedTuple):
    """An array to write: its name and shape, and what makes it when its turn comes."""

    name: str
    shape: Shape
    make: Callable[[], Array]

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))


def write_shards(
    folder: Path, arrays: Sequence[Pending], *, dtype: Dtype, max_bytes: int
) -> Iterator[Pending]:
    """Writes arrays into as many files as needed, and an index for several; one array at a time.

    Args:
      folder: Where to; it exists.
      arrays: What to write, in this order.
      dtype: Type of the numbers in the files.
      max_bytes: Size of a file, at most, unless it holds one array alone.

    Yields:
      Each array after it was written.
    """
    code, numpy_dtype = DTYPES[dtype]
    shards = _split(arrays, numpy_dtype.itemsize, max_bytes)
    names = [WEIGHTS]
    if len(shards) > 1:
        names = [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        with (folder / name).open("wb") as file:
            file.write(_header_bytes(shard, code, numpy_dtype.itemsize))
            for pending in shard:
                array = pending.make()
                assert array.shape == pending.shape, f"{pending.name}: {array.shape}, not {pending.shape}"
                file.write(np.ascontiguousarray(array.astype(numpy_dtype)).tobytes())
                yield pending
    if len(shards) > 1:
        total = sum(pending.size for pending in arrays) * numpy_dtype.itemsize
        weight_map = {
            pending.name: name for name, shard in zip(names, shards, strict=True) for pending in shard
        }
        content = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / INDEX).write_text(json.dumps(content, indent=2) + "\n")


def _split(arrays: Sequence[Pending], itemsize: int, max_bytes: int) -> list[list[Pending]]:
    shards: list[list[Pending]] = [[]]
    held = 0
    for pending in arrays:
        size = pending.size * itemsize
        if shards[-1] and held + size > max_bytes:
            shards.append([])
            held = 0
        shards[-1].append(pending)
        held += size
    return shards


def _header_bytes(arrays: Sequence[Pending], code: str, itemsize: int) -> bytes:
    """Length of the header, and the header as JSON, padded so that data begin aligned."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for pending in arrays:
        begin, end = end, end + pending.size * itemsize
        header[pending.name] = {"dtype": code, "shape": list(pending.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
