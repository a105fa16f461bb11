"""Which queries of a task also stand in a corpus: appendix C of the GPT-3 paper (arXiv 2005.14165).

An example is dirty if N of its words in a row, in lower case and without punctuation, stand in a document,
and clean otherwise; N follows from the lengths of the task's examples. Words are those of the training filter
(`icl.data.ngrams`): punctuation divides them, which alone gives the paper's N of its scrambles. Unlike there,
grams of many documents count too; `Match.documents` says how common the rarest one is.
"""

import fnmatch
import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from icl.tasks.task import Query

FEWEST_WORDS = 8
MOST_WORDS = 13
SYNTHETIC = (
    "*cycle_letters_in_word",
    "*mid_word_?_anagrams",
    "*random_insertion_in_word",
    "*reversed_words",
    "*_digit_addition",
    "*_digit_subtraction",
    "*_digit_multiplication",
    "*single_digit_three_ops",
)
"""Names of the paper's synthetic tasks, whose grams may have fewer than 8 words."""

_PERCENTILE = 5
_WORD = re.compile(r"[^\W_]+")
_ASCII_BORDERS = {code: " " for code in range(128) if not _WORD.match(chr(code))}
_SPACE = re.compile(r"\s")
_PIECE = 2**16
_BATCH = 2**18
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_LARGEST_SIEVE = 26

_SIGNS = {"plus": "+", "minus": "-", "times": "*", "−": "-", "×": "*"}
_ASKED = re.compile(r"([0-9]+)\s*(plus|minus|times|[-+*−×])\s*([0-9]+)")
_WRITTEN = re.compile(
    r"([0-9]+)\s*(?:([-+*−×])\s*(?=([0-9]+)\s*=)|(plus|minus|times)\s+(?=([0-9]+)(?![0-9])))"
)

Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]


class Match(NamedTuple):
    """What of an example stands in the documents.

    `occurrences` counts places in the documents, of all its grams together, and `grams` its distinct grams
    that are there. `evidence` is the gram of the fewest `documents`.
    """

    occurrences: int
    grams: int
    evidence: str
    documents: int


class Overlap(NamedTuple):
    """What of a task stands in the documents.

    `words` is N, `queries` names all examples, `dirty` has those that are found. `short` examples have fewer
    than N words, so no gram, and count as clean. Where every example asks for one operation on two numbers,
    `sums` has those whose `<a> + <b> =` or `<a> plus <b>` is written in a document, as it is written there.
    """

    words: int
    queries: tuple[str, ...]
    dirty: Mapping[str, Match]
    short: int
    sums: Mapping[str, str] | None


def split_words(text: str) -> list[str]:
    """The words of a text: letters and digits in a row, in lower case."""
    lowered = text.lower()
    if lowered.isascii():  # the same, three times as fast
        return lowered.translate(_ASCII_BORDERS).split()
    return _WORD.findall(lowered)


def is_synthetic(task: str, patterns: Sequence[str] = SYNTHETIC) -> bool:
    """Whether a task's name fits one of the patterns."""
    return any(fnmatch.fnmatchcase(task, pattern) for pattern in patterns)


def ngram_length(texts: Iterable[str], synthetic: bool = False) -> int:
    """N of a task: the 5th percentile of its examples' lengths in words, from 8, or 1 if synthetic, to 13."""
    lengths = [len(split_words(text)) for text in texts]
    usual = int(np.percentile(lengths, _PERCENTILE, method="lower")) if lengths else 0
    return min(max(usual, 1 if synthetic else FEWEST_WORDS), MOST_WORDS)


def query_texts(queries: Iterable[Query]) -> dict[str, str]:
    """The texts of queries by name: input and gold answer."""
    return {query.name: example_text(query.example.input, query.example.target) for query in queries}


def example_text(given: str, answer: str) -> str:
    """What of an example is looked for."""
    return f"{given} {answer.strip()}"


def find_overlaps(
    tasks: Mapping[str, Mapping[str, str]],
    documents: Iterable[str],
    lengths: Mapping[str, int] | None = None,
) -> dict[str, Overlap]:
    """Looks for the grams of tasks in documents; keeps no more in memory than those and one document.

    Args:
      tasks: By task, the texts of its examples by query (`query_texts`).
      documents: Any number of texts; each is read once, and no gram goes from one into the next.
      lengths: N by task; by default `ngram_length`'s.
    """
    if lengths is None:
        lengths = {name: ngram_length(texts.values(), is_synthetic(name)) for name, texts in tasks.items()}
    examples = [
        _Example(task, query, split_words(text), lengths[task])
        for task, texts in tasks.items()
        for query, text in texts.items()
    ]
    grams, sums = _Grams(examples), _Sums(tasks)
    for number, document in enumerate(documents):
        grams.read(document, number)
        sums.read(document)
    matches: dict[str, dict[str, Match]] = defaultdict(dict)
    for example, match in grams.matches():
        matches[example.task][example.query] = match
    short = {task: 0 for task in tasks}
    for example in examples:
        short[example.task] += len(example.words) < example.length
    return {
        task: Overlap(lengths[task], tuple(texts), matches[task], short[task], sums.found.get(task))
        for task, texts in tasks.items()
    }


