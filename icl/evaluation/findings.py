"""What the numbers say, in plain words: what is learnt in context, what was known before, and what is not.

Every sentence is built from results, so it changes when they do.
"""

from collections.abc import Mapping, Sequence

from icl.evaluation.baselines import CEILING, CHANCE
from icl.evaluation.comparisons import Run, over_size
from icl.evaluation.curves import (
    Curve,
    baselines,
    by_task,
    checkpoints,
    condition_name,
    conditions,
    curves,
    main_metric,
    models,
    percent,
    scale,
    wording_name,
    wordings,
)
from icl.evaluation.records import Result
from icl.evaluation.results import CONDITION, MEAN

SOLVED = 0.8
"""Score from which a task counts as learnt."""

FEW = 20
"""Queries below which a slice of a score is too small to speak of."""

_Tasks = Mapping[str, Sequence[Result]]


def findings(results: Sequence[Result]) -> list[str]:
    """Sentences on the largest model: over K, against the smallest, and task by task."""
    found, plain = by_task(results), wordings(results)[0]
    names = list(checkpoints(results))
    if not names:
        return []
    mean = curves(found.pop(MEAN, ()), MEAN, plain)
    sentences = []
    largest = next((curve for curve in models(mean) if curve.name == names[-1]), None)
    if largest is not None:
        sentences.append(_over_k(largest, mean, plain))
        sentences += _by_size(models(mean))
        sentences += _by_condition(results, largest, plain)
    sentences += _by_task(found, names[-1], plain)
    if len(wordings(results)) == 2:
        sentences += _by_instruction(found, names[-1])
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


def _by_size(found: Sequence[Curve]) -> list[str]:
    """The largest size against the smallest. Training runs are the units of what is said about size."""
    sizes = sorted({curve.first.params or 0 for curve in found})
    if len(sizes) < 2:
        return []
    smaller, larger = (_runs(found, size) for size in (sizes[0], sizes[-1]))
    k = larger[-1].last.k
    scores = [[curve.points[k].value for curve in runs if k in curve.points] for runs in (smaller, larger)]
    if not all(scores):
        return []
    low, high = (100 * sum(values) / len(values) for values in scores)
    where = "above" if high >= low else "below"
    if min(map(len, scores)) > 1:
        apart = min(scores[1]) > max(scores[0]) or max(scores[1]) < min(scores[0])
        every = f"every run of one size is {where} every run of the other" if apart else "their runs overlap"
        return [
            *_over_sizes(found, k),
            f"With {_shown(k)}, {len(scores[1])} training runs of {sizes[-1]:,} parameters answer "
            f"{high:.1f} % on average and {len(scores[0])} runs of {sizes[0]:,} parameters {low:.1f} %: "
            f"{every}.",
        ]
    return [
        *_over_sizes(found, k),
        f"With {_shown(k)}, {_named(larger[-1])} is {abs(high - low):.0f} points {where} "
        f"{_named(smaller[0])} ({percent(smaller[0].points[k])} %). They are single training runs: whether "
        "size makes the difference, or the run, takes several runs of each size to say.",
    ]


def _over_sizes(found: Sequence[Curve], k: int) -> list[str]:
    """What a tenfold size adds, over all training runs; nothing where they are too few to say."""
    slope = over_size([Run(c.first.params or 1, c.points[k].value) for c in found if k in c.points])
    if slope is None or slope.low is None or slope.high is None:
        return []
    return [
        f"Over {slope.runs} training runs of {slope.sizes} sizes, ten times the parameters add "
        f"{100 * slope.value:.1f} points with {_shown(k)} [{100 * slope.low:.1f} to {100 * slope.high:.1f}; "
        f"the runs are what varies, p = {slope.p:.2g}]."
    ]


def _runs(found: Sequence[Curve], size: int) -> list[Curve]:
    return [curve for curve in found if (curve.first.params or 0) == size]


def _by_condition(results: Sequence[Result], gold: Curve, instruction: bool) -> list[str]:
    """What is left of the score when the labels of the demonstrations say something else."""
    left = []
    for condition in conditions(results):
        if condition != CONDITION:
            found = models(curves(results, MEAN, instruction, condition=condition))
            rows = [curve.points.get(gold.last.k) for curve in found if curve.name == gold.name]
            left += [f"{condition_name(condition)} {percent(row)} %" for row in rows if row is not None]
    if not left:
        return []
    return [f"With {_shown(gold.last.k)}: gold labels {percent(gold.last)} %, {', '.join(left)}."]


def _by_task(found: _Tasks, name: str, instruction: bool) -> list[str]:
    """The tasks by what the largest model makes of the demonstrations, a sentence for every kind."""
    kinds: dict[str, list[str]] = {}
    for task, rows in found.items():
        metric = main_metric(rows, task)
        shown = curves(rows, task, instruction, metric=metric)
        curve = next((curve for curve in models(shown) if curve.name == name), None)
        if curve is not None and scale(metric) == 100:
            rules = [rule for rule in baselines(shown) if rule.first.scoring != CEILING]
            kind, detail = _kind(rows, curve, rules, instruction)
            kinds.setdefault(kind, []).append(f"{task} ({detail})")
    return [f"{kind}: {', '.join(kinds[kind])}." for kind in _KINDS if kind in kinds]


