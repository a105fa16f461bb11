"""From observations to results: metrics by condition with their intervals, and the mean over tasks."""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from icl.evaluation import baselines
from icl.evaluation.bands import band, simultaneous_level_of_mean
from icl.evaluation.config import EvalConfig
from icl.evaluation.corpus_metrics import as_generated, corpus_estimates
from icl.evaluation.metrics import (
    best,
    brier_score,
    exact_match,
    nearest,
    option_probability,
    word_f1,
)
from icl.evaluation.plan import Plan, Trial
from icl.evaluation.records import Record, Result, rounded
from icl.evaluation.statistics import Estimate, Scores, estimate, mean_estimate

MEAN = "mean"
MEDIAN = "median"
CONDITION = "gold"
TEMPLATE = "default"
BASELINE = "baseline"

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

UNBOUNDED = {"log_likelihood", "perplexity", "brier"}
"""Metrics that do not lie in 0..1."""


class Observation(NamedTuple):
    """What one query scored under one seed, order and condition; `scores` by (scoring, metric)."""

    task: str
    k: int
    instruction: bool
    condition: str
    template: str
    query: str
    cluster: str
    seed: int
    order: int
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
    condition: str
    template: str

    @property
    def curve(self) -> "_Condition":
        """The curve over K that it is a point of."""
        return dataclasses.replace(self, k=-1)

    @property
    def kind(self) -> "_Condition":
        """What it measures, under whatever condition."""
        return dataclasses.replace(self, k=-1, condition="", template="")

    @property
    def is_bounded(self) -> bool:
        """Whether the metric lies in 0..1."""
        return self.metric not in UNBOUNDED


@dataclasses.dataclass(frozen=True)
class _Cell:
    """One figure of one task under one condition; `scores` are what it is the mean of, if it is one."""

    estimate: Estimate
    k_effective: float
    queries: int
    seed_values: Mapping[int, float]
    order_values: tuple[float, ...] = ()
    template_values: tuple[float, ...] = ()
    scores: Scores | None = None
    band: tuple[float | None, float | None] = (None, None)


_Cells = dict[_Condition, _Cell]


def model_results(source: Source, records: Iterable[Record], plan: Plan, config: EvalConfig) -> list[Result]:
    """Results of one checkpoint, task by task, the mean over tasks last."""
    records = list(records)
    cells = _cells(map(_observation, records), plan, config)
    for task, found in _corpus_cells(records, plan, config).items():
        cells[task] |= found
    return _results(source, cells, plan, config)


def _observation(record: Record) -> Observation:
    return Observation(
        record.task,
        record.k,
        record.instruction,
        record.condition,
        record.template,
        record.query,
        record.cluster,
        record.seed,
        record.order,
        record.k_effective,
        record.query_seen,
        record_scores(record),
    )


def _corpus_cells(records: Sequence[Record], plan: Plan, config: EvalConfig) -> dict[str, _Cells]:
    """Metrics of all records of a condition together, for answers chosen and for answers generated."""
    groups: dict[tuple[str, str, int, bool, str, str], list[Record]] = defaultdict(list)
    for record in records:
        if plan.tasks[record.task].corpus_metrics:
            shared = record.k, record.instruction, record.condition, record.template
            groups[record.task, record.scoring, *shared].append(record)
            if record.generated is not None:
                groups[record.task, record.generated_scoring, *shared].append(as_generated(record))
    cells: dict[str, _Cells] = defaultdict(dict)
    for (task, scoring, k, instruction, condition, template), group in groups.items():
        found = corpus_estimates(
            plan.tasks[task].corpus_metrics, group, config.bootstrap, plan.is_crossed(task)
        )
        for metric, one in found.items():
            key = _Condition(metric, scoring, k, instruction, "all", condition, template)
            k_effective = float(np.mean([record.k_effective for record in group]))
            queries = len({record.query for record in group})
            cells[task][key] = _Cell(one.estimate, k_effective, queries, one.seed_values)
    return cells


def record_scores(record: Record) -> dict[tuple[str, str], float]:
    """The metrics of a record by (scoring, metric); the accuracy of options by every rule."""
    scores = {
        (record.scoring if scoring == "answer" else scoring, metric): getattr(record, metric)
        for metric, scoring in METRICS.items()
        if getattr(record, metric) is not None
    }
    if record.gold_option is not None:
        for rule, values in record.option_scores().items():
            scores[f"options:{rule}", "accuracy"] = float(best(values) == record.gold_option)
        likelihoods = record.option_log_likelihoods
        scores["options:sum", "probability"] = option_probability(likelihoods, record.gold_option)
        scores["options:sum", "brier"] = brier_score(likelihoods, record.gold_option)
    if record.generated_match is not None:
        scores[record.generated_scoring, "exact_match"] = record.generated_match
    return scores


