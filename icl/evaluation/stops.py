"""Where a generated text stops: at the end-of-text token, or where a stop text is complete.

Tokens are seen as the bytes they add, so a stop text is found wherever it begins and ends, also inside a
token or across several: an automaton over the bytes of all stop texts (Aho and Corasick 1975), read a token
at a time.

Shapes: S states, V vocab.
"""

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from icl.data.tokenizer import Tokenizer

Ints = NDArray[np.int32]


@functools.lru_cache(maxsize=64)
def stop_transitions(
    tokenizer: Tokenizer, text: str | tuple[str, ...], vocab_size: int | None = None
) -> Ints:
    """The automaton that stops after `text`, or after the first of several texts, as a table.

    A state is how many bytes of a stop text the generated text ends with, the most of any; state 0 is the
    start. The last state is that of a text which has stopped, and is never left. Tokens that end a text lead
    there from every state; other special tokens add nothing.

    Args:
      tokenizer: Whose tokens are read; kept alive, as the table is cached for it.
      text: The stop text, or several; an empty one never stops anything.
      vocab_size: The model's, where it is larger than the tokenizer's: tokens beyond have no text.

    Returns:
      Read-only int32 [states, vocab]: the state after reading a token in a state.
    """
    texts = (text,) if isinstance(text, str) else text
    # As the tokenizer writes them, which may escape characters.
    steps_SX = _byte_steps([b"".join(map(tokenizer.token_bytes, tokenizer.encode(each))) for each in texts])
    stopped = len(steps_SX) - 1
    tokens_VL, lengths_V = _padded_bytes(tokenizer)
    states_SV = np.repeat(np.arange(stopped + 1, dtype=np.int32)[:, None], len(lengths_V), axis=1)
    for at in range(tokens_VL.shape[1]):
        reads = lengths_V > at
        states_SV[:, reads] = steps_SX[states_SV[:, reads], tokens_VL[None, reads, at]]
    states_SV[:, list(tokenizer.end_ids)] = stopped
    beyond = max(0, (vocab_size or 0) - states_SV.shape[1])
    unread = np.repeat(np.arange(stopped + 1, dtype=np.int32)[:, None], beyond, axis=1)
    states_SV = np.concatenate([states_SV, unread], axis=1)
    states_SV.setflags(write=False)
    return states_SV


def _byte_steps(patterns: Sequence[bytes]) -> Ints:
    """The Aho-Corasick automaton [states, 256] of patterns; its last state is that of a complete one.

    Other states are beginnings of patterns that no pattern ends, by length; the first is the empty one.
    """
    whole = tuple(pattern for pattern in patterns if pattern)
    beginnings = {pattern[:length] for pattern in whole for length in range(len(pattern))} | {b""}
    states = [
        beginning
        for beginning in sorted(beginnings, key=lambda beginning: (len(beginning), beginning))
        if not any(pattern in beginning for pattern in whole)
    ]
    numbers = {beginning: number for number, beginning in enumerate(states)}
    stopped = len(states)
    steps_SX = np.zeros((stopped + 1, 256), np.int32)
    steps_SX[stopped] = stopped
    for beginning, number in numbers.items():
        # What is read after the beginning is read after its longest end that is a beginning, too.
        shorter = next((beginning[i:] for i in range(1, len(beginning)) if beginning[i:] in numbers), b"")
        if beginning:
            steps_SX[number] = steps_SX[numbers[shorter]]
        for byte in set(b"".join(whole)):
            longer = beginning + bytes([byte])
            if longer.endswith(whole):
                steps_SX[number, byte] = stopped
            elif longer in numbers:
                steps_SX[number, byte] = numbers[longer]
    return steps_SX


@functools.lru_cache(maxsize=8)
def _padded_bytes(tokenizer: Tokenizer) -> tuple[NDArray[np.uint8], Ints]:
    """The bytes of every token [vocab, longest], and how many they are."""
    tokens = [tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)]
    lengths_V = np.array([len(token) for token in tokens], np.int32)
    longest = int(lengths_V.max(initial=0))
    padded = b"".join(token.ljust(longest, b"\0") for token in tokens)
    return np.frombuffer(padded, np.uint8).reshape(len(tokens), longest), lengths_V
