"""The commands that a page shows, as the shell would split them."""

import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple


class Block(NamedTuple):
    """Text between two fences of a page: its text, the line it begins in, and the comment above it."""

    text: str
    line: int
    comment: str


class Command(NamedTuple):
    """A command as the shell would split it, where it stands, and whether text only speaks of it."""

    words: tuple[str, ...]
    where: str
    is_name: bool = False


def blocks(text: str, language: str) -> list[Block]:
    """The blocks of a language, in order."""
    found = re.finditer(rf"(?:<!-- (.*?) -->\s*)?^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [Block(match[2], text.count("\n", 0, match.start(2)) + 1, match[1] or "") for match in found]


def commands_of(text: str, name: str) -> Iterator[Command]:
    """The whole commands of a page."""
    shown: list[tuple[str, int, bool]] = []
    for block in blocks(text, "bash"):
        number = block.line
        for line in re.findall(r"(?:\\\n|[^\n])*\n", block.text):
            shown.append((line, number, False))
            number += line.count("\n")
    for span in re.finditer(r"`(python [^`\n]+)`", text):
        is_name = bool(re.fullmatch(r"python (-m )?[\w./]+", span[1]))
        shown.append((span[1], text.count("\n", 0, span.start()) + 1, is_name))
    for line, number, is_name in shown:
        words = shlex.split(line.replace("\\\n", " "), comments=True)
        if words and words[0] != "include" and not words[0].startswith("{") and "..." not in words:
            yield Command(tuple(words), f"{name}, line {number}", is_name)
