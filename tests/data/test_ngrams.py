"""Claims about the 13-gram filter."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from icl.data.ngrams import WINDOW, Grams, common

SENTENCE = "The quick brown fox jumps over the lazy dog while seven grey geese fly slowly south again"
FILLER = "nothing of it stands here. " * 40


def test_a_shared_gram_goes_with_its_surroundings() -> None:
    text = FILLER + "THE quick, brown fox jumps over the lazy dog; while seven grey geese fly " + FILLER
    pieces, removed = Grams([SENTENCE]).filtered(text)
    assert len(pieces) == 2 and not any("fox" in piece for piece in pieces)
    assert pieces[0] == text[: len(FILLER) - WINDOW] and text.endswith(pieces[1])
    assert removed["grams"] == 2 and removed["documents_cut"] == 1 and not removed["documents_dropped"]
    assert removed["characters"] == len(text) - sum(map(len, pieces))


def test_twelve_words_and_short_texts_stay() -> None:
    grams = Grams([SENTENCE, "only five words are here"])
    text = FILLER + " ".join(SENTENCE.split()[:12]) + ". only five words are here " + FILLER
    assert grams.filtered(text) == ([text], {})
    assert len(Grams(["one two three four five six seven eight nine"])) == 1


def test_short_pieces_and_shredded_documents_go() -> None:
    grams = Grams([SENTENCE])
    assert grams.filtered("short. " + SENTENCE + " short.")[0] == []
    shredded = (SENTENCE + ". " + FILLER) * 12
    pieces, removed = grams.filtered(shredded)
    assert pieces == [] and removed["documents_dropped"] == 1 and removed["characters"] == len(shredded)


def test_grams_of_many_documents_count_for_nothing() -> None:
    (gram, _, _) = Grams([SENTENCE]).found(SENTENCE)[0]
    assert common([{gram: 6}, {gram: 5, "other": 1}]) == {gram}
    assert common([{gram: 6}, {gram: 4}]) == set()
    assert Grams([SENTENCE], {gram}).filtered(FILLER + " ".join(SENTENCE.split()[:13]) + FILLER)[1] == {}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=120),
    st.lists(st.integers(0, 3), min_size=13, max_size=15),
)
def test_nothing_that_remains_holds_a_gram(text: list[int], held_out: list[int]) -> None:
    """Words of one letter, so that chance makes matches; compared with a search in the plain text."""
    grams = Grams([" ".join("abcd"[i] for i in held_out)])
    plain = "x" * 250 + " " + " ".join("abcd"[i] for i in text) + " " + "y" * 250
    words = re.findall(r"\w+", plain)
    spots = [" ".join(words[i : i + 13]) for i in range(len(words) - 12)]
    wanted = [" ".join("abcd"[i] for i in held_out[j : j + 13]) for j in range(len(held_out) - 12)]
    pieces, removed = grams.filtered(plain)
    assert removed.get("grams", 0) == sum(spot in wanted for spot in spots)
    assert not any(grams.found(piece) for piece in pieces)
