"""What a task's `generation_kwargs` ask for, in our terms; what is not implemented is refused by name."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from lm_eval.models.utils import normalize_gen_kwargs

from icl.errors import InputError

_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "num_return_sequences": (1,),
    "repetition_penalty": (1.0,),
    "no_repeat_ngram_size": (0,),
    "num_beam_groups": (1,),
    "use_cache": (True, False),
}
"""Arguments of `generate` and the values with which they change nothing."""
_OF_SAMPLING: Mapping[str, tuple[Any, ...]] = {
    "top_p": (1.0,),
    "top_k": (0,),
    "min_p": (0.0,),
    "typical_p": (1.0,),
}
"""The same for those that matter only where text is sampled."""
_READ = ("until", "max_gen_toks", "do_sample", "temperature", "num_beams", "length_penalty", "early_stopping")


@dataclasses.dataclass(frozen=True)
class Generation:
    """How text is generated, and where it ends: at the first of `until`, or after so many tokens."""

    until: tuple[str, ...]
    max_tokens: int
    temperature: float
    beam_width: int
    length_penalty: float

    @classmethod
    def of(cls, arguments: Mapping[str, Any], max_tokens: int) -> "Generation":
        """Reads the arguments of a request.

        Args:
          arguments: The task's `generation_kwargs`.
          max_tokens: Where they do not say how many.

        Raises:
          InputError: they ask for what is not implemented.
        """
        given = dict(normalize_gen_kwargs(dict(arguments), max_tokens))
        samples = bool(given.get("do_sample"))
        temperature = float(given.get("temperature", 1.0)) if samples else 0.0
        width, most = int(given.get("num_beams") or 1), int(given["max_gen_toks"])
        _refuse_others(given, samples=temperature > 0, width=width)
        for name, number in (("max_gen_toks", most), ("num_beams", width)):
            if number < 1:
                raise InputError(f"generation_kwargs: {name} = {number}: expected a positive number")
        until = tuple(text for text in given["until"] if text)
        penalty = float(given.get("length_penalty", 1.0)) if width > 1 else 1.0
        return cls(until, most, temperature, width, penalty)


def _refuse_others(given: Mapping[str, Any], *, samples: bool, width: int) -> None:
    """Raises InputError for an argument, or a value of one, that would change the text."""
    neutral = dict(_NEUTRAL)
    if width > 1:
        neutral |= {"do_sample": (False,), "early_stopping": ("never", False)}
    for name, value in given.items():
        if name not in (*_READ, *_NEUTRAL, *_OF_SAMPLING):
            raise InputError(
                f"generation_kwargs: {name} = {value!r} is not implemented; expected of {', '.join(_READ)}"
            )
        values = _OF_SAMPLING.get(name) if samples else None
        values = neutral.get(name, values)
        if values is not None and value is not None and value not in values:
            raise InputError(
                f"generation_kwargs: {name} = {value!r} is not implemented; expected {values[0]!r}"
            )
