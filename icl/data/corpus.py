"""Text corpora: documents tokenised once, joined with the start token, and cut into blocks by index.

Block i of epoch e is at a closed-form place of a keyed permutation, so an epoch sees every token once and
any row can be read without the rows before it.
"""

import functools
from collections.abc import Iterator, Sequence

import numpy as np

from icl.data.keys import digest
from icl.data.permutation import Permutation
from icl.data.tokenizer import Tokenizer
from icl.errors import InputError
from icl.tasks.sources import find_files, read_text

_CHUNK = 2**16


def tokenize_documents(patterns: Sequence[str], tokenizer: Tokenizer) -> np.ndarray:
    """Tokens of all files that paths or globs name: each file a document with the start token before it.

    A last start token closes the last document.

    Raises:
      InputError: a pattern names no file, a file cannot be read, or all are empty.
    """
    found = (path for pattern in patterns for path in find_files(pattern, "DataConfig.corpus"))
    paths = list(dict.fromkeys(path.resolve() for path in found))
    parts: list[np.ndarray] = []
    for path in paths:
        parts.append(np.array([tokenizer.start_id], np.int32))
        parts += [np.array(tokenizer.encode(chunk), np.int32) for chunk in _chunks(read_text(path))]
    parts.append(np.array([tokenizer.start_id], np.int32))
    tokens = np.concatenate(parts)
    if len(tokens) == len(paths) + 1:
        raise InputError(f"DataConfig.corpus = {tuple(patterns)!r}: the files hold no text")
    return tokens


def _chunks(text: str) -> Iterator[str]:
    """Pieces of a long text that end after a line, where tokens are split anyway."""
    start = 0
    while start < len(text):
        end = text.find("\n", start + _CHUNK) + 1 or len(text)
        yield text[start:end]
        start = end


class Corpus:
    """A stream of tokens, cut into blocks of `positions` predictions each."""

    def __init__(self, tokens: np.ndarray, positions: int, seed: int) -> None:
        """Cuts the stream; `tokens` may be memory-mapped.

        Raises:
          InputError: the stream does not fill one block.
        """
        if len(tokens) <= positions:
            raise InputError(
                f"DataConfig.corpus: holds {len(tokens)} tokens, expected more than the {positions} "
                "positions that every row keeps for it"
            )
        self._tokens = tokens
        self._positions = positions
        self._seed = seed
        self.num_blocks = -(-(len(tokens) - 1) // positions)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Names the stream by its content."""
        return digest("corpus", np.ascontiguousarray(self._tokens, np.int32).tobytes())

    def block(self, index: int) -> np.ndarray:
        """Up to positions + 1 tokens for row `index`; neighbours in the stream share one token."""
        epoch, place = divmod(index, self.num_blocks)
        start = _order(self.num_blocks, self._seed, epoch)[place] * self._positions
        return np.asarray(self._tokens[start : start + self._positions + 1])


@functools.lru_cache(maxsize=16)
def _order(size: int, seed: int, epoch: int) -> Permutation:
    return Permutation(size, "corpus", seed, epoch)