class _Example(NamedTuple):
    task: str
    query: str
    words: Sequence[str]
    length: int


class _Grams:
    """The grams of examples, and how often each has been seen.

    A gram is found by a rolling hash of the numbers of its words, then held against the words themselves.
    Words that no example has are number 0; so is the border before each document.
    """

    def __init__(self, examples: Iterable[_Example]) -> None:
        self._examples = [example for example in examples if len(example.words) >= example.length]
        words = dict.fromkeys(itertools.chain.from_iterable(example.words for example in self._examples))
        self._numbers = {word: number for number, word in enumerate(words, start=1)}
        self._names = ["", *words]
        self._tables = self._build()
        self._longest = max((table.length for table in self._tables), default=1)
        self._batch: list[str] = []
        self._carried = 0
        self._starts: list[int] = []
        self._documents: list[int] = []

    def _build(self) -> "list[_Table]":
        ids_W = self._ids(list(itertools.chain.from_iterable(example.words for example in self._examples)))
        ends = np.cumsum([len(example.words) for example in self._examples], dtype=np.int64)
        by_length: dict[int, list[int]] = defaultdict(list)
        for number, example in enumerate(self._examples):
            by_length[example.length].append(number)
        for seed in itertools.count():
            codes_V = np.random.default_rng(seed).integers(0, 2**64, len(self._names), np.uint64)
            try:
                self._codes_V = codes_V
                return [self._table(length, by_length[length], ids_W, ends) for length in sorted(by_length)]
            except _CollisionError:
                continue
        raise AssertionError("unreachable")

    def _table(self, length: int, numbers: Sequence[int], ids_W: Ints, ends: Ints) -> "_Table":
        first = [int(ends[number]) - len(self._examples[number].words) for number in numbers]
        starts = [
            np.arange(begin, int(ends[number]) - length + 1)
            for begin, number in zip(first, numbers, strict=True)
        ]
        owners_P = np.repeat(np.array(numbers, np.int64), [len(each) for each in starts])
        (hashes_W,) = (hashes for n, hashes in _rolling(self._codes_V[ids_W], {length}) if n == length)
        return _Table(length, np.concatenate(starts), owners_P, ids_W, hashes_W)

    def _ids(self, words: Sequence[str]) -> Ints:
        return np.fromiter(map(self._numbers.get, words, itertools.repeat(0)), np.int64, len(words))

    def read(self, document: str, number: int) -> None:
        """Counts the grams of a document; documents come in the order of their numbers."""
        self._starts.append(len(self._batch))
        self._documents.append(number)
        self._batch.append("")
        for piece in _pieces(document):
            self._batch += split_words(piece)
            if len(self._batch) >= _BATCH:
                self._count()
                self._batch = self._batch[max(0, len(self._batch) - self._longest + 1) :]
                self._carried = len(self._batch)
                self._starts, self._documents = [0], [number]

    def _count(self) -> None:
        """Counts the grams of the batch, but for those within the words carried from the one before."""
        ids_T = self._ids(self._batch)
        tables = {table.length: table for table in self._tables}
        starts, documents = np.array(self._starts), np.array(self._documents)
        for length, hashes_T in _rolling(self._codes_V[ids_T], set(tables)):
            places, grams = tables[length].find(ids_T, hashes_T, max(0, self._carried - length + 1))
            if len(places):
                tables[length].count(grams, documents[np.searchsorted(starts, places, "right") - 1])

    def matches(self) -> Iterator[tuple[_Example, Match]]:
        """The examples of which grams have been seen, after the last document."""
        self._count()
        self._batch, self._carried, self._starts, self._documents = [], 0, [], []
        for table in self._tables:
            for number, grams in table.seen():
                occurrences, documents = table.occurrences_G[grams], table.documents_G[grams]
                rarest = int(np.argmin(documents))
                words = (self._names[i] for i in table.gram(int(grams[rarest])))
                yield (
                    self._examples[number],
                    Match(int(occurrences.sum()), len(grams), " ".join(words), int(documents[rarest])),
                )


class _CollisionError(Exception):
    """Two grams have one hash."""