_LEARNT = "Learnt in context (the score rises with the demonstrations, beyond the intervals)"
_PARTLY = "Partly learnt in context (it rises beyond the intervals, to less than 80 %)"
_KNOWN = "Answered without need of demonstrations (no rise with them beyond the intervals)"
_FELL = "Answered better without demonstrations than with them"
_ONE_K = "Answered better than rules that know nothing of the task, at the one K that was asked"
_LOOKED_UP = "Answered by finding the query among the demonstrations and excluding answers, not by a rule"
_NO_RULE = "Scored where no rule is there to compare with"
_NOT = "Not learnt, no better than rules that know nothing of the task"
_KINDS = (_LEARNT, _PARTLY, _KNOWN, _FELL, _ONE_K, _LOOKED_UP, _NO_RULE, _NOT)


def _kind(rows: Sequence[Result], curve: Curve, rules: Sequence[Curve], instruction: bool) -> tuple[str, str]:
    first, last = curve.points[min(curve.points)], curve.last
    detail = f"{percent(last)} %"
    if first.k != last.k:
        detail += f", {percent(first)} % with {_shown(first.k)}"
    known = [rule.points[last.k] for rule in rules if last.k in rule.points]
    if not known:
        return _NO_RULE, detail
    blind = [row.value for row in known if not row.scoring.endswith(":lookup")]
    floor = max(blind, default=0.0)
    if last.ci_low is None or last.ci_low <= floor:
        return _NOT, f"{percent(last)} %, the best such rule {100 * floor:.1f} %"
    seen, unseen = (_slice(rows, last, part, instruction) for part in ("query_seen", "query_unseen"))
    score = last.value
    if seen:
        detail = f"{percent(seen)} % where it stood there"
        if unseen:
            detail += f", {percent(unseen)} % where it did not"
        if unseen is None or unseen.value < SOLVED or not _beats_exclusion(rows, unseen):
            return _LOOKED_UP, detail
        score = unseen.value
    if first.k == last.k:
        return _ONE_K, detail
    if _above(last, first):
        return (_LEARNT if score >= SOLVED else _PARTLY), detail
    return (_FELL if _above(first, last) else _KNOWN), detail


def _beats_exclusion(rows: Sequence[Result], unseen: Result) -> bool:
    """Whether a score on queries that were not shown is above what excluding the answers shown gives."""
    found = baselines(
        curves(rows, unseen.task, unseen.instruction, metric=unseen.metric, part="query_unseen")
    )
    bounds = [curve.points.get(unseen.k) for curve in found if curve.first.scoring == CEILING]
    best = next((row.value for row in bounds if row is not None), 0.0)
    return unseen.ci_low is not None and unseen.ci_low > best


def _slice(rows: Sequence[Result], last: Result, part: str, instruction: bool) -> Result | None:
    """A model's score at the largest K for queries that were, or were not, among the demonstrations."""
    for curve in models(curves(rows, last.task, instruction, metric=last.metric, part=part)):
        row = curve.points.get(last.k)
        if curve.name == last.checkpoint and row is not None and row.n >= FEW:
            return row
    return None


def _by_instruction(found: _Tasks, name: str) -> list[str]:
    """Tasks that the instruction helps beyond the intervals, before any demonstration and after all."""
    sentences = []
    for end, called in ((min, "the fewest"), (max, "the most")):
        helped, ks = [], set()
        for task, rows in found.items():
            metric = main_metric(rows, task)
            both = [
                curve
                for instruction in (False, True)
                for curve in models(curves(rows, task, instruction, metric=metric))
                if curve.name == name
            ]
            if len(both) == 2:
                without, instructed = (curve.points[end(curve.points)] for curve in both)
                ks |= {without.k, instructed.k}
                if _above(instructed, without) and without.k == instructed.k and scale(metric) == 100:
                    helped.append(f"{task} (from {percent(without)} % to {percent(instructed)} %)")
        if ks:
            named = ", ".join(helped) if helped else "no task"
            shown = _shown(ks.pop()) if len(ks) == 1 else f"{called} demonstrations of each task"
            sentences.append(f"With {shown}, the instruction raises {named} beyond the intervals.")
    return list(dict.fromkeys(sentences))


def _above(high: Result, low: Result) -> bool:
    return high.ci_low is not None and low.ci_high is not None and high.ci_low > low.ci_high


def _shown(k: int) -> str:
    return "no demonstration" if k == 0 else "one demonstration" if k == 1 else f"{k} demonstrations"


def _named(curve: Curve) -> str:
    params = f" ({curve.first.params:,} parameters)" if curve.first.params else ""
    return f"{curve.name}{params}"
