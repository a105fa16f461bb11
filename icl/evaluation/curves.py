"""K-curves as tables, figures and findings read them: results of one score, in rising K.

A curve has one metric, scoring, condition and template. Where results of several scorings or templates stand
side by side, the main ones are meant unless a caller names others.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

from icl.evaluation.baselines import CHANCE
from icl.evaluation.published import published
from icl.evaluation.records import Result
from icl.evaluation.results import BASELINE, CONDITION, MEAN, SEVERAL, TEMPLATE

SCORE = "exact_match"
MEDIAN = "median"

PERCENT = {
    "exact_match": "exact match",
    "accuracy": "accuracy",
    "f1": "F1",
    "macro_f1": "macro F1",
    "f1a": "F1a",
    "group_accuracy": "accuracy by question",
    "record_em": "exact match",
    "record_f1": "F1",
    "bleu": "BLEU",
    "token_accuracy": "token accuracy",
    "edit_distance": "edit distance",
}
"""Metrics between 0 and 1, which are shown in percent, with their names."""


@dataclasses.dataclass(frozen=True)
class Curve:
    """One model's, or baseline's, results of a task under one wording; `points` by K."""

    points: dict[int, Result]

    @property
    def first(self) -> Result:
        """Any of its results, for what they share."""
        return next(iter(self.points.values()))

    @property
    def is_baseline(self) -> bool:
        """Whether no model answers."""
        return self.first.checkpoint == BASELINE

    @property
    def name(self) -> str:
        """The checkpoint's label, or the baseline's name."""
        if self.is_baseline:
            return self.first.scoring.partition(":")[2].replace("_", " ")
        return self.first.checkpoint

    @property
    def last(self) -> Result:
        """The result at the largest K."""
        return self.points[max(self.points)]


def curves(
    results: Iterable[Result],
    task: str,
    instruction: bool,
    *,
    metric: str = SCORE,
    part: str = "all",
    condition: str = CONDITION,
    template: str | None = None,
    scoring: str | None = None,
) -> list[Curve]:
    """All curves of a task under one wording: models from small to large, then the baselines.

    `template` and `scoring` are those of the models; by default the main ones. Baselines without results
    under a condition stand in it as they are with gold labels.
    """
    wanted = (task, instruction, metric, part)
    rows = [row for row in results if (row.task, row.instruction, row.metric, row.slice) == wanted]
    answered = [row for row in rows if row.checkpoint != BASELINE and row.condition == condition]
    template = main_template(answered) if template is None else template
    scoring = main_scoring(answered) if scoring is None else scoring
    found: dict[tuple[str, str], dict[int, Result]] = {}
    for row in answered:
        if (row.template, row.scoring) == (template, scoring):
            found.setdefault((row.checkpoint, ""), {})[row.k] = row
    ruled = [row for row in rows if row.checkpoint == BASELINE]
    for row in [row for row in ruled if row.condition == condition] or ruled:
        found.setdefault((BASELINE, row.scoring), {}).setdefault(row.k, row)
    unordered = [Curve(dict(sorted(points.items()))) for points in found.values()]
    return sorted(unordered, key=lambda curve: (curve.is_baseline, curve.first.params or 0))


def main_template(rows: Iterable[Result]) -> str:
    """The tasks' own format where it is among the results, else the median over formats, else the first."""
    found = templates(rows)
    return next((name for name in (TEMPLATE, MEDIAN) if name in found), found[0] if found else TEMPLATE)


def main_scoring(rows: Iterable[Result]) -> str:
    """The scoring that tasks declare: it comes first; a mean says so."""
    found = list(dict.fromkeys(row.scoring for row in rows))
    return SEVERAL if SEVERAL in found else found[0] if found else ""


def models(of: Iterable[Curve]) -> list[Curve]:
    """The curves of models, from small to large."""
    return [curve for curve in of if not curve.is_baseline]


