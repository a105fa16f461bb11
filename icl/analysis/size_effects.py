"""K-curves of a ladder that was trained with several seeds: what size changes, and how sure one may be of it.

A group is several tasks whose scores are averaged. Shapes: R training seeds, K numbers of demonstrations.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from icl.errors import InputError
from icl.evaluation.baselines import CHANCE
from icl.evaluation.curves import curves, main_metric, models, outcome
from icl.evaluation.records import Result

Groups = Mapping[str, Sequence[str]]


@dataclasses.dataclass(frozen=True)
class SizeCurve:
    """The mean score of one model size over a group of tasks, by K.

    Attributes:
      group: The tasks' common name.
      instruction: Whether prompts begin with one.
      rung: The model's name in its ladder.
      params: All of its parameters.
      ks: Numbers of demonstrations, rising.
      train_seeds: The seeds, in order.
      score_RK: By training seed, 0..1.
      half_width_RK: Half of each one's 95 % interval over queries and demonstration seeds; NaN without one.
    """

    group: str
    instruction: bool
    rung: str
    params: int
    ks: tuple[int, ...]
    train_seeds: tuple[int, ...]
    score_RK: np.ndarray
    half_width_RK: np.ndarray

    @property
    def mean_K(self) -> np.ndarray:
        """Over training seeds."""
        return self.score_RK.mean(axis=0)

    @property
    def gain_R(self) -> np.ndarray:
        """What the most demonstrations bring over none, by training seed."""
        return self.score_RK[:, -1] - self.score_RK[:, 0]

    def as_json(self) -> dict[str, Any]:
        """The curve as plain numbers, in percent."""
        return {
            "group": self.group,
            "instruction": self.instruction,
            "rung": self.rung,
            "params": self.params,
            "ks": list(self.ks),
            "train_seeds": list(self.train_seeds),
            "score": (100 * self.score_RK).round(2).tolist(),
            "half_width": [
                [None if w != w else round(100 * w, 2) for w in row] for row in self.half_width_RK
            ],
        }


def size_curves(results: Sequence[Result], groups: Groups) -> list[SizeCurve]:
    """The curve of every group, wording and size, from small to large.

    Args:
      results: Of one evaluation of all rungs and training seeds.
      groups: Tasks by group; a wording in which one of a group's tasks has no results is left out.

    Raises:
      InputError: a rung was not trained with the same seeds as the others.
    """
    found: list[SizeCurve] = []
    rungs = {row.rung: row.params or 0 for row in results if row.params is not None}
    seeds = sorted({row.train_seed or 0 for row in results if row.params is not None})
    for group, tasks in groups.items():
        for instruction in sorted({row.instruction for row in results if row.task in tasks}):
            for rung in sorted(rungs, key=lambda rung: rungs[rung]):
                by_seed = [_mean(results, tasks, rung, seed, instruction) for seed in seeds]
                if not any(by_seed):
                    continue
                if not all(by_seed):
                    missing = [seed for seed, one in zip(seeds, by_seed, strict=True) if not one]
                    raise InputError(f"rung {rung!r}: no results of training seed {missing[0]} for {group!r}")
                found.append(_curve(group, instruction, rung, rungs[rung], seeds, by_seed))
    return found


def chance(results: Sequence[Result], tasks: Sequence[str], instruction: bool) -> dict[int, float]:
    """What guessing scores by K, the mean over tasks, 0..1; nothing where a task has no such baseline."""
    points = []
    for task in tasks:
        metric = main_metric(results, task)
        found = curves(results, task, instruction, metric=metric)
        points += [curve.points for curve in found if curve.first.scoring == CHANCE]
    if not points or len(points) < len(tasks):
        return {}
    shared = sorted(set.intersection(*(set(point) for point in points)))
    return {k: float(np.mean([point[k].value for point in points])) for k in shared}


def _curve(
    group: str,
    instruction: bool,
    rung: str,
    params: int,
    seeds: Sequence[int],
    by_seed: Sequence[Mapping[int, tuple[float, float]]],
) -> SizeCurve:
    ks = tuple(sorted(set.intersection(*(set(one) for one in by_seed))))
    values = np.array([[one[k] for k in ks] for one in by_seed])
    return SizeCurve(group, instruction, rung, params, ks, tuple(seeds), values[..., 0], values[..., 1])


def _mean(
    results: Sequence[Result], tasks: Sequence[str], rung: str, seed: int, instruction: bool
) -> dict[int, tuple[float, float]]:
    """By K the mean over tasks and half its interval; empty where a task has no such results."""
    own = [row for row in results if row.rung == rung and row.train_seed == seed]
    of_tasks = [models(curves(own, task, instruction, metric=main_metric(own, task))) for task in tasks]
    if not all(of_tasks):
        return {}
    points = [of_task[0].points for of_task in of_tasks]
    means = {}
    for k in sorted(set.intersection(*(set(point) for point in points))):
        value, low, high = outcome([point[k] for point in points])
        means[k] = (value, np.nan if low is None or high is None else (high - low) / 2)
    return means
