"""Function vectors: what a few heads write at the end of few-shot prompts, and what it does elsewhere.

After Todd et al. 2023 (arXiv 2310.15213): the mean output of every head over prompts of one task; its effect
in prompts whose labels are shuffled, which say nothing of the task; and the sum of the strongest heads, added
to prompts without demonstrations. Yin and Steinhardt 2025 (arXiv 2502.14010) compare these heads with
induction heads by ablating the one and the other (`icl.analysis.losses`, `icl.analysis.heads`).

Shapes: L layers, B prompts, T positions, D embed, H heads, K head size, V vocab.
"""

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from icl.analysis.hooks import Edit, Site, add, only, patch, run_with_hooks, whole_rows, written_by_heads
from icl.data.episodes import EpisodeWriter
from icl.data.keys import generator
from icl.data.tokenizer import Tokenizer
from icl.errors import InputError
from icl.model.config import ModelConfig
from icl.model.transformer import Params, unembed
from icl.tasks.task import Example, Task, TaskInstance

_MOST_DRAWN = 1000


class Prompts(NamedTuple):
    """Prompts of one length: `inputs_BT` (what stands behind `last_B` is padding) and their answers.

    `last_B` is the last position of each prompt, `answers_B` the first token of its right answer. A space
    that all answers begin with still belongs to the prompt, where it is a token of its own.
    """

    inputs_BT: np.ndarray
    last_B: np.ndarray
    answers_B: np.ndarray


class Effect(NamedTuple):
    """What an intervention does to the first token of the answer, as means over prompts (0..1)."""

    probability_before: float
    probability_after: float
    accuracy_before: float
    accuracy_after: float


def draw_prompts(
    task: Task,
    instance: TaskInstance,
    tokenizer: Tokenizer,
    *,
    demonstrations: int,
    count: int,
    shuffled: bool = False,
    seed: int = 0,
) -> Prompts:
    """Prompts of one task instance, written as in training rows, without instruction.

    Prompt i has the same demonstrations and query with shuffled labels and without. The query is one to test:
    where an instance keeps such apart, training never showed it.

    Args:
        task: how examples are written.
        instance: what they belong to.
        tokenizer: turns them into tokens.
        demonstrations: before each query.
        count: how many prompts.
        shuffled: whether the demonstrations' answers are permuted among them, so that none keeps its place.
        seed: decides which examples.

    Raises:
        InputError: the instance has too few examples, or there are too few demonstrations to shuffle.
    """
    if shuffled and demonstrations < 2:
        raise InputError(f"prompts with shuffled labels: {demonstrations} demonstrations; expected 2 or more")
    writer = EpisodeWriter(tokenizer)
    shared = tuple(tokenizer.encode(task.template.target_prefix))
    rows: list[list[int]] = []
    answers: list[int] = []
    for number in range(count):
        rng = generator("function vectors", task.name, instance.name, seed, number)
        shown = list(itertools.islice(_distinct(instance.demonstrations(rng)), demonstrations))
        inputs = {example.input for example in shown}
        asked = (one for one in _distinct(instance.episode(rng)) if one.input not in inputs)
        query = next(asked, None)
        if len(shown) < demonstrations or query is None:
            found = len(shown) + (query is not None)
            raise InputError(
                f"task {task.name!r} ({instance.name}): {found} examples; expected at least"
                f" {demonstrations + 1}, demonstrations and a query"
            )
        targets = [writer.answer(task.template, example) for example in shown]
        if shuffled:
            targets = _deranged(targets, rng)
        row = [tokenizer.start_id]
        for example, target in zip(shown, targets, strict=True):
            row += [*writer.context(task.template, example), *target]
        answer = writer.answer(task.template, query)
        lead = len(shared) if answer[: len(shared)] == shared else 0
        rows.append([*row, *writer.context(task.template, query), *answer[:lead]])
        answers.append(answer[lead])
    length = max(map(len, rows))
    padded = [row + [tokenizer.pad_id] * (length - len(row)) for row in rows]
    return Prompts(
        np.array(padded, np.int32), np.array([len(row) - 1 for row in rows]), np.array(answers, np.int32)
    )


@functools.partial(jax.jit, static_argnames=("config",))
def mean_last_outputs(config: ModelConfig, params: Params, prompts: Prompts) -> jax.Array:
    """The mean output of each head at the last position of prompts, [layers, heads, head size]."""
    last_B = jnp.asarray(prompts.last_B)

    def at_last(o_BTHK: jax.Array) -> jax.Array:
        taken_B1HK = jnp.take_along_axis(o_BTHK, last_B[:, None, None, None], axis=1)
        return taken_B1HK.astype(jnp.float32).mean(axis=(0, 1))

    return run_with_hooks(
        config, params, *whole_rows(config, prompts.inputs_BT), capture={"heads": at_last}
    ).activations["heads"]


