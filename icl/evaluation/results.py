"""From observations to results: metrics by condition with their intervals, and the mean over tasks."""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from icl.evaluation import baselines
from icl.evaluation.config import EvalConfig
from icl.evaluation.metrics import best, edit_distance, exact_match, word_f1
from icl.evaluation.plan import Plan, Trial
from icl.evaluation.records import Record, Result, rounded
from icl.evaluation.statistics import Estimate, Scores, estimate, mean_estimate

MEAN = "mean"
BASELINE = "baseline"
CONDITION = "gold"
TEMPLATE = "default"

METRICS: Mapping[str, str] = {
    "exact_match": "answer",
    "edit_distance": "answer",
    "f1": "answer",
    "token_accuracy": "teacher_forced",
    "log_likelihood": "teacher_forced",
}
"""The metrics of a record; those of the answer are read off the model as the record says."""

SEVERAL = "declared"
"""The scoring of a mean over tasks that are scored in several ways, each in its own."""

UNBOUNDED = {"log_likelihood"}
"""Metrics that do not lie in 0..1."""


class Observation(NamedTuple):
    """What one query scored under one seed and condition; `scores` by (scoring, metric)."""

    task: str
    k: int
    instruction: bool
    query: str
    cluster: str
    seed: int
    k_effective: int
    query_seen: bool
    scores: Mapping[tuple[str, str], float]


@dataclasses.dataclass(frozen=True)
class Source:
    """Whose results they are: the fields of a result that say so."""

    checkpoint: str
    rung: str = ""
    step: int | None = None
    params: int | None = None
    train_seed: int | None = None


@dataclasses.dataclass(frozen=True)
class _Condition:
    """What results of different tasks must share to be averaged."""

    metric: str
    scoring: str
    k: int
    instruction: bool
    part: str


@dataclasses.dataclass(frozen=True)
class _Cell:
    """One figure of one task under one condition."""

    estimate: Estimate
    k_effective: float
    queries: int
    seed_values: Mapping[int, float]


def model_results(source: Source, records: Iterable[Record], plan: Plan, config: EvalConfig) -> list[Result]:
    """Results of one checkpoint, task by task, the mean over tasks last."""
    observations = (
        Observation(
            record.task,
            record.k,
            record.instruction,
            record.query,
            record.cluster,
            record.seed,
            record.k_effective,
            record.query_seen,
            _scores(record),
        )
        for record in records
    )
    return _results(source, _cells(observations, plan, config), config)


def _scores(record: Record) -> dict[tuple[str, str], float]:
    """The metrics of a record by how they were read off; the accuracy of options by every rule."""
    scores = {
        (record.scoring if scoring == "answer" else scoring, metric): getattr(record, metric)
        for metric, scoring in METRICS.items()
        if getattr(record, metric) is not None
    }
    if record.options:
        for rule, values in record.option_scores().items():
            scores[f"options:{rule}", "accuracy"] = float(best(values) == record.gold_option)
    return scores


def baseline_results(plan: Plan, config: EvalConfig) -> list[Result]:
    """Results of the rules that need no model, and of printed chance."""
    cells = _cells(_baseline_observations(plan, config), plan, config)
    for task, by_condition in cells.items():
        chance = Estimate(plan.tasks[task].chance(), None, None, "none", 0.0, 0.0, 0, 0)
        for k, instruction, k_effective in {
            (c.k, c.instruction, by_condition[c].k_effective) for c in by_condition
        }:
            condition = _Condition("exact_match", baselines.CHANCE, k, instruction, "all")
            by_condition[condition] = _Cell(chance, k_effective, 0, {})
    return _results(Source(BASELINE), cells, config)


def _baseline_observations(plan: Plan, config: EvalConfig) -> Iterator[Observation]:
    for name, trials in plan.trials.items():
        common = baselines.training_majority(plan.tasks[name], config.split)
        for trial in trials:
            for k in config.ks:
                answers = baselines.predictions(trial, k)
                if common is not None:
                    answers[baselines.TRAINING_MAJORITY] = common
                yield _baseline_observation(trial, k, answers)


def _baseline_observation(trial: Trial, k: int, answers: Mapping[str, str]) -> Observation:
    scores = {}
    example = trial.query.example
    for rule, answer in answers.items():
        right = (example.target, *example.aliases)
        scores[rule, "exact_match"] = exact_match(answer, right, trial.task.answer_rule)
        scores[rule, "edit_distance"] = edit_distance(answer, example.target)
        if trial.task.answer_rule == "squad":
            scores[rule, "f1"] = word_f1(answer, right)
    best = baselines.ceiling(trial, k)
    if best is not None:
        scores[baselines.CEILING, "exact_match"] = best
    return Observation(
        trial.task.name,
        k,
        trial.instructed,
        trial.query.name,
        trial.cluster,
        trial.seed,
        min(k, trial.max_k),
        trial.query_seen(k),
        scores,
    )


