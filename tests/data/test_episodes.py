"""Claims about episodes as tokens."""

import itertools
from collections.abc import Iterable

import pytest

from icl.data.episodes import Episode, EpisodeWriter
from icl.data.tokenizer import ByteTokenizer
from icl.tasks import Cipher, Example, Template

TOKENIZER = ByteTokenizer()
INSTANCE = Cipher().build("cipher")[0].instance("held_out", 0)
TEMPLATE = Template()


def draw(
    examples: Iterable[Example], *, positions: int = 1000, max_examples: int = 0, look_ahead: int = 0
) -> Episode:
    return EpisodeWriter(TOKENIZER).draw(
        INSTANCE,
        TEMPLATE,
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
