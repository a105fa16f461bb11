"""Asks a model: likelihood of the gold answer, and greedy generation, at every K from one prefill.

The demonstrations of a trial are read once into a KV cache. Then, from the largest K down, the cache is cut
to what the prompt for K shares with them, the rest of the prompt and the gold answer are appended and
scored, and the model goes on from the end of the prompt. What one branch overwrites lies behind the cut of
every later one, so one cache serves all K in place.

Shapes: B rows (trials), P prefix positions, K branches, T branch positions, N new tokens, V vocab.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from icl import model
from icl.data.tokenizer import Tokenizer
from icl.evaluation.plan import Trial
from icl.evaluation.prompts import common_prefix
from icl.model.config import ModelConfig

Ints = NDArray[np.int32]


class Branch(NamedTuple):
    """One continuation of the shared prefix: `tokens` whole, of which the first `cut` stand in the cache.

    Generation goes on at position `resume`, from the `resume` tokens before it.
    """

    tokens: list[int]
    cut: int
    resume: int


class Question(NamedTuple):
    """Where the answers to a prompt stand.

    The gold one from `gold_start` on in branch `scored`, the generated one after branch `resumed`: two
    branches only where the tokenizer merges across the seam between prompt and answer.
    """

    scored: int
    gold_start: int
    resumed: int


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """A trial as tokens: a shared prefix, branches with falling cuts, and a question an effective K."""

    prefix: list[int]
    branches: list[Branch]
    questions: dict[int, Question]
    budget: int

    @property
    def shape(self) -> "Shape":
        """The smallest batch that holds it."""
        longest = max(len(branch.tokens) - branch.cut for branch in self.branches)
        return Shape(len(self.prefix), longest, len(self.branches), self.budget)


class Shape(NamedTuple):
    """Static sizes of a batch: prefix, branch and new tokens, and branches a trial."""

    prefix: int
    branch: int
    branches: int
    new_tokens: int

    @property
    def positions(self) -> int:
        """Positions read for one trial."""
        return self.prefix + self.branches * (self.branch + self.new_tokens)


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What the model said to one prompt.

    `gold`, `log_likelihoods` (nats) and `argmax` (the model's first choice) have an entry a gold token;
    `generated` are the tokens of greedy decoding, stop token and padding included.
    """

    gold: list[int]
    log_likelihoods: NDArray[np.float32]
    argmax: Ints
    generated: list[int]


def make_request(trial: Trial, tokenizer: Tokenizer, ks: Sequence[int]) -> Request:
    """The prompts of a trial for all K, cut to what they share."""
    prefix = trial.shared_prefix(tokenizer)
    branches: list[Branch] = []
    questions: dict[int, Question] = {}

    def add(tokens: list[int], resume: int, limit: int) -> int:
        deepest = branches[-1].cut if branches else len(prefix)
        cut = min(common_prefix(prefix, tokens), limit, deepest)
        branches.append(Branch(tokens, cut, resume))
        return len(branches) - 1

    for k in sorted({min(k, trial.max_k) for k in ks}, reverse=True):
        tokens = trial.tokens(tokenizer, k)
        end = len(tokens.prompt)
        scored = resumed = add(tokens.full, min(end, len(tokens.full)), min(tokens.gold_start, end) - 1)
        if tokens.gold_start < end:
            resumed = add(tokens.prompt, end, end - 1)
        questions[k] = Question(scored, tokens.gold_start, resumed)
    return Request(prefix, branches, questions, trial.budget)


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
    ) -> Iterator[dict[int, Answer]]:
        """Answers by effective K, in the order of the requests; they do not depend on rows or shape.

        Args:
          requests: What to ask; each fits into `shape`.
          shape: Static sizes, of which each different one is compiled once.
          stops: Tokens that end generation.
        """
        chunks = [requests[i : i + self._rows] for i in range(0, len(requests), self._rows)]
        pending: tuple[Sequence[Request], _Batch, Any] | None = None
        for chunk in chunks:
            batch = _pack(chunk, shape, self._rows, self._capacity(shape), self._pad_id)
            # Dispatched before the answers to the batch before are read, which the device need not wait for.
            outputs = _read(self._config, self._capacity(shape), shape.new_tokens, stops, self._params, batch)
            if pending:
                yield from _unpack(*pending)
            pending = chunk, batch, outputs
        if pending:
            yield from _unpack(*pending)

    def _capacity(self, shape: Shape) -> int:
        needed = shape.prefix + shape.branch + shape.new_tokens
        return min(needed, self._config.max_length) if self._config.positions == "learned" else needed


class _Batch(NamedTuple):
    """Requests as arrays of int32; numpy on the way in, of jax within `jit`."""

    prefix_BP: Any
    prefix_lengths_B: Any
    branches: "_Branches"


