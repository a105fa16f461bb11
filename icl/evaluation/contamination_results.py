"""What an evaluation scored on clean and on dirty queries, as Table C.1 of arXiv 2005.14165 shows it."""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from icl.evaluation.contamination import Overlap, example_text
from icl.evaluation.records import Record, rounded
from icl.evaluation.results import UNBOUNDED, record_scores
from icl.evaluation.statistics import Scores, estimate


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """A metric over some queries with its 95 % interval; `n` counts queries. All None without any."""

    n: int
    clusters: int
    value: float | None
    ci_low: float | None
    ci_high: float | None
    interval_method: str


@dataclasses.dataclass(frozen=True, slots=True)
class ContaminationResult:
    """One metric on all, clean and dirty queries of a task.

    `words` is N; of the clean queries `short` have fewer than N words. `relative_difference` is
    (clean - all) / all, None where it says nothing. `sums` counts the queries whose operation is written in a
    document, None where the task asks for none.
    """

    checkpoint: str
    step: int | None
    task: str
    split: str
    metric: str
    k: int
    instruction: bool
    scoring: str
    condition: str
    demonstrations: str
    template: str
    corpus: tuple[str, ...]
    words: int
    all: Part
    clean: Part
    dirty: Part
    short: int
    relative_difference: float | None
    sums: int | None


@dataclasses.dataclass(frozen=True)
class _Condition:
    """What the records of one figure share."""

    checkpoint: str
    step: int | None
    task: str
    split: str
    k: int
    instruction: bool
    condition: str
    demonstrations: str
    template: str
    scoring: str
    metric: str


def record_texts(records: Iterable[Record]) -> dict[str, dict[str, str]]:
    """By task, the texts of the queries of records by name.

    Of a query whose start was left out of some prompts it is the longest text, and its answer is the true one
    where a condition changed the labels of others.
    """
    found: dict[str, dict[str, Record]] = defaultdict(dict)
    for record in records:
        held = found[record.task].setdefault(record.query, record)
        if _preference(record) > _preference(held):
            found[record.task][record.query] = record
    return {
        task: {query: example_text(record.input, record.gold) for query, record in of_task.items()}
        for task, of_task in found.items()
    }


def _preference(record: Record) -> tuple[bool, int]:
    return record.condition == "gold", -record.lost


def contamination_results(
    records: Iterable[Record], overlaps: Mapping[str, Overlap], corpus: Sequence[str], resamples: int = 2000
) -> list[ContaminationResult]:
    """Every metric under every condition of the records, in the order they come in.

    Args:
      records: Of any checkpoints and tasks.
      overlaps: What of each task stands in the corpus.
      corpus: What it is, for people.
      resamples: Of a bootstrap, where there is one.
    """
    groups: dict[_Condition, list[tuple[Record, float]]] = defaultdict(list)
    for record in records:
        for (scoring, metric), value in record_scores(record).items():
            groups[_condition(record, scoring, metric)].append((record, value))
    return [
        _result(condition, members, overlaps[condition.task], tuple(corpus), resamples)
        for condition, members in groups.items()
    ]


def _condition(record: Record, scoring: str, metric: str) -> _Condition:
    return _Condition(
        record.checkpoint,
        record.step,
        record.task,
        record.split,
        record.k,
        record.instruction,
        record.condition,
        record.demonstrations,
        record.template,
        scoring,
        metric,
    )


def _result(
    condition: _Condition,
    members: Sequence[tuple[Record, float]],
    overlap: Overlap,
    corpus: tuple[str, ...],
    resamples: int,
) -> ContaminationResult:
    clean = [member for member in members if member[0].query not in overlap.dirty]
    dirty = [member for member in members if member[0].query in overlap.dirty]
    whole, without, within = (
        _part(each, condition.metric not in UNBOUNDED, resamples) for each in (members, clean, dirty)
    )
    difference = None
    if whole.value and without.value is not None and condition.metric not in UNBOUNDED:
        difference = rounded((without.value - whole.value) / whole.value)
    return ContaminationResult(
        **dataclasses.asdict(condition),
        corpus=corpus,
        words=overlap.words,
        all=whole,
        clean=without,
        dirty=within,
        short=overlap.short,
        relative_difference=difference,
        sums=None if overlap.sums is None else len(overlap.sums),
    )


def _part(members: Sequence[tuple[Record, float]], bounded: bool, resamples: int) -> Part:
    if not members:
        return Part(0, 0, None, None, None, "none")
    # Where a task has several instances they are the clusters, and each has a fixed set of its own.
    first = members[0][0]
    numbers: dict[str, int] = {}  # in the order they come, so that a bootstrap gives what results.jsonl has
    scores = Scores(
        np.array([value for _, value in members]),
        np.array([numbers.setdefault(record.cluster, len(numbers)) for record, _ in members]),
        np.array([record.seed for record, _ in members]),
        bounded=bounded,
        crossed=first.demonstrations == "fixed" and first.cluster != first.instance,
    )
    found = estimate(scores, resamples)
    low, high = (None if bound is None else rounded(bound) for bound in (found.low, found.high))
    queries = len({record.query for record, _ in members})
    return Part(queries, found.clusters, rounded(found.value), low, high, found.method)


def contamination_table(results: Iterable[ContaminationResult], metric: str = "exact_match") -> str:
    """One metric for the terminal, in percent with 95 % intervals; a row a task and condition."""
    rows = [
        ["task", "K", "instruction", "N", "queries", "dirty", "all", "clean", "dirty", "clean vs all", "sums"]
    ]
    found = [result for result in results if result.metric == metric]
    fields = ("checkpoint", "scoring", "condition", "template")
    varied = [field for field in fields if len({getattr(result, field) for result in found}) > 1]
    for result in found:
        rows.append(
            [
                " ".join([result.task, *(getattr(result, field) for field in varied)]),
                str(result.k),
                "yes" if result.instruction else "no",
                str(result.words),
                f"{result.all.n:,}",
                f"{result.dirty.n:,}",
                *(_percent(part) for part in (result.all, result.clean, result.dirty)),
                "" if result.relative_difference is None else f"{100 * result.relative_difference:+.1f} %",
                "" if result.sums is None else f"{result.sums:,}",
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _percent(part: Part) -> str:
    if part.value is None:
        return "-"
    if part.ci_low is None or part.ci_high is None:
        return f"{100 * part.value:.1f}"
    return f"{100 * part.value:.1f} [{100 * part.ci_low:.1f}, {100 * part.ci_high:.1f}]"
