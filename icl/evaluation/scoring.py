"""Asks a model: likelihood of every option and greedy generation, at every K, from one prefill.

The demonstrations of a trial are read once into a KV cache. Then, from the largest K down, the cache is cut
to what the prompt for K shares with them and the rest of the prompt is appended: a branch. From its end the
model goes on by itself, where there are no options; then the cache is cut to the prompt again and again, and
each option (or the gold answer) is appended and scored. What is overwritten lies behind the cut of all that
follows, so one cache serves all K and all options in place.

Shapes: B rows (trials), P prefix positions, K branches, T branch positions, O options, U option positions,
N new tokens, V vocab.
"""

import dataclasses
import functools
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from icl import model
from icl.data.tokenizer import Tokenizer
from icl.evaluation.plan import Trial
from icl.evaluation.prompts import Tokens, common_prefix
from icl.model.config import ModelConfig

Ints = NDArray[np.int32]

_ROUNDED = 64
"""Caches are so many positions, or twice as many, and so on: few different ones are compiled."""
_SMALL = 512
"""A cache of so many positions is not made smaller."""
_SHRINKS = 0.7
"""Branches get a smaller cache where they need this part of the larger one, or less."""
_FEWEST_SHARED = 4
"""So many trials with one prefix, or more, are read together; fewer would leave rows of a batch empty."""
_MAX_POSITIONS = 2**16
"""Positions of the caches of a batch, at most; fewer trials are read together where they are longer."""


class Option(NamedTuple):
    """An answer to score: `tokens`, prompt included, of which the first `cut` stand in the cache.

    Likelihoods count from position `start` on.
    """

    tokens: list[int]
    cut: int
    start: int


class Branch(NamedTuple):
    """A prompt of which the first `cut` tokens stand in the cache; its options, `order` their numbers."""

    tokens: list[int]
    cut: int
    options: list[Option]
    order: list[int]


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """A trial as tokens: a shared prefix, branches with falling cuts, and which of them asks at which K.

    The branch of the options after the answer context alone, where there is one, is that of `None`.
    """

    prefix: list[int]
    branches: list[Branch]
    asked: dict[int | None, int]
    budget: int

    @property
    def shape(self) -> "Shape":
        """The smallest batch that holds it."""
        return Shape(
            prefix=len(self.prefix),
            branch=max(len(branch.tokens) - branch.cut for branch in self.branches),
            ends=tuple(
                max(len(branch.tokens) + self.budget, *(len(option.tokens) for option in branch.options))
                for branch in self.branches
            ),
            options=max(len(branch.options) for branch in self.branches),
            option=max(len(o.tokens) - o.cut for branch in self.branches for o in branch.options),
            new_tokens=self.budget,
        )


