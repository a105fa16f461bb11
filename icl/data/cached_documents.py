"""The documents of training corpora as text, from prepared caches and from raw sources alike."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from icl.data.corpus_cache import MANIFEST, read_manifest, shard_file, token_type
from icl.data.documents import Piece, find_pieces
from icl.data.keys import digest
from icl.data.tokenizer import Tokenizer, tokenizer_from_json
from icl.errors import InputError


@dataclasses.dataclass(frozen=True)
class CachedPiece:
    """A shard of a corpus cache; what a filter took out of its documents is not there."""

    folder: Path
    number: int
    tokenizer: Tokenizer
    size: int
    cache: str
    """The cache's fingerprint."""

    @property
    def name(self) -> str:
        return str(shard_file(self.folder, self.number, ".tokens"))

    def documents(self) -> Iterator[str]:
        """The documents in order. Raises InputError where the shard is damaged."""
        lengths = np.fromfile(shard_file(self.folder, self.number, ".lengths"), "<i8")
        kind = token_type(self.tokenizer.vocab_size)
        if int(lengths.sum()) * kind.itemsize != self.size:
            raise InputError(f"{self.name}: lengths and tokens differ; prepare the corpus anew")
        if not self.size:
            return
        tokens = np.memmap(self.name, kind, "r")
        stops = np.cumsum(lengths).tolist()
        for start, stop in zip([0, *stops], stops, strict=False):
            yield self.tokenizer.decode(tokens[start:stop].tolist())

    def fingerprint(self) -> str:
        return digest("cached", self.cache, self.number)


def corpus_pieces(sources: Sequence[str], what: str, data_dir: str | None = None) -> list[Piece]:
    """The pieces of sources: folders of `tools/prepare_corpus.py`, and whatever `find_pieces` reads.

    Args:
      sources: Folders, paths, globs and TFDS names; caches come first, whatever the order.
      what: The setting that named them, for messages.
      data_dir: Folder of the TFDS data sets.

    Raises:
      InputError: a source names nothing that can be read, or a cache is damaged.
    """
    caches = [source for source in sources if (Path(source).expanduser() / MANIFEST).exists()]
    pieces: list[Piece] = []
    for cache in dict.fromkeys(Path(source).expanduser().resolve() for source in caches):
        pieces += _shards(cache)
    raw = [source for source in sources if source not in caches]
    return [*pieces, *(find_pieces(raw, what, data_dir) if raw else ())]


def _shards(folder: Path) -> Iterator[CachedPiece]:
    manifest = read_manifest(folder)
    tokenizer = tokenizer_from_json(manifest["tokenizer"])
    for number, shard in enumerate(manifest["shards"]):
        yield CachedPiece(folder, number, tokenizer, shard["token_bytes"], manifest["fingerprint"])
