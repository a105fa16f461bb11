"""What heads are for: few-shot accuracy and copying without those that carry the task or match prefixes.

The comparison of Yin and Steinhardt 2025 (arXiv 2502.14010): heads by their indirect effect on prompts that
say nothing of the task (Todd et al. 2023, arXiv 2310.15213), heads by prefix matching (Olsson et al. 2022,
arXiv 2209.11895), and as many heads at random; each put at the mean of its output everywhere.

Shapes: L layers, B prompts, T positions, H heads, K head size, V vocab.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from icl.analysis.function_vectors import Prompts, answer_probabilities, draw_prompts, top_heads
from icl.analysis.heads import RepeatedTokens
from icl.analysis.hooks import Edit, Site, ablate_heads, only, run_with_hooks, whole_rows
from icl.data.keys import generator
from icl.data.tokenizer import Tokenizer
from icl.errors import InputError
from icl.model.config import ModelConfig
from icl.model.transformer import Params, unembed
from icl.tasks.task import Task, TaskInstance

Heads = Sequence[tuple[int, int]]
"""As (layer, head)."""
CARRY, MATCH = "carry the task", "match prefixes"
CARRY_ONLY, MATCH_ONLY = "carry, do not match", "match, do not carry"
RANDOM = "random"
_ROUNDED = 64


class AskedTask(NamedTuple):
    """Prompts of one task instance: some to choose heads by, others to judge them by.

    Attributes:
      chosen_by: With demonstrations.
      untold: The same with shuffled labels.
      alone: Without demonstrations.
      judged_by: Other prompts with demonstrations.
      judged_alone: Others without.
    """

    chosen_by: Prompts
    untold: Prompts
    alone: Prompts
    judged_by: Prompts
    judged_alone: Prompts


def ask(
    task: Task, instance: TaskInstance, tokenizer: Tokenizer, *, demonstrations: int, count: int
) -> AskedTask:
    """Draws the prompts of a task instance, `count` of each kind.

    Raises:
      InputError: it has too few examples.
    """

    def drawn(number: int, seed: int, shuffled: bool = False) -> Prompts:
        prompts = draw_prompts(
            task,
            instance,
            tokenizer,
            demonstrations=number,
            count=count,
            shuffled=shuffled,
            seed=seed,
        )
        # Few lengths, so that few programs are compiled.
        more = -prompts.inputs_BT.shape[1] % _ROUNDED
        padded_BT = np.pad(prompts.inputs_BT, ((0, 0), (0, more)), constant_values=tokenizer.pad_id)
        return prompts._replace(inputs_BT=padded_BT)

    return AskedTask(
        chosen_by=drawn(demonstrations, 0),
        untold=drawn(demonstrations, 0, shuffled=True),
        alone=drawn(0, 0),
        judged_by=drawn(demonstrations, 1),
        judged_alone=drawn(0, 1),
    )


def head_sets(
    effects_LH: np.ndarray, matching_LH: np.ndarray, count: int, *, draws: int, seed: int = 0
) -> dict[str, list[Heads]]:
    """Sets of `count` heads of each kind: one of the best, `draws` of random ones.

    The kinds that are the one and not the other pass over the other's best `count`.

    Args:
      effects_LH: Mean indirect effect of each head.
      matching_LH: Prefix matching of each head.
      count: Heads of a set, at most half of all, so that each kind has as many.
      draws: How many random sets.
      seed: Decides which.

    Raises:
      InputError: there are too few heads.
    """
    size = effects_LH.size
    if not 0 < 2 * count <= size:
        raise InputError(f"sets of {count} heads: expected 1 to {size // 2}, half of the model's {size}")
    carry, match = top_heads(effects_LH, size), top_heads(matching_LH, size)
    rng = generator("random heads", seed, count)
    return {
        CARRY: [carry[:count]],
        MATCH: [match[:count]],
        CARRY_ONLY: [[head for head in carry if head not in match[:count]][:count]],
        MATCH_ONLY: [[head for head in match if head not in carry[:count]][:count]],
        RANDOM: [[carry[i] for i in rng.permutation(size)[:count]] for _ in range(draws)],
    }


def accuracy(
    config: ModelConfig,
    params: Params,
    prompts: Prompts,
    heads: Heads = (),
    means_LHK: jax.Array | None = None,
) -> float:
    """Share of prompts (0..1) whose answer's first token is the likeliest, with these heads ablated.

    Args:
      config: the model.
      params: its parameters.
      prompts: what is asked.
      heads: put at their means at every position.
      means_LHK: those means, [layers, heads, head size]; None for zeros.
    """
    _, right_B = answer_probabilities(config, params, prompts, _ablation(config, heads, means_LHK))
    return float(jnp.mean(right_B))


def copying_accuracy(
    config: ModelConfig,
    params: Params,
    repeated: RepeatedTokens,
    heads: Heads = (),
    means_LHK: jax.Array | None = None,
) -> float:
    """Share of the tokens of later repeats (0..1) that are the likeliest, with these heads ablated.

    Args as of `accuracy`; the first token of a repeat counts too.
    """
    right_BT = _repeats_right(
        config, params, jnp.asarray(repeated.inputs_BT), _ablation(config, heads, means_LHK)
    )
    return float(jnp.mean(right_BT[:, repeated.length :]))


def overlap(one: Heads, other: Heads) -> float:
    """Share of the first set's heads that stand in the second too (0..1)."""
    return len(set(one) & set(other)) / len(one)


def rank_correlation(one_LH: np.ndarray, other_LH: np.ndarray) -> float:
    """Spearman's rank correlation of two scores over the heads; NaN where one is constant."""
    if np.ptp(one_LH) == 0 or np.ptp(other_LH) == 0:
        return float("nan")
    return float(stats.spearmanr(one_LH.ravel(), other_LH.ravel()).statistic)


def mean_by_group(scores: Mapping[str, float], groups: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Mean over each group's tasks of a score by task; a group without any is left out."""
    means = {group: [scores[name] for name in names if name in scores] for group, names in groups.items()}
    return {group: float(np.mean(found)) for group, found in means.items() if found}


def _ablation(config: ModelConfig, heads: Heads, means_LHK: jax.Array | None) -> dict[Site, Edit]:
    zeros_LHK = jnp.zeros((config.num_layers, config.num_heads, config.size_per_head))
    return {"heads": ablate_heads(only(config, heads), zeros_LHK if means_LHK is None else means_LHK)}


@functools.partial(jax.jit, static_argnames=("config",))
def _repeats_right(
    config: ModelConfig, params: Params, inputs_BT: jax.Array, edits: dict[Site, Edit]
) -> jax.Array:
    hooked = run_with_hooks(config, params, *whole_rows(config, inputs_BT), edits=edits)
    logits_BTV = unembed(config, params, hooked.hidden_BTD[:, :-1])
    return logits_BTV.argmax(axis=-1) == inputs_BT[:, 1:]
