"""One shared prefix and any batch say the same as each prompt read alone."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from icl import model
from icl.data.tokenizer import ByteTokenizer, Tokenizer
from icl.evaluation.config import EvalConfig
from icl.evaluation.plan import Trial, make_plan
from icl.evaluation.requests import (
    Key,
    Request,
    Shape,
    choose_shapes,
    smallest_holding,
    trial_requests,
)
from icl.evaluation.scoring import Answer, Decoding, Scorer, _chunks, answer_text
from icl.evaluation.stops import stop_transitions
from icl.model import ModelConfig
from icl.parallel import MeshConfig, Partitioner, make_mesh
from icl.tasks import Example, Template
from tests.evaluation.test_prompts import MergingTokenizer
from tests.evaluation.toy import KS, ToyTask, pairs, trial

BYTES = ByteTokenizer()
STOPS = (10, BYTES.start_id)
TRANSITIONS = stop_transitions(BYTES, "\n")
LENGTH = 64
ROWS = 4
SHAPE = Shape(prefix=44, branch=40, ends=(64,) * 8, options=1, option=20, new_tokens=4)
SMALL = ModelConfig(vocab_size=264, max_length=LENGTH, embed_dim=16, num_heads=2, scan_unroll=1)
MODELS = {
    "rotary": dataclasses.replace(SMALL, num_layers=2, positions="rotary", conv_width=4),
    "learned": dataclasses.replace(SMALL, num_layers=1),
}


@functools.cache
def params(name: str) -> Any:
    """Large random parameters: fresh ones say one token forever. (Larger still, and rounding decides.)"""
    fresh = model.init_params(MODELS[name], jax.random.key(1))
    return jax.tree.map(lambda leaf: leaf * 4, fresh)


@functools.partial(jax.jit, static_argnums=0)
def forward(config: ModelConfig, weights: Any, tokens_1T: Any) -> jax.Array:
    positions = jnp.arange(tokens_1T.shape[1])[None]
    return jax.nn.log_softmax(model.logits(config, weights, tokens_1T, jnp.ones_like(positions), positions))


def log_probabilities(name: str, tokens: Sequence[int]) -> np.ndarray:
    """Of the next token after each position, from one full forward pass without cache."""
    padded = np.zeros((1, LENGTH), np.int32)
    padded[0, : len(tokens)] = tokens
    return np.asarray(forward(MODELS[name], params(name), padded))[0, : len(tokens)]


def alone(name: str, asked: Trial, tokenizer: Tokenizer, k: int) -> tuple[np.ndarray, list[int]]:
    """Log-likelihoods of the gold tokens, and greedy tokens up to the stop, one prompt at a time."""
    tokens = asked.tokens(tokenizer, k)
    of_next = log_probabilities(name, tokens.full)
    positions = np.arange(tokens.gold_start, len(tokens.full))
    context = list(tokens.prompt)
    for _ in range(asked.budget):
        context.append(int(log_probabilities(name, context)[-1].argmax()))
        if context[-1] in STOPS:
            break
    return of_next[positions - 1, tokens.gold], context[len(tokens.prompt) :]


def request_of(asked: Trial, tokenizer: Tokenizer) -> Request:
    (request,) = trial_requests(asked, tokenizer)
    return request


def ask_all(
    name: str, requests: list[Request], rows: int = ROWS, shape: Shape = SHAPE
) -> list[dict[Key, Answer]]:
    scorer = Scorer(MODELS[name], params(name), rows, BYTES.pad_id)
    found = dict(scorer.answers(requests, [shape], TRANSITIONS, Decoding(BYTES.start_id)))
    return [found[number] for number in range(len(requests))]


def ask(
    name: str, requests: list[Request], rows: int = ROWS, shape: Shape = SHAPE
) -> list[dict[int, Answer]]:
    """The answers to the queries themselves, by K."""
    found = ask_all(name, requests, rows, shape)
    return [{key.k: answer for key, answer in each.items() if key.kind == "query"} for each in found]


def trials(length: int = LENGTH) -> list[Trial]:
    plan = make_plan(EvalConfig(ks=KS, seeds=1, queries=4), {"toy": (ToyTask(pairs(9)),)}, BYTES, length)
    return list(plan.trials["toy"])


def up_to_stop(generated: Sequence[int], budget: int) -> list[int]:
    kept = list(generated[:budget])
    ends = [i for i, token in enumerate(kept) if token in STOPS]
    return kept[: ends[0] + 1] if ends else kept


@pytest.mark.parametrize("tokenizer", [BYTES, MergingTokenizer()], ids=["bytes", "merging"])
@pytest.mark.parametrize("name", MODELS)
def test_a_shared_prefix_says_the_same_as_each_prompt_alone(name: str, tokenizer: Tokenizer) -> None:
    asked = trials()
    answers = ask(name, [request_of(one, tokenizer) for one in asked])
    said = set()
    for one, by_k in zip(asked, answers, strict=True):
        for k in KS:
            likelihoods, greedy = alone(name, one, tokenizer, k)
            np.testing.assert_allclose(by_k[k].options[0].log_likelihoods, likelihoods, atol=1e-4)
            assert up_to_stop(by_k[k].generated, one.budget) == greedy
            said.add(tuple(greedy))
    assert len(said) > 5  # the model does not say one thing to all


CHOICES = ("ten", "t", "twenty two", "te")


def likelihood_alone(name: str, tokenizer: Tokenizer, prompt: str, option: str, ending: str = "") -> float:
    """Of an option's tokens, or those of its ending, from one full forward pass."""
    full = [tokenizer.start_id, *tokenizer.encode(prompt + option)]
    before = [
        tokenizer.start_id,
        *tokenizer.encode(prompt + option.removesuffix(ending) if ending else prompt),
    ]
    start = next((i for i, (a, b) in enumerate(zip(before, full, strict=False)) if a != b), len(before))
    positions = np.arange(start, len(full))
    return float(log_probabilities(name, full)[positions - 1, full[start:]].sum())


