"""All differences that an evaluation's records hold: between checkpoints, conditions and wordings.

Each is of paired answers (`icl.evaluation.comparisons`) and is marked only after Holm's correction within its
family. Corpus metrics, which no query has alone, are not compared.
"""

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from icl.evaluation.comparisons import Paired, Side, holm, mean_difference, paired_difference
from icl.evaluation.records import Record, rounded
from icl.evaluation.results import CONDITION, MEAN, SEVERAL, TEMPLATE
from icl.evaluation.statistics import LEVEL

CHECKPOINTS, CONDITIONS, INSTRUCTION = "checkpoints", "conditions", "instruction"
"""The families: each kind of comparison is one, over all tasks, K, wordings and checkpoints of a run. A
reader searches the whole table of a kind for marks, so the whole table shares the error. Differences of the
mean over tasks answer another question and are a family of their own, "KIND, mean over tasks"."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """What `left` scored above `right`, as it is written.

    Both are labels of checkpoints, conditions, or "with" and "without" (an instruction). Of `checkpoint`,
    `condition` and `instruction`, the one that is compared is None. The interval is pointwise; `p` is of the
    same test, `p_holm` corrected within the `family`, and `marked` says that it is small enough. `n` counts
    pairs, `dropped` the queries under a seed that one side lacks or that the sides answered after different
    numbers of demonstrations.
    """

    family: str
    left: str
    right: str
    checkpoint: str | None
    task: str
    metric: str
    scoring: str
    k: int
    instruction: bool | None
    template: str
    condition: str | None
    value: float
    ci_low: float | None
    ci_high: float | None
    p: float
    p_holm: float
    marked: bool
    n: int
    clusters: int
    dropped: int


class _Cell(NamedTuple):
    """What two groups of records must share to be compared, but for what is compared."""

    task: str
    k: int
    instruction: bool
    condition: str
    template: str
    scoring: str


@dataclasses.dataclass(frozen=True)
class _Group:
    side: Side
    crossed: bool


class _Pair(NamedTuple):
    """One comparison, its differences not yet corrected; None stands for what is compared."""

    kind: str
    left: str
    right: str
    checkpoint: str | None
    cell: _Cell
    sides: tuple[_Group, _Group]


def differences(
    records: Mapping[str, Iterable[Record]],
    metric: str = "exact_match",
    level: float = LEVEL,
    bounded: bool = True,
) -> list[Difference]:
    """All differences that the records of several checkpoints, by label, hold; always in the same order.

    Checkpoints in pairs, a later one less an earlier one, on gold demonstrations in the default template, at
    each task, K and wording; within a checkpoint each condition less gold (from one demonstration on: without
    any they are the same prompt) and with less without an instruction; and of each the mean over the tasks
    that both sides have. Orders of the demonstrations are paired one by one.

    Args:
      records: Of every checkpoint, by its label, in the order of the report.
      metric: A field of the records that is a mean over queries.
      level: Of the intervals; a difference is marked where the corrected p is at most 1 - level.
      bounded: The metric lies in 0..1.
    """
    groups = _groups(records, metric)
    rows: list[tuple[str, _Pair, Paired]] = []
    means: dict[tuple[object, ...], list[tuple[_Pair, Paired]]] = defaultdict(list)
    for pair in (*_checkpoint_pairs(groups), *_condition_pairs(groups), *_instruction_pairs(groups)):
        left, right = pair.sides
        crossed = left.crossed and right.crossed
        found = paired_difference(left.side, right.side, crossed=crossed, level=level, bounded=bounded)
        if found is not None:
            rows.append((pair.kind, pair, found))
            cell = pair.cell
            means[*pair[:4], cell.k, cell.instruction, cell.condition].append((pair, found))
    for parts in means.values():
        if len(parts) > 1:
            pair, found = parts[0][0], mean_difference([part for _, part in parts], level, bounded)
            scorings = {part.cell.scoring for part, _ in parts}
            scoring = scorings.pop() if len(scorings) == 1 else SEVERAL
            mean = pair._replace(cell=pair.cell._replace(task=MEAN, scoring=scoring))
            rows.append((f"{pair.kind}, mean over tasks", mean, found))
    return _corrected(rows, metric, level)


def _groups(records: Mapping[str, Iterable[Record]], metric: str) -> dict[str, dict[_Cell, _Group]]:
    """Observations by checkpoint and cell, cells in order; queries and clusters numbered alike everywhere."""
    queries: dict[tuple[str, str, str, int], int] = {}
    clusters: dict[tuple[str, str], int] = {}
    groups = {}
    for label, members in records.items():
        rows: dict[_Cell, list[tuple[float, int, int, int, int]]] = defaultdict(list)
        instances: dict[str, set[str]] = defaultdict(set)
        fixed: dict[str, bool] = {}
        for r in members:
            value = getattr(r, metric)
            if value is None:
                continue
            query = queries.setdefault((r.task, r.instance, r.query, r.order), len(queries))
            cluster = clusters.setdefault((r.task, r.cluster), len(clusters))
            cell = _Cell(r.task, r.k, r.instruction, r.condition, r.template, r.scoring)
            rows[cell].append((value, cluster, query, r.seed, r.k_effective))
            instances[r.task].add(r.instance)
            fixed[r.task] = r.demonstrations == "fixed"
        groups[label] = {
            cell: _Group(_side(rows[cell]), fixed[cell.task] and len(instances[cell.task]) == 1)
            for cell in sorted(rows)
        }
    return groups


def _side(rows: Sequence[tuple[float, int, int, int, int]]) -> Side:
    values, *numbers = zip(*rows, strict=True)
    clusters_N, queries_N, seeds_N, k_used_N = (np.array(column, np.int64) for column in numbers)
    return Side(np.array(values, np.float64), clusters_N, queries_N, seeds_N, k_used_N)


def _checkpoint_pairs(groups: Mapping[str, Mapping[_Cell, _Group]]) -> Iterator[_Pair]:
    for right, left in itertools.combinations(groups, 2):
        for cell, group in groups[left].items():
            plain = cell.condition == CONDITION and cell.template == TEMPLATE
            if plain and cell in groups[right]:
                yield _Pair(CHECKPOINTS, left, right, None, cell, (group, groups[right][cell]))


def _condition_pairs(groups: Mapping[str, Mapping[_Cell, _Group]]) -> Iterator[_Pair]:
    for label, cells in groups.items():
        for cell, group in cells.items():
            gold = cells.get(cell._replace(condition=CONDITION))
            if cell.condition != CONDITION and cell.template == TEMPLATE and cell.k and gold:
                yield _Pair(CONDITIONS, cell.condition, CONDITION, label, cell, (group, gold))


def _instruction_pairs(groups: Mapping[str, Mapping[_Cell, _Group]]) -> Iterator[_Pair]:
    for label, cells in groups.items():
        for cell, group in cells.items():
            without = cells.get(cell._replace(instruction=False))
            plain = cell.condition == CONDITION and cell.template == TEMPLATE
            if plain and cell.instruction and without:
                yield _Pair(INSTRUCTION, "with", "without", label, cell, (group, without))


def _corrected(rows: Sequence[tuple[str, _Pair, Paired]], metric: str, level: float) -> list[Difference]:
    """The differences with Holm's correction, family by family in the order in which they come."""
    families: dict[str, list[tuple[_Pair, Paired]]] = defaultdict(list)
    for family, pair, found in rows:
        families[family].append((pair, found))
    return [
        _difference(family, pair, found, adjusted, metric, level)
        for family, members in families.items()
        for (pair, found), adjusted in zip(members, holm([found.p for _, found in members]), strict=True)
    ]


def _difference(
    family: str, pair: _Pair, found: Paired, adjusted: float, metric: str, level: float
) -> Difference:
    cell = pair.cell
    return Difference(
        family=family,
        left=pair.left,
        right=pair.right,
        checkpoint=pair.checkpoint,
        task=cell.task,
        metric=metric,
        scoring=cell.scoring,
        k=cell.k,
        instruction=None if pair.kind == INSTRUCTION else cell.instruction,
        template=cell.template,
        condition=None if pair.kind == CONDITIONS else cell.condition,
        value=rounded(found.value),
        ci_low=None if found.low is None else rounded(found.low),
        ci_high=None if found.high is None else rounded(found.high),
        p=_significant(found.p),
        p_holm=_significant(adjusted),
        marked=adjusted <= 1 - level,
        n=found.n,
        clusters=found.clusters,
        dropped=found.dropped,
    )


def _significant(p: float) -> float:
    """A p-value as it is written: six significant digits, for a small one is not 0."""
    return float(f"{p:.6g}")