def baselines(of: Iterable[Curve]) -> list[Curve]:
    """The curves that no model answers, chance last."""
    found = (curve for curve in of if curve.is_baseline)
    return sorted(found, key=lambda curve: curve.first.scoring == CHANCE)


def by_task(results: Iterable[Result]) -> dict[str, list[Result]]:
    """The results of every task, and of their mean."""
    found: dict[str, list[Result]] = {}
    for row in results:
        found.setdefault(row.task, []).append(row)
    return found


def task_names(results: Iterable[Result]) -> list[str]:
    """The tasks, in order, without their mean."""
    return [task for task in dict.fromkeys(row.task for row in results) if task != MEAN]


def main_metric(rows: Iterable[Result], task: str) -> str:
    """What a task is judged by: the published metric where results have it, else exact match."""
    found = {row.metric for row in rows if row.task == task and row.checkpoint != BASELINE}
    wanted = [metric for row in published(task)[:1] for metric in row.ours]
    return next((metric for metric in wanted if metric in found), SCORE)


def checkpoints(results: Iterable[Result]) -> dict[str, Result]:
    """A result of every checkpoint by its label, from small to large."""
    found: dict[str, Result] = {}
    for row in results:
        if row.checkpoint != BASELINE:
            found.setdefault(row.checkpoint, row)
    return dict(sorted(found.items(), key=lambda item: item[1].params or 0))


def conditions(results: Iterable[Result]) -> list[str]:
    """What the labels of the demonstrations were made, gold first."""
    found = dict.fromkeys(row.condition for row in results if row.checkpoint != BASELINE)
    return sorted(found, key=lambda name: name != CONDITION)


def templates(results: Iterable[Result]) -> list[str]:
    """The formats of the prompt, their median among them."""
    return list(dict.fromkeys(row.template for row in results if row.checkpoint != BASELINE))


def wordings(results: Iterable[Result]) -> list[bool]:
    """The instruction settings that occur, without an instruction first."""
    return sorted({row.instruction for row in results})


def wording_name(instruction: bool) -> str:
    """What a person calls an instruction setting."""
    return "with instruction" if instruction else "without instruction"


def condition_name(condition: str) -> str:
    """What a person calls a condition."""
    return condition.replace("_", " ") + (" labels" if condition == CONDITION else "")


def metric_name(metric: str) -> str:
    """What a person calls a metric, with its unit."""
    return f"{PERCENT[metric]}, %" if metric in PERCENT else metric.replace("_", " ")


def scale(metric: str) -> int:
    """What a value is multiplied by to be shown."""
    return 100 if metric in PERCENT else 1


def percent(row: Result | None) -> str:
    """A value with its interval in percent."""
    if row is None:
        return ""
    if row.ci_low is None or row.ci_high is None:
        return f"{100 * row.value:.1f}"
    return f"{100 * row.value:.1f} [{100 * row.ci_low:.0f}–{100 * row.ci_high:.0f}]"


def shown_ks(results: Iterable[Result]) -> list[int]:
    """The numbers of demonstrations that were asked for."""
    return sorted({row.k for row in results})


def shots(curve: Curve) -> Mapping[str, Result]:
    """Its zero-, one- and few-shot results; few is its largest K, if that is more than one."""
    found = {"zero": curve.points.get(0), "one": curve.points.get(1)}
    found["few"] = curve.last if curve.last.k > 1 else None
    return {name: row for name, row in found.items() if row is not None}


def outcome(rows: Sequence[Result]) -> tuple[float, float | None, float | None]:
    """The mean of tasks' values, with a 95 % interval from theirs as if independent; None without one."""
    value = sum(row.value for row in rows) / len(rows)
    spans = [
        (row.value - row.ci_low, row.ci_high - row.value)
        for row in rows
        if row.ci_low is not None and row.ci_high is not None
    ]
    if len(spans) < len(rows):
        return value, None, None
    below, above = (math.hypot(*(span[i] for span in spans)) / len(rows) for i in (0, 1))
    return value, value - below, value + above
