"""Pieces of HTML that the parts of the report share.

Cells are HTML: who makes one escapes what others said.
"""

from collections.abc import Iterable, Sequence
from html import escape

from icl.evaluation.curves import (
    SCORE,
    Curve,
    baselines,
    curves,
    metric_name,
    models,
    scale,
    shown_ks,
    wording_name,
    wordings,
)
from icl.evaluation.records import Result

INSTRUCTION = "in&shy;struc&shy;tion"
"""The head of its column, which a narrow screen may break."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table that scrolls sideways on a narrow screen; its cells are HTML."""
    heads = "".join(f"<th scope='col'>{cell}</th>" for cell in head)
    lines = ("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f"<div class='scroll' tabindex='0'><table><thead><tr>{heads}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def folded(summary: str, content: str) -> str:
    """What is shown when it is asked for; the summary is text."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def score_table(rows: Sequence[Result], task: str, metric: str = SCORE) -> str:
    """A task's curves in figures: a row a checkpoint and wording, then the baselines; a column a K."""
    ks, settings = shown_ks(rows), wordings(rows)
    lines = []
    for instruction in settings:
        for curve in models(curves(rows, task, instruction, metric=metric)):
            details = [f"{curve.first.params:,} parameters"] if curve.first.params else []
            details += [wording_name(instruction)] if len(settings) > 1 else []
            small = f"<br><small>{', '.join(details)}</small>" if details else ""
            lines.append([f"{escape(curve.name)}{small}", *scores(curve, ks)])
    lines += [[escape(rule.name), *scores(rule, ks)] for rule in rules(rows, task, metric)]
    return table([metric_name(metric), *k_heads(ks)], lines)


def rules(rows: Sequence[Result], task: str, metric: str) -> list[Curve]:
    """The baselines of a task, which do not read the instruction."""
    return baselines(curves(rows, task, (wordings(rows) or [False])[0], metric=metric))


def scores(curve: Curve, ks: Sequence[int]) -> list[str]:
    """A cell for every K."""
    return [score(curve.points.get(k)) for k in ks]


def k_heads(ks: Sequence[int]) -> list[str]:
    """The heads of columns of numbers of demonstrations."""
    return [f"K = {k}" for k in ks]


def said(instruction: bool) -> str:
    """The cell of an instruction setting."""
    return "yes" if instruction else "no"


def score(row: Result | None) -> str:
    """A value with its pointwise interval, the K that fitted if it is another, and its spread over orders."""
    if row is None:
        return ""
    times = scale(row.metric)
    digits = 1 if times == 100 else 3
    lines = [f"{times * row.value:.{digits}f}"]
    if row.ci_low is not None and row.ci_high is not None:
        ends = (f"{times * end:.{0 if times == 100 else 2}f}" for end in (row.ci_low, row.ci_high))
        lines.append(f"<small>{interval(*ends)}</small>")
    if row.k_effective != row.k:
        lines.append(f"<small>K fitted {row.k_effective:g}</small>")
    if row.order_values:
        ends = (f"{times * end(row.order_values):.{digits}f}" for end in (min, max))
        lines.append(f"<small>orders {interval(*ends)}</small>")
    return "<br>".join(lines)


def interval(low: str, high: str) -> str:
    """From low to high; with "to" where there are signs."""
    return f"{low} to {high}" if low[:1] in "+-" or high[:1] in "+-" else f"{low}–{high}"


def count(number: int, noun: str) -> str:
    """A number of things."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
