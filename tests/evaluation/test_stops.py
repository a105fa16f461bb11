"""A generated text stops exactly where its bytes contain the stop text, however they are cut into tokens."""

from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from icl.data.tokenizer import ByteTokenizer
from icl.evaluation.stops import stop_transitions
from tests.data.test_tokenizer import TOKENIZERS

BYTES = ByteTokenizer()


class Pieces(ByteTokenizer):
    """Bytes, then tokens of any bytes."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self.pieces = pieces
        self.vocab_size = 258 + len(pieces)

    def token_bytes(self, token_id: int) -> bytes:
        return self.pieces[token_id - 258] if token_id >= 258 else super().token_bytes(token_id)


def read(transitions_SV: np.ndarray, ids: Iterable[int]) -> list[int]:
    """The states after each token."""
    states = [0]
    for i in ids:
        states.append(int(transitions_SV[states[-1], i]))
    return states[1:]


def longest_border(text: bytes, stop: bytes) -> int:
    """How many bytes of the stop text the text ends with; all of them where it stands anywhere."""
    if stop in text:
        return len(stop)
    return max(n for n in range(len(stop)) if text.endswith(stop[:n]))


@settings(max_examples=200, deadline=None)
@given(
    stop=st.text("ab", min_size=1, max_size=6),
    pieces=st.lists(st.text("ab", max_size=7).map(str.encode), min_size=1, max_size=5),
    data=st.data(),
)
@example("aab", [b"aaab", b"xaabx"], None)
def test_the_state_is_how_much_of_the_stop_text_stands_at_the_end(
    stop: str, pieces: list[bytes], data: st.DataObject | None
) -> None:
    tokenizer = Pieces(pieces)
    choices = [*b"ab", *range(258, tokenizer.vocab_size)]
    ids = data.draw(st.lists(st.sampled_from(choices), max_size=12)) if data else [*b"aa", 258, *b"b"]
    transitions_SV = stop_transitions(tokenizer, stop)
    assert transitions_SV.shape == (len(stop) + 1, tokenizer.vocab_size)
    for number, state in enumerate(read(transitions_SV, ids), 1):
        text = b"".join(map(tokenizer.token_bytes, ids[:number]))
        assert state == longest_border(text, stop.encode())


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=150, deadline=None)
@given(
    stop=st.sampled_from(["\n", "\n\n", "aba", "abab", "é", " sat", "lant", "\u2581", "\ue000a", ", "]),
    text=st.text("ablan é\n,ts\u2581\ue000", max_size=20),
    data=st.data(),
)
def test_a_text_stops_where_it_contains_the_stop_text(
    name: str, stop: str, text: str, data: st.DataObject
) -> None:
    tokenizer = TOKENIZERS[name]
    parts = [text, data.draw(st.sampled_from(["", stop, stop[:1]])), data.draw(st.text("ab\n", max_size=4))]
    # Also tokens that encoding the whole text would not give.
    ids = [i for part in parts for i in tokenizer.encode(part)]
    last = len(stop_transitions(tokenizer, stop)) - 1
    states = read(stop_transitions(tokenizer, stop), ids)
    for number, state in enumerate(states, 1):
        assert (state == last) == (stop in tokenizer.decode(ids[:number]))


@settings(max_examples=300, deadline=None)
@given(
    stops=st.lists(st.text("ab", max_size=5), max_size=4).map(tuple),
    pieces=st.lists(st.text("ab", max_size=7).map(str.encode), min_size=1, max_size=5),
    data=st.data(),
)
def test_of_several_stop_texts_the_first_complete_one_stops(
    stops: tuple[str, ...], pieces: list[bytes], data: st.DataObject
) -> None:
    tokenizer = Pieces(pieces)
    ids = data.draw(st.lists(st.sampled_from([*b"ab", *range(258, tokenizer.vocab_size)]), max_size=12))
    transitions_SV = stop_transitions(tokenizer, stops)
    wanted = [stop.encode() for stop in stops if stop]
    stopped = len(transitions_SV) - 1
    states = read(transitions_SV, ids)
    for number, state in enumerate(states, 1):
        text = b"".join(map(tokenizer.token_bytes, ids[:number]))
        assert (state == stopped) == any(stop in text for stop in wanted)
    beginnings = {stop[:length] for stop in wanted for length in range(len(stop))}
    assert stopped <= max(1, len(beginnings))


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("stop", ["", "\n\n"])
def test_the_start_token_stops_from_every_state_and_padding_changes_nothing(name: str, stop: str) -> None:
    tokenizer = TOKENIZERS[name]
    transitions_SV = stop_transitions(tokenizer, stop, tokenizer.vocab_size + 6)
    states = np.arange(len(transitions_SV))
    assert transitions_SV.shape == (max(2, len(stop) + 1), tokenizer.vocab_size + 6)
    assert (transitions_SV[:, tokenizer.start_id] == states[-1]).all()
    assert (transitions_SV[-1] == states[-1]).all()
    unread = [tokenizer.pad_id, *range(tokenizer.vocab_size, tokenizer.vocab_size + 6)]
    assert (transitions_SV[:, unread] == states[:, None]).all()


def test_without_a_stop_text_only_the_start_token_stops() -> None:
    assert np.flatnonzero(stop_transitions(BYTES, "")[0]).tolist() == [BYTES.start_id]


def test_tables_are_made_once_for_each_tokenizer_and_never_changed() -> None:
    tokenizer = Pieces([b"\n\n"])
    assert stop_transitions(tokenizer, "\n\n") is stop_transitions(tokenizer, "\n\n")
    assert stop_transitions(tokenizer, "\n\n")[0, 258] == 2
    assert (
        stop_transitions(Pieces([b"ab"]), "\n\n")[0, 258] == 0
    )  # though it has the fingerprint of the other
    with pytest.raises(ValueError, match="read-only"):
        stop_transitions(tokenizer, "\n\n")[0, 0] = 1
