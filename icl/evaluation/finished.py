"""A finished evaluation, read back from its folder, and the records that a result is the mean of."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from icl.errors import InputError
from icl.evaluation.records import Record, Result, read_records, read_results
from icl.evaluation.results import BASELINE, MEAN, MEDIAN, record_scores

RESULTS = "results.jsonl"
RECORDS = "records"


class Evaluation(NamedTuple):
    """What a folder holds: every result, and every record."""

    results: list[Result]
    records: list[Record]


class Scored(NamedTuple):
    """A record and what it counts in a result."""

    record: Record
    score: float


def read_evaluation(folder: str | Path) -> Evaluation:
    """Results and records of a folder that `icl.evaluation.runner.evaluate` wrote.

    Raises:
      InputError: the folder holds no finished evaluation, or one of its files is damaged.
    """
    path = Path(folder) / RESULTS
    if not path.exists():
        raise InputError(f"{folder}: has no {RESULTS}; expected the folder of a finished evaluation")
    records = read_all_records(folder)
    return Evaluation(read_results(path), records)


def read_all_records(folder: str | Path) -> list[Record]:
    """Every record of an evaluation's folder, also where it holds records only.

    Raises:
      InputError: the folder holds none, or a damaged one.
    """
    shards = sorted((Path(folder) / RECORDS).glob("*.jsonl.gz"))
    if not shards:
        raise InputError(
            f"{folder}: has no {RECORDS}/*.jsonl.gz; expected the folder of a finished evaluation"
        )
    return [record for shard in shards for record in read_records(shard)]


def trace(result: Result, records: Iterable[Record]) -> list[Scored]:
    """The records that a result of a model is the mean of, with their scores.

    Args:
      result: One figure of one task.
      records: Of the whole evaluation.

    Raises:
      InputError: the result is no mean over records: a baseline's, the mean over tasks, the median over
        formats, or a metric of all answers together.
    """
    if result.checkpoint == BASELINE:
        raise InputError(
            f"{result.scoring} of {result.task!r}: no model answers here, so there are no records"
        )
    if result.task == MEAN:
        raise InputError("the mean over tasks: expected the result of one task, which it is the mean of")
    if result.template == MEDIAN:
        raise InputError("the median over formats: expected the result of one format")
    found = []
    for record in records:
        score = record_scores(record).get((result.scoring, result.metric))
        if score is not None and _is_of(record, result):
            found.append(Scored(record, score))
    if not found:
        raise InputError(
            f"{result.metric} of {result.task!r}, {result.scoring}: expected a metric of single records, and "
            "the records of the same evaluation"
        )
    return found


def _is_of(record: Record, result: Result) -> bool:
    """Whether a record is of a result's checkpoint, task and condition."""
    shared = ("checkpoint", "step", "task", "split", "k", "instruction", "condition", "template")
    alike = all(getattr(record, name) == getattr(result, name) for name in shared)
    return alike and result.slice in ("all", "query_seen" if record.query_seen else "query_unseen")