@pytest.mark.parametrize("tokenizer", [BYTES, MergingTokenizer()], ids=["bytes", "merging"])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("ending", ["", " it is"])
def test_options_say_the_same_as_each_read_alone(name: str, tokenizer: Tokenizer, ending: str) -> None:
    task = ToyTask(pairs(9))
    task.option_rule, task.answer_context = "unconditional", "A:"
    choices = tuple(choice + ending for choice in CHOICES)
    asked = [
        trial(task, pairs(4), Example(f"w{n}", choices[0], f"w{n}", choices, ending), budget=0)
        for n in (7, 8, 75)
    ]
    requests = [request_of(one, tokenizer) for one in asked]
    shape = Shape(prefix=40, branch=30, ends=(64,) * 6, options=5, option=20, new_tokens=0)
    for one, found in zip(asked, ask_all(name, requests, rows=2, shape=shape), strict=True):
        assert found.keys() == {Key("unconditional"), *(Key("query", k) for k in KS)}
        for key, answer in found.items():
            prompt = "A:" if key.kind == "unconditional" else one.prompt(key.k)
            assert answer.generated == []
            for choice, scored in zip(choices, answer.options, strict=True):
                expected = likelihood_alone(name, tokenizer, prompt, choice, ending)
                assert scored.log_likelihoods.sum() == pytest.approx(expected, abs=2e-4)


def test_calibration_and_channel_say_the_same_as_each_read_alone(name: str = "rotary") -> None:
    choices = ("yes", "no", "n")
    shown = [Example(f"w{i}", choices[i % 2], f"w{i}", choices) for i in range(3)]
    settings = EvalConfig(ks=(0, 1, 3), option_rules=("calibrated", "channel"))
    asked = trial(ToyTask(pairs(9)), shown, Example("w7", "no", "w7", choices), budget=0, settings=settings)
    shape = Shape(prefix=40, branch=30, ends=(64,) * 6, options=3, option=20, new_tokens=0)
    requests = trial_requests(asked, BYTES)
    found = dict(pair for each in ask_all(name, requests, shape=shape) for pair in each.items())
    turned = {0: "", 1: "yes\nw0\n\n", 3: "yes\nw0\n\nno\nw1\n\nyes\nw2\n\n"}
    for k in (0, 1, 3):
        prompt = "".join(f"{one.input}>{one.target}\n" for one in shown[:k]) + "N/A>"
        for i, choice in enumerate(choices):
            said = found[Key("without_content", k)].options[i].log_likelihoods.sum()
            assert said == pytest.approx(likelihood_alone(name, BYTES, prompt, choice), abs=2e-4)
            said = found[Key("channel", k)].options[i].log_likelihoods.sum()
            expected = likelihood_alone(name, BYTES, turned[k], f"{choice}\nw7", "\nw7")
            assert said == pytest.approx(expected, abs=2e-4)


