"""What the numbers say, in plain words: what is learnt in context, and what is not.

Every sentence is built from results, so it changes when they do.
"""

from collections.abc import Sequence

from icl.evaluation.baselines import CEILING, CHANCE
from icl.evaluation.curves import (
    Curve,
    baselines,
    curves,
    models,
    percent,
    shown_ks,
    task_names,
    wording_name,
    wordings,
)
from icl.evaluation.records import Result
from icl.evaluation.results import MEAN

SOLVED = 0.8
"""Exact match from which a task counts as learnt."""

FEW = 20
"""Queries below which a slice of a score is too small to speak of."""


def findings(results: Sequence[Result]) -> list[str]:
    """Sentences on the largest model: over K, against the smallest, and task by task."""
    plain = wordings(results)[0]
    found = models(curves(results, MEAN, plain))
    if not found:
        return []
    largest, smallest = found[-1], found[0]
    sentences = [_over_k(largest, curves(results, MEAN, plain), plain)]
    if smallest.first.params != largest.first.params:
        sentences.append(_against(largest, smallest))
    sentences += _by_task(results, largest.name, plain)
    if len(wordings(results)) == 2:
        sentences += _by_instruction(results, largest.name)
    return sentences


def _over_k(curve: Curve, found: Sequence[Curve], instruction: bool) -> str:
    first, last = curve.points[min(curve.points)], curve.last
    bounds = {b.first.scoring: b.last for b in baselines(found)}
    ending = f"; chance is {percent(bounds[CHANCE])} %" if CHANCE in bounds else ""
    if CEILING in bounds:
        ending += f", and the demonstrations allow {100 * bounds[CEILING].value:.1f} % at most"
    rise = f", and {percent(first)} % with {_shown(first.k)}" if last.k != first.k else ""
    return (
        f"{_named(curve)} answers {percent(last)} % of the queries exactly with {_shown(last.k)} "
        f"{wording_name(instruction)}{rise}, mean over tasks{ending}."
    )


def _against(largest: Curve, smallest: Curve) -> str:
    gap = 100 * (largest.last.value - smallest.last.value)
    where = "above" if gap >= 0 else "below"
    return (
        f"With {_shown(largest.last.k)} it is {abs(gap):.0f} points {where} {_named(smallest)} "
        f"({percent(smallest.last)} %)."
    )


def _by_task(results: Sequence[Result], name: str, instruction: bool) -> list[str]:
    """The tasks by what the largest model makes of the demonstrations, a sentence for every kind."""
    kinds: dict[str, list[str]] = {}
    for task in task_names(results):
        found = curves(results, task, instruction)
        curve = next((curve for curve in models(found) if curve.name == name), None)
        if curve is not None:
            kind, detail = _kind(
                results, curve, [b for b in baselines(found) if b.first.scoring != CEILING], instruction
            )
            kinds.setdefault(kind, []).append(f"{task} ({detail})")
    return [f"{kind}: {', '.join(kinds[kind])}." for kind in _KINDS if kind in kinds]


_LEARNT, _PARTLY = "Learnt", "Partly learnt"
_LOOKED_UP = "Answered by finding the query among the demonstrations and excluding answers, not by a rule"
_NOT = "Not learnt, no better than rules that know nothing of the task"
_KINDS = (_LEARNT, _PARTLY, _LOOKED_UP, _NOT)


def _kind(
    results: Sequence[Result], curve: Curve, rules: Sequence[Curve], instruction: bool
) -> tuple[str, str]:
    last = curve.last
    blind = [rule.points[last.k] for rule in rules if not rule.first.scoring.endswith(":lookup")]
    floor = max((row.value for row in blind), default=0.0)
    if last.ci_low is None or last.ci_low <= floor:
        return _NOT, f"{percent(last)} %, the best such rule {100 * floor:.1f} %"
    slices = {part: _slice(results, last, part, instruction) for part in ("query_seen", "query_unseen")}
    seen, unseen = slices["query_seen"], slices["query_unseen"]
    if seen:
        detail = f"{percent(seen)} % where it stood there"
        if unseen:
            detail += f", {percent(unseen)} % where it did not"
        is_rule = unseen is not None and unseen.value >= SOLVED and _beats_exclusion(results, unseen)
        return (_LEARNT if is_rule else _LOOKED_UP), detail
    return (_LEARNT if last.value >= SOLVED else _PARTLY), f"{percent(last)} %"


def _beats_exclusion(results: Sequence[Result], unseen: Result) -> bool:
    """Whether a score on queries that were not shown is above what excluding the answers shown gives."""
    found = baselines(curves(results, unseen.task, unseen.instruction, part="query_unseen"))
    bounds = [curve.points.get(unseen.k) for curve in found if curve.first.scoring == CEILING]
    best = next((row.value for row in bounds if row is not None), 0.0)
    return unseen.ci_low is not None and unseen.ci_low > best


def _slice(results: Sequence[Result], last: Result, part: str, instruction: bool) -> Result | None:
    """A model's score at the largest K for queries that were, or were not, among the demonstrations."""
    for curve in models(curves(results, last.task, instruction, part=part)):
        row = curve.points.get(last.k)
        if curve.name == last.checkpoint and row is not None and row.n >= FEW:
            return row
    return None


def _by_instruction(results: Sequence[Result], name: str) -> list[str]:
    """Tasks that the instruction helps beyond the intervals, before any demonstration and after all."""
    sentences = []
    for k in dict.fromkeys((shown_ks(results)[0], shown_ks(results)[-1])):
        helped = []
        for task in task_names(results):
            found = (curves(results, task, instruction) for instruction in (False, True))
            rows = [curve.points[k] for both in found for curve in models(both) if curve.name == name]
            if len(rows) == 2 and _above(rows[1], rows[0]):
                helped.append(f"{task} (from {percent(rows[0])} % to {percent(rows[1])} %)")
        named = ", ".join(helped) if helped else "no task"
        sentences.append(f"With {_shown(k)}, the instruction raises {named} beyond the intervals.")
    return sentences


def _above(high: Result, low: Result) -> bool:
    return high.ci_low is not None and low.ci_high is not None and high.ci_low > low.ci_high


def _shown(k: int) -> str:
    return "no demonstration" if k == 0 else "one demonstration" if k == 1 else f"{k} demonstrations"


def _named(curve: Curve) -> str:
    params = f" ({curve.first.params:,} parameters)" if curve.first.params else ""
    return f"{curve.name}{params}"