def indirect_effects(
    config: ModelConfig, params: Params, prompts: Prompts, means_LHK: jax.Array
) -> np.ndarray:
    """What each head's mean output does in prompts that say nothing of the task, [layers, heads].

    The mean rise in the probability of the answer's first token when one head puts out its mean at the last
    position (Todd et al., equations 3 and 4; "average indirect effect" once averaged over tasks).

    Args:
        config: the model.
        params: its parameters.
        prompts: with shuffled labels.
        means_LHK: mean outputs in prompts of the task (`mean_last_outputs`).
    """
    before = answer_probabilities(config, params, prompts)[0]
    shape = config.num_layers, config.num_heads
    after = [
        _patched(config, params, prompts, means_LHK, (jnp.arange(np.prod(shape)) == n).reshape(shape))
        for n in range(int(np.prod(shape)))
    ]
    return np.array([float(np.mean(p_B - before)) for p_B in jax.device_get(after)]).reshape(shape)


def top_heads(scores_LH: np.ndarray, count: int) -> list[tuple[int, int]]:
    """The heads of the highest scores as (layer, head), the highest first; of equal ones earlier heads."""
    order = np.argsort(-np.asarray(scores_LH, np.float64).ravel(), kind="stable")[:count]
    return [(int(n) // scores_LH.shape[1], int(n) % scores_LH.shape[1]) for n in order]


def function_vector(
    config: ModelConfig, params: Params, means_LHK: jax.Array, heads: Sequence[tuple[int, int]]
) -> jax.Array:
    """The sum of what these heads write into the residual stream, [embed] (Todd et al., equation 5)."""
    written_LHD = written_by_heads(config, params, means_LHK)
    return jnp.sum(jnp.where(only(config, heads)[..., None], written_LHD, 0.0), axis=(0, 1))


def effect_of_vector(
    config: ModelConfig, params: Params, prompts: Prompts, vector_D: jax.Array, layer: int
) -> Effect:
    """What adding a vector to the last position does to the answer.

    Args:
        config: the model.
        params: its parameters.
        prompts: most of all such without demonstrations.
        vector_D: added to the residual stream.
        layer: the layer that reads it first; Todd et al. take one a third of the way up.

    Raises:
        InputError: there is no such layer.
    """
    if not 0 <= layer < config.num_layers:
        raise InputError(f"layer {layer}: expected 0 to {config.num_layers - 1}")
    at_L = jnp.arange(config.num_layers) == layer
    edit = add(
        jnp.where(at_L[:, None, None, None] & _at_last(prompts)[..., None], vector_D[None, None, None], 0)
    )
    before, right_before = answer_probabilities(config, params, prompts)
    after, right_after = answer_probabilities(config, params, prompts, {"residual": edit})
    return Effect(*(float(jnp.mean(x)) for x in (before, after, right_before, right_after)))


@functools.partial(jax.jit, static_argnames=("config",))
def answer_probabilities(
    config: ModelConfig, params: Params, prompts: Prompts, edits: dict[Site, Edit] | None = None
) -> tuple[jax.Array, jax.Array]:
    """The probability of each answer's first token, and whether it is the likeliest one; both [prompts]."""
    hooked = run_with_hooks(config, params, *whole_rows(config, prompts.inputs_BT), edits=edits)
    last_BD = jnp.take_along_axis(hooked.hidden_BTD, jnp.asarray(prompts.last_B)[:, None, None], axis=1)[:, 0]
    logits_BV, answers_B = unembed(config, params, last_BD), jnp.asarray(prompts.answers_B)
    probability_B = jnp.take_along_axis(jax.nn.softmax(logits_BV), answers_B[:, None], axis=1)[:, 0]
    return probability_B, logits_BV.argmax(axis=-1) == answers_B


@functools.partial(jax.jit, static_argnames=("config",))
def _patched(
    config: ModelConfig, params: Params, prompts: Prompts, means_LHK: jax.Array, heads_LH: jax.Array
) -> jax.Array:
    """Probabilities of the answers with these heads at their means in the last position."""
    where = heads_LH[:, None, None, :, None] & _at_last(prompts)[..., None, None]
    edits: dict[Site, Edit] = {"heads": patch(means_LHK[:, None, None], where)}
    return answer_probabilities(config, params, prompts, edits)[0]


def _at_last(prompts: Prompts) -> jax.Array:
    """True at the last position of each prompt: bool [1, prompts, length]."""
    length = prompts.inputs_BT.shape[1]
    return (jnp.arange(length)[None] == jnp.asarray(prompts.last_B)[:, None])[None]


def _distinct(examples: Iterator[Example]) -> Iterator[Example]:
    """Examples of different inputs, as far as an endless source still brings new ones."""
    seen: set[str] = set()
    for example in itertools.islice(examples, _MOST_DRAWN):
        if example.input not in seen:
            seen.add(example.input)
            yield example


def _deranged(targets: list[tuple[int, ...]], rng: np.random.Generator) -> list[tuple[int, ...]]:
    """The targets in another order, none in its place."""
    order = rng.permutation(len(targets))
    # Along one random cycle, so nothing stays.
    moved = dict(zip(order.tolist(), np.roll(order, 1).tolist(), strict=True))
    return [targets[moved[i]] for i in range(len(targets))]