class _Table:
    """The distinct grams of one length, by hash, with the examples that hold them.

    Raises _CollisionError where two have one hash, so that afterwards a hash names a gram.
    """

    def __init__(self, length: int, starts_P: Ints, owners_P: Ints, ids_W: Ints, hashes_W: Hashes) -> None:
        """Takes where every gram of every example starts in the words, whose it is, and hashes by start."""
        self.length = length
        self._ids_W = ids_W
        self._hashes_G, first_G, grams_P = np.unique(
            hashes_W[starts_P], return_index=True, return_inverse=True
        )
        self._starts_G = starts_P[first_G]
        if not self._equal(ids_W, starts_P, grams_P).all():
            raise _CollisionError
        order = np.lexsort((starts_P, owners_P))
        self._grams_P, self._owners_P = grams_P[order], owners_P[order]
        bits = min(max(16, (16 * len(self._hashes_G)).bit_length()), _LARGEST_SIEVE)
        self._shift = np.uint64(64 - bits)
        self._sieve = np.zeros(2**bits, bool)
        self._sieve[self._hashes_G >> self._shift] = True
        self.occurrences_G = np.zeros(len(self._hashes_G), np.int64)
        self.documents_G = np.zeros(len(self._hashes_G), np.int64)
        self._last_G = np.full(len(self._hashes_G), -1, np.int64)

    def _equal(self, ids_T: Ints, places_N: Ints, grams_N: Ints) -> NDArray[np.bool_]:
        """Whether at each place of a text each gram stands."""
        same = np.ones(len(places_N), bool)
        for i in range(self.length):
            same &= ids_T[places_N + i] == self._ids_W[self._starts_G[grams_N] + i]
        return same

    def find(self, ids_T: Ints, hashes_T: Hashes, start: int) -> tuple[Ints, Ints]:
        """Places of a text, from `start` on, where a gram begins, and which."""
        places = start + np.flatnonzero(self._sieve[hashes_T[start:] >> self._shift])
        grams = np.searchsorted(self._hashes_G, hashes_T[places])
        grams = np.minimum(grams, len(self._hashes_G) - 1)
        same = self._equal(ids_T, places, grams)
        return places[same], grams[same]

    def count(self, grams_N: Ints, documents_N: Ints) -> None:
        """Counts grams that were found, each with its document."""
        np.add.at(self.occurrences_G, grams_N, 1)
        order = np.lexsort((documents_N, grams_N))
        grams, documents = grams_N[order], documents_N[order]
        # The gram's document before this one; a document may go on from the batch before.
        last = np.where(np.diff(grams, prepend=-1) != 0, self._last_G[grams], np.roll(documents, 1))
        np.add.at(self.documents_G, grams[documents != last], 1)
        np.maximum.at(self._last_G, grams, documents)

    def seen(self) -> Iterator[tuple[int, Ints]]:
        """Numbers of examples, each with its distinct grams that were found, in their order in it."""
        found = self.occurrences_G[self._grams_P] > 0
        owners, grams = self._owners_P[found], self._grams_P[found]
        numbers, starts = np.unique(owners, return_index=True)
        for number, own in zip(numbers.tolist(), np.split(grams, starts[1:]), strict=False):
            _, first = np.unique(own, return_index=True)
            yield number, own[np.sort(first)]

    def gram(self, number: int) -> list[int]:
        """The numbers of a gram's words."""
        start = int(self._starts_G[number])
        return self._ids_W[start : start + self.length].tolist()


def _rolling(codes_T: Hashes, lengths: set[int]) -> Iterator[tuple[int, Hashes]]:
    """Hashes of all grams of each length, by where they start."""
    hashes = codes_T
    for length in range(1, max(lengths, default=0) + 1):
        if length > 1:
            hashes = hashes[:-1] * _MULTIPLIER + codes_T[length - 1 :]
        if len(hashes) == 0:
            return
        if length in lengths:
            yield length, hashes


def _pieces(text: str) -> Iterator[str]:
    """Pieces of a long text that end where a word does."""
    start = 0
    while start < len(text):
        space = _SPACE.search(text, start + _PIECE)
        end = space.end() if space else len(text)
        yield text[start:end]
        start = end


class _Sums:
    """Operations on two numbers that tasks ask for, and where documents write them.

    As section 3.9.1 of the paper searches for them, `98 + 45 =` or `98 plus 45`; white space does not count.
    """

    def __init__(self, tasks: Mapping[str, Mapping[str, str]]) -> None:
        self.found: dict[str, dict[str, str]] = {}
        self._asked: dict[tuple[str, str, str], list[tuple[str, str]]] = defaultdict(list)
        for task, texts in tasks.items():
            asked = {query: _operation(text) for query, text in texts.items()}
            if asked and all(asked.values()):
                self.found[task] = {}
                for query, operation in asked.items():
                    if operation:
                        self._asked[operation].append((task, query))

    def read(self, document: str) -> None:
        """Looks for the operations in a document."""
        if not self._asked:
            return
        for match in _WRITTEN.finditer(document):
            left, sign, right = match[1], match[2] or match[4], match[3] or match[5]
            is_part = match.start() > 0 and document[match.start() - 1] in ".,"
            for task, query in self._asked.get((left, _SIGNS.get(sign, sign), right), ()):
                if not is_part:
                    written = f"{left} {sign} {right}" + (" =" if match[2] else "")
                    self.found[task].setdefault(query, written)


def _operation(text: str) -> tuple[str, str, str] | None:
    """The numbers and the sign of a text that asks for one operation."""
    found = _ASKED.findall(text)
    if len(found) != 1 or "(" in text:
        return None
    left, sign, right = found[0]
    return left, _SIGNS.get(sign, sign), right
