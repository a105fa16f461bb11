"""The part of the report that compares runs and conditions, pair by pair, with Holm's correction."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Protocol

from icl.evaluation.curves import condition_name, metric_name, scale, wording_name
from icl.evaluation.report_html import count, interval, table
from icl.evaluation.results import CONDITION, MEAN, TEMPLATE

MAX_ROWS = 300


class Difference(Protocol):
    """What is read of a difference; `value` is left minus right.

    Of `checkpoint`, `instruction` and `condition`, the one that is compared is None.
    """

    @property
    def checkpoint(self) -> str | None: ...
    @property
    def left(self) -> str: ...
    @property
    def right(self) -> str: ...
    @property
    def task(self) -> str: ...
    @property
    def metric(self) -> str: ...
    @property
    def scoring(self) -> str: ...
    @property
    def k(self) -> int: ...
    @property
    def instruction(self) -> bool | None: ...
    @property
    def template(self) -> str: ...
    @property
    def condition(self) -> str | None: ...
    @property
    def value(self) -> float: ...
    @property
    def ci_low(self) -> float | None: ...
    @property
    def ci_high(self) -> float | None: ...
    @property
    def p(self) -> float: ...
    @property
    def p_holm(self) -> float: ...
    @property
    def family(self) -> str: ...
    @property
    def marked(self) -> bool: ...
    @property
    def n(self) -> int: ...
    @property
    def clusters(self) -> int: ...
    @property
    def dropped(self) -> int: ...


def differences_section(differences: Sequence[Difference]) -> str:
    """All differences, those that stand after the correction first; nothing where nothing was compared."""
    if not differences:
        return ""
    marked = sum(row.marked for row in differences)
    families = dict.fromkeys(row.family for row in differences)
    shown = sorted(differences, key=_order)[:MAX_ROWS]
    parts = [_family(name, [row for row in shown if row.family == name]) for name in families]
    left = f" The {MAX_ROWS} with the smallest p are shown." if len(differences) > MAX_ROWS else ""
    return (
        "<section id='differences'><h2>Differences between runs and conditions</h2><p class='lead'>Left "
        "minus right, "
        "over the queries and seeds that both answered with the same number of demonstrations. Intervals are "
        "pointwise, for one difference by itself. Emphasised is only what stays after Holm’s correction for "
        "all "
        f"differences of its family: {marked} of {len(differences)}. The others are not evidence of a "
        f"difference.{left}</p>{''.join(parts)}</section>"
    )


def _order(row: Difference) -> tuple[bool, float]:
    return not row.marked, row.p


def _family(name: str, rows: Iterable[Difference]) -> str:
    lines = [_line(row) for row in rows]
    if not lines:
        return ""
    head = ["left – right", "K", "difference, 95 %", "p, Holm", "p", "metric", "pairs"]
    return f"<div class='card'><h3>{escape(name)}</h3>{table(head, lines)}</div>"


def _line(row: Difference) -> list[str]:
    times = scale(row.metric)
    digits = 1 if times == 100 else 3
    value = f"{times * row.value:+.{digits}f}"
    ends = ["" if end is None else f"{times * end:+.{digits}f}" for end in (row.ci_low, row.ci_high)]
    details = [row.checkpoint] if row.checkpoint is not None else []
    details += [wording_name(row.instruction)] if row.instruction is not None else []
    details += [condition_name(row.condition)] if row.condition and row.condition != CONDITION else []
    details += [row.template] if row.template != TEMPLATE else []
    task = "mean over tasks" if row.task == MEAN else row.task
    pairs = f"{row.n:,} in {count(row.clusters, 'cluster')}"
    if row.dropped:
        pairs += f", {row.dropped:,} left out"
    span = f"<br><small>{interval(*ends)}</small>" if all(ends) else ""
    return [
        f"{escape(row.left)} – {escape(row.right)}<br><small>{escape(', '.join([task, *details]))}</small>",
        str(row.k),
        (f"<strong class='marked'>{value} differs</strong>" if row.marked else value) + span,
        _p(row.p_holm),
        _p(row.p),
        f"{escape(metric_name(row.metric))}<br><small>{escape(row.scoring)}</small>",
        f"<small>{escape(pairs)}</small>",
    ]


def _p(value: float) -> str:
    return "&lt; 0.0001" if value < 1e-4 else f"{value:.4f}"
