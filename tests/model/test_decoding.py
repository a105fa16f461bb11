"""Decoding from the cache against a second implementation that reads every hypothesis whole, in NumPy."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from scipy import stats

from icl.model import (
    Cache,
    ModelConfig,
    beam_search,
    decoding,
    extend_to_last,
    greedy,
    init_cache,
    sample,
)
from tests.model.test_transformer import VARIANTS, random_params, run

VOCAB, BUDGET, END = 12, 5, 11
LENGTHS = (3, 9, 6)
MODELS: dict[str, dict[str, Any]] = {
    **{name: VARIANTS[name] for name in ("gpt2", "convolution")},
    "learned, banded, convolution": {"conv_width": 3, "layer_pattern": ("banded",), "band_width": 4},
}
ALPHAS = (0.0, 0.6, 2.0)


def small(name: str, vocab: int = VOCAB) -> ModelConfig:
    config = ModelConfig(vocab_size=vocab, max_length=48, num_layers=2, embed_dim=16, num_heads=4)
    config = dataclasses.replace(config, **MODELS[name])
    return dataclasses.replace(config, num_layers=len(config.layer_pattern))


def automaton(seed: int, vocab: int = VOCAB) -> np.ndarray:
    """One of four states with random transitions, in which about one token in eight stops."""
    rng = np.random.default_rng(seed)
    table = rng.choice(4, (4, vocab), p=[0.35, 0.3, 0.225, 0.125]).astype(np.int32)
    table[:, END % vocab] = table[3] = 3
    return table


class Prompts(NamedTuple):
    """Prompts of different lengths in a cache; what stands behind each is not its own."""

    config: ModelConfig
    params: Any
    tokens: list[np.ndarray]
    cache: Cache
    last_BV: Any


jit_read = jax.jit(extend_to_last, static_argnums=0)


@functools.lru_cache(maxsize=16)
def prompts(name: str, seed: int = 0, vocab: int = VOCAB, budget: int = BUDGET) -> Prompts:
    config = small(name, vocab)
    params = random_params(config, seed)
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, vocab, (len(LENGTHS), max(LENGTHS))).astype(np.int32)
    counts = np.array(LENGTHS, np.int32)
    cache = init_cache(config, len(LENGTHS), max(LENGTHS) + budget)
    last_BV, cache = jit_read(config, params, cache, tokens, counts)
    own = [row[:count] for row, count in zip(tokens, LENGTHS, strict=True)]
    return Prompts(config, params, own, cache, last_BV)


STATIC = ("max_new_tokens", "end_id", "partitioner")
jit_beam_search = jax.jit(beam_search, static_argnums=0, static_argnames=("width", "length_rule", *STATIC))
jit_greedy = jax.jit(greedy, static_argnums=0, static_argnames=STATIC)
jit_sample = jax.jit(sample, static_argnums=0, static_argnames=STATIC)


def search(
    given: Prompts, table: np.ndarray, width: int, alpha: float, rule: str, budget: int = BUDGET
) -> Any:
    found = jit_beam_search(
        *given[:2],
        *given[3:],
        width=width,
        length_penalty=alpha,
        length_rule=rule,
        max_new_tokens=budget,
        transitions_SV=table,
        end_id=END % table.shape[1],
    )
    return jax.tree.map(np.asarray, found)


# The second road: lists of tuples, one full forward pass a step, to the budget without ending early.


class Whole(NamedTuple):
    """A hypothesis: its tokens, their summed log-likelihood, and the state of the automaton."""

    tokens: tuple[int, ...]
    total: float
    state: int


def next_log_likelihoods(given: Prompts, rows: list[tuple[int, ...]]) -> np.ndarray:
    """Log-likelihoods [rows, vocab] of what follows each whole row."""
    size = 16  # of one shape, compiled once
    padded = np.zeros((size, 16), np.int32)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    positions = np.tile(np.arange(16, dtype=np.int32), (size, 1))
    out = np.asarray(run(given.config, given.params, padded, np.ones_like(positions), positions), np.float64)
    last = np.stack([out[i, len(row) - 1] for i, row in enumerate(rows)])
    highest = last.max(axis=1, keepdims=True)
    return last - highest - np.log(np.exp(last - highest).sum(axis=1, keepdims=True))


def penalty(count: int, alpha: float, rule: str) -> float:
    return float(count**alpha if rule == "hf" else ((5 + count) / 6) ** alpha)


def beam_search_whole(
    given: Prompts, row: int, table: np.ndarray, width: int, alpha: float, rule: str, budget: int = BUDGET
) -> Whole:
    prompt = tuple(int(token) for token in given.tokens[row])
    live, best, best_score = [Whole((), 0.0, 0)], None, -np.inf
    for count in range(1, budget + 1):
        found = next_log_likelihoods(given, [prompt + each.tokens for each in live])
        ranked = sorted(
            (-(each.total + found[beam, token]), token, beam)
            for beam, each in enumerate(live)
            for token in range(table.shape[1])
        )
        going: list[Whole] = []
        for rank, (negated, token, beam) in enumerate(ranked):
            whole = Whole((*live[beam].tokens, token), -negated, int(table[live[beam].state, token]))
            if whole.state == len(table) - 1 or count == budget:
                score = whole.total / penalty(count, alpha, rule)
                if rank < width and score > best_score:
                    best, best_score = whole, score
            elif len(going) < width:
                going.append(whole)
        live = going
        if not live or (width == 1 and best):
            break
    assert best is not None
    return best


def assert_found(found: Any, row: int, want: Whole, end: int = END) -> None:
    count = int(found.counts_B[row])
    assert tuple(found.tokens_BN[row, :count]) == want.tokens
    assert (found.tokens_BN[row, count:] == end).all()
    np.testing.assert_allclose(found.log_likelihoods_B[row], want.total, atol=1e-4)


CASES = [
    ("gpt2", 4, "hf"),
    ("convolution", 4, "gnmt"),
    ("learned, banded, convolution", 2, "gnmt"),
]


@pytest.mark.parametrize(("name", "width", "rule"), CASES)
def test_beam_search_finds_what_reading_every_hypothesis_whole_finds(
    name: str, width: int, rule: str
) -> None:
    counts = set()
    for seed in range(4):
        given, table = prompts(name, seed), automaton(seed)
        for alpha in ALPHAS:
            found = search(given, table, width, alpha, rule)
            for row in range(len(LENGTHS)):
                assert_found(found, row, beam_search_whole(given, row, table, width, alpha, rule))
            counts |= set(found.counts_B.tolist())
    assert len(counts) > 2  # some end early, some at the budget


def test_width_penalty_and_rule_decide_what_is_found() -> None:
    """The comparison above can fail: each of them changes some of the results."""

    def found(width: int, alpha: float, rule: str) -> list[Whole]:
        return [
            beam_search_whole(prompts("gpt2", seed), row, automaton(seed), width, alpha, rule)
            for seed in range(8)
            for row in range(len(LENGTHS))
        ]

    base = found(4, 0.6, "hf")
    for other in (found(1, 0.6, "hf"), found(2, 0.6, "hf"), found(4, 2.0, "hf"), found(4, 0.6, "gnmt")):
        assert other != base


@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_beam_of_all_hypotheses_finds_the_best_of_all(alpha: float) -> None:
    vocab, budget, end = 4, 3, END % 4
    for seed in range(4):
        given, table = prompts("gpt2", seed, vocab, budget), automaton(seed, vocab)
        table[:3, end] = table[:3, 0]  # a random automaton in which fewer tokens stop
        found = search(given, table, vocab ** (budget - 1), alpha, "gnmt", budget)
        for row in range(len(LENGTHS)):
            prompt = tuple(int(token) for token in given.tokens[row])
            live, ended = [Whole((), 0.0, 0)], []
            for count in range(1, budget + 1):
                log_likelihoods = next_log_likelihoods(given, [prompt + each.tokens for each in live])
                longer = [
                    Whole(
                        (*each.tokens, token),
                        each.total + log_likelihoods[i, token],
                        table[each.state, token],
                    )
                    for i, each in enumerate(live)
                    for token in range(vocab)
                ]
                stopped = [each.state == 3 or count == budget for each in longer]
                ended += [each for each, stops in zip(longer, stopped, strict=True) if stops]
                live = [each for each, stops in zip(longer, stopped, strict=True) if not stops]
            best = max(ended, key=lambda each: each.total / penalty(len(each.tokens), alpha, "gnmt"))
            assert_found(found, row, best, end)


def decode(given: Prompts, table: np.ndarray, budget: int = BUDGET) -> tuple[Cache, np.ndarray]:
    cache, tokens = jit_greedy(
        *given[:2], *given[3:], max_new_tokens=budget, transitions_SV=table, end_id=END
    )
    return cache, np.asarray(tokens)


@pytest.mark.parametrize("name", ["gpt2", "convolution"])
def test_greedy_takes_the_likeliest_token_until_it_stops(name: str) -> None:
    for seed in range(4):
        given, table = prompts(name, seed), automaton(seed)
        tokens_BN = decode(given, table)[1]
        for row, tokens in enumerate(tokens_BN):
            want = beam_search_whole(given, row, table, 1, 0.6, "gnmt").tokens
            assert tuple(tokens[: len(want)]) == want
            assert (tokens[len(want) :] == END).all()
        for alpha in ALPHAS if name == "gpt2" else ():
            np.testing.assert_array_equal(search(given, table, 1, alpha, "hf").tokens_BN, tokens_BN)


def test_a_row_does_not_depend_on_the_others() -> None:
    given, table = prompts("convolution", 3), automaton(3)
    together = search(given, table, 4, 0.6, "gnmt")
    for row, count in enumerate(together.counts_B):
        cache, last_BV = jax.tree.map(lambda array, row=row: np.asarray(array)[[row] * 3], given[3:])
        alone = search(given._replace(cache=cache, last_BV=last_BV), table, 4, 0.6, "gnmt")
        assert set(alone.counts_B.tolist()) == {count}
        assert (alone.tokens_BN == together.tokens_BN[[row]]).all()
        assert (alone.log_likelihoods_B == together.log_likelihoods_B[[row]]).all()


def tied() -> Prompts:
    """A model to which all tokens are equally likely."""
    given = prompts("gpt2")
    zeros = jax.tree.map(np.zeros_like, given.params)
    return given._replace(params=zeros, last_BV=np.zeros_like(given.last_BV))


def test_ties_take_the_lower_token_then_the_lower_beam() -> None:
    table = np.zeros((2, VOCAB), np.int32)
    table[1] = 1
    for width in (1, 4):
        assert (search(tied(), table, width, 0.6, "hf").tokens_BN == 0).all()
    table[0, 1] = 1
    # The four equal beams 0 2 3 4 go on with 0 each, as 0 comes before all other tokens.
    found = search(tied(), table, 4, 2.0, "hf")
    assert (found.tokens_BN == 0).all() and (found.counts_B == BUDGET).all()


def test_nothing_is_read_after_the_last_row_has_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []

    def counted(config: ModelConfig, *arguments: Any) -> Any:
        jax.debug.callback(lambda: reads.append(1))
        return extend_to_last(config, *arguments)

    monkeypatch.setattr(decoding, "extend_to_last", counted)
    given = tied()
    decoders: list[tuple[Any, dict[str, Any]]] = [
        (greedy, {}),
        (beam_search, {"width": 2, "length_penalty": 0.6, "length_rule": "gnmt"}),
    ]
    for decoder, settings in decoders:
        decode = functools.partial(decoder, max_new_tokens=BUDGET, end_id=END, **settings)
        run_counted = jax.jit(decode, static_argnums=0)
        for stops, want in ([*range(VOCAB)], 0), ([], BUDGET - 1):
            table = np.zeros((2, VOCAB), np.int32)
            table[1], table[0, stops] = 1, 1
            reads.clear()
            jax.block_until_ready(run_counted(*given[:2], *given[3:], transitions_SV=table))
            jax.effects_barrier()
            assert len(reads) == want


def many(rows: int) -> Prompts:
    """One prompt many times."""
    given = prompts("gpt2", 1, 4, 3)
    cache, last_BV = jax.tree.map(lambda array: np.repeat(array[:1], rows, axis=0), given[3:])
    return given._replace(tokens=given.tokens[:1] * rows, cache=cache, last_BV=last_BV)


def draw(given: Prompts, keys: jax.Array, temperature: float, table: np.ndarray) -> np.ndarray:
    _, tokens_BN = jit_sample(
        *given[:2],
        *given[3:],
        temperature=temperature,
        keys_B=keys,
        max_new_tokens=2,
        transitions_SV=table,
        end_id=3,
    )
    return np.asarray(tokens_BN)


@pytest.mark.parametrize("temperature", [0.7, 2.0])
def test_samples_are_drawn_from_the_softmax(temperature: float) -> None:
    rows = 4000
    given, table = many(rows), np.zeros((2, 4), np.int32)
    table[1], table[0, 3] = 1, 1  # 3 stops
    tokens_BN = draw(given, jax.random.split(jax.random.key(0), rows), temperature, table)
    prompt = tuple(int(token) for token in given.tokens[0])

    def softmax(row: tuple[int, ...]) -> np.ndarray:
        weights = np.exp(next_log_likelihoods(given, [row])[0] / temperature)
        return weights / weights.sum()

    first = softmax(prompt)
    expected = np.stack([first[token] * softmax((*prompt, token)) for token in range(4)])
    expected[3] = [0, 0, 0, first[3]]
    observed = np.zeros((4, 4))
    np.add.at(observed, (tokens_BN[:, 0], tokens_BN[:, 1]), 1)
    assert observed[expected == 0].sum() == 0
    assert (expected * rows)[expected > 0].min() > 5
    assert stats.chisquare(observed[expected > 0], expected[expected > 0] * rows).pvalue > 0.001


def test_a_sample_depends_on_its_own_key_alone() -> None:
    table, rows = np.zeros((2, 4), np.int32), 4000
    keys = jax.random.split(jax.random.key(0), rows)
    together = draw(many(rows), keys, 1.0, table)
    assert len(np.unique(together, axis=0)) > 8
    np.testing.assert_array_equal(draw(many(rows), keys[::-1], 1.0, table), together[::-1])
    np.testing.assert_array_equal(draw(many(3), keys[40:43], 1.0, table), together[40:43])


def test_a_temperature_near_zero_is_greedy_decoding() -> None:
    given, table = prompts("gpt2", 1, 4, 3), np.zeros((2, 4), np.int32)
    cold = jit_greedy(*given[:2], *given[3:], max_new_tokens=2, transitions_SV=table, end_id=3)[1]
    for temperature in (0.0, 1e-5):
        keys = jax.random.split(jax.random.key(0), len(LENGTHS))
        np.testing.assert_array_equal(draw(given, keys, temperature, table), cold)


def test_decoding_goes_on_from_the_same_cache_afterwards() -> None:
    given, table = prompts("convolution", 2), automaton(2)
    first = search(given, table, 4, 0.6, "gnmt")
    cache, tokens_BN = decode(given, table)
    steps = np.asarray(cache.lengths_B) - np.asarray(LENGTHS)
    assert (steps == steps[0]).all() and steps[0] < BUDGET
    again = given._replace(cache=cache.replace(lengths_B=given.cache.lengths_B))
    np.testing.assert_array_equal(decode(again, table)[1], tokens_BN)
    np.testing.assert_array_equal(search(again, table, 4, 0.6, "gnmt").tokens_BN, first.tokens_BN)
