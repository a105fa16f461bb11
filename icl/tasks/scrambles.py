"""The five word-scrambling tasks of the GPT-3 paper (arXiv 2005.14165, section 3.9.2).

Worded and drawn as the paper's public files are: a rotation by any number of letters, a permutation of all
letters but the first and last one or two, one of four marks between each two letters, or the reversed word.
"""

import dataclasses
import functools
import gzip
from collections.abc import Callable, Mapping, Sequence
from importlib import resources

import numpy as np

from icl.data.keys import digest, fraction
from icl.errors import InputError, check_types
from icl.tasks.battery import CHUNK, BatteryTask
from icl.tasks.exclusion import input_identity, word_identity
from icl.tasks.registry import register
from icl.tasks.sources import find_files, read_text
from icl.tasks.task import Example, Split, Template

INSTRUCTION = "Please unscramble the letters into a word, and write that word:"
WORD_LIST = "english_words.txt.gz"
_MARKS = (" ", ".", "/", "!")
_SHORTEST = 5
_TEMPLATE = Template(separator=" =", target_prefix=" ", delimiter="\n", instruction_delimiter="\n")


def _cycle(word: str, draws: Sequence[float]) -> str:
    start = 1 + int(draws[0] * (len(word) - 1))
    return word[start:] + word[:start]


def _shuffle_inside(kept: int, word: str, draws: Sequence[float]) -> str:
    inner = sorted(zip(draws, word[kept:-kept], strict=False))
    return word[:kept] + "".join([letter for _, letter in inner]) + word[-kept:]


def _insert(word: str, draws: Sequence[float]) -> str:
    parts = [letter + _MARKS[int(4 * draw)] for letter, draw in zip(word[:-1], draws, strict=False)]
    return "".join(parts) + word[-1]


def _reverse(word: str, draws: Sequence[float]) -> str:
    del draws
    return word[::-1]


SCRAMBLES: Mapping[str, Callable[[str, Sequence[float]], str]] = {
    "cycle_letters_in_word": _cycle,
    "mid_word_1_anagrams": functools.partial(_shuffle_inside, 1),
    "mid_word_2_anagrams": functools.partial(_shuffle_inside, 2),
    "random_insertion_in_word": _insert,
    "reversed_words": _reverse,
}
"""How each of the paper's five tasks hides a word, with a random number in [0, 1) for each letter."""


@register("scrambles")
@dataclasses.dataclass(frozen=True)
class Scrambles:
    """Settings of the word scrambles.

    Attributes:
      tasks: Which of the five.
      words: A text file of one word a line, frequent ones first; the package's own list by default.
      num_words: The first so many words are used; 0 for all.
      held_out_share: Share of the words that training never sees, the same for all tasks.
    """

    tasks: tuple[str, ...] = tuple(SCRAMBLES)
    words: str = ""
    num_words: int = 0
    held_out_share: float = 0.05

    def __post_init__(self) -> None:
        check_types(self)
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise InputError(f"Scrambles.tasks = {self.tasks!r}: expected one task at least, each once")
        for name in self.tasks:
            if name not in SCRAMBLES:
                raise InputError(f"Scrambles.tasks: no task {name!r}; expected of {', '.join(SCRAMBLES)}")
        if self.num_words < 0:
            raise InputError(f"Scrambles.num_words = {self.num_words}: expected 0 (all) or more")
        if not 0 < self.held_out_share < 1:
            raise InputError(
                f"Scrambles.held_out_share = {self.held_out_share!r}: expected a share between 0 and 1"
            )

    def build(self, name: str) -> "tuple[Scramble, ...]":
        """The tasks, named as in `tasks`.

        Raises:
          InputError: the word list cannot be read, or holds too few words of five letters or more.
        """
        del name
        words = _read_words(self.words)
        words = words[: self.num_words or len(words)]
        parts: dict[Split, list[str]] = {"train": [], "held_out": []}
        for word in words:
            parts["held_out" if fraction("held out", word) < self.held_out_share else "train"].append(word)
        for split, found in parts.items():
            if not found:
                raise InputError(
                    f"Scrambles.words = {self.words!r}: {len(words)} words leave none to the split "
                    f"{split!r}; expected more words"
                )
        return tuple(Scramble(task, parts) for task in self.tasks)


class Scramble(BatteryTask):
    """Words with their letters mixed up in one way."""

    def __init__(self, name: str, words: Mapping[Split, list[str]]) -> None:
        super().__init__(name, _TEMPLATE, INSTRUCTION, digest(*words["train"], "", *words["held_out"]))
        self._words = words
        self._longest = max(map(len, [*words["train"], *words["held_out"]]))

    def draw(self, split: Split, rng: np.random.Generator) -> list[Example]:
        words, hide = self._words[split], SCRAMBLES[self.name]
        chosen = (words[i] for i in rng.integers(0, len(words), CHUNK).tolist())
        draws = rng.random((CHUNK, self._longest)).tolist()
        return [Example(hide(word, own), word, word) for word, own in zip(chosen, draws, strict=True)]

    def identities(self, example: Example) -> tuple[str, ...]:
        """The word, however it is hidden, and the hidden form."""
        return word_identity(example.target), input_identity(example.input)


def _read_words(path: str) -> list[str]:
    """The words of a list that have five letters or more, each once."""
    if path:
        (file,) = find_files(path, "Scrambles.words")[:1]
        text = read_text(file)
    else:
        data = resources.files("icl.tasks").joinpath(WORD_LIST).read_bytes()
        text = gzip.decompress(data).decode()
    words: dict[str, None] = {}
    for number, line in enumerate(text.split("\n"), 1):
        word = line.strip()
        if not word or word.startswith("#"):
            continue
        if not word.isalpha():
            where = f"{path or WORD_LIST}, line {number}"
            raise InputError(f"{where}: {word[:40]!r}; expected one word of letters a line")
        if len(word) >= _SHORTEST:
            words[word.lower()] = None
    return list(words)
