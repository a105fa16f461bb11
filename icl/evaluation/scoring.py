"""Asks a model: likelihood of every option, and generation, for all prompts of a request from one prefill.

What the prompts of a request share is read once into a KV cache (`icl.evaluation.requests`). Then, branch
by branch, the cache is cut to what a prompt shares with what it holds, and the rest of the prompt is read.
From its end the model goes on by itself, where it has to; then the cache is cut to the prompt again and
again, and each option (or the gold answer) is read and scored. Single-token options need no reading: the end
of the prompt foretells them all.

Shapes: B rows (requests), P prefix positions, K branches, T branch positions, O options, U option positions,
N new tokens, V vocab.
"""

import dataclasses
import functools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from icl import model
from icl.data.keys import digest
from icl.data.tokenizer import Tokenizer
from icl.evaluation.requests import Branch, Key, Request, Shape, smallest_holding
from icl.model.config import ModelConfig
from icl.parallel import Partitioner

Ints = NDArray[np.int32]

_FEWEST_SHARED = 4
"""So many requests with one common prefix, or more, are read together if they fill a quarter of a batch."""
_STEP = 4
"""More rows than this are a multiple of it."""
_MAX_POSITIONS = 2**16
"""Positions of the caches of a batch, at most; fewer requests are read together where they are longer."""
_CERTAIN = 1e9
"""A logit beside which all others vanish."""


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How text is generated: greedily, by beam search, or sampled (`icl.model.decoding`).

    `end_id` fills what follows the end of a text: one of the tokenizer's that end one.
    """

    end_id: int
    beam_width: int = 1
    length_penalty: float = 0.6
    length_rule: Literal["gnmt", "hf"] = "gnmt"
    temperature: float = 0.0

    @property
    def name(self) -> str:
        """What records call it."""
        if self.beam_width > 1:
            return f"beam:{self.beam_width}:{self.length_rule}:{self.length_penalty:g}"
        return f"sample:{self.temperature:g}" if self.temperature else "greedy"


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

    `options` are in the order in which they were asked. `generated` are the tokens of decoding, stop token
    and padding included; none where nothing was to be generated.
    """

    options: tuple[Scored, ...]
    generated: list[int]


def answer_text(tokenizer: Tokenizer, generated: Sequence[int], budget: int, delimiter: str) -> str:
    """The generated answer as text: within its budget, and up to the delimiter."""
    return tokenizer.continuation(until_end(tokenizer, generated[:budget])).split(delimiter, 1)[0]


def until_end(tokenizer: Tokenizer, generated: Sequence[int]) -> Sequence[int]:
    """Generated tokens before the first one that ends a text."""
    ends = (place for place, token in enumerate(generated) if token in tokenizer.end_ids)
    return generated[: next(ends, len(generated))]


