"""Episodes as tokens: an instruction and demonstrations of one task instance, drawn to fill a budget.

Training rows and evaluation prompts share `EpisodeWriter`, so that both put the token boundaries in the
same places: after the instruction, after a context, after an answer with its delimiter.
"""

import functools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from icl.data.batch import NO_EXAMPLE
from icl.data.tokenizer import Tokenizer
from icl.tasks.task import Example, TaskInstance, Template

_CACHED_TEXTS = 2**16
_LOOK_AHEAD = 4


class Episode(NamedTuple):
    """Tokens of one segment from the start token on, and for each the example it answers (or -1)."""

    tokens: list[int]
    examples: list[int]
    num_examples: int


class EpisodeWriter:
    """Writes examples as tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.start_id = tokenizer.start_id
        self._encode = functools.lru_cache(maxsize=_CACHED_TEXTS)(lambda text: tuple(tokenizer.encode(text)))

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
    ) -> Episode:
        """An episode of at most `positions` positions (one less than its tokens).

        It ends before the first example that does not fit, but a few more are looked at for a smaller one.
        `max_examples` 0 sets no limit. Without room for an example the episode has none.
        """
        text = instance.instruction if instruction else None
        tokens = [self.start_id, *self.instruction(template, text)]
        marks = [NO_EXAMPLE] * len(tokens)
        number = misses = 0
        for example in examples:
            context, answer = self.context(template, example), self.answer(template, example)
            if len(tokens) + len(context) + len(answer) > positions + 1:
                misses += 1
                if misses > _LOOK_AHEAD or len(tokens) + 2 > positions:
                    break
                continue
            tokens += context
            tokens += answer
            marks += [NO_EXAMPLE] * len(context)
            marks += [number] * len(answer)
            number += 1
            if number == max_examples:
                break
        return Episode(tokens, marks, number)
