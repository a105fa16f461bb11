"""A prompt: instruction, demonstrations in list order, query; as text, as tokens, and cut to the context.

The text is encoded once, as one string, after what the tokenizer puts before a text. The gold answer is what
encoding the prompt with answer and delimiter has beyond the prefix that both share, so no token is lost where
a tokenizer merges across the seam.
"""

import bisect
import dataclasses
import hashlib
from collections.abc import Sequence

from icl.data.tokenizer import Tokenizer
from icl.errors import InputError
from icl.tasks.task import Example, Template


@dataclasses.dataclass(frozen=True, slots=True)
class Tokens:
    """A prompt as tokens, what the tokenizer puts before a text first.

    `full` is prompt, gold answer and delimiter; `prompt` the prompt alone, from which the model goes on.
    `gold_start` is where the gold answer begins in `full`: the length of the prefix that both share.
    """

    prompt: list[int]
    full: list[int]
    gold_start: int

    @property
    def gold(self) -> list[int]:
        """Tokens of the gold answer and its delimiter."""
        return self.full[self.gold_start :]


def prompt_text(
    template: Template, instruction: str | None, demonstrations: Sequence[Example], query: Example
) -> str:
    """Instruction, demonstrations, and the query up to where its answer begins."""
    asked = template.after(len(demonstrations)).context(query)
    return prefix_text(template, instruction, demonstrations) + asked


def prefix_text(template: Template, instruction: str | None, demonstrations: Sequence[Example]) -> str:
    """What stands before the query: instruction and solved examples, each closed by the delimiter.

    The instruction speaks of the form with demonstrations, where a query alone has another one.
    """
    solved = (
        template.context(example) + template.completion(example) + template.delimiter
        for example in demonstrations
    )
    opening = "" if template.alone and not demonstrations else template.instruction(instruction)
    return opening + "".join(solved)


def prompt_hash(text: str) -> str:
    """The name of a prompt by its content."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def encode(tokenizer: Tokenizer, prompt: str, completion: str, delimiter: str) -> Tokens:
    """Tokens of a prompt and of the answer that should follow it."""
    full = tokenizer.encode(prompt + completion + delimiter)
    return _tokens(tokenizer, prompt, tokenizer.encode(prompt), full)


def encode_option(tokenizer: Tokenizer, prompt: str, completion: str, ending: str) -> Tokens:
    """Tokens of a prompt and of an option that could follow it, with no delimiter.

    What is scored, from `gold_start` on, is the option, or its `ending` where it has one.
    """
    full = tokenizer.encode(prompt + completion)
    before = tokenizer.encode(prompt + completion.removesuffix(ending) if ending else prompt)
    return _tokens(tokenizer, prompt, before, full)


def _tokens(tokenizer: Tokenizer, prompt: str, before: list[int], full: list[int]) -> Tokens:
    """What a tokenizer puts before a text, then prompt and full text; scored is what comes after `before`.

    A text of which all is scored is asked after the start token, where nothing stands before a text.
    """
    start = list(tokenizer.prompt_start)
    prompt_ids = tokenizer.encode(prompt)
    if not start and not (prompt_ids and common_prefix(before, full)):
        start = [tokenizer.start_id]
    scored_from = len(start) + min(common_prefix(before, full), len(full) - 1)
    return Tokens(start + prompt_ids, start + full, scored_from)


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens two sequences share from their start."""
    shorter = min(len(left), len(right))
    if left[:shorter] == right[:shorter]:
        return shorter
    return next(i for i in range(shorter) if left[i] != right[i])


def without_start(query: Example, lost: int) -> Example:
    """The query without the first `lost` characters of its input."""
    return dataclasses.replace(query, input=query.input[lost:]) if lost else query


@dataclasses.dataclass(frozen=True)
class Context:
    """The room that a prompt has: `length` tokens in all, of which `budget` at least are for the answer."""

    tokenizer: Tokenizer
    length: int
    budget: int

    def fits(
        self, template: Template, instruction: str | None, demonstrations: Sequence[Example], query: Example
    ) -> bool:
        """Whether the prompt fits together with its longest option and with the generation budget."""
        text = prompt_text(template, instruction, demonstrations, query)
        options = {query.target, *query.choices}
        for option in options:
            asked = dataclasses.replace(query, target=option)
            completion = template.after(len(demonstrations)).completion(asked)
            tokens = encode(self.tokenizer, text, completion, template.delimiter)
            if max(len(tokens.full), len(tokens.prompt) + self.budget) > self.length:
                return False
        return True

    def effective_k(
        self, template: Template, instruction: str | None, demonstrations: Sequence[Example], query: Example
    ) -> int:
        """The largest k whose first k demonstrations fit; a long one is never skipped for a shorter one.

        The same for all conditions of a query: it leaves room for the instruction, whether it stands or not.
        """
        counts = range(1, len(demonstrations) + 1)
        return bisect.bisect_left(
            counts, True, key=lambda k: not self.fits(template, instruction, demonstrations[:k], query)
        )

    def lost_characters(self, template: Template, instruction: str | None, query: Example) -> int:
        """How many characters the start of the query's input loses so that it fits without demonstrations.

        Raises:
          InputError: what stands around the input does not fit either.
        """
        cuts = range(len(query.input) + 1)
        lost = bisect.bisect_left(
            cuts, True, key=lambda cut: self.fits(template, instruction, (), without_start(query, cut))
        )
        if lost == len(cuts):
            raise InputError(
                f"query {query.input[:40]!r}: instruction, answer and generation budget of {self.budget} "
                f"tokens exceed the context of {self.length}; expected a smaller EvalConfig.max_new_tokens"
            )
        return lost
