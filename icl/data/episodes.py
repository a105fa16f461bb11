"""Episodes as tokens: an instruction and demonstrations of one task instance, drawn to fill a budget.

Training rows and evaluation prompts share `EpisodeWriter`, so that both put the token boundaries in the
same places: after the instruction, after a context, after an answer with its delimiter.
"""

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from icl.data.batch import NO_EXAMPLE
from icl.data.tokenizer import Tokenizer
from icl.tasks.exclusion import Exclusion
from icl.tasks.task import Example, Task, TaskInstance, Template

MIN_DEMONSTRATION = 3
"""Tokens of the shortest demonstration: an input, an answer and its delimiter."""
_CACHED_TEXTS = 2**16
_MAX_REPEATS = 100
_CHOSEN = 8
"""About so many demonstrations before its end, an episode begins to choose what fills its room."""
_POOL = 24
"""It chooses among so many."""


class Episode(NamedTuple):
    """Tokens of one segment from the start token on, and for each the example it answers (or -1)."""

    tokens: list[int]
    examples: list[int]
    num_examples: int
    excluded: int = 0
    """Held-out examples that were drawn and passed over."""


class _Piece(NamedTuple):
    """A demonstration as tokens."""

    context: tuple[int, ...]
    answer: tuple[int, ...]
    length: int


class EpisodeWriter:
    """Writes examples as tokens."""

    def __init__(self, tokenizer: Tokenizer, exclusion: Exclusion | None = None) -> None:
        """Remembers the tokens of the texts it meets, which come again and again.

        Args:
          tokenizer: turns text into ids.
          exclusion: what no episode may hold.
        """
        self.start_id = tokenizer.start_id
        self._tokenizer = tokenizer
        self._exclusion = exclusion or None
        self._encode = functools.lru_cache(_CACHED_TEXTS)(lambda text: tuple(tokenizer.encode(text)))

    def __reduce__(self) -> tuple[object, ...]:
        return EpisodeWriter, (self._tokenizer, self._exclusion)

    def instruction(self, template: Template, text: str | None) -> tuple[int, ...]:
        """Tokens of the instruction line; none where there is no text."""
        return self._encode(template.instruction(text))

    def context(self, template: Template, example: Example) -> tuple[int, ...]:
        """Tokens of an example up to where its answer begins."""
        return self._encode(template.context(example))

    def answer(self, template: Template, example: Example) -> tuple[int, ...]:
        """Tokens of an example's answer with the delimiter that closes it."""
        return self._encode(template.completion(example) + template.delimiter)

    def draw(
        self,
        task: Task,
        instance: TaskInstance,
        examples: Iterable[Example],
        *,
        instruction: bool,
        positions: int,
        max_examples: int,
        answer_positions: int | None = None,
        look_ahead: int = 0,
    ) -> Episode:
        """Draws an episode; one without examples where not even the first fits.

        An example whose key was shown before is passed over: every answer is a query to those before it; and
        so is one that is excluded. An instance that shows nothing new for long ends the episode. Where an
        episode may fill its room, its last demonstrations are chosen among a few more than it needs, so that
        they fill it as exactly as they can.

        Args:
          task: how examples are written, and told from excluded ones.
          instance: what the examples belong to.
          examples: where they come from.
          instruction: whether the instruction goes before them, if there is one.
          positions: room for the episode; its tokens are one more.
          max_examples: where it ends at the latest; 0 sets no limit.
          answer_positions: room for answers alone; None sets no limit.
          look_ahead: how many examples that do not fit are passed over for smaller ones.
        """
        text = instance.instruction if instruction else None
        tokens = [self.start_id, *self.instruction(task.template, text)]
        marks = [NO_EXAMPLE] * len(tokens)
        number = misses = answered = 0
        admitted = _Admitted(task, examples, self._exclusion)
        end = positions + 1
        # A budget for answers is a second one to fill, which a choice among lengths does not see.
        chooses = bool(look_ahead) and not max_examples and answer_positions is None
        template = task.template
        for example in admitted:
            context, answer = self.context(template, example), self.answer(template, example)
            length = len(context) + len(answer)
            fits = answer_positions is None or answered + len(answer) <= answer_positions
            if not fits or len(tokens) + length > end:
                misses += 1
                if misses > look_ahead or len(tokens) + MIN_DEMONSTRATION > end:
                    break
                continue
            if chooses and len(tokens) + _CHOSEN * length > end:
                pieces = [
                    _Piece(context, answer, length),
                    *self._pieces(template, admitted, end - len(tokens)),
                ]
                for piece in best_fit(pieces, end - len(tokens)):
                    tokens += piece.context
                    tokens += piece.answer
                    marks += [NO_EXAMPLE] * len(piece.context)
                    marks += [number] * len(piece.answer)
                    number += 1
                break
            tokens += context
            tokens += answer
            marks += [NO_EXAMPLE] * len(context)
            marks += [number] * len(answer)
            answered += len(answer)
            number += 1
            if number == max_examples:
                break
        return Episode(tokens, marks, number, admitted.excluded)

    def _pieces(self, template: Template, examples: Iterable[Example], room: int) -> Iterator[_Piece]:
        """Further demonstrations, of which some may fill the room."""
        for example in itertools.islice(examples, _POOL - 1):
            context, answer = self.context(template, example), self.answer(template, example)
            length = len(context) + len(answer)
            if length <= room:
                yield _Piece(context, answer, length)


class _Admitted:
    """The examples that an episode may show: none with a key that it showed before, none excluded."""

    def __init__(self, task: Task, examples: Iterable[Example], exclusion: Exclusion | None) -> None:
        self._examples = iter(examples)
        self._identities = task.identities
        self._exclusion = exclusion
        self._keys: set[str] = set()
        self.excluded = 0

    def __iter__(self) -> "_Admitted":
        return self

    def __next__(self) -> Example:
        for example in itertools.islice(self._examples, _MAX_REPEATS):
            key = example.key
            if key is not None and key in self._keys:
                continue
            if self._exclusion is not None and self._exclusion.holds(self._identities(example)):
                self.excluded += 1
                continue
            if key is not None:
                self._keys.add(key)
            return example
        raise StopIteration


def best_fit(pieces: Sequence[_Piece], room: int) -> list[_Piece]:
    """The pieces, in their order, that fill the room best; of equally good choices, earlier pieces win."""
    reach = [1]  # bit n of reach[i]: the first i pieces hold a choice of n tokens
    within = (1 << (room + 1)) - 1
    for piece in pieces:
        reach.append((reach[-1] | reach[-1] << piece.length) & within)
        if reach[-1] >> room:
            break
    filled = reach[-1].bit_length() - 1
    chosen = []
    for i in range(len(reach) - 1, 0, -1):
        if not reach[i - 1] >> filled & 1:
            chosen.append(pieces[i - 1])
            filled -= pieces[i - 1].length
    return chosen[::-1]