def test_options_of_one_token_are_read_off_the_end_of_the_prompt(name: str = "rotary") -> None:
    choices = ("a", "b", "c")
    asked = trial(ToyTask(pairs(9)), pairs(4), Example("w7", "b", "w7", choices), budget=0)
    request = request_of(asked, BYTES)
    assert request.shape.option == 0
    shape = Shape(prefix=40, branch=30, ends=(64,) * 6, options=3, option=0, new_tokens=0)
    (by_k,) = ask(name, [request], shape=shape)
    for k in KS:
        for choice, scored in zip(choices, by_k[k].options, strict=True):
            expected = likelihood_alone(name, BYTES, asked.prompt(k), choice)
            assert scored.log_likelihoods.sum() == pytest.approx(expected, abs=1e-4)


def test_options_share_the_prompt(name: str = "rotary") -> None:
    """Read are the prompts' own parts, and of each option all tokens but the last."""
    choices = tuple(f"{letter} is the answer" for letter in "abcd")
    asked = trial(ToyTask(pairs(9)), pairs(4), Example("w" * 20, choices[1], "w", choices), budget=0)
    request = request_of(asked, BYTES)
    for branch in request.branches:
        assert [option.cut for option in branch.options] == [len(branch.tokens)] * 4
    assert request.shape.option == len(choices[0]) - 1


@pytest.mark.parametrize("name", MODELS)
def test_a_fixed_set_is_read_once_for_all_its_queries(name: str) -> None:
    """Two sets of demonstrations, in turn, with five queries each, and one that only two queries share."""
    sets = (pairs(4), pairs(4)[::-1], pairs(2))
    asked = [
        trial(
            ToyTask(pairs(9)),
            sets[number % 2 if number < 10 else 2],
            Example(f"q{number}", "t"),
            settings=EvalConfig(ks=KS, demonstrations="fixed"),
        )
        for number in range(12)
    ]
    requests = [request_of(one, BYTES) for one in asked]
    assert [len(chunk) for chunk, shared in _chunks(requests, 4) if shared] == [4, 1, 4, 1]
    assert [chunk for chunk, shared in _chunks(requests, 4) if not shared] == [[10, 11]]
    for one, by_k in zip(asked, ask(name, requests), strict=True):
        for k in by_k:
            likelihoods, greedy = alone(name, one, BYTES, k)
            np.testing.assert_allclose(by_k[k].options[0].log_likelihoods, likelihoods, atol=1e-4)
            assert up_to_stop(by_k[k].generated, one.budget) == greedy


