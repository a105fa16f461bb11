"""Where a generated text stops: at the end-of-text token, or where the stop text is complete.

Tokens are seen as the bytes they add, so the stop text is found wherever it begins and ends, also inside a
token or across several: a KMP automaton over its bytes (Knuth, Morris, Pratt 1977), read a token at a time.

Shapes: S states, V vocab.
"""

import functools

import numpy as np
from numpy.typing import NDArray

from icl.data.tokenizer import Tokenizer

Ints = NDArray[np.int32]


@functools.lru_cache(maxsize=64)
def stop_transitions(tokenizer: Tokenizer, text: str, vocab_size: int | None = None) -> Ints:
    """The automaton that stops after `text` as a table.

    A state is how many bytes of the stop text the generated text ends with; state 0 is the start. The last
    state is that of a text which has stopped, and is never left. The tokens that end a text lead there from
    every state; other special tokens add nothing.

    Args:
      tokenizer: Whose tokens are read; kept alive, as the table is cached for it.
      text: The stop text; an empty one leaves those tokens alone to stop.
      vocab_size: The model's, where it is larger than the tokenizer's: tokens beyond have no text.

    Returns:
      Read-only int32 [states, vocab]: the state after reading a token in a state.
    """
    # As the tokenizer writes it, which may escape characters.
    pattern = b"".join(map(tokenizer.token_bytes, tokenizer.encode(text)))
    steps_SX = _byte_steps(pattern)
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


def _byte_steps(pattern: bytes) -> Ints:
    """The KMP automaton [states, 256] of a pattern; one of no bytes has a last state that is not reached."""
    stopped = max(1, len(pattern))
    steps_SX = np.zeros((stopped + 1, 256), np.int32)
    steps_SX[stopped] = stopped
    border = 0  # the state after the pattern's bytes so far, without the first one
    for state, byte in enumerate(pattern):
        if state:
            steps_SX[state] = steps_SX[border]
            border = steps_SX[border, byte]
        steps_SX[state, byte] = state + 1
    return steps_SX


@functools.lru_cache(maxsize=8)
def _padded_bytes(tokenizer: Tokenizer) -> tuple[NDArray[np.uint8], Ints]:
    """The bytes of every token [vocab, longest], and how many they are."""
    tokens = [tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)]
    lengths_V = np.array([len(token) for token in tokens], np.int32)
    longest = int(lengths_V.max(initial=0))
    padded = b"".join(token.ljust(longest, b"\0") for token in tokens)
    return np.frombuffer(padded, np.uint8).reshape(len(tokens), longest), lengths_V
