"""Text corpora: documents tokenised once, joined with the start token, and cut into blocks by index.

In every epoch the documents stand in another order, and so do the blocks that the stream of them is cut into;
both orders follow from the seed and the epoch alone. So an epoch sees every token once, and any block can be
read without those before it.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from icl.data.corpus_cache import MANIFEST, read_manifest, shard_file, token_type, tokenized
from icl.data.documents import find_pieces
from icl.data.keys import digest, generator
from icl.data.ngrams import Grams
from icl.data.permutation import Permutation
from icl.data.tokenizer import Tokenizer
from icl.errors import InputError

_EPOCHS = 2
"""Orders of documents that are kept: 16 bytes a document each."""


class Documents:
    """Tokenised documents: arrays of tokens in memory, or files of a cache that are memory-mapped.

    `lengths_N` holds the tokens of each document.
    """

    def __init__(
        self,
        lengths: Sequence[np.ndarray],
        *,
        tokens: Sequence[np.ndarray] = (),
        files: Sequence[tuple[str, str]] = (),
        fingerprint: str = "",
    ) -> None:
        """Takes lengths of documents by shard, and the shards' tokens: arrays, or (path, type) of files."""
        self._shards = list(lengths)
        self._files = tuple(files)
        self._tokens: list[np.ndarray | None] = list(tokens) or [None] * len(files)
        self.fingerprint = fingerprint or digest("documents", *(t.tobytes() for t in [*tokens, *lengths]))
        self._index()

    def _index(self) -> None:
        self.lengths_N = np.concatenate([np.zeros(0, np.int64), *self._shards]).astype(np.int64)
        self._first = np.cumsum([0, *map(len, self._shards)])
        self._starts = [np.cumsum(lengths) - lengths for lengths in self._shards]

    def __getstate__(self) -> dict[str, Any]:
        """Files are opened anew by the process that unpickles this."""
        return self.__dict__ | ({"_tokens": [None] * len(self._files)} if self._files else {})

    def __len__(self) -> int:
        return len(self.lengths_N)

    def read(self, document: int, start: int, stop: int) -> np.ndarray:
        """Tokens [start, stop) of a document."""
        shard = int(np.searchsorted(self._first, document, side="right")) - 1
        place = int(self._starts[shard][document - int(self._first[shard])])
        return self._shard(shard)[place + start : place + stop]

    def _shard(self, shard: int) -> np.ndarray:
        tokens = self._tokens[shard]
        if tokens is None:
            path, kind = self._files[shard]
            tokens = self._tokens[shard] = np.memmap(path, np.dtype(kind), "r")
        return tokens