class _Branches(NamedTuple):
    """Branches as arrays: where the cache is cut, what is appended and how much, where generation goes on."""

    cuts_KB: Any
    tokens_KBT: Any
    counts_KB: Any
    resume_KB: Any


def _pack(requests: Sequence[Request], shape: Shape, rows: int, capacity: int, pad_id: int) -> _Batch:
    """Pads requests to the shape; rows and branches without a request read one pad token."""
    prefix_BP = np.full((rows, shape.prefix), pad_id, np.int32)
    prefix_lengths_B = np.ones(rows, np.int32)
    branches = _Branches(
        np.zeros((shape.branches, rows), np.int32),
        np.full((shape.branches, rows, shape.branch), pad_id, np.int32),
        np.ones((shape.branches, rows), np.int32),
        np.ones((shape.branches, rows), np.int32),
    )
    for row, request in enumerate(requests):
        prefix_BP[row, : len(request.prefix)] = request.prefix
        prefix_lengths_B[row] = len(request.prefix)
        for k, branch in enumerate(request.branches):
            # A cache that ends with the context has no room behind it for padding: read more again instead.
            cut = min(branch.cut, capacity - shape.branch)
            tokens = branch.tokens[cut:]
            branches.cuts_KB[k, row], branches.counts_KB[k, row] = cut, len(tokens)
            branches.tokens_KBT[k, row, : len(tokens)] = tokens
            branches.resume_KB[k, row] = branch.resume
    return _Batch(prefix_BP, prefix_lengths_B, branches)


class _Outputs(NamedTuple):
    """What the model says of each branch: by position of the *next* token, and greedily from `resume`."""

    log_likelihoods_KBT: Any
    argmax_KBT: Any
    generated_KBN: Any


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _read(
    config: ModelConfig, capacity: int, new_tokens: int, stops: tuple[int, ...], params: Any, batch: _Batch
) -> _Outputs:
    cache = model.init_cache(config, batch.prefix_BP.shape[0], capacity)
    _, cache = model.extend(config, params, cache, batch.prefix_BP, batch.prefix_lengths_B)

    def branch(cache: model.Cache, xs: _Branches) -> tuple[model.Cache, _Outputs]:
        cuts_B, tokens_BT, counts_B, resume_B = xs
        cache = cache.replace(lengths_B=cuts_B)
        logits_BTV, cache = model.extend(config, params, cache, tokens_BT, counts_B)
        logits_BTV = logits_BTV.astype(jnp.float32)
        next_BT1 = jnp.roll(tokens_BT, -1, axis=1)[..., None]
        chosen_BT = jnp.take_along_axis(logits_BTV, next_BT1, axis=2)[..., 0]
        log_likelihoods_BT = chosen_BT - jax.nn.logsumexp(logits_BTV, axis=2)
        last_B11 = (resume_B - cuts_B - 1)[:, None, None]
        last_BV = jnp.take_along_axis(logits_BTV, last_B11, axis=1)[:, 0]
        generated_BN = model.greedy(
            config,
            params,
            cache.replace(lengths_B=resume_B),
            last_BV,
            max_new_tokens=new_tokens,
            stop_ids=stops,
        )
        argmax_BT = jnp.argmax(logits_BTV, axis=2).astype(jnp.int32)
        return cache, _Outputs(log_likelihoods_BT, argmax_BT, generated_BN)

    return jax.lax.scan(branch, cache, batch.branches)[1]


def _unpack(requests: Sequence[Request], batch: _Batch, outputs: _Outputs) -> Iterator[dict[int, Answer]]:
    values = jax.tree.map(np.asarray, outputs)
    for row, request in enumerate(requests):
        yield {
            k: _answer(request.branches[question.scored], question, row, batch, values)
            for k, question in request.questions.items()
        }


def _answer(branch: Branch, question: Question, row: int, batch: _Batch, values: _Outputs) -> Answer:
    """Reads an answer off the outputs; what is said of a token stands at the position before it."""
    first = question.gold_start - 1 - batch.branches.cuts_KB[question.scored, row]
    gold = branch.tokens[question.gold_start :]
    of_gold = np.s_[question.scored, row, first : first + len(gold)]
    generated = values.generated_KBN[question.resumed, row]
    return Answer(
        gold, values.log_likelihoods_KBT[of_gold], values.argmax_KBT[of_gold], np.asarray(generated).tolist()
    )


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
    return Shape(*(max(sizes) for sizes in zip(*shapes, strict=True)))


def _positions(group: Sequence[Shape], counts: Mapping[Shape, int]) -> int:
    """Positions read for all requests of a group in the one shape that holds them."""
    return sum(counts[shape] for shape in group) * _cover(group).positions if group else 0
