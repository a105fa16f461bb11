"""Random trees of prefixes score as each prompt read alone, for every model; and the tests can fail."""

import dataclasses
import functools
import itertools
from collections.abc import Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icl import model
from icl.evaluation import scoring
from icl.evaluation.prompts import Tokens, common_prefix
from icl.evaluation.requests import Ask, Key, Request, Shape, depth_first, make_request
from icl.evaluation.scoring import Decoding, Scorer
from icl.model import ModelConfig, block, cache
from icl.model.spans import Span

LENGTH, VOCAB, LETTERS = 40, 8, 4
TOLERANCE = 1e-4
SHAPE = Shape(prefix=16, branch=20, ends=(LENGTH,) * 4, options=3, option=5, new_tokens=0)
POSITIONS: tuple[Literal["rotary", "learned"], ...] = ("rotary", "learned")
STOPS = np.zeros((2, VOCAB), np.int32)
SMALL = ModelConfig(
    vocab_size=VOCAB, max_length=LENGTH, embed_dim=16, num_heads=2, band_width=6, attention="reference"
)
MODELS: dict[str, ModelConfig] = {
    f"{kind}-{positions}-{width}": dataclasses.replace(
        SMALL,
        num_layers=2,
        layer_pattern=("dense", "banded") if kind == "banded" else ("dense",),
        positions=positions,
        conv_width=width,
    )
    for kind, positions, width in itertools.product(("dense", "banded"), POSITIONS, (0, 3))
}


@functools.cache
def weights(name: str) -> Any:
    """Kernels and biases of standard deviation 0.3, norm scales spread about 1: every part has its say."""
    fresh = model.abstract_params(MODELS[name])
    paths = jax.tree_util.tree_flatten_with_path(fresh)[0]
    rng = np.random.default_rng(0)
    leaves = [
        ("scale" in jax.tree_util.keystr(path)) + 0.3 * rng.normal(size=leaf.shape).astype(np.float32)
        for path, leaf in paths
    ]
    return jax.tree_util.tree_unflatten(jax.tree.structure(fresh), leaves)


@functools.partial(jax.jit, static_argnums=0)
def _forward(config: ModelConfig, params: Any, tokens_BT: Any) -> jax.Array:
    positions = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1])[None], tokens_BT.shape)
    return jax.nn.log_softmax(model.logits(config, params, tokens_BT, jnp.ones_like(positions), positions))


def alone(name: str, asked: dict[Key, Ask]) -> dict[tuple[Key, int], float]:
    """Log-likelihood of every option, each prompt with its option read whole."""
    places = [(key, i, option) for key, ask in asked.items() for i, option in enumerate(ask.options)]
    tokens_BT = np.zeros((12, LENGTH), np.int32)
    for row, (_, _, option) in enumerate(places):
        tokens_BT[row, : len(option.full)] = option.full
    of_next = np.asarray(_forward(MODELS[name], weights(name), tokens_BT))
    return {
        (key, i): float(
            sum(of_next[row, at - 1, option.full[at]] for at in range(option.gold_start, len(option.full)))
        )
        for row, (key, i, option) in enumerate(places)
    }


def shared(config: ModelConfig, params: Any, request: Request) -> dict[tuple[Key, int], float]:
    """The same from one cache; of a common prefix, from one for four requests."""
    number = 4 if request.is_common else 1
    scorer = Scorer(config, params, number, 0)
    *_, (_, found) = scorer.answers([request] * number, [SHAPE], STOPS, Decoding(0))
    return {
        (key, i): float(scored.log_likelihoods.sum())
        for key, answer in found.items()
        for i, scored in enumerate(answer.options)
    }


def largest_difference(
    name: str, asked: dict[Key, Ask], prefix: list[int], *, is_common: bool = False, **changes: Any
) -> float:
    config = dataclasses.replace(MODELS[name], **changes)
    said = shared(config, weights(name), make_request(prefix, asked, 0, is_common=is_common))
    expected = alone(name, asked)
    assert said.keys() == expected.keys()
    return max(abs(said[place] - expected[place]) for place in expected)


LETTER = st.integers(0, LETTERS - 1)