class Corpus:
    """A stream of documents with a start token before each and at the end, cut into blocks.

    A block makes `positions` predictions; an epoch has `num_tokens` tokens in `num_blocks` blocks.
    `excluded` counts what a filter took out of the documents.
    """

    def __init__(
        self,
        documents: Documents,
        positions: int,
        seed: int,
        start_id: int,
        excluded: Mapping[str, int] | None = None,
    ) -> None:
        """Cuts the stream.

        Raises:
          InputError: the stream does not fill one block.
        """
        self.num_tokens = int(documents.lengths_N.sum()) + len(documents) + 1
        if self.num_tokens <= positions:
            raise InputError(
                f"DataConfig.corpora: holds {self.num_tokens} tokens, expected more than the {positions} "
                "positions that its slot in a row has"
            )
        self.num_documents = len(documents)
        self.num_blocks = -(-(self.num_tokens - 1) // positions)
        self.excluded = dict(excluded or {})
        self._documents = documents
        self._positions = positions
        self._seed = seed
        self._start_id = start_id
        self._orders: dict[int, tuple[np.ndarray, np.ndarray, Permutation]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_orders": {}}

    @property
    def fingerprint(self) -> str:
        """Names the documents by their content."""
        return self._documents.fingerprint

    def block(self, index: int) -> np.ndarray:
        """Up to positions + 1 tokens of block `index`, int32; neighbours in the stream share one token."""
        epoch, place = divmod(index, self.num_blocks)
        order_N, begins_N, blocks = self._order(epoch)
        start = blocks[place] * self._positions
        stop = min(start + self._positions + 1, self.num_tokens)
        block = np.empty(stop - start, np.int32)
        number = int(np.searchsorted(begins_N, start, side="right")) - 1
        at = start
        while at < stop:
            begin = int(begins_N[number])
            if at == begin:
                block[at - start] = self._start_id
                at += 1
            if number == len(order_N):
                break  # the start token at the end
            document = int(order_N[number])
            end = min(begin + 1 + int(self._documents.lengths_N[document]), stop)
            if end > at:
                block[at - start : end - start] = self._documents.read(
                    document, at - begin - 1, end - begin - 1
                )
                at = end
            number += 1
        return block

    def documents(self) -> Iterator[np.ndarray]:
        """The documents in their own order, without start tokens."""
        for document, length in enumerate(self._documents.lengths_N.tolist()):
            yield np.asarray(self._documents.read(document, 0, length), np.int32)

    def _order(self, epoch: int) -> tuple[np.ndarray, np.ndarray, Permutation]:
        """An epoch: its documents in order, where each begins in the stream, and the order of blocks."""
        found = self._orders.get(epoch)
        if found is None:
            while len(self._orders) >= _EPOCHS:
                self._orders.pop(next(iter(self._orders)), None)
            order_N = generator("documents", self._seed, epoch).permutation(self.num_documents)
            ends_N = np.cumsum(self._documents.lengths_N[order_N] + 1)
            begins_N = np.concatenate([[0], ends_N])
            blocks = Permutation(self.num_blocks, "corpus", self._seed, epoch)
            found = self._orders[epoch] = order_N, begins_N, blocks
        return found


def open_corpus(
    sources: Sequence[str], tokenizer: Tokenizer, positions: int, seed: int, held_out: Sequence[str] = ()
) -> Corpus:
    """A corpus from a folder of `tools/prepare_corpus.py`, or from sources that are tokenised now, in memory.

    Args:
      sources: One prepared folder; or paths, globs and TFDS names (`icl.data.documents`).
      tokenizer: The run's.
      positions: Predictions of a block.
      seed: Seed of the orders.
      held_out: Texts whose 13-grams documents must not hold.

    Raises:
      InputError: a source cannot be read, or a prepared folder is damaged, or was made with another tokenizer
        or without the filter.
    """
    folder = Path(sources[0]).expanduser()
    if len(sources) == 1 and (folder / MANIFEST).exists():
        return _open_cache(folder, tokenizer, positions, seed, held_out)
    documents, excluded = _tokenize(tuple(sources), _Key(tokenizer), tuple(held_out))
    return Corpus(documents, positions, seed, tokenizer.start_id, excluded)


class _Key:
    """A tokenizer that is equal to others of the same content."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def __hash__(self) -> int:
        return hash(self.tokenizer.fingerprint)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self.tokenizer.fingerprint == other.tokenizer.fingerprint


@functools.lru_cache(maxsize=4)
def _tokenize(
    sources: tuple[str, ...], key: _Key, held_out: tuple[str, ...]
) -> tuple[Documents, dict[str, int]]:
    """The documents of sources in memory; kept, as the rungs of a ladder read the same."""
    grams = Grams(held_out) if held_out else None
    kind = token_type(key.tokenizer.vocab_size)
    lengths: list[np.ndarray] = []
    tokens: list[np.ndarray] = []
    excluded: dict[str, int] = {}
    for piece in find_pieces(sources, "DataConfig.corpora"):
        found = list(tokenized(piece, key.tokenizer, grams))
        for document in found:
            for name, number in document.excluded.items():
                excluded[name] = excluded.get(name, 0) + number
        kept = [document.tokens for document in found if len(document.tokens)]
        lengths.append(np.array([len(each) for each in kept], np.int64))
        tokens.append(np.concatenate([np.zeros(0, kind), *(each.astype(kind) for each in kept)]))
    if not sum(map(len, lengths)):
        raise InputError(f"DataConfig.corpora = {sources!r}: the files hold no text")
    return Documents(lengths, tokens=tokens), excluded


def _open_cache(
    folder: Path, tokenizer: Tokenizer, positions: int, seed: int, held_out: Sequence[str]
) -> Corpus:
    manifest = read_manifest(folder)
    if manifest["tokenizer_fingerprint"] != tokenizer.fingerprint:
        raise InputError(
            f"{folder}: was made with another tokenizer (fingerprint {manifest['tokenizer_fingerprint']}, "
            f"this run's {tokenizer.fingerprint}); prepare the corpus anew"
        )
    wanted = Grams(held_out).fingerprint if held_out else ""
    if held_out and len(Grams(held_out)) and manifest["filter"] != wanted:
        raise InputError(
            f"{folder}: was prepared without these held-out texts taken out; prepare it with --exclude, the "
            "same files as DataConfig.exclude"
        )
    kind = token_type(manifest["vocab_size"]).str
    numbers = range(len(manifest["shards"]))
    lengths = [np.fromfile(shard_file(folder, number, ".lengths"), "<i8") for number in numbers]
    for number, (shard, found) in enumerate(zip(manifest["shards"], lengths, strict=True)):
        if int(found.sum()) != shard["tokens"]:
            raise InputError(f"{shard_file(folder, number, '.lengths')}: is damaged; prepare the corpus anew")
    kept = [number for number in numbers if len(lengths[number])]
    documents = Documents(
        [lengths[number] for number in kept],
        files=[(str(shard_file(folder, number, ".tokens")), kind) for number in kept],
        fingerprint=manifest["fingerprint"],
    )
    return Corpus(documents, positions, seed, tokenizer.start_id, manifest["excluded"])
