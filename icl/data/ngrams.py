"""Removes from training documents what they share with held-out texts.

As appendix C of "Language Models are Few-Shot Learners" (arXiv 2005.14165): where 13 words in a row, in
lower case and without punctuation, also stand in a held-out text, they go with 200 characters on either side;
pieces left that are shorter than 200 characters go too, and so does a document that falls into more than 10.
Grams that stand in more than 10 training documents are common text and count for nothing.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from icl.data.keys import digest

WORDS = 13
WINDOW = 200
MOST_PIECES = 10
COMMON = 10
_FEWEST_WORDS = 8
_WORD = re.compile(r"[^\W_]+")


class Grams:
    """The grams of held-out texts; one of fewer than 13 words is a gram itself, if it has at least 8."""

    def __init__(self, texts: Iterable[str], ignored: Iterable[str] = ()) -> None:
        """Takes the grams of texts, but for those in `ignored`."""
        found: dict[int, set[str]] = {}
        for text in texts:
            words = [match[0] for match in _WORD.finditer(text.lower())]
            size = min(WORDS, len(words))
            if size >= _FEWEST_WORDS:
                own = (" ".join(words[i : i + size]) for i in range(len(words) - size + 1))
                found.setdefault(size, set()).update(own)
        ignored = set(ignored)
        self._by_size = {size: frozenset(grams - ignored) for size, grams in sorted(found.items())}

    def __len__(self) -> int:
        return sum(map(len, self._by_size.values()))

    @property
    def fingerprint(self) -> str:
        """Names the grams by their content."""
        return digest("grams", *(gram for grams in self._by_size.values() for gram in sorted(grams)))

    def found(self, text: str) -> list[tuple[str, int, int]]:
        """The grams that a text holds: each with the places of its first and behind its last character."""
        words = list(_WORD.finditer(text))
        lowered = [match[0].lower() for match in words]
        hits = []
        for size, grams in self._by_size.items():
            for i in range(len(words) - size + 1):
                gram = " ".join(lowered[i : i + size])
                if gram in grams:
                    hits.append((gram, words[i].start(), words[i + size - 1].end()))
        return hits

    def filtered(self, text: str) -> tuple[list[str], dict[str, int]]:
        """What remains of a document, in pieces, and what was removed, counted."""
        hits = self.found(text)
        if not hits:
            return [text], {}
        spans: list[list[int]] = []
        for start, end in sorted((start - WINDOW, end + WINDOW) for _, start, end in hits):
            if spans and start <= spans[-1][1]:
                spans[-1][1] = max(spans[-1][1], end)
            else:
                spans.append([max(start, 0), end])
        bounds = [0, *(place for span in spans for place in span), len(text)]
        cuts = (text[start:end] for start, end in zip(bounds[::2], bounds[1::2], strict=True))
        pieces = [piece for piece in cuts if len(piece) >= WINDOW]
        dropped = len(pieces) > MOST_PIECES
        pieces = [] if dropped else pieces
        return pieces, {
            "grams": len(hits),
            "characters": len(text) - sum(map(len, pieces)),
            "documents_cut": 1,
            "documents_dropped": int(dropped or not pieces),
        }


def common(counts: Sequence[Mapping[str, int]]) -> set[str]:
    """Grams that stand in more than ten documents, from the counts of documents by gram of several parts."""
    total: dict[str, int] = {}
    for part in counts:
        for gram, number in part.items():
            total[gram] = total.get(gram, 0) + number
    return {gram for gram, number in total.items() if number > COMMON}