def baseline_results(plan: Plan, config: EvalConfig) -> list[Result]:
    """Results of the rules that need no model, and of printed chance."""
    cells = _cells(_baseline_observations(plan), plan, config)
    for task, by_condition in cells.items():
        chance = Estimate(plan.tasks[task].chance(), None, None, "none", 0.0, 0.0, 0, 0)
        points = {
            (c.k, c.instruction, c.condition, c.template, cell.k_effective): None
            for c, cell in by_condition.items()
            if c.part == "all"
        }
        for k, instruction, condition, template, k_effective in points:
            key = _Condition("exact_match", baselines.CHANCE, k, instruction, "all", condition, template)
            by_condition[key] = _Cell(chance, k_effective, 0, {})
    return _results(Source(BASELINE), cells, plan, config)


def _baseline_observations(plan: Plan) -> Iterator[Observation]:
    """What rules answer; how a prompt is written says nothing to them, so in one format and order only."""
    for name, trials in plan.trials.items():
        common = baselines.training_majority(plan.tasks[name], plan.split)
        for trial in trials:
            if trial.order or trial.format != trial.settings.templates[0]:
                continue
            for k in trial.settings.ks:
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
        scores[rule, "edit_distance"] = nearest(answer, right)
        if trial.task.answer_rule != "exact":
            scores[rule, "f1"] = word_f1(answer, right, trial.task.answer_rule)
    best = baselines.ceiling(trial, k)
    if best is not None:
        scores[baselines.CEILING, "exact_match"] = best
    return Observation(
        trial.task.name,
        k,
        trial.instructed,
        trial.condition,
        trial.format,
        trial.query.name,
        trial.cluster,
        trial.seed,
        trial.order,
        min(k, trial.max_k),
        trial.query_seen(k),
        scores,
    )


def _cells(observations: Iterable[Observation], plan: Plan, config: EvalConfig) -> dict[str, _Cells]:
    """Figures by task and condition, in a fixed order, with their bands."""
    groups: dict[tuple[str, int, bool, str, str], list[Observation]] = defaultdict(list)
    numbers: dict[str, dict[str, int]] = defaultdict(dict)
    for observation in observations:
        of_task = numbers[observation.task]
        of_task.setdefault(observation.cluster, len(of_task))
        groups[
            observation.task,
            observation.k,
            observation.instruction,
            observation.condition,
            observation.template,
        ].append(observation)
    cells: dict[str, _Cells] = {task: {} for task in plan.trials}
    for (task, k, instruction, condition, template), group in groups.items():
        for part, members in _slices(group, plan.is_lookup(task)).items():
            # Of a task some examples may have options, and others none.
            for scoring, metric in dict.fromkeys(name for member in members for name in member.scores):
                key = _Condition(metric, scoring, k, instruction, part, condition, template)
                scored = [member for member in members if (scoring, metric) in member.scores]
                crossed = plan.is_crossed(task)
                cells[task][key] = _cell(scored, key, numbers[task], crossed, config.bootstrap)
    return {task: _with_bands(found, config.bootstrap) for task, found in cells.items()}


def _with_bands(cells: _Cells, resamples: int) -> _Cells:
    """The cells with bands that hold for all K of a curve at once; for slices there are none."""
    curves: dict[_Condition, list[_Condition]] = defaultdict(list)
    for key, cell in cells.items():
        if key.part == "all" and cell.scores is not None:
            curves[key.curve].append(key)
    banded = dict(cells)
    for keys in curves.values():
        if len(keys) > 1:
            scores = [one for key in keys if (one := cells[key].scores) is not None]
            for key, wide in zip(keys, band(scores, resamples), strict=True):
                banded[key] = dataclasses.replace(cells[key], band=(wide.low, wide.high))
    return banded


def _slices(group: Sequence[Observation], is_lookup: bool) -> dict[str, Sequence[Observation]]:
    """All observations; for tasks that are lookup by nature also those with and without the query shown."""
    parts: dict[str, Sequence[Observation]] = {"all": group}
    if is_lookup:
        parts["query_seen"] = [observation for observation in group if observation.query_seen]
        parts["query_unseen"] = [observation for observation in group if not observation.query_seen]
    return {name: members for name, members in parts.items() if members}


def _cell(
    members: Sequence[Observation],
    key: _Condition,
    clusters: Mapping[str, int],
    crossed: bool,
    resamples: int,
) -> _Cell:
    values_N = np.array([member.scores[key.scoring, key.metric] for member in members])
    seeds_N = np.array([member.seed for member in members])
    orders_N = np.array([member.order for member in members])
    clusters_N = np.array([clusters[member.cluster] for member in members])
    scores = Scores(values_N, clusters_N, seeds_N, bounded=key.is_bounded, crossed=crossed)
    orders = np.unique(orders_N)
    return _Cell(
        estimate(scores, resamples),
        float(np.mean([member.k_effective for member in members])),
        len({member.query for member in members}),
        {int(seed): float(values_N[seeds_N == seed].mean()) for seed in np.unique(seeds_N)},
        tuple(float(values_N[orders_N == order].mean()) for order in orders) if len(orders) > 1 else (),
        scores=scores,
    )


def _results(source: Source, cells: Mapping[str, _Cells], plan: Plan, config: EvalConfig) -> list[Result]:
    """Rows of every task, with the median over templates; then of the mean over tasks."""
    rows = []
    for task, found in cells.items():
        of_task = found | _medians(found)
        settings = plan.settings[task]
        rows += [_row(source, task, key, cell, settings) for key, cell in of_task.items()]
    means = _means(cells, is_model=source.checkpoint != BASELINE)
    return rows + [_row(source, MEAN, key, cell, config) for key, cell in (means | _medians(means)).items()]


