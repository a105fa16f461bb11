"""The K-curve as a table for the terminal."""

from collections.abc import Sequence

from icl.evaluation.curves import Curve, baselines, curves, models, percent, shown_ks, wordings
from icl.evaluation.records import Result
from icl.evaluation.results import MEAN


def k_curve_table(results: Sequence[Result], task: str = MEAN) -> str:
    """Exact match in percent: a row a checkpoint and wording, then the baselines; a column a K."""
    ks = shown_ks(results)
    lines = [["exact match, %", "parameters", "instruction", *(f"K={k}" for k in ks)]]
    for instruction in wordings(results):
        found = models(curves(results, task, instruction))
        lines += [_line(curve, ks, "yes" if instruction else "no") for curve in found]
    # Baselines do not read the instruction.
    lines += [_line(curve, ks, "") for curve in baselines(curves(results, task, wordings(results)[0]))]
    return _aligned(lines)


def _line(curve: Curve, ks: Sequence[int], instruction: str) -> list[str]:
    params = f"{curve.first.params:,}" if curve.first.params else ""
    return [curve.name, params, instruction, *(percent(curve.points.get(k)) for k in ks)]


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = []
    for line in lines:
        name, *rest = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        text.append("  ".join([name.strip().ljust(widths[0]), *rest]).rstrip())
    return "\n".join([text[0], "-" * max(map(len, text)), *text[1:]])