def _cells(
    observations: Iterable[Observation], plan: Plan, config: EvalConfig
) -> dict[str, dict[_Condition, _Cell]]:
    """Figures by task and condition, in a fixed order."""
    groups: dict[tuple[str, int, bool], list[Observation]] = defaultdict(list)
    for observation in observations:
        groups[observation.task, observation.k, observation.instruction].append(observation)
    cells: dict[str, dict[_Condition, _Cell]] = {task: {} for task in plan.trials}
    for (task, k, instruction), group in groups.items():
        crossed = config.demonstrations == "fixed" and plan.is_single_instance(task)
        for part, members in _slices(group, plan.is_lookup(task)).items():
            for scoring, metric in members[0].scores:
                condition = _Condition(metric, scoring, k, instruction, part)
                cells[task][condition] = _cell(members, scoring, metric, crossed, config.bootstrap)
    return cells


def _slices(group: Sequence[Observation], is_lookup: bool) -> dict[str, Sequence[Observation]]:
    """All observations; for tasks that are lookup by nature also those with and without the query shown."""
    parts: dict[str, Sequence[Observation]] = {"all": group}
    if is_lookup:
        parts["query_seen"] = [observation for observation in group if observation.query_seen]
        parts["query_unseen"] = [observation for observation in group if not observation.query_seen]
    return {name: members for name, members in parts.items() if members}


def _cell(members: Sequence[Observation], scoring: str, metric: str, crossed: bool, resamples: int) -> _Cell:
    values_N = np.array([member.scores[scoring, metric] for member in members])
    seeds_N = np.array([member.seed for member in members])
    scores = Scores(
        values_N,
        _numbered([member.cluster for member in members]),
        seeds_N,
        bounded=metric not in UNBOUNDED,
        crossed=crossed,
    )
    return _Cell(
        estimate(scores, resamples),
        float(np.mean([member.k_effective for member in members])),
        len({member.query for member in members}),
        {int(seed): float(values_N[seeds_N == seed].mean()) for seed in np.unique(seeds_N)},
    )


def _numbered(names: Sequence[str]) -> NDArray[np.int64]:
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names])


def _results(
    source: Source, cells: Mapping[str, Mapping[_Condition, _Cell]], config: EvalConfig
) -> list[Result]:
    """Rows of every task, then of the mean over the tasks that have a condition."""
    rows = []
    shared: dict[_Condition, list[_Cell]] = defaultdict(list)
    answered = {
        condition.scoring
        for by_condition in cells.values()
        for condition in by_condition
        if METRICS.get(condition.metric) == "answer" and source.checkpoint != BASELINE
    }
    for task, by_condition in cells.items():
        for condition, cell in by_condition.items():
            rows.append(_row(source, task, condition, cell, config))
            if condition.part == "all":
                several = METRICS.get(condition.metric) == "answer" and len(answered) > 1
                key = dataclasses.replace(condition, scoring=SEVERAL) if several else condition
                shared[key].append(cell)
    rows += [
        _row(source, MEAN, condition, _mean(parts, condition), config) for condition, parts in shared.items()
    ]
    return rows


def _mean(parts: Sequence[_Cell], condition: _Condition) -> _Cell:
    if condition.scoring == baselines.CHANCE:
        value = float(np.mean([part.estimate.value for part in parts]))
        combined = dataclasses.replace(parts[0].estimate, value=value)
    else:
        combined = mean_estimate([part.estimate for part in parts], condition.metric not in UNBOUNDED)
    seeds = sorted(set.intersection(*(set(part.seed_values) for part in parts)))
    return _Cell(
        combined,
        float(np.mean([part.k_effective for part in parts])),
        sum(part.queries for part in parts),
        {seed: float(np.mean([part.seed_values[seed] for part in parts])) for seed in seeds},
    )


def _row(source: Source, task: str, condition: _Condition, cell: _Cell, config: EvalConfig) -> Result:
    value = cell.estimate
    return Result(
        **dataclasses.asdict(source),
        task=task,
        split=config.split,
        metric=condition.metric,
        k=condition.k,
        k_effective=round(cell.k_effective, 3),
        instruction=condition.instruction,
        scoring=condition.scoring,
        condition=CONDITION,
        demonstrations=config.demonstrations,
        template=TEMPLATE,
        slice=condition.part,
        value=rounded(value.value),
        ci_low=None if value.low is None else rounded(value.low),
        ci_high=None if value.high is None else rounded(value.high),
        interval_method=value.method,
        n=cell.queries,
        clusters=value.clusters,
        seeds=len(cell.seed_values),
        seed_values=tuple(rounded(mean) for mean in cell.seed_values.values()),
    )
