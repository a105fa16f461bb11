"""The K-curve as a table for the terminal."""

from collections.abc import Sequence

from icl.evaluation.curves import Curve, baselines, by_task, curves, models, percent, shown_ks, wordings
from icl.evaluation.records import Result
from icl.evaluation.results import MEAN

WIDTH = 110
"""Characters of a line; the columns of more numbers of demonstrations stand below."""


def k_curve_table(results: Sequence[Result], task: str = MEAN) -> str:
    """Exact match in percent: a row a checkpoint and wording, then the baselines; a column a K.

    The mean has the numbers of demonstrations that all tasks share; where there is none, every task has a
    table of its own.
    """
    found = by_task(results)
    if task == MEAN and MEAN not in found:
        return "\n\n".join(f"{name}\n{_table(rows, name)}" for name, rows in found.items())
    return _table(found.get(task, []), task)


def _table(rows: Sequence[Result], task: str) -> str:
    settings = wordings(rows) or [False]
    named: list[tuple[list[str], Curve]] = []
    for instruction in settings:
        for curve in models(curves(rows, task, instruction)):
            params = f"{curve.first.params:,}" if curve.first.params else ""
            named.append(([curve.name, params, "yes" if instruction else "no"], curve))
    # Baselines do not read the instruction.
    named += [([curve.name, "", ""], curve) for curve in baselines(curves(rows, task, settings[0]))]
    ks = shown_ks([row for _, curve in named for row in curve.points.values()])
    head = ["exact match, %", "parameters", "instruction"]
    columns = [[f"K={k}", *(percent(curve.points.get(k)) for _, curve in named)] for k in ks]
    stub = [list(cells) for cells in zip(head, *(cells for cells, _ in named), strict=True)]
    tables = "\n\n".join(_aligned([*stub, *part]) for part in _parts(stub, columns))
    return "\n".join([tables, *_cut_short([curve for _, curve in named if not curve.is_baseline])])


def _cut_short(found: Sequence[Curve]) -> list[str]:
    """A line for each K of which fewer fit into the context."""
    fitted: dict[int, list[float]] = {}
    for curve in found:
        for k, row in curve.points.items():
            if row.k_effective < k:
                fitted.setdefault(k, []).append(row.k_effective)
    return [
        f"K={k}: {min(values):.3g}{f' to {max(values):.3g}' if max(values) > min(values) else ''} "
        "demonstrations fit into the context, on average"
        for k, values in sorted(fitted.items())
    ]


def _parts(stub: Sequence[Sequence[str]], columns: Sequence[list[str]]) -> list[list[list[str]]]:
    """Columns in parts that fit a line, each beside the stub."""
    parts: list[list[list[str]]] = [[]]
    for column in columns:
        taken = sum(_width(each) + 2 for each in [*stub, *parts[-1], column]) - 2
        if parts[-1] and taken > WIDTH:
            parts.append([])
        parts[-1].append(column)
    return parts


def _width(column: Sequence[str]) -> int:
    return max(map(len, column))


def _aligned(columns: Sequence[Sequence[str]]) -> str:
    widths = [_width(column) for column in columns]
    text = []
    for line in zip(*columns, strict=True):
        name, *rest = line
        cells = (cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
        text.append("  ".join([name.ljust(widths[0]), *cells]).rstrip())
    return "\n".join([text[0], "-" * max(map(len, text)), *text[1:]])
