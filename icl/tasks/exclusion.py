"""What training must never show: held-out examples, by the names under which they can be told.

An example goes by its normalised input; some tasks give it further names (`Task.identities`): the swapped
operands of a sum, the word behind a scramble. One place asks, `EpisodeWriter.draw`, for every task alike.
"""

import re
import unicodedata
from collections.abc import Iterable

from icl.data.keys import digest

_WRAPPING = re.compile(r"^(?:q:|question:)\s*|\s*(?:a:|answer:|=|->|>)$")


class Exclusion:
    """A set of identities; training rows hold no example that has one of them."""

    def __init__(self, identities: Iterable[str] = ()) -> None:
        self._identities = frozenset(identities)

    def __len__(self) -> int:
        return len(self._identities)

    def __bool__(self) -> bool:
        return bool(self._identities)

    def holds(self, identities: Iterable[str]) -> bool:
        """Whether one of an example's identities is excluded."""
        return any(identity in self._identities for identity in identities)

    @property
    def fingerprint(self) -> str:
        """Names the set by its content."""
        return digest("exclusion", *sorted(self._identities))


def normalise(text: str) -> str:
    """Text for comparison: compatibility forms, case and runs of white space do not count."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def input_identity(text: str) -> str:
    """The identity of an input: normalised, without the "Q:" before it and the "A:" or "=" after it."""
    text = normalise(text)
    while (stripped := _WRAPPING.sub("", text)) != text:
        text = stripped
    return text


def word_identity(word: str) -> str:
    """The identity of whatever hides this word, however it is scrambled."""
    return f"word {normalise(word)}"
