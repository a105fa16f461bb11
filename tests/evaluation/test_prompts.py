"""A prompt is instruction, demonstrations in order, query; encoded once, and cut by whole demonstrations."""

import dataclasses
from collections.abc import Iterable

import pytest

from icl.data.tokenizer import ByteTokenizer
from icl.errors import InputError
from icl.evaluation.config import EvalConfig
from icl.evaluation.plan import make_plan
from icl.evaluation.prompts import Context, encode, prompt_text
from icl.tasks import Example, Template
from tests.evaluation.toy import ToyTask, pairs

TEMPLATE = Template()
BYTES = ByteTokenizer()


class MergingTokenizer(ByteTokenizer):
    """Bytes, but `>t` is one token: a seam between prompt and answer that the tokenizer merges across."""

    merged = 258

    def encode(self, text: str) -> list[int]:
        pieces = [list(piece.encode()) for piece in text.split(">t")]
        joined = pieces[0]
        for piece in pieces[1:]:
            joined = [*joined, self.merged, *piece]
        return joined

    def token_bytes(self, token_id: int) -> bytes:
        return b">t" if token_id == self.merged else super().token_bytes(token_id)

    def decode(self, ids: Iterable[int]) -> str:
        return "".join(">t" if i == self.merged else chr(i) for i in ids if i < 256 or i == self.merged)


def test_a_prompt_is_instruction_demonstrations_query() -> None:
    shown, query = pairs(3)[:2], Example("x", "y")
    assert prompt_text(TEMPLATE, "do it", shown, query) == "do it\nw0>t0\nw1>t1\nx>"
    assert prompt_text(TEMPLATE, None, (), query) == "x>"


def test_the_gold_answer_is_what_encoding_adds_to_the_prompt() -> None:
    tokens = encode(BYTES, "ab>", "cd", "\n")
    assert tokens.prompt == [BYTES.start_id, *b"ab>"]
    assert tokens.gold == [*b"cd\n"]
    assert tokens.gold_start == len(tokens.prompt)


def test_a_token_across_the_seam_belongs_to_the_gold_answer() -> None:
    tokens = encode(MergingTokenizer(), "ab>", "td", "\n")
    assert tokens.gold == [MergingTokenizer.merged, *b"d\n"]
    assert tokens.gold_start == len(tokens.prompt) - 1


def test_the_largest_k_that_fits_leaves_room_for_the_longest_option_or_the_budget() -> None:
    query = Example("x", "y", choices=("y", "yyyyyy"))  # start, "x>" and seven tokens of the longest option
    shown = pairs(5)  # six tokens each
    for length, expected in [(10, 0), (15, 0), (16, 1), (22, 2), (99, 5)]:
        assert Context(BYTES, length, 1).effective_k(TEMPLATE, None, shown, query) == expected
        assert Context(BYTES, length + 1, 8).effective_k(TEMPLATE, None, shown, query) == expected


def test_a_long_demonstration_is_never_skipped_for_a_shorter_one() -> None:
    shown = [*pairs(2), Example("a" * 30, "b"), *pairs(2)]
    assert Context(BYTES, 32, 4).effective_k(TEMPLATE, None, shown, Example("x", "y")) == 2


def test_a_query_that_does_not_fit_loses_its_start() -> None:
    query = Example("a long passage that ends here", "y")
    context = Context(BYTES, 20, 4)
    lost = context.lost_characters(TEMPLATE, "do it", query)
    assert 1 + len("do it\n") + len(query.input[lost:] + ">") + 4 == 20
    with pytest.raises(InputError, match="context of 8"):
        Context(BYTES, 8, 4).lost_characters(TEMPLATE, "do it", query)


@pytest.mark.parametrize("length", [24, 40, 60, 200])
def test_k_effective_and_what_is_lost_do_not_depend_on_the_instruction(length: int) -> None:
    examples = [dataclasses.replace(pair, input=pair.input * (i + 1)) for i, pair in enumerate(pairs(9))]
    # The shortest context holds little of the longest query: it loses its start.
    task = ToyTask(examples, instruction="i" if length == 24 else "a long instruction")
    config = EvalConfig(ks=(0, 1, 4, 8), seeds=2)
    plan = make_plan(config, {"toy": (task,)}, BYTES, length)
    fitted: dict[tuple[str, int], set[tuple[int, int]]] = {}
    for trial in plan.trials["toy"]:
        fitted.setdefault((trial.query.name, trial.seed), set()).add((trial.max_k, trial.lost))
        for k in config.ks:
            tokens = trial.tokens(BYTES, k)
            assert max(len(tokens.full), len(tokens.prompt) + trial.budget) <= length
    assert all(len(values) == 1 for values in fitted.values())
    assert len({value for values in fitted.values() for value in values}) > 1 or length == 200


def test_tasks_without_instruction_are_asked_once() -> None:
    plan = make_plan(EvalConfig(ks=(0, 2)), {"toy": (ToyTask(pairs(4), instruction=None),)}, BYTES, 99)
    assert {trial.instructed for trial in plan.trials["toy"]} == {False}


def test_tasks_are_chosen_by_name_or_family_and_default_to_what_was_held_out() -> None:
    families = {
        "files": (ToyTask(pairs(4), name="seen"), ToyTask(pairs(4), name="unseen", trained=False)),
        "made": (ToyTask(pairs(4), name="made"),),
    }

    def chosen(*names: str) -> list[str]:
        return list(make_plan(EvalConfig(tasks=names, ks=(0,)), families, BYTES, 99).trials)

    assert chosen() == ["unseen", "made"]
    assert chosen("files") == ["seen", "unseen"]
    assert chosen("seen", "made") == ["seen", "made"]
    with pytest.raises(InputError, match="no task 'other'.*seen"):
        make_plan(EvalConfig(tasks=("other",)), families, BYTES, 99)


def test_an_explicit_budget_is_what_it_says_and_the_default_holds_every_answer() -> None:
    examples = [Example("a", "short"), Example("b", "much longer"), Example("c", "x")]
    families = {"toy": (ToyTask(examples),)}
    default = make_plan(EvalConfig(ks=(0,), queries=1), families, BYTES, 99).trials["toy"]
    assert {trial.budget for trial in default} == {len("much longer\n")}
    explicit = make_plan(EvalConfig(ks=(0,), max_new_tokens=3), families, BYTES, 99).trials["toy"]
    assert {trial.budget for trial in explicit} == {3}
