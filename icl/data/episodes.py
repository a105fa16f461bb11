"""Episodes as tokens: an instruction and demonstrations of one task instance, drawn to fill a budget.

Training rows and evaluation prompts share `EpisodeWriter`, so that both put the token boundaries in the
same places: after the instruction, after a context, after an answer with its delimiter.
"""

import functools
from collections.abc import Iterable
from typing import NamedTuple

from icl.data.batch import NO_EXAMPLE
from icl.data.tokenizer import Tokenizer
from icl.tasks.task import Example, TaskInstance, Template

MIN_DEMONSTRATION = 3
"""Tokens of the shortest demonstration: an input, an answer and its delimiter."""
_CACHED_TEXTS = 2**16
_MAX_REPEATS = 100


class Episode(NamedTuple):
    """Tokens of one segment from the start token on, and for each the example it answers (or -1)."""

    tokens: list[int]
    examples: list[int]
    num_examples: int


class EpisodeWriter:
    """Writes examples as tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Remembers the tokens of the texts it meets, which come again and again."""
        self.start_id = tokenizer.start_id
        self._encode = functools.lru_cache(_CACHED_TEXTS)(lambda text: tuple(tokenizer.encode(text)))

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
        instance: TaskInstance,
        template: Template,
        examples: Iterable[Example],
        *,
        instruction: bool,
        positions: int,
        max_examples: int,
        answer_positions: int | None = None,
        look_ahead: int = 0,
    ) -> Episode:
        """Draws an episode; one without examples where not even the first fits.

        An example whose key was shown before is passed over: every answer is a query to those before it. An
        instance that shows nothing new for long ends the episode.

        Args:
          instance: what the examples belong to.
          template: how they are written.
          examples: where they come from.
          instruction: whether the instruction goes before them, if there is one.
          positions: room for the episode; its tokens are one more.
          max_examples: where it ends at the latest; 0 sets no limit.
          answer_positions: room for answers alone; None sets no limit.
          look_ahead: how many examples that do not fit are passed over for smaller ones.
        """
        text = instance.instruction if instruction else None
        tokens = [self.start_id, *self.instruction(template, text)]
        marks = [NO_EXAMPLE] * len(tokens)
        number = misses = repeats = answered = 0
        keys: set[str] = set()
        for example in examples:
            if example.key is not None:
                repeats = repeats + 1 if example.key in keys else 0
                if repeats == _MAX_REPEATS:
                    break
                if repeats:
                    continue
                keys.add(example.key)
            context, answer = self.context(template, example), self.answer(template, example)
            fits = answer_positions is None or answered + len(answer) <= answer_positions
            if not fits or len(tokens) + len(context) + len(answer) > positions + 1:
                misses += 1
                if misses > look_ahead or len(tokens) + MIN_DEMONSTRATION > positions + 1:
                    break
                continue
            tokens += context
            tokens += answer
            marks += [NO_EXAMPLE] * len(context)
            marks += [number] * len(answer)
            answered += len(answer)
            number += 1
            if number == max_examples:
                break
        return Episode(tokens, marks, number)
