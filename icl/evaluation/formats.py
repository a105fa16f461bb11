"""Other ways to write a prompt: a task's own template is one format of several, and scores differ.

A format keeps the task's delimiter. What asks for the answer at the end of an input ("Answer:") is part of
the task's own template; another format leaves it out and asks in its own way.
"""

import dataclasses
import re
from collections.abc import Mapping

from icl.errors import InputError
from icl.tasks.task import Example, Template

DEFAULT = "default"
FORMATS: Mapping[str, Template] = {
    "arrow": Template(separator=" =>", target_prefix=" "),
    "input_output": Template(input_prefix="Input: ", separator="\nOutput:", target_prefix=" "),
    "question_answer": Template(input_prefix="Q: ", separator="\nA:", target_prefix=" "),
}
CONTENT_FREE = "N/A"
"""An input that says nothing (Zhao et al. 2021, arXiv 2102.09690, section 4)."""

_CUE = re.compile(r"\s+(?:answer|a):$", re.IGNORECASE)


def check_formats(names: tuple[str, ...]) -> None:
    """Raises InputError for a format that is not known."""
    for name in names:
        if name != DEFAULT and name not in FORMATS:
            raise InputError(
                f"EvalConfig.templates: no format {name!r}; expected of: {', '.join((DEFAULT, *FORMATS))}"
            )


def template_of(own: Template, name: str) -> Template:
    """The template that a format means for a task whose own template is `own`."""
    if name == DEFAULT:
        return own
    return dataclasses.replace(
        FORMATS[name], delimiter=own.delimiter, instruction_delimiter=own.instruction_delimiter
    )


def worded(example: Example, name: str) -> Example:
    """The example as a format writes it."""
    if name == DEFAULT or not (text := _CUE.sub("", example.input)):
        return example
    return dataclasses.replace(example, input=text)


def content_free(example: Example) -> Example:
    """The example with an input that says nothing, and asks for the answer in the same way."""
    cue = _CUE.search(example.input)
    return dataclasses.replace(example, input=CONTENT_FREE + (cue.group() if cue else ""))


def channel(example: Example, template: Template) -> Example:
    """The example turned round for the noisy channel: the input is the answer to the label.

    Every option is a text of its own that ends in the input, which alone is scored (Min et al. 2021,
    arXiv 2108.04106): P(input | option).
    """
    ending = f"{template.delimiter}{template.input_prefix}{example.input}"
    choices = tuple(f"{choice}{ending}" for choice in example.choices)
    return dataclasses.replace(
        example, input="", target=f"{example.target}{ending}", choices=choices, ending=ending
    )


CHANNEL_TEMPLATE = Template(separator="")
"""How turned examples are written: label, delimiter, input, and the delimiter twice between them."""


def channel_template(template: Template) -> Template:
    """The template of turned examples."""
    return dataclasses.replace(
        CHANNEL_TEMPLATE,
        delimiter=2 * template.delimiter,
        instruction_delimiter=template.instruction_delimiter,
    )
