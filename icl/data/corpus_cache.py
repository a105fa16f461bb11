"""A corpus tokenised once: a folder of shards that are memory-mapped, and a manifest that says what they are.

    plan.json             what the folder is for: fingerprint of sources, tokenizer and filter
    shards/00000.tokens   the tokens of a piece's documents, one after the other, little-endian
    shards/00000.lengths  tokens of each document, int64
    shards/00000.json     counts; written last, so a shard that has it is whole
    manifest.json         totals and the tokenizer; written when all shards are there

Every file appears whole or not at all, and holds nothing of when or by how many processes it was made: a
preparation that is killed goes on with the shards that are missing, and ends in the same bytes.
"""

import concurrent.futures
import concurrent.futures.process
import contextlib
import dataclasses
import functools
import json
import multiprocessing
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from icl.data.corpus_beam import Run, beam_workers
from icl.data.documents import Piece, find_pieces
from icl.data.keys import digest
from icl.data.ngrams import Grams, common
from icl.data.tokenizer import Tokenizer, tokenizer_from_json
from icl.errors import InputError

MANIFEST = "manifest.json"
_PLAN = "plan.json"
_SHARDS = "shards"
_FORMAT = 1
_CHUNK = 2**16

Progress = Callable[[int], object]
"""Is told of bytes that are done."""


class TokenizedDocument(NamedTuple):
    """The tokens of a document, without a start token, and what was kept out of it."""

    tokens: np.ndarray
    characters: int
    excluded: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a cache will hold."""

    pieces: tuple[Piece, ...]
    tokenizer: Tokenizer
    held_out: tuple[str, ...]
    fingerprint: str

    @property
    def size(self) -> int:
        """Bytes to read."""
        return sum(piece.size for piece in self.pieces)


def make_plan(
    sources: Sequence[str],
    tokenizer: Tokenizer,
    held_out: Sequence[str] = (),
    data_dir: str | None = None,
) -> Plan:
    """The plan of a preparation; reads all files once, to name them by content.

    Raises:
      InputError: a source names nothing that can be read.
    """
    pieces = tuple(find_pieces(sources, "--source", data_dir))
    parts = [tokenizer.fingerprint, Grams(held_out).fingerprint, *(piece.fingerprint() for piece in pieces)]
    return Plan(pieces, tokenizer, tuple(held_out), digest("corpus cache", _FORMAT, *parts))


def prepare(
    plan: Plan,
    folder: Path,
    *,
    num_processes: int = 1,
    beam: str | None = None,
    progress: Progress | None = None,
) -> bool:
    """Makes the cache, or what is missing of it.

    Args:
      plan: What it holds.
      folder: Where.
      num_processes: How many processes share the pieces; 1 uses none but this.
      beam: Options of an Apache Beam pipeline that shares them instead (`icl.data.corpus_beam`).
      progress: Is told of the bytes of pieces that are done, also of those that were.

    Returns:
      Whether there was anything to do.

    Raises:
      InputError: the folder holds something else; the disk is full; or a document cannot be read, in which
        case nothing is left of a preparation that was new.
    """
    check_folder(plan, folder)
    if (folder / MANIFEST).exists():
        return False
    existed, begun = folder.exists(), (folder / _PLAN).exists()
    try:
        with _named(folder):
            _make(plan, folder, _workers(plan, folder, num_processes, beam), progress)
    except _Stopped:
        raise
    except InputError:
        if not begun:  # of a source that must change, nothing can be used again
            shutil.rmtree(folder / _SHARDS)
            (folder / _PLAN).unlink()
            if not existed:
                folder.rmdir()
        raise
    return True


class _Stopped(InputError):
    """The preparation can go on from where it is."""


def _make(
    plan: Plan, folder: Path, workers: contextlib.AbstractContextManager[Run], progress: Progress | None
) -> None:
    (folder / _SHARDS).mkdir(parents=True, exist_ok=True)
    for stale in folder.rglob("*.tmp"):
        stale.unlink()
    _write(folder / _PLAN, _json({"fingerprint": plan.fingerprint, "shards": len(plan.pieces)}))
    with workers as run:
        ignored: set[str] = set()
        if plan.held_out:
            ignored = common([counts for _, counts in run(_count, [(p,) for p in plan.pieces])])
        tasks = []
        for number, piece in enumerate(plan.pieces):
            if shard_file(folder, number, ".json").exists():
                if progress:
                    progress(piece.size)
            else:
                tasks.append((piece, str(folder), number, tuple(sorted(ignored))))
        for number, _ in run(_make_shard, tasks):
            if progress:
                progress(tasks[number][0].size)
    _write(folder / MANIFEST, _json(_manifest(plan, folder)))


def check_folder(plan: Plan, folder: Path) -> None:
    """Raises InputError where a folder holds something other than this plan's cache, or part of it."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--output {folder} is a file; expected a folder")
    if not folder.exists() or not any(not path.name.startswith(_PLAN) for path in folder.iterdir()):
        return
    path = folder / _PLAN
    if not path.exists():
        raise InputError(
            f"--output {folder} holds files but no {_PLAN}; expected a new folder, or a cache's own"
        )
    known = read_json(path).get("fingerprint")
    if known != plan.fingerprint:
        raise InputError(
            f"--output {folder} is a cache of other sources or made with another tokenizer or filter "
            f"(fingerprint {known}, this is {plan.fingerprint}); expected another folder"
        )


