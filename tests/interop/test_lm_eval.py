"""The harness's model `icl` answers as each request read alone would be, whatever shares what with it."""

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("lm_eval")

from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model

from icl import model
from icl.data.tokenizer import ByteTokenizer, Tokenizer
from icl.errors import InputError
from icl.evaluation.prompts import Tokens
from icl.evaluation.requests import Ask
from icl.interop.lm_eval import IclLM
from icl.interop.lm_eval.generation import Generation
from icl.interop.lm_eval.sharing import group_requests, static_shapes
from icl.model import ModelConfig
from tests.evaluation.test_prompts import MergingTokenizer

BYTES = ByteTokenizer()
CONTEXT = 48
CONFIG = ModelConfig(
    vocab_size=264, max_length=CONTEXT, num_layers=1, embed_dim=16, num_heads=2, scan_unroll=1
)
UNTIL = ["\n", "e", "xyz"]
Pairs = list[tuple[str, str]]


@functools.cache
def params() -> Any:
    """Weights so large that the model says something else after every context."""
    rng = np.random.default_rng(3)

    def leaf(path: Any, shaped: Any) -> np.ndarray:
        name = jax.tree_util.keystr(path)
        if "final_norm" in name:
            return np.full(shaped.shape, "scale" in name, np.float32)
        return rng.normal("scale" in name, 0.6, shaped.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(leaf, model.abstract_params(CONFIG))


@functools.cache
def adapter(rows: int = 8, tokenizer: Tokenizer = BYTES, **arguments: Any) -> IclLM:
    return IclLM(config=CONFIG, params=params(), tokenizer=tokenizer, batch_size=rows, **arguments)


def asked(arguments: Sequence[tuple[Any, ...]]) -> list[Instance]:
    return [Instance(request_type="loglikelihood", doc={}, arguments=each, idx=0) for each in arguments]


@functools.partial(jax.jit, static_argnums=0)
def forward(config: ModelConfig, weights: Any, tokens_1T: Any) -> jax.Array:
    positions = jnp.arange(tokens_1T.shape[1])[None]
    return jax.nn.log_softmax(model.logits(config, weights, tokens_1T, jnp.ones_like(positions), positions))


def of_next(tokens: Sequence[int]) -> np.ndarray:
    """Log-probabilities after each position, from one full forward pass of one request."""
    padded = np.zeros((1, CONTEXT), np.int32)
    padded[0, : len(tokens)] = tokens
    return np.asarray(forward(CONFIG, params(), padded))[0, : len(tokens)]


def score(context: list[int], own: list[int]) -> tuple[float, bool]:
    """One request, cut as the harness's own model cuts it."""
    read = (context + own)[-(CONTEXT + 1) :][:-1]
    said = of_next(read)[-len(own) :]
    return float(said[np.arange(len(own)), own].sum()), said.argmax(axis=1).tolist() == own


def alone(context: str, continuation: str) -> tuple[float, bool]:
    """One request of bytes; a context gives its trailing white space to the continuation."""
    if not context + continuation or not continuation:
        return 0.0, True
    kept = context.rstrip()
    return score([256, *kept.encode()], list((context + continuation)[len(kept) :].encode()))


def greedy(context: str, budget: int) -> str:
    """Token by token, up to the first of `UNTIL`."""
    tokens = [256, *context.encode()][-(CONTEXT - budget) :]
    text = ""
    for step in range(budget):
        tokens.append(int(of_next(tokens)[-1].argmax()))
        if tokens[-1] == 256:
            break
        said = tokens[-step - 1 :]
        text = bytes(token for token in said if token < 256).decode(errors="replace")
        if any(stop in text for stop in UNTIL):
            break
    for stop in UNTIL:
        text = text.split(stop)[0]
    return text


def mixed_pairs() -> Pairs:
    """Requests that share much, little or nothing, in random order, some of them twice."""
    rng = np.random.default_rng(0)

    def text(least: int, most: int) -> str:
        return "".join(rng.choice(list("abcde \n"), rng.integers(least, most)))

    demonstrations, pairs = text(20, 21) + "x", Pairs()
    pairs += [(demonstrations + text(1, 8), text(1, 5)) for _ in range(12)]  # one set for many documents
    for _ in range(6):  # options of one document
        context = text(5, 30)
        pairs += [(context, text(1, 7)) for _ in range(3)]
    for _ in range(3):  # contexts that compete for one continuation
        start, end = text(20, 30), text(2, 6)
        pairs += [(f"{start}he {end}", end), (f"{start}she {end}", end)]
    pairs += [("", text(1, 9)), ("", "a"), ("", ""), ("a", ""), (" ", "a"), ("ab ", "c"), ("ab\n", " c")]
    pairs += [(text(60, 90), text(1, 9)), ("ab", text(45, 46)), (text(60, 61), "ab ")]
    pairs += pairs[::7]
    return [pairs[i] for i in rng.permutation(len(pairs))]


@pytest.mark.parametrize("rows", [3, 16])
def test_likelihoods_are_those_of_each_request_alone(rows: int) -> None:
    pairs = mixed_pairs()
    found = adapter(rows).loglikelihood(asked(pairs), disable_tqdm=True)
    expected = [alone(*pair) for pair in pairs]
    np.testing.assert_allclose([f[0] for f in found], [e[0] for e in expected], rtol=1e-5, atol=1e-4)
    assert [f[1] for f in found] == [e[1] for e in expected]
    assert len({round(value, 3) for value, _ in found}) > 40  # they differ


def test_requests_on_several_devices_say_the_same() -> None:
    lm = adapter(8, BYTES, data=4, tensor=2)
    assert lm.world_size == 1
    pairs = mixed_pairs()[:12]
    found = lm.loglikelihood(asked(pairs), disable_tqdm=True)
    assert [value for value, _ in found] == pytest.approx([alone(*pair)[0] for pair in pairs], abs=1e-4)


def test_what_the_model_would_say_is_greedy() -> None:
    contexts = [[256, *context] for context in (b"abc", b"the", b"xyz" * 20)]
    said = [of_next(context[-CONTEXT:])[-1].argsort()[::-1].tolist() for context in contexts]
    first, second = ([(None, c, [s[rank]]) for c, s in zip(contexts, said, strict=True)] for rank in (0, 1))
    flags = [flag for _, flag in adapter()._loglikelihood_tokens([*first, *second], disable_tqdm=True)]
    assert flags == [True] * 3 + [False] * 3


def test_answers_are_given_to_the_cache_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    lm, kept = adapter(16), {}
    monkeypatch.setattr(
        lm.cache_hook, "add_partial", lambda kind, request, answer: kept.update({(kind, request): answer})
    )
    pairs = mixed_pairs()
    found = lm.loglikelihood(asked(pairs), disable_tqdm=True)
    assert kept == {("loglikelihood", pair): answer for pair, answer in zip(pairs, found, strict=True)}


def test_a_rolling_likelihood_counts_every_token_once() -> None:
    texts = ["", "a", "ab" * 23, "abc" * 16, "a" * CONTEXT + "b", "abcd\n" * 40]
    found = adapter().loglikelihood_rolling(asked([(text,) for text in texts]), disable_tqdm=True)
    for text, value in zip(texts, found, strict=True):
        tokens, total = [256, *text.encode()], 0.0  # the start token is foretold, as by the harness's model
        for start in range(0, len(tokens), CONTEXT):
            window = tokens[start : start + CONTEXT]
            total += score(([256] + tokens)[: start + 1], window)[0]
        assert value == pytest.approx(total, rel=1e-5)


def test_a_continuation_longer_than_the_context_is_scored_whole() -> None:
    (found,) = adapter().loglikelihood(asked([("ab", "cd" * 40)]), disable_tqdm=True)
    tokens = list(b"ab" + b"cd" * 40)
    parts = [score([*tokens[: 2 + start]], tokens[2 + start :][:CONTEXT])[0] for start in (0, CONTEXT)]
    # The first window sees one token of the context, as those of rolling likelihoods do.
    parts[0] = score(tokens[1:2], tokens[2 : 2 + CONTEXT])[0]
    assert found[0] == pytest.approx(sum(parts), rel=1e-5)


def test_a_continuation_that_merges_with_the_context_is_scored_from_the_seam() -> None:
    tokenizer = MergingTokenizer()
    pairs = [("ab>", "t"), ("ab>", "tx"), ("ab>", "x")]
    found = adapter(8, tokenizer).loglikelihood(asked(pairs), disable_tqdm=True)
    start = [256, *b"ab"]
    expected = [
        score(start, [tokenizer.merged])[0],
        score([*start, *b">"], [*b"x"])[0],  # as many tokens as follow the context's own number
        score([*start, *b">"], [*b"x"])[0],
    ]
    assert [value for value, _ in found] == pytest.approx(expected, abs=1e-4)


def test_text_is_that_of_each_context_alone() -> None:
    shared = "abcabcabdabc "
    contexts = ["", "a", "ab", "xyz" * 30, "the cat ", *(shared + letter for letter in "abcdefghij"), "a"]
    how = {"until": UNTIL, "max_gen_toks": 8}
    found = adapter().generate_until(asked([(context, how) for context in contexts]), disable_tqdm=True)
    assert found == [greedy(context, 8) for context in contexts]
    assert len(set(found)) > 5


def test_samples_depend_on_context_draw_and_seed_alone() -> None:
    how = {"until": [], "max_gen_toks": 8, "do_sample": True, "temperature": 1.0}
    requests = asked([("abc", how), ("abc", how), ("abd", how)])
    first = adapter().generate_until(requests, disable_tqdm=True)
    assert len(set(first)) == 3
    assert adapter(4).generate_until(requests[::-1], disable_tqdm=True)[0] == first[2]
    assert set(adapter(8, BYTES, seed=1).generate_until(requests, disable_tqdm=True)).isdisjoint(first)


ENDS = st.lists(st.integers(0, 2), min_size=1, max_size=6)
STARTS = st.sampled_from([[], [0] * 20, [0] * 20 + [1] * 20, [2] * 20])
PROMPTS = st.lists(st.builds(list.__add__, STARTS, ENDS), min_size=1, max_size=30)


@settings(max_examples=100, deadline=None)
@given(prompts=PROMPTS, rows=st.integers(1, 8), budget=st.integers(0, 2))
def test_every_prompt_is_asked_once_and_fits_its_shape(
    prompts: list[list[int]], rows: int, budget: int
) -> None:
    asks = [
        Ask(prompt, () if budget else [Tokens(prompt, [*prompt, 7, 7], len(prompt))]) for prompt in prompts
    ]
    requests = group_requests(asks, budget, rows)
    found = {branch.key.k: branch.tokens for request in requests for branch in request.branches}
    assert found == dict(enumerate(prompts))
    assert sum(len(request.branches) for request in requests) == len(prompts)
    shapes = static_shapes(requests, longest=48)
    assert max(shape.prefix for shape in shapes) <= 48 and max(shape.option for shape in shapes) <= 47
    for request in requests:
        held = request.prefix
        for branch in request.branches:
            assert branch.tokens[: branch.cut] == held[: branch.cut] and branch.cut < len(branch.tokens)
            held = request.prefix if request.is_common else branch.tokens


def test_what_many_prompts_share_is_read_once_and_two_contexts_follow_each_other() -> None:
    fixed = [[0] * 40 + [1, number] for number in range(20)]
    pairs = [[2, number] + [3] * 40 + [4 + side] for number in range(5) for side in (0, 1)]
    single = [[6, number] for number in range(5)]
    requests = group_requests([Ask(prompt, ()) for prompt in [*fixed, *pairs, *single]], 0, rows=8)
    common = [request for request in requests if request.is_common]
    assert [request.prefix for request in common] == [[0] * 40 + [1]] * 20
    others = [request for request in requests if not request.is_common]
    assert sorted(len(request.branches) for request in others) == [1] * 5 + [2] * 5
    read = sum(len(r.prefix) + sum(len(b.tokens) - b.cut for b in r.branches) for r in others)
    assert read <= 5 * (43 + 2) + 5 * 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"do_sample": True, "temperature": 0.7, "top_p": 0.9}, "top_p = 0.9 is not implemented"),
        ({"repetition_penalty": 1.2}, "repetition_penalty = 1.2 is not implemented"),
        ({"penalty_alpha": 1}, "penalty_alpha = 1 is not implemented; expected of until"),
        ({"num_beams": 2, "do_sample": True, "temperature": 1.0}, "do_sample = True"),
        ({"num_beams": 2, "early_stopping": True}, "early_stopping = True"),
        ({"max_gen_toks": 0}, "max_gen_toks = 0: expected a positive number"),
    ],
)
def test_generation_that_is_not_implemented_is_refused_by_name(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Generation.of(arguments, 16)


def test_arguments_of_generation_are_read_as_the_harness_means_them() -> None:
    plain = Generation(until=("\n",), max_tokens=16, temperature=0.0, beam_width=1, length_penalty=1.0)
    assert Generation.of({"until": "\n", "top_p": 0.9, "temperature": 0.5, "do_sample": False}, 16) == plain
    assert Generation.of({"until": ["", "\n"], "max_new_tokens": 16}, 99) == plain
    sampled = Generation.of({"until": [], "temperature": 0.5}, 16)
    assert sampled.temperature == 0.5 and sampled.until == ()
    beams = Generation.of({"num_beams": 4, "length_penalty": 0.6, "early_stopping": "never"}, 16)
    assert (beams.beam_width, beams.length_penalty) == (4, 0.6)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "expected checkpoint=RUN"),
        ({"checkpoint": "nowhere"}, "checkpoint nowhere does not exist"),
        ({"checkpoint": "nowhere", "pretrained": "gpt2"}, "no argument 'pretrained'; expected of checkpoint"),
        ({"checkpoint": "nowhere", "step": "newest"}, "ModelArgs.step = 'newest': expected an integer"),
        ({"checkpoint": "nowhere", "batch_size": "many"}, "batch_size = 'many'"),
        ({"checkpoint": "nowhere", "data": 3}, "names 3 devices"),
    ],
)
def test_bad_model_arguments_are_refused(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        get_model("icl").create_from_arg_obj(arguments, {"batch_size": 1, "device": "cuda:0"})


def test_a_context_longer_than_the_models_is_refused() -> None:
    with pytest.raises(InputError, match=f"max_length = {CONTEXT + 1}: expected at most {CONTEXT}"):
        IclLM(config=CONFIG, params=params(), tokenizer=BYTES, max_length=CONTEXT + 1)
    with pytest.raises(InputError, match=f"max_gen_toks = {CONTEXT}: expected fewer"):
        adapter().generate_until(asked([("a", {"until": [], "max_gen_toks": CONTEXT})]), disable_tqdm=True)


class _Held(dict[str, Any]):
    filename = "answers.db"


def test_a_cache_of_another_models_answers_is_refused() -> None:
    held = _Held()
    hook: Any = type("Hook", (), {"dbdict": held})()
    lm = IclLM(config=CONFIG, params=params(), tokenizer=BYTES)
    lm.set_cache_hook(hook)
    lm.set_cache_hook(hook)
    other = IclLM(config=CONFIG, params=jax.tree.map(lambda leaf: -leaf, params()), tokenizer=BYTES)
    for each, kept in ((other, held), (lm, _Held(answer=1))):
        hook.dbdict = kept
        with pytest.raises(InputError, match="answers.db: holds answers of another model"):
            each.set_cache_hook(hook)


@pytest.mark.parametrize("num_fewshot", [0, 3])
def test_the_harness_evaluates_a_local_task(
    num_fewshot: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets
    import lm_eval
    from lm_eval.tasks import TaskManager

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    for split, numbers in (("train", range(9)), ("test", range(20, 26))):
        rows = ({"q": f"{n}+1", "options": [f"{n + 1}", f"{n - 1}"], "gold": n % 2} for n in numbers)
        (tmp_path / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    task = {
        "task": f"sums_{num_fewshot}",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {s: str(tmp_path / f"{s}.jsonl") for s in ("train", "test")}},
        "training_split": "train",
        "fewshot_split": "train",
        "test_split": "test",
        "num_fewshot": num_fewshot,
        "output_type": "multiple_choice",
        "doc_to_text": "{{q}}=",
        "doc_to_choice": "options",
        "doc_to_target": "gold",
        "target_delimiter": "",
        "fewshot_delimiter": "\n",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    results = lm_eval.simple_evaluate(
        model=adapter(), tasks=[task], task_manager=TaskManager(include_defaults=False), bootstrap_iters=0
    )
    samples = results["samples"][task["task"]]
    right = []
    for sample in samples:
        pairs = [tuple(argument) for argument in sample["arguments"]]
        assert pairs[0][0].count("\n") == num_fewshot
        values = [alone(*pair)[0] for pair in pairs]
        assert [response[0] for response in sample["filtered_resps"]] == pytest.approx(values, abs=1e-4)
        right.append(values.index(max(values)) == sample["doc"]["gold"])
    assert len(samples) == 6 and results["results"][task["task"]]["acc,none"] == np.mean(right)
    assert results["config"]["model_num_parameters"] == model.num_params(CONFIG)