class Shape(NamedTuple):
    """Static sizes of a batch: prefix, branch, option and new tokens, and options a branch.

    `ends` has an entry a branch: where its longest prompt ends, with option or answer.
    """

    prefix: int
    branch: int
    ends: tuple[int, ...]
    options: int
    option: int
    new_tokens: int

    @property
    def positions(self) -> int:
        """Positions read for one trial."""
        return self.prefix + len(self.ends) * (self.branch + self.new_tokens + self.options * self.option)

    def groups(self, longest: int | None) -> tuple[tuple[int, int], ...]:
        """Branches that share a cache, as (number of branches, capacity): shorter ones get a smaller one.

        Args:
          longest: what the model's positions allow; None sets no limit.
        """
        room = max(self.branch + self.new_tokens, self.branch + self.option)
        capacities: list[int] = []
        for end in self.ends:
            needed = -(-(end + room) // _ROUNDED) * _ROUNDED
            smaller = not capacities or (needed <= _SHRINKS * capacities[-1] and capacities[-1] > _SMALL)
            capacities.append(needed if smaller else capacities[-1])
        capacities[0] = max(capacities[0], self.prefix + room)
        counted = Counter(min(capacity, longest or capacity) for capacity in capacities)
        return tuple((number, capacity) for capacity, number in counted.items())


@dataclasses.dataclass(frozen=True, slots=True)
class Scored:
    """What the model said of the tokens of an option (or of the gold answer and its delimiter).

    `log_likelihoods` (nats) and `argmax` (the model's first choice) have an entry a token.
    """

    tokens: list[int]
    log_likelihoods: NDArray[np.float32]
    argmax: Ints


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What the model said to one prompt.

    `options` are those of the example, in its order, or the gold answer alone; `unconditional` the same after
    the task's answer context. `generated` are the tokens of greedy decoding, stop token and padding included.
    """

    options: tuple[Scored, ...]
    unconditional: tuple[Scored, ...]
    generated: list[int]


def make_request(trial: Trial, tokenizer: Tokenizer, ks: Sequence[int]) -> Request:
    """The prompts of a trial for all K, cut to what they share."""
    prefix = trial.shared_prefix(tokenizer)
    branches: list[Branch] = []
    asked: dict[int | None, int] = {}
    held = prefix

    def add(found: Sequence[Tokens]) -> int:
        nonlocal held
        prompt = found[0].prompt
        cut = min(common_prefix(held, prompt), len(prompt) - 1)
        cuts = [min(common_prefix(prompt, each.full), each.gold_start - 1) for each in found]
        # By falling cuts: what an option overwrites lies behind the cuts of those after it.
        order = sorted(range(len(found)), key=lambda i: -cuts[i])
        options = [Option(found[i].full, cuts[i], found[i].gold_start) for i in order]
        held = prompt[: min(cuts)]
        branches.append(Branch(prompt, cut, options, order))
        return len(branches) - 1

    for k in sorted({min(k, trial.max_k) for k in ks}, reverse=True):
        asked[k] = add(trial.options(tokenizer, k))
    if unconditional := trial.unconditional(tokenizer):
        asked[None] = add(unconditional)
    return Request(prefix, branches, asked, trial.budget)


def stop_ids(tokenizer: Tokenizer, delimiter: str) -> tuple[int, ...]:
    """Tokens that end an answer: the delimiter where it is one token, and the start of another segment."""
    delimiter_ids = tokenizer.encode(delimiter)
    return (*delimiter_ids, tokenizer.start_id) if len(delimiter_ids) == 1 else (tokenizer.start_id,)


def answer_text(tokenizer: Tokenizer, generated: Sequence[int], budget: int, delimiter: str) -> str:
    """The generated answer as text: within its budget, and up to the delimiter."""
    kept = list(generated[:budget])
    if tokenizer.start_id in kept:
        kept = kept[: kept.index(tokenizer.start_id)]
    return tokenizer.decode(kept).split(delimiter, 1)[0]


class Scorer:
    """A model that answers requests, `rows` at a time."""

    def __init__(self, config: ModelConfig, params: Any, rows: int, pad_id: int) -> None:
        self._config = config
        self._params = params
        self._rows = rows
        self._pad_id = pad_id

    def answers(
        self, requests: Sequence[Request], shape: Shape, stops: tuple[int, ...]
    ) -> Iterator[tuple[int, dict[int, Answer]]]:
        """Answers by effective K, each with the number of its request; they do not depend on rows or shape.

        Requests with the same prefix, as those of a fixed set of demonstrations, are read together from one
        prefill, so answers come in another order than the requests.

        Args:
          requests: What to ask; each fits into `shape`.
          shape: Static sizes, of which each different one is compiled once.
          stops: Tokens that end generation.
        """
        config = self._config
        groups = shape.groups(config.max_length if config.positions == "learned" else None)
        rows = max(1, min(self._rows, _MAX_POSITIONS // groups[0][1]))
        while rows // 4 >= len(requests):  # by quarters, as each number of rows is compiled
            rows //= 4
        pending: tuple[Sequence[int], Sequence[Request], _Batch, Any] | None = None
        for numbers, is_shared in _chunks(requests, rows):
            chunk = [requests[number] for number in numbers]
            batch = _pack(chunk, shape, groups, rows, self._pad_id)
            # Dispatched before the answers to the batch before are read, which the device need not wait for.
            outputs = _read(config, groups, shape.new_tokens, stops, is_shared, self._params, batch)
            if pending:
                yield from zip(pending[0], _unpack(*pending[1:]), strict=True)
            pending = numbers, chunk, batch, outputs
        if pending:
            yield from zip(pending[0], _unpack(*pending[1:]), strict=True)


def _chunks(requests: Sequence[Request], rows: int) -> Iterator[tuple[list[int], bool]]:
    """Numbers of requests to read together, and whether all of them have one prefix."""
    by_prefix: dict[tuple[int, ...], list[int]] = {}
    for number, request in enumerate(requests):
        by_prefix.setdefault(tuple(request.prefix), []).append(number)
    others = []
    for numbers in by_prefix.values():
        if len(numbers) < min(rows, _FEWEST_SHARED):
            others += numbers
        else:
            yield from ((numbers[i : i + rows], True) for i in range(0, len(numbers), rows))
    others.sort()
    yield from ((others[i : i + rows], False) for i in range(0, len(others), rows))


class _Batch(NamedTuple):
    """Requests as arrays of int32; numpy on the way in, of jax within `jit`."""

    prefix_BP: Any
    prefix_lengths_B: Any
    branches: "_Branches"


class _Branches(NamedTuple):
    """Branches as arrays: where the cache is cut, what is appended and how much; and their options."""

    cuts_KB: Any
    tokens_KBT: Any
    counts_KB: Any
    option_cuts_KOB: Any
    options_KOBU: Any
    option_counts_KOB: Any


def _pack(
    requests: Sequence[Request], shape: Shape, groups: tuple[tuple[int, int], ...], rows: int, pad_id: int
) -> _Batch:
    """Pads requests to the shape; rows, branches and options without a request read one pad token."""
    prefix_BP = np.full((rows, shape.prefix), pad_id, np.int32)
    prefix_lengths_B = np.ones(rows, np.int32)
    capacities = [capacity for number, capacity in groups for _ in range(number)]
    number = len(capacities)
    branches = _Branches(
        np.zeros((number, rows), np.int32),
        np.full((number, rows, shape.branch), pad_id, np.int32),
        np.ones((number, rows), np.int32),
        np.zeros((number, shape.options, rows), np.int32),
        np.full((number, shape.options, rows, shape.option), pad_id, np.int32),
        np.ones((number, shape.options, rows), np.int32),
    )
    for row, request in enumerate(requests):
        prefix_BP[row, : len(request.prefix)] = request.prefix
        prefix_lengths_B[row] = len(request.prefix)
        for k, (branch, capacity) in enumerate(zip(request.branches, capacities, strict=False)):
            # A cache that ends with the context has no room behind it for padding: read more again instead.
            cut = min(branch.cut, capacity - shape.branch)
            tokens = branch.tokens[cut:]
            branches.cuts_KB[k, row], branches.counts_KB[k, row] = cut, len(tokens)
            branches.tokens_KBT[k, row, : len(tokens)] = tokens
            # An option that is none reads a pad token where the last one did, which nothing reads after it.
            branches.option_cuts_KOB[k, :, row] = min(branch.options[-1].cut, capacity - shape.option)
            for o, option in enumerate(branch.options):
                cut = min(option.cut, capacity - shape.option)
                tokens = option.tokens[cut:]
                branches.option_cuts_KOB[k, o, row] = cut
                branches.option_counts_KOB[k, o, row] = len(tokens)
                branches.options_KOBU[k, o, row, : len(tokens)] = tokens
    return _Batch(prefix_BP, prefix_lengths_B, branches)


class _Outputs(NamedTuple):
    """What the model says of each option, by position of the *next* token; and greedily after each branch."""

    log_likelihoods_KOBU: Any
    argmax_KOBU: Any
    generated_KBN: Any


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _read(
    config: ModelConfig,
    groups: tuple[tuple[int, int], ...],
    new_tokens: int,
    stops: tuple[int, ...],
    is_shared: bool,
    params: Any,
    batch: _Batch,
) -> _Outputs:
    rows = batch.prefix_BP.shape[0]
    first = slice(0, 1 if is_shared else rows)
    cache = model.init_cache(config, first.stop, groups[0][1])
    cache = model.prefill(config, params, cache, batch.prefix_BP[first], batch.prefix_lengths_B[first])
    if is_shared:
        cache = jax.tree.map(lambda array: jnp.repeat(array, rows, axis=0), cache)

    def branch(cache: model.Cache, xs: _Branches) -> tuple[model.Cache, _Outputs]:
        cache = cache.replace(lengths_B=xs.cuts_KB)
        last_BV, cache = model.extend_to_last(config, params, cache, xs.tokens_KBT, xs.counts_KB)
        generated_BN = jnp.zeros((rows, 0), jnp.int32)
        if new_tokens:
            cache, generated_BN = model.greedy(
                config, params, cache, last_BV, max_new_tokens=new_tokens, stop_ids=stops
            )
        options = xs.option_cuts_KOB, xs.options_KOBU, xs.option_counts_KOB
        cache, (log_likelihoods_OBU, argmax_OBU) = jax.lax.scan(option, cache, options)
        return cache, _Outputs(log_likelihoods_OBU, argmax_OBU, generated_BN)

    def option(cache: model.Cache, xs: tuple[Any, Any, Any]) -> tuple[model.Cache, tuple[Any, Any]]:
        cuts_B, tokens_BU, counts_B = xs
        cache = cache.replace(lengths_B=cuts_B)
        logits_BUV, cache = model.extend(config, params, cache, tokens_BU, counts_B)
        next_BU1 = jnp.roll(tokens_BU, -1, axis=1)[..., None]
        chosen_BU = jnp.take_along_axis(logits_BUV, next_BU1, axis=2)[..., 0]
        log_likelihoods_BU = chosen_BU - jax.nn.logsumexp(logits_BUV, axis=2)
        return cache, (log_likelihoods_BU, jnp.argmax(logits_BUV, axis=2).astype(jnp.int32))

    outputs, done = [], 0
    for number, capacity in groups:
        own = jax.tree.map(lambda array, at=slice(done, done + number): array[at], batch.branches)
        cache, output = jax.lax.scan(branch, model.crop(cache, capacity), own)
        outputs.append(output)
        done += number
    return jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *outputs)


def _unpack(requests: Sequence[Request], batch: _Batch, outputs: _Outputs) -> Iterator[dict[int, Answer]]:
    values = jax.tree.map(np.asarray, outputs)
    for row, request in enumerate(requests):
        scored = {k: _scored(request.branches[n], n, row, batch, values) for k, n in request.asked.items()}
        unconditional = scored.pop(None, ())
        yield {
            k: Answer(
                options,
                unconditional,
                np.asarray(values.generated_KBN[request.asked[k], row]).tolist(),
            )
            for k, options in scored.items()
            if k is not None
        }


def _scored(branch: Branch, number: int, row: int, batch: _Batch, values: _Outputs) -> tuple[Scored, ...]:
    """Reads options off the outputs; what is said of a token stands at the position before it."""
    found: dict[int, Scored] = {}
    for o, option in enumerate(branch.options):
        first = option.start - 1 - batch.branches.option_cuts_KOB[number, o, row]
        tokens = option.tokens[option.start :]
        at = np.s_[number, o, row, first : first + len(tokens)]
        found[branch.order[o]] = Scored(tokens, values.log_likelihoods_KOBU[at], values.argmax_KOBU[at])
    return tuple(found[i] for i in range(len(found)))


def choose_shapes(shapes: Mapping[Shape, int], at_most: int) -> list[Shape]:
    """At most so many shapes that hold all requests with little padding, the one with least to read first.

    Every shape is compiled for every model, so one more has to spare a fifth of the positions read.

    Args:
      shapes: The smallest shape of each request, with the number of requests.
      at_most: How many shapes.
    """
    groups = [sorted(shapes)]
    while len(groups) < at_most:
        total = sum(_positions(group, shapes) for group in groups)
        saved, chosen, at = max(
            (_positions(g, shapes) - _positions(g[:at], shapes) - _positions(g[at:], shapes), i, at)
            for i, g in enumerate(groups)
            for at in range(len(g))
        )
        if saved < 0.2 * total:
            break
        group = groups.pop(chosen)
        groups += [group[:at], group[at:]]
    return sorted((_cover(group) for group in groups), key=lambda shape: shape.positions)


def smallest_holding(shapes: Sequence[Shape], request: Request) -> Shape:
    """The first of the shapes that a request fits into."""
    return next(shape for shape in shapes if _cover([shape, request.shape]) == shape)


def _cover(shapes: Sequence[Shape]) -> Shape:
    """The smallest shape that holds all; its ends fall, as the branches of each shape do."""
    ends = [max(at) for at in itertools.zip_longest(*(shape.ends for shape in shapes), fillvalue=0)]
    falling = list(itertools.accumulate(reversed(ends), max))[::-1]
    largest = Shape(*(max(sizes) for sizes in zip(*shapes, strict=True)))
    return largest._replace(ends=tuple(falling))


def _positions(group: Sequence[Shape], counts: Mapping[Shape, int]) -> int:
    """Positions read for all requests of a group in the one shape that holds them."""
    return sum(counts[shape] for shape in group) * _cover(group).positions if group else 0