def tokenized(piece: Piece, tokenizer: Tokenizer, grams: Grams | None = None) -> Iterator[TokenizedDocument]:
    """The documents of a piece as tokens; what a filter leaves of one may be several."""
    for text in piece.documents():
        parts, excluded = grams.filtered(text) if grams else ([text], {})
        for i, part in enumerate(parts or [""]):
            chunks = [np.array(tokenizer.encode(chunk), np.int64) for chunk in chunks_of(part)]
            tokens = np.concatenate(chunks) if chunks else np.zeros(0, np.int64)
            yield TokenizedDocument(tokens, len(part), {} if i else excluded)


def chunks_of(text: str) -> Iterator[str]:
    """Pieces of a long text that end after a line, where tokens are split anyway."""
    start = 0
    while start < len(text):
        end = text.find("\n", start + _CHUNK) + 1 or len(text)
        yield text[start:end]
        start = end


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a cache.

    Raises:
      InputError: it is missing, damaged, or of another format, or a shard is not as long as it says.
    """
    path = folder / MANIFEST
    manifest = read_json(path)
    if manifest.get("format") != _FORMAT:
        raise InputError(f"{path}: format {manifest.get('format')!r}, expected {_FORMAT}; prepare it anew")
    for number, shard in enumerate(manifest["shards"]):
        for suffix, size in ((".tokens", shard["token_bytes"]), (".lengths", 8 * shard["documents"])):
            file = shard_file(folder, number, suffix)
            found = file.stat().st_size if file.exists() else None
            if found != size:
                raise InputError(f"{file}: has {found} bytes, expected {size}; prepare the corpus anew")
    return manifest


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; InputError names the file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path}: is no JSON: {error}; prepare the corpus anew") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: holds no JSON object; prepare the corpus anew")
    return found


def token_type(vocab_size: int) -> np.dtype[Any]:
    """The type that tokens are stored in."""
    return np.dtype("<u2" if vocab_size <= 2**16 else "<u4")


def _count(piece: Piece) -> dict[str, int]:
    """In how many documents of a piece each held-out gram stands."""
    counts: Counter[str] = Counter()
    for text in piece.documents():
        counts.update({gram for gram, _, _ in _WORKER.grams().found(text)})
    return dict(counts)


def _make_shard(piece: Piece, folder: str, number: int, ignored: tuple[str, ...]) -> None:
    """Tokenises a piece into a shard."""
    tokenizer = _WORKER.tokenizer
    grams = _WORKER.grams(ignored) if _WORKER.held_out else None
    kind = token_type(tokenizer.vocab_size)
    lengths: list[int] = []
    characters = 0
    excluded: Counter[str] = Counter()
    path = shard_file(Path(folder), number, ".tokens")
    beside = _beside(path)
    with beside.open("wb") as file:
        for document in tokenized(piece, tokenizer, grams):
            excluded.update(document.excluded)
            characters += document.characters
            if len(document.tokens):
                lengths.append(len(document.tokens))
                file.write(document.tokens.astype(kind).tobytes())
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    _write(shard_file(Path(folder), number, ".lengths"), np.array(lengths, "<i8").tobytes())
    counts = {
        "documents": len(lengths),
        "tokens": sum(lengths),
        "token_bytes": sum(lengths) * kind.itemsize,
        "characters": characters,
        "excluded": {name: excluded[name] for name in sorted(excluded)},
    }
    _write(shard_file(Path(folder), number, ".json"), _json(counts))


def _manifest(plan: Plan, folder: Path) -> dict[str, Any]:
    shards = [read_json(shard_file(folder, number, ".json")) for number in range(len(plan.pieces))]
    excluded: Counter[str] = Counter()
    for shard in shards:
        excluded.update(shard["excluded"])
    totals = {name: sum(shard[name] for shard in shards) for name in ("documents", "tokens", "characters")}
    if not totals["tokens"]:
        raise InputError(f"--source: the {len(plan.pieces)} files hold no text; expected some")
    return {
        "format": _FORMAT,
        "fingerprint": plan.fingerprint,
        "tokenizer_fingerprint": plan.tokenizer.fingerprint,
        "filter": Grams(plan.held_out).fingerprint if plan.held_out else "",
        "vocab_size": plan.tokenizer.vocab_size,
        **totals,
        "excluded": {name: excluded[name] for name in sorted(excluded)},
        "shards": shards,
        "tokenizer": plan.tokenizer.to_json(),
    }


class _Worker:
    """What a process needs for every piece."""

    tokenizer: Tokenizer
    held_out: tuple[str, ...] = ()

    def start(self, tokenizer: Mapping[str, str], held_out: tuple[str, ...]) -> None:
        self.tokenizer, self.held_out = tokenizer_from_json(tokenizer), held_out
        self._state = tokenizer, held_out

    def is_ready(self, tokenizer: Mapping[str, str], held_out: tuple[str, ...]) -> bool:
        """Whether it was started with these."""
        return getattr(self, "_state", None) == (tokenizer, held_out)

    def grams(self, ignored: tuple[str, ...] = ()) -> Grams:
        key = (self.held_out, ignored)
        if getattr(self, "_key", None) != key:
            self._key, self._grams = key, Grams(self.held_out, ignored)
        return self._grams


_WORKER = _Worker()


def _call(
    tokenizer: Mapping[str, str], held_out: tuple[str, ...], function: Callable[..., Any], *task: Any
) -> Any:
    """Calls a function in a worker of which nothing is known."""
    if not _WORKER.is_ready(tokenizer, held_out):
        _WORKER.start(tokenizer, held_out)
    return function(*task)


@contextlib.contextmanager
def _workers(plan: Plan, folder: Path, number: int, beam: str | None) -> Iterator[Run]:
    """Runs a function over lists of arguments, in workers or here; results come as they are done."""
    state = (plan.tokenizer.to_json(), plan.held_out)
    if beam is not None:
        with beam_workers(folder, beam, functools.partial(_call, *state)) as run:
            yield run
        return
    if number <= 1:
        _WORKER.start(*state)
        yield lambda function, tasks: ((i, function(*task)) for i, task in enumerate(tasks))
        return
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(number, context, _start_worker, state)

    def share(function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
        # Large pieces first, so that none is left over for one process at the end.
        order = sorted(range(len(tasks)), key=lambda i: -tasks[i][0].size)
        futures = {pool.submit(function, *tasks[i]): i for i in order}
        for future in concurrent.futures.as_completed(futures):
            yield futures[future], future.result()

    try:
        yield share
    except concurrent.futures.process.BrokenProcessPool as error:
        raise _Stopped("a process that prepared the corpus was killed; run it again to go on") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(tokenizer: Mapping[str, str], held_out: tuple[str, ...]) -> None:
    """Makes a process of the pool ready; it ends with its parent, also where that is killed."""
    _WORKER.start(tokenizer, held_out)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


@contextlib.contextmanager
def _named(folder: Path) -> Iterator[None]:
    """An error of the system becomes one line that names the folder or file."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise _Stopped(
            f"{error.filename or folder}: cannot be written: {reason}; run it again to go on"
        ) from error


def shard_file(folder: Path, number: int, suffix: str) -> Path:
    """A file of shard `number`: `.tokens` or `.lengths`."""
    return folder / _SHARDS / f"{number:05d}{suffix}"


def _beside(path: Path) -> Path:
    """Where this process writes a file before it takes its name."""
    return path.with_name(f"{path.name}.{os.getpid()}.tmp")


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()


def _write(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all."""
    beside = _beside(path)
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