class Scorer:
    """A model that answers requests, up to `rows` at a time."""

    def __init__(
        self,
        config: ModelConfig,
        params: Any,
        rows: int,
        pad_id: int,
        partitioner: Partitioner | None = None,
    ) -> None:
        """With a partitioner, rows are split over its batch axes; parameters stay as they are placed."""
        self._config = config
        self._params = params
        self._pad_id = pad_id
        self._partitioner = partitioner
        self._multiple = 1 if partitioner is None else partitioner.batch_divisor
        self._rows = -(-rows // self._multiple) * self._multiple

    def answers(
        self,
        requests: Sequence[Request],
        shapes: Sequence[Shape],
        transitions_SV: Ints,
        decoding: Decoding,
    ) -> Iterator[tuple[int, dict[Key, Answer]]]:
        """Answers by key, each with the number of its request; they do not depend on rows or shapes.

        Requests with a common prefix, those of a fixed set of demonstrations, are read together: its keys and
        values stand once for all of them. So answers come in another order than the requests.

        Args:
          requests: What to ask; each fits into one of the shapes.
          shapes: Static sizes, of which each different one is compiled once.
          transitions_SV: The automaton that stops generated text (`icl.evaluation.stops`).
          decoding: How text is generated.
        """
        by_shape: dict[Shape, list[int]] = defaultdict(list)
        for number, request in enumerate(requests):
            by_shape[smallest_holding(shapes, request)].append(number)
        pending: tuple[Sequence[int], Sequence[Request], _Batch, Any] | None = None
        for shape, numbers, groups, rows, is_shared in self._batches(requests, by_shape, decoding):
            chunk = [requests[number] for number in numbers]
            batch = _pack(chunk, shape, groups, rows, self._pad_id, is_shared)
            room = shape.branch + max(shape.new_tokens, shape.option) if is_shared else 0
            # Dispatched before the answers to the batch before are read, which the device need not wait for.
            outputs = _read(
                self._config,
                self._partitioner,
                groups,
                shape.new_tokens,
                decoding,
                room,
                self._multiple if is_shared else rows,
                self._params,
                self._placed(batch),
                self._placed_table(transitions_SV),
            )
            if pending:
                yield from zip(pending[0], _unpack(*pending[1:]), strict=True)
            pending = numbers, chunk, batch, outputs
        if pending:
            yield from zip(pending[0], _unpack(*pending[1:]), strict=True)

    def _batches(
        self, requests: Sequence[Request], by_shape: Mapping[Shape, Sequence[int]], decoding: Decoding
    ) -> Iterator[tuple[Shape, list[int], tuple[tuple[int, int], ...], int, bool]]:
        """Shape, numbers of requests, groups of branches, rows, and whether all have one prefix."""
        config = self._config
        for shape, numbers in by_shape.items():
            groups = shape.groups(config.max_length if config.positions == "learned" else None)
            positions = groups[0][1] * (decoding.beam_width if shape.new_tokens else 1)
            rows = _even(len(numbers), max(1, min(self._rows, _MAX_POSITIONS // positions)))
            rows = -(-rows // self._multiple) * self._multiple
            for chunk, is_shared in _chunks([requests[number] for number in numbers], rows):
                yield shape, [numbers[i] for i in chunk], groups, rows, is_shared

    def _placed(self, batch: "_Batch") -> "_Batch":
        """The batch on the devices: rows over the batch axes, whichever axis of an array they are."""
        if self._partitioner is None:
            return batch
        axes = _Batch(
            ("batch", None),
            ("batch",),
            _Branches(
                (None, "batch"),
                (None, "batch", None),
                (None, "batch"),
                (None, "batch"),
                (None, "batch"),
                (None, None, "batch"),
                (None, None, "batch", None),
                (None, None, "batch"),
            ),
        )
        is_axes = lambda x: isinstance(x, tuple) and not hasattr(x, "_fields")  # noqa: E731
        return jax.tree.map(self._place, axes, batch, is_leaf=is_axes)

    def _placed_table(self, transitions_SV: Ints) -> Any:
        return transitions_SV if self._partitioner is None else self._place((None, None), transitions_SV)

    def _place(self, axes: tuple[str | None, ...], array: NDArray[Any]) -> jax.Array:
        """A host's array as one of all devices; each host holds the same, and gives its own devices' part."""
        assert self._partitioner is not None
        sharding = self._partitioner.sharding(axes)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def _even(number: int, most: int) -> int:
    """Rows of batches that are about equally full; in steps, as each number of rows is compiled."""
    rows = -(-number // -(-number // most))
    return rows if rows <= _STEP else min(most, -(-rows // _STEP) * _STEP)


def fewest_shared(rows: int) -> int:
    """How many requests with one common prefix are read together, in batches of so many rows."""
    return min(rows, max(_FEWEST_SHARED, rows // 4))


def _chunks(requests: Sequence[Request], rows: int) -> Iterator[tuple[list[int], bool]]:
    """Numbers of requests to read together, and whether all of them have one prefix."""
    by_prefix: dict[tuple[int, ...], list[int]] = {}
    for number, request in enumerate(requests):
        by_prefix.setdefault(tuple(request.prefix), []).append(number)
    others = []
    for numbers in by_prefix.values():
        if not requests[numbers[0]].is_common or len(numbers) < fewest_shared(rows):
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
    """Branches as arrays: where the cache is cut, what is appended and how much; and their options.

    `seeds_KB` are those of sampling, `generates_KB` says whether there is anything to generate, `firsts_KOB`
    are the tokens that the end of the prompt foretells.
    """

    cuts_KB: Any
    tokens_KBT: Any
    counts_KB: Any
    generates_KB: Any
    seeds_KB: Any
    option_cuts_KOB: Any
    options_KOBU: Any
    firsts_KOB: Any


def _pack(
    requests: Sequence[Request],
    shape: Shape,
    groups: tuple[tuple[int, int], ...],
    rows: int,
    pad_id: int,
    is_shared: bool,
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
        np.zeros((number, rows), np.int32),
        np.zeros((number, rows), np.int32),
        np.zeros((number, shape.options, rows), np.int32),
        np.full((number, shape.options, rows, shape.option + 1), pad_id, np.int32),
        np.zeros((number, shape.options, rows), np.int32),
    )
    for row, request in enumerate(requests):
        prefix_BP[row, : len(request.prefix)] = request.prefix
        prefix_lengths_B[row] = len(request.prefix)
        for k, (branch, capacity) in enumerate(zip(request.branches, capacities, strict=False)):
            # A cache that ends with the context has no room behind it for padding: read more again instead.
            # What goes on from a common prefix has room of its own.
            latest = 2**30 if is_shared else capacity
            cut = min(branch.cut, latest - shape.branch)
            tokens = branch.tokens[cut:]
            branches.cuts_KB[k, row], branches.counts_KB[k, row] = cut, len(tokens)
            branches.tokens_KBT[k, row, : len(tokens)] = tokens
            branches.generates_KB[k, row] = branch.generates
            branches.seeds_KB[k, row] = _seed(branch)
            # An option that is none reads a pad token where the last one did, which nothing reads after it.
            last_cut = branch.options[-1].cut if branch.options else cut
            branches.option_cuts_KOB[k, :, row] = _read_from(last_cut, shape, latest)
            for o, option in enumerate(branch.options):
                branches.firsts_KOB[k, o, row] = option.tokens[min(option.cut, len(option.tokens) - 1)]
                cut = _read_from(option.cut, shape, latest)
                tokens = option.tokens[cut:]  # the last one only as the target of the one before
                branches.option_cuts_KOB[k, o, row] = cut
                branches.options_KOBU[k, o, row, : len(tokens)] = tokens
    return _Batch(prefix_BP, prefix_lengths_B, branches)


def _read_from(cut: int, shape: Shape, capacity: int) -> int:
    return min(cut, capacity - shape.option)


def _seed(branch: Branch) -> int:
    """A number that prompt and draw decide, so that what is sampled does not depend on the batch."""
    draw = (branch.draw,) if branch.draw else ()
    return int(digest("sample", np.asarray(branch.tokens, np.int32).tobytes(), *draw)[:7], 16)


class _Outputs(NamedTuple):
    """What the model says of each option, by position of the *next* token; and what it generates.

    `first_*` is said at the end of the prompt, of each option's first token.
    """

    first_KOB: Any
    first_argmax_KB: Any
    log_likelihoods_KOBU: Any
    argmax_KOBU: Any
    generated_KBN: Any


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4, 5, 6))
def _read(
    config: ModelConfig,
    partitioner: Partitioner | None,
    groups: tuple[tuple[int, int], ...],
    new_tokens: int,
    decoding: Decoding,
    own_positions: int,
    prefill_rows: int,
    params: Any,
    batch: _Batch,
    transitions_SV: Any,
) -> _Outputs:
    """Reads a batch; with `own_positions`, rows that begin as the first does, with that much room behind."""
    rows = batch.prefix_BP.shape[0]
    first = slice(0, prefill_rows)
    cache = model.init_cache(config, prefill_rows, groups[0][1])
    cache = model.prefill(
        config, params, cache, batch.prefix_BP[first], batch.prefix_lengths_B[first], partitioner
    )
    if own_positions:
        cache = model.share(config, cache, rows, own_positions)

    def branch(cache: model.Cache, xs: _Branches) -> tuple[model.Cache, _Outputs]:
        cache = cache.cut(xs.cuts_KB) if own_positions else cache.replace(lengths_B=xs.cuts_KB)
        last_BV, cache = model.extend_to_last(config, params, cache, xs.tokens_KBT, xs.counts_KB, partitioner)
        generated_BN = jnp.zeros((rows, 0), jnp.int32)
        if new_tokens:
            # Where nothing is to be generated, the end of text is certain.
            ended_V = jnp.zeros(last_BV.shape[1]).at[decoding.end_id].set(_CERTAIN)
            from_BV = jnp.where(xs.generates_KB[:, None] > 0, last_BV, ended_V[None])
            cache, generated_BN = _generate(
                config, params, cache, from_BV, xs.seeds_KB, new_tokens, transitions_SV, decoding, partitioner
            )
        of_next_BV = jax.nn.log_softmax(last_BV)
        first_OB = jnp.take_along_axis(of_next_BV, xs.firsts_KOB.T, axis=1).T
        first_argmax_B = jnp.argmax(last_BV, axis=1).astype(jnp.int32)
        options = xs.option_cuts_KOB, xs.options_KOBU
        if xs.options_KOBU.shape[-1] == 1:
            none_OBU = jnp.zeros((*xs.option_cuts_KOB.shape, 0))
            read = none_OBU, none_OBU.astype(jnp.int32)
        else:
            cache, read = jax.lax.scan(option, cache, options)
        return cache, _Outputs(first_OB, first_argmax_B, *read, generated_BN)

    def option(cache: model.Cache, xs: tuple[Any, Any]) -> tuple[model.Cache, tuple[Any, Any]]:
        cuts_B, tokens_BU = xs
        cache = cache.replace(lengths_B=cuts_B)
        *found, cache = model.extend_and_score(config, params, cache, tokens_BU, partitioner)
        return cache, (found[0], found[1])

    outputs, done = [], 0
    for number, capacity in groups:
        part = jax.tree.map(lambda array, at=slice(done, done + number): array[at], batch.branches)
        cache, output = jax.lax.scan(branch, model.crop(cache, capacity), part)
        outputs.append(output)
        done += number
    result = jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *outputs)
    if partitioner is not None:  # every host reads all of it
        whole = partitioner.replicated
        result = jax.tree.map(lambda array: jax.lax.with_sharding_constraint(array, whole), result)
    return result


def _generate(
    config: ModelConfig,
    params: Any,
    cache: model.Cache,
    last_BV: Any,
    seeds_B: Any,
    new_tokens: int,
    transitions_SV: Any,
    decoding: Decoding,
    partitioner: Partitioner | None,
) -> tuple[model.Cache, Any]:
    """Goes on from the end of the prompts; the cache may be longer after that."""
    common: dict[str, Any] = {
        "max_new_tokens": new_tokens,
        "transitions_SV": transitions_SV,
        "end_id": decoding.end_id,
        "partitioner": partitioner,
    }
    if decoding.beam_width > 1:
        found = model.beam_search(
            config,
            params,
            cache,
            last_BV,
            width=decoding.beam_width,
            length_penalty=decoding.length_penalty,
            length_rule=decoding.length_rule,
            **common,
        )
        return cache, found.tokens_BN
    if decoding.temperature:
        keys_B = jax.vmap(jax.random.key)(seeds_B)
        return model.sample(
            config, params, cache, last_BV, temperature=decoding.temperature, keys_B=keys_B, **common
        )
    return model.greedy(config, params, cache, last_BV, **common)


def _unpack(requests: Sequence[Request], batch: _Batch, outputs: _Outputs) -> Iterator[dict[Key, Answer]]:
    values = jax.tree.map(np.asarray, outputs)
    for row, request in enumerate(requests):
        yield {
            branch.key: Answer(
                _scored(branch, n, row, batch, values),
                values.generated_KBN[n, row].tolist() if branch.generates else [],
            )
            for n, branch in enumerate(request.branches)
        }


def _scored(branch: Branch, number: int, row: int, batch: _Batch, values: _Outputs) -> tuple[Scored, ...]:
    """Reads options off the outputs; what is said of a token stands at the position before it."""
    found: dict[int, Scored] = {}
    for o, option in enumerate(branch.options):
        at = number, o, row
        read_from = int(batch.branches.option_cuts_KOB[at])
        first = option.start - 1 - read_from  # before all that is read: the end of the prompt
        reads = slice(max(first, 0), first + len(option.tokens) - option.start)
        log_likelihoods, argmax = values.log_likelihoods_KOBU[at][reads], values.argmax_KOBU[at][reads]
        if first < 0:
            log_likelihoods = np.concatenate([values.first_KOB[at][None], log_likelihoods])
            argmax = np.concatenate([values.first_argmax_KB[number, row][None], argmax])
        found[branch.order[o]] = Scored(option.tokens[option.start :], log_likelihoods, argmax)
    return tuple(found[i] for i in range(len(found)))