@st.composite
def trees(draw: st.DrawFn) -> tuple[dict[Key, Ask], list[int]]:
    """Up to four prompts, each from somewhere on an earlier one on; options that may merge with their end."""
    prompts = [[0, *draw(st.lists(LETTER, min_size=3, max_size=14))]]
    for _ in range(draw(st.integers(0, 3))):
        parent = draw(st.sampled_from(prompts))
        cut = draw(st.integers(1, len(parent)))
        prompts.append([*parent[:cut], *draw(st.lists(LETTER, max_size=14 - min(cut, 14)))])
    asked = {}
    for number, prompt in enumerate(prompts):
        options = []
        for _ in range(draw(st.integers(1, 3))):
            kept = draw(st.integers(max(1, len(prompt) - 2), len(prompt)))
            full = [*prompt[:kept], *draw(st.lists(LETTER, min_size=len(prompt) - kept + 1, max_size=5))]
            start = min(common_prefix(prompt, full), len(full) - 1)
            options.append(Tokens(prompt, full, draw(st.integers(start, len(full) - 1))))
        asked[Key("query", number)] = Ask(prompt, options)
    first = draw(st.sampled_from(prompts))
    return asked, first[: draw(st.integers(1, min(16, len(first))))]


@pytest.mark.parametrize(
    ("name", "is_common"),
    [*((name, False) for name in MODELS), ("banded-rotary-3", True), ("banded-learned-0", True)],
)
def test_random_trees_of_prefixes_score_as_each_prompt_alone(name: str, is_common: bool) -> None:
    @settings(max_examples=40, deadline=None, database=None, derandomize=True)
    @given(trees())
    def check(tree: tuple[dict[Key, Ask], list[int]]) -> None:
        assert largest_difference(name, *tree, is_common=is_common) < TOLERANCE

    check()
    assert largest_difference(name, TREE, PREFIX) < TOLERANCE  # what the mutations below begin with


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=8))
def test_a_walk_reads_every_edge_of_the_trie_once(sequences: list[list[int]]) -> None:
    order = depth_first(sequences)
    assert sorted(order) == list(range(len(sequences)))
    read, held = 0, list[int]()
    for number in order:
        read += len(sequences[number]) - common_prefix(held, sequences[number])
        held = sequences[number] if len(sequences[number]) > common_prefix(held, sequences[number]) else held
    assert read == len({tuple(each[:end]) for each in sequences for end in range(1, len(each) + 1)})


# What a wrong cut would do. Options begin where the prompt ends, or two tokens before.
_PROMPTS = [[0, 1, 2, 3, 1, 0, 2, 1, 3, 2, 0, 1, 3], [0, 1, 2, 3, 1, 0, 2, 3, 3, 0], [0, 1, 2, 1]]
TREE = {
    Key("query", n): Ask(
        prompt,
        [
            Tokens(prompt, [*prompt, 2, 1, 3, 0], len(prompt)),
            Tokens(prompt, [*prompt[:-1], (prompt[-1] + 1) % LETTERS, 2, 2], len(prompt) - 1),
        ],
    )
    for n, prompt in enumerate(_PROMPTS)
}
PREFIX = _PROMPTS[0][:9]


@pytest.fixture
def fresh_programs() -> Iterator[None]:
    """No compiled program from before a mutation, nor a mutated one after it."""
    compiled: Any = scoring._read
    compiled.clear_cache()
    yield
    compiled.clear_cache()


def _shifted(span: Span, by: int) -> Span:
    return Span(span.segments_BT, span.positions_BT + by)


@pytest.mark.parametrize("by", [-1, 1])
@pytest.mark.parametrize("name", ["dense-rotary-0", "dense-learned-0"])
@pytest.mark.usefixtures("fresh_programs")
def test_a_branch_whose_positions_are_off_by_one_is_noticed(
    name: str, by: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Angles or learned positions of what follows a cut; what is seen stays right."""
    alone(name, TREE)  # the reference is compiled as it is, before the mutation
    angles, embed = block.rotary_angles, cache.embed
    monkeypatch.setattr(block, "rotary_angles", lambda config, p_BT: angles(config, p_BT + by * (p_BT > 8)))
    monkeypatch.setattr(
        cache, "embed", lambda c, params, t, p_BT, on: embed(c, params, t, p_BT + by * (p_BT > 8), on)
    )
    assert largest_difference(name, TREE, PREFIX) > 10 * TOLERANCE


@pytest.mark.parametrize("by", [-1, 1])
@pytest.mark.parametrize("name", ["banded-rotary-3", "banded-learned-0"])
def test_a_band_that_is_off_by_one_is_noticed(name: str, by: int) -> None:
    assert largest_difference(name, TREE, PREFIX, band_width=SMALL.band_width + by) > 10 * TOLERANCE


@pytest.mark.parametrize(("name", "is_common"), [("dense-rotary-3", False), ("banded-learned-3", True)])
@pytest.mark.usefixtures("fresh_programs")
def test_convolution_inputs_from_the_wrong_cut_are_noticed(
    name: str, is_common: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = block.last
    monkeypatch.setattr(block, "last", lambda inputs, offset_B, count: last(inputs, offset_B - 1, count))
    assert largest_difference(name, TREE, PREFIX, is_common=is_common) > 10 * TOLERANCE
