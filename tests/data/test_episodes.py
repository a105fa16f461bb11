"""Claims about episodes as tokens."""

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icl.data.episodes import Episode, EpisodeWriter, _Piece, best_fit
from icl.data.tokenizer import ByteTokenizer
from icl.tasks import Cipher, Example, Template
from icl.tasks.exclusion import Exclusion

TOKENIZER = ByteTokenizer()
TASK = Cipher().build("cipher")[0]
INSTANCE = TASK.instance("held_out", 0)
TEMPLATE = Template()


def draw(
    examples: Iterable[Example], *, positions: int = 1000, max_examples: int = 0, look_ahead: int = 0
) -> Episode:
    return EpisodeWriter(TOKENIZER).draw(
        TASK,
        INSTANCE,
        examples,
        instruction=False,
        positions=positions,
        max_examples=max_examples,
        look_ahead=look_ahead,
    )


@pytest.mark.parametrize("positions", range(4, 30))
def test_an_episode_takes_what_fits_and_not_a_token_more(positions: int) -> None:
    episode = draw((Example("ab", str(i)) for i in range(10)), positions=positions)
    assert episode.num_examples == positions // 5  # "ab>0\n"
    assert len(episode.tokens) == len(episode.examples) == 5 * episode.num_examples + 1 <= positions + 1


def test_the_rest_is_filled_with_smaller_examples_only_when_asked() -> None:
    examples = [Example("a", "b"), Example("a" * 50, "b"), Example("c", "d")]
    assert draw(examples, positions=20).num_examples == 1
    assert draw(examples, positions=20, look_ahead=1).num_examples == 2


@pytest.mark.parametrize("look_ahead", [0, 4])
def test_endless_examples_that_never_fit_or_never_change_end(look_ahead: int) -> None:
    long = itertools.repeat(Example("a" * 50, "b"))
    assert draw(long, positions=20, look_ahead=look_ahead).num_examples == 0
    same = itertools.repeat(Example("a", "b", key="a"))
    assert draw(same, look_ahead=look_ahead).num_examples == 1


def test_tokens_are_the_pieces_of_a_prompt() -> None:
    writer = EpisodeWriter(TOKENIZER)
    example = Example("cold", "hot")
    pieces = (
        writer.instruction(TEMPLATE, "opposite"),
        writer.context(TEMPLATE, example),
        writer.answer(TEMPLATE, example),
    )
    assert [TOKENIZER.decode(piece) for piece in pieces] == ["opposite\n", "cold>", "hot\n"]
    assert writer.instruction(TEMPLATE, None) == ()


@given(st.lists(st.integers(1, 30), max_size=10), st.integers(0, 120))
def test_the_best_fit_is_as_good_as_trying_every_choice(lengths: list[int], room: int) -> None:
    pieces = [_Piece((), (), length) for length in lengths]
    choices = itertools.product((False, True), repeat=len(lengths))
    totals = (sum(itertools.compress(lengths, choice)) for choice in choices)
    chosen = best_fit(pieces, room)
    assert sum(piece.length for piece in chosen) == max(total for total in totals if total <= room)
    places = [next(i for i, piece in enumerate(pieces) if piece is one) for one in chosen]
    assert places == sorted(set(places))


@pytest.mark.parametrize("room", range(150, 250, 7))
def test_an_episode_that_may_choose_fills_its_room(room: int) -> None:
    examples = (Example("a" * (10 + i % 5), "b", key=str(i)) for i in itertools.count())
    episode = draw(examples, positions=room, look_ahead=4)
    assert len(episode.tokens) == room + 1
    assert TOKENIZER.decode(episode.tokens[1:]).count("\n") == episode.num_examples


def test_excluded_examples_are_passed_over_and_counted() -> None:
    writer = EpisodeWriter(TOKENIZER, Exclusion({"2", "3"}))
    examples = [Example(str(i), "x", key=str(i)) for i in range(6)]
    episode = writer.draw(TASK, INSTANCE, examples, instruction=False, positions=100, max_examples=0)
    assert TOKENIZER.decode(episode.tokens[1:]) == "0>x\n1>x\n4>x\n5>x\n"
    assert episode.excluded == 2
    nothing = (Example("2", "x") for _ in itertools.count())
    assert (
        writer.draw(TASK, INSTANCE, nothing, instruction=False, positions=100, max_examples=0).num_examples
        == 0
    )
