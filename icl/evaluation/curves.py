"""K-curves as tables, figures and findings read them: results of one score, in rising K."""

import dataclasses
from collections.abc import Iterable, Sequence

from icl.evaluation.baselines import CHANCE
from icl.evaluation.records import Result
from icl.evaluation.results import BASELINE, MEAN

SCORE = "exact_match"


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
    results: Iterable[Result], task: str, instruction: bool, *, metric: str = SCORE, part: str = "all"
) -> list[Curve]:
    """All curves of a task under one wording: models from small to large, then the baselines."""
    found: dict[tuple[str, str], dict[int, Result]] = {}
    for row in results:
        if (row.task, row.instruction, row.metric, row.slice) == (task, instruction, metric, part):
            source = (row.checkpoint, row.scoring if row.checkpoint == BASELINE else "")
            found.setdefault(source, {})[row.k] = row
    unordered = [Curve(dict(sorted(points.items()))) for points in found.values()]
    return sorted(unordered, key=lambda curve: (curve.is_baseline, curve.first.params or 0))


def models(of: Iterable[Curve]) -> list[Curve]:
    """The curves of models, from small to large."""
    return [curve for curve in of if not curve.is_baseline]


def baselines(of: Iterable[Curve]) -> list[Curve]:
    """The curves that no model answers, chance last."""
    found = (curve for curve in of if curve.is_baseline)
    return sorted(found, key=lambda curve: curve.first.scoring == CHANCE)


def task_names(results: Iterable[Result]) -> list[str]:
    """The tasks, in order, without their mean."""
    return [task for task in dict.fromkeys(row.task for row in results) if task != MEAN]


def wordings(results: Iterable[Result]) -> list[bool]:
    """The instruction settings that occur, without an instruction first."""
    return sorted({row.instruction for row in results})


def wording_name(instruction: bool) -> str:
    """What a person calls an instruction setting."""
    return "with instruction" if instruction else "without instruction"


def percent(row: Result | None) -> str:
    """A value with its interval in percent."""
    if row is None:
        return ""
    if row.ci_low is None or row.ci_high is None:
        return f"{100 * row.value:.1f}"
    return f"{100 * row.value:.1f} [{100 * row.ci_low:.0f}–{100 * row.ci_high:.0f}]"


def shown_ks(results: Sequence[Result]) -> list[int]:
    """The numbers of demonstrations that were asked for."""
    return sorted({row.k for row in results})