@pytest.mark.parametrize("name", MODELS)
def test_shorter_prompts_are_read_from_smaller_caches(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("icl.evaluation.requests._ROUNDED", 4)
    monkeypatch.setattr("icl.evaluation.requests._SMALL", 8)
    asked = [one for one in trials() if one.max_k == 4]
    requests = [request_of(one, BYTES) for one in asked]
    shape = Shape(*map(max, zip(*(request.shape for request in requests), strict=True)))
    assert len(shape.groups(LENGTH)) == 2
    for one, by_k in zip(asked, ask(name, requests, shape=shape), strict=True):
        for k in KS:
            likelihoods, greedy = alone(name, one, BYTES, k)
            np.testing.assert_allclose(by_k[k].options[0].log_likelihoods, likelihoods, atol=1e-4)
            assert up_to_stop(by_k[k].generated, one.budget) == greedy


def test_a_query_without_demonstrations_may_be_written_otherwise(name: str = "rotary") -> None:
    template = Template(alone=Template(input_prefix="Q ", separator="?", target_prefix=" "))
    asked = trial(ToyTask(pairs(9), template=template), pairs(2), Example("w7", "t7"))
    assert asked.prompt(0) == "Q w7?" and asked.prompt(1) == "w0>t0\nw7>"
    (by_k,) = ask(name, [request_of(asked, BYTES)])
    for k in by_k:
        likelihoods, greedy = alone(name, asked, BYTES, k)
        np.testing.assert_allclose(by_k[k].options[0].log_likelihoods, likelihoods, atol=1e-4)
        assert up_to_stop(by_k[k].generated, asked.budget) == greedy


@pytest.mark.parametrize("name", MODELS)
def test_a_prompt_that_fills_the_context_is_read_whole(name: str) -> None:
    """Behind a cache that ends with the context there is no room for padding."""
    full = [one for one in trials(length=LENGTH) if one.max_k == 4]
    fewest = max(len(one.tokens(BYTES, 4).full) for one in full)
    longer = Example("w" * (LENGTH - fewest), "tt", "other")
    asked = [trial(ToyTask(pairs(9)), full[0].demonstrations, longer, budget=4)]
    length = len(asked[0].tokens(BYTES, 4).full)
    assert LENGTH - 8 <= length <= LENGTH
    (by_k,) = ask(name, [request_of(one, BYTES) for one in asked])
    for k in KS:
        likelihoods, _ = alone(name, asked[0], BYTES, k)
        np.testing.assert_allclose(by_k[k].options[0].log_likelihoods, likelihoods, atol=1e-4)


def test_a_query_that_reads_like_the_next_demonstrations_shares_no_more_than_is_left() -> None:
    """For K = 1 it runs on along the shared prefix, behind where the branch for K = 2 has overwritten it."""
    asked = trial(ToyTask(pairs(9)), pairs(3), Example("w1>t1\nw2", "t7"))
    (by_k,) = ask("rotary", [request_of(asked, BYTES)])
    for k in by_k:
        likelihoods, _ = alone("rotary", asked, BYTES, k)
        np.testing.assert_allclose(by_k[k].options[0].log_likelihoods, likelihoods, atol=1e-4)


def test_answers_do_not_depend_on_batch_size_or_shape() -> None:
    requests = [request_of(one, BYTES) for one in trials()]
    batched, single = ask("rotary", requests), ask("rotary", requests, 1, Shape(60, 20, (64,) * 5, 1, 12, 9))
    for one, other, request in zip(batched, single, requests, strict=True):
        for k in KS:
            np.testing.assert_allclose(
                one[k].options[0].log_likelihoods, other[k].options[0].log_likelihoods, atol=1e-4
            )
            assert one[k].options[0].argmax.tolist() == other[k].options[0].argmax.tolist()
            texts = [answer_text(BYTES, a[k].generated, request.budget, "\n") for a in (one, other)]
            assert texts[0] == texts[1]


def test_what_is_generated_is_likeliest_token_by_token() -> None:
    """Scoring the generated tokens as if they were gold finds each to be the model's first choice."""
    for one in trials():
        (by_k,) = ask("rotary", [request_of(one, BYTES)])
        generated = [token for token in up_to_stop(by_k[2].generated, one.budget) if token < 128]
        query = Example(one.query.example.input, BYTES.decode(generated))
        as_gold = trial(one.task, one.demonstrations, query, instruction=one.instruction)
        (answer,) = ask("rotary", [request_of(as_gold, BYTES)])
        first_other = next((i for i, token in enumerate(by_k[2].generated) if token >= 128), one.budget)
        assert answer[2].options[0].argmax.tolist()[:first_other] == by_k[2].generated[:first_other]


def test_the_answer_ends_at_the_delimiter_the_start_token_or_the_budget() -> None:
    assert answer_text(BYTES, [*b"ab\ncd"], 5, "\n") == "ab"
    assert answer_text(BYTES, [*b"ab", BYTES.start_id, *b"cd"], 5, "\n") == "ab"
    assert answer_text(BYTES, [*b"abcdef"], 3, "\n") == "abc"
    assert answer_text(BYTES, [*b"a\nb\n\nc"], 9, "\n\n") == "a\nb"
    assert answer_text(BYTES, [*b" 12.5 km\n"], 20, "\n") == " 12.5 km"  # a stop that cuts no decimals


def test_text_is_generated_where_it_is_asked_for_only(name: str = "rotary") -> None:
    """After the query's own prompts; not after those that only options are compared with."""
    choices = ("yes", "no")
    settings = EvalConfig(ks=(0, 2), option_rules=("calibrated",), choice_answers="both")
    shown = [Example(f"w{i}", "no", f"w{i}", choices) for i in range(2)]
    asked = trial(ToyTask(pairs(9)), shown, Example("w7", "no", "w7", choices), budget=4, settings=settings)
    shape = Shape(prefix=40, branch=30, ends=(64,) * 4, options=2, option=4, new_tokens=4)
    (found,) = ask_all(name, [request_of(asked, BYTES)], shape=shape)
    for key, answer in found.items():
        if key.kind == "query":
            assert up_to_stop(answer.generated, asked.budget) == alone(name, asked, BYTES, key.k)[1]
        else:
            assert answer.generated == []


@pytest.mark.parametrize(("sets", "beam_width"), [(1, 1), (5, 2)])
def test_requests_on_a_mesh_say_the_same_as_on_one_device(
    sets: int, beam_width: int, name: str = "rotary"
) -> None:
    """Parameters and rows are sharded; five requests with a prefix each, or one prefix for all of them."""
    shown = [pairs(4)[number % sets :] for number in range(5)]
    settings = EvalConfig(ks=KS, demonstrations="fixed")
    asked = [
        trial(ToyTask(pairs(9)), each, Example(f"q{n}", "t"), settings=settings)
        for n, each in enumerate(shown)
    ]
    requests = [request_of(one, BYTES) for one in asked]
    config = MODELS[name]
    partitioner = Partitioner(make_mesh(MeshConfig(fsdp=2, tensor=2), jax.devices()[:4]))
    shardings = partitioner.tree_shardings(model.logical_axes(config), model.abstract_params(config))
    sharded = jax.device_put(params(name), shardings)
    decoding = Decoding(BYTES.start_id, beam_width)
    single, spread = (
        dict(
            Scorer(config, weights, ROWS, BYTES.pad_id, on).answers(requests, [SHAPE], TRANSITIONS, decoding)
        )
        for weights, on in ((params(name), None), (sharded, partitioner))
    )
    for number in range(5):
        for key, answer in single[number].items():
            other = spread[number][key]
            assert answer.generated == other.generated
            for a, b in zip(answer.options, other.options, strict=True):
                np.testing.assert_allclose(a.log_likelihoods, b.log_likelihoods, atol=1e-4)


def test_shapes_are_few_and_hold_every_request() -> None:
    lengths = [*range(20, 40), *range(400, 420)]
    counts = {Shape(length, 8, (9, 9, 9), 1, 9, 4): 5 for length in lengths}
    one, two = choose_shapes(counts, 1), choose_shapes(counts, 4)
    assert one == [Shape(419, 8, (9, 9, 9), 1, 9, 4)]
    assert two == [
        Shape(39, 8, (9, 9, 9), 1, 9, 4),
        Shape(419, 8, (9, 9, 9), 1, 9, 4),
    ]  # a third would spare little
    many = {Shape(10 + n % 7 * 100, 8, (n + 1,), 1, 9, 4): 1 for n in range(5000)}
    assert len(choose_shapes(many, 4)) > 1  # in time that grows with their number, not its square
    request = request_of(trial(ToyTask(pairs(9)), pairs(3), Example("a", "b")), BYTES)
    offered = [Shape(prefix, 8, (50,) * 4, 1, 9, 4) for prefix in (2, 39, 99)]
    assert smallest_holding(offered, request).prefix == 39