def _medians(cells: _Cells) -> _Cells:
    """The median over templates where there are several, with their values."""
    groups: dict[_Condition, list[_Cell]] = defaultdict(list)
    for key, cell in cells.items():
        groups[dataclasses.replace(key, template=MEDIAN)].append(cell)
    found = {}
    for key, group in groups.items():
        values = tuple(cell.estimate.value for cell in group)
        if len(values) > 1:
            middle = Estimate(
                float(np.median(values)), None, None, "none", 0.0, 0.0, group[0].estimate.clusters, 0
            )
            found[key] = _Cell(middle, group[0].k_effective, group[0].queries, {}, template_values=values)
    return found


def _means(cells: Mapping[str, _Cells], *, is_model: bool) -> _Cells:
    """The mean over tasks, at each K that all have, and of conditions that all were asked under.

    All are those that have the metric and, of a model, are scored so. A baseline that only some of them have
    has no mean, which would stand beside that of a model over all.
    """

    def measured(key: _Condition) -> _Condition:
        return key.kind if is_model else dataclasses.replace(key.kind, scoring="")

    answered = {
        key.scoring
        for found in cells.values()
        for key in found
        if METRICS.get(key.metric) == "answer" and is_model
    }
    shared: dict[_Condition, dict[str, _Cell]] = defaultdict(dict)
    tasks: dict[_Condition, set[str]] = defaultdict(set)
    for task, found in cells.items():
        for key, cell in found.items():
            if key.part != "all":
                continue
            if METRICS.get(key.metric) == "answer" and len(answered) > 1:
                if _is_secondary(key, found):
                    continue
                key = dataclasses.replace(key, scoring=SEVERAL)
            shared[key][task] = cell
            tasks[measured(key)].add(task)
    complete = {key: parts for key, parts in shared.items() if len(parts) == len(tasks[measured(key)])}
    means = {key: _mean(list(parts.values()), key) for key, parts in complete.items()}
    return _with_mean_bands(means, complete)


def _is_secondary(key: _Condition, found: _Cells) -> bool:
    """Whether a task's answers were chosen among options as well, and these were generated beside."""
    if key.scoring.startswith("options:"):
        return False
    return any(other.metric == key.metric and other.scoring.startswith("options:") for other in found)


def _with_mean_bands(means: _Cells, parts: Mapping[_Condition, Mapping[str, _Cell]]) -> _Cells:
    curves: dict[_Condition, list[_Condition]] = defaultdict(list)
    for key in means:
        if all(cell.scores is not None for cell in parts[key].values()):
            curves[key.curve].append(key)
    banded = dict(means)
    for keys in curves.values():
        if len(keys) < 2:
            continue
        level = simultaneous_level_of_mean(
            [[parts[key][task].scores for key in keys] for task in parts[keys[0]]]
        )
        for key in keys:
            estimates = [cell.estimate for cell in parts[key].values()]
            wide = mean_estimate(estimates, key.is_bounded, level)
            banded[key] = dataclasses.replace(means[key], band=(wide.low, wide.high))
    return banded


def _mean(parts: Sequence[_Cell], key: _Condition) -> _Cell:
    if key.scoring == baselines.CHANCE:
        value = float(np.mean([part.estimate.value for part in parts]))
        combined = dataclasses.replace(parts[0].estimate, value=value)
    else:
        combined = mean_estimate([part.estimate for part in parts], key.is_bounded)
    seeds = sorted(set.intersection(*(set(part.seed_values) for part in parts)))
    orders = min(len(part.order_values) for part in parts)
    return _Cell(
        combined,
        float(np.mean([part.k_effective for part in parts])),
        sum(part.queries for part in parts),
        {seed: float(np.mean([part.seed_values[seed] for part in parts])) for seed in seeds},
        tuple(float(np.mean([part.order_values[i] for part in parts])) for i in range(orders)),
    )


def _row(source: Source, task: str, key: _Condition, cell: _Cell, settings: EvalConfig) -> Result:
    value = cell.estimate
    return Result(
        **dataclasses.asdict(source),
        task=task,
        split=settings.split,
        metric=key.metric,
        k=key.k,
        k_effective=round(cell.k_effective, 3),
        instruction=key.instruction,
        scoring=key.scoring,
        condition=key.condition,
        demonstrations=settings.demonstrations,
        template=key.template,
        slice=key.part,
        value=rounded(value.value),
        ci_low=_rounded(value.low),
        ci_high=_rounded(value.high),
        interval_method=value.method,
        n=cell.queries,
        clusters=value.clusters,
        seeds=len(cell.seed_values),
        seed_values=tuple(rounded(mean) for mean in cell.seed_values.values()),
        band_low=_rounded(cell.band[0]),
        band_high=_rounded(cell.band[1]),
        order_values=tuple(map(rounded, cell.order_values)),
        template_values=tuple(map(rounded, cell.template_values)),
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else rounded(value)
