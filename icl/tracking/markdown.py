"""Sample prompts as Markdown, in which whitespace can be seen and no prompt passes for markup.

The text of others stands in code blocks and code spans, whose fences are longer than any run of backquotes
in it.
"""

import re
from collections.abc import Sequence

from icl.tracking.tracker import Sample

MAX_CHARACTERS = 4_000
"""Of a prompt that are shown; most of them from its end, where the query is."""
_HEAD_CHARACTERS = 1_000
_CONTROL = {code: chr(0x2400 + code) for code in range(32) if chr(code) != "\n"} | {127: "␡"}
_CONTROL[ord("\t")] = "⇥"


def as_markdown(samples: Sequence[Sample]) -> str:
    """Each prompt in a block, and under it what the model said, marked right or wrong."""
    return "\n\n".join(map(_one, samples)) + "\n"


def visible(text: str) -> str:
    """The text with signs for control characters and for spaces that end a line; lines stay lines."""
    text = text.encode("utf-8", "replace").decode()
    signed = text.translate(_CONTROL)
    return re.sub(r" +$", lambda spaces: "·" * len(spaces[0]), signed, flags=re.MULTILINE)


def shortened(text: str) -> str:
    """The text; of a long one the start and the end, and how much is left out."""
    left = len(text) - MAX_CHARACTERS
    if left <= 0:
        return text
    tail = MAX_CHARACTERS - _HEAD_CHARACTERS
    return f"{text[:_HEAD_CHARACTERS]}\n… {left:,} characters are left out here …\n{text[-tail:]}"


def _one(sample: Sample) -> str:
    prompt = visible(shortened(sample.prompt))
    fence = _fence(prompt, 3)
    said = "✓ right" if sample.is_right else "✗ wrong"
    answer = f"**{said}**: {_span(sample.answer)}"
    if not sample.is_right:
        answer += f", expected {_span(sample.gold)}"
    return f"**{sample.title}**\n\n{fence}\n{prompt}\n{fence}\n\n{answer}"


def _span(text: str) -> str:
    """A line of code; "nothing" for an empty text."""
    signed = visible(text).replace("\n", "⏎")
    if not signed:
        return "nothing"
    fence = _fence(signed, 1)
    return f"{fence} {signed} {fence}" if "`" in signed else f"{fence}{signed}{fence}"


def _fence(text: str, least: int) -> str:
    """More backquotes than stand in a row in the text."""
    return "`" * max([least, *(len(run) + 1 for run in re.findall("`+", text))])
