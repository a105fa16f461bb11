"""What an evaluation writes: one record a query and condition, one result a figure; and safe files.

Records stand in shards, `records/*.jsonl.gz`, that appear whole or not at all; results in `results.jsonl`.
The same values always give the same bytes.
"""

import dataclasses
import gzip
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from icl.errors import InputError
from icl.evaluation.config import Condition, Demonstrations
from icl.evaluation.metrics import option_scores
from icl.tasks.task import Split

DIGITS = 6
"""Decimals of every number in a record or a result."""


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """The outcome of one query under one condition.

    `prompt_sha256` is the hash of the prompt's text. The prompt follows from (task, split, query, seed,
    k_effective, instruction, `lost`) and the demonstration setting (`icl.evaluation.plan.rebuild_prompt`);
    `prompt` holds it in full for a sample and is None elsewhere. `k` was asked for, `k_effective` fitted.
    `lost` is the number of characters that the start of the query's input lost so that K = 0 fits.
    `query_seen` says whether the query stood among its demonstrations. `scoring` is how the prediction came
    about: "greedy", or "options:RULE" where it is the best of given options. `log_likelihood` is that of the
    gold answer, with its delimiter if it was generated, in nats a token, `answer_log_likelihood` that of the
    answer alone, in nats in all; `edit_distance` is that to the
    nearest right answer, between 0 and 1.
    `f1` is over words, of the best of the gold answer and its `aliases`, where the task compares so.
    Of each option: its text, number of tokens, and log-likelihood in nats after the prompt, and after the
    task's answer context alone where the task compares so; of their `ending` only, where they have one.
    `calibration_log_likelihoods` are the options' after the same demonstrations and an input without content,
    `channel_log_likelihoods` the input's after each option (`icl.evaluation.plan`).
    `group` is the example's, `order` the number of the order in which the demonstrations stood. `generated`
    is the text generated beside the choice among options, `generated_match` whether it is right, and
    `generated_scoring` how it came about. Where the prompt is kept, `pieces` are the texts of the tokens of
    the gold answer, with their log-likelihoods in nats.
    """

    checkpoint: str
    step: int | None
    task: str
    split: Split
    instance: str
    query: str
    cluster: str
    seed: int
    k: int
    k_effective: int
    instruction: bool
    condition: Condition
    demonstrations: Demonstrations
    template: str
    prompt_sha256: str
    prompt_tokens: int
    lost: int
    input: str
    gold: str
    gold_tokens: int
    prediction: str
    exact_match: float
    token_accuracy: float
    log_likelihood: float
    answer_log_likelihood: float
    edit_distance: float
    query_seen: bool
    scoring: str
    f1: float | None = None
    aliases: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    ending: str = ""
    gold_option: int | None = None
    option_tokens: tuple[int, ...] = ()
    option_log_likelihoods: tuple[float, ...] = ()
    unconditional_log_likelihoods: tuple[float, ...] = ()
    calibration_log_likelihoods: tuple[float, ...] = ()
    channel_log_likelihoods: tuple[float, ...] = ()
    group: str = ""
    order: int = 0
    generated: str | None = None
    generated_match: float | None = None
    generated_scoring: str = ""
    prompt: str | None = None
    pieces: tuple[str, ...] = ()
    piece_log_likelihoods: tuple[float, ...] = ()

    def option_scores(self) -> Mapping[str, list[float]]:
        """What each rule makes of the options."""
        return option_scores(
            self.options,
            self.option_tokens,
            self.option_log_likelihoods,
            self.unconditional_log_likelihoods,
            self.ending,
            calibration=self.calibration_log_likelihoods,
            channel=self.channel_log_likelihoods,
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """One figure with its 95 % interval.

    `checkpoint` is the label of a run, or "baseline" (with `scoring` naming which) where no model answers.
    `task` is "mean" for the mean over tasks; `slice` is "all", "query_seen" or "query_unseen". `k_effective`
    is the mean over records. `n` counts queries, `clusters` what the interval resamples; `seed_values` holds
    the value under each demonstration seed. `ci_low` and `ci_high` are None where nothing is random
    (printed chance) or one cluster gives no spread. `band_low` and `band_high` hold for all K of the curve at
    once. `order_values` has the value under each order of the demonstrations. Where `template` is "median",
    `value` is the median over the templates, whose values are `template_values`.
    """

    checkpoint: str
    rung: str
    step: int | None
    params: int | None
    train_seed: int | None
    task: str
    split: str
    metric: str
    k: int
    k_effective: float
    instruction: bool
    scoring: str
    condition: str
    demonstrations: str
    template: str
    slice: str
    value: float
    ci_low: float | None
    ci_high: float | None
    interval_method: str
    n: int
    clusters: int
    seeds: int
    seed_values: tuple[float, ...]
    band_low: float | None = None
    band_high: float | None = None
    order_values: tuple[float, ...] = ()
    template_values: tuple[float, ...] = ()


def rounded(value: float) -> float:
    """The number as it is written: a fixed number of decimals, and never -0.0."""
    return round(float(value), DIGITS) + 0.0


def write_lines(path: Path, rows: Iterable[Any]) -> None:
    """Writes dataclasses, a JSON object a line; gzipped where the name ends in `.gz`. Whole or not at all."""
    text = "".join(json.dumps(dataclasses.asdict(row), ensure_ascii=False) + "\n" for row in rows)
    data = text.encode("utf-8", "surrogatepass")
    write_file(path, gzip.compress(data, 6, mtime=0) if path.suffix == ".gz" else data)


def write_file(path: Path, data: bytes) -> None:
    """Puts a file in place in one step: a kill leaves the old one or the new one, never a part.

    Raises:
      InputError: the file cannot be written (no such folder, no permission, a full disk).
    """
    partial = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); expected a writable folder"
        ) from error


def read_results(path: Path) -> list[Result]:
    """The results of an evaluation, in the order they were written.

    Raises:
      InputError: the file is missing or damaged.
    """
    try:
        with path.open(encoding="utf-8", errors="surrogatepass") as file:
            return [Result(**_fields(json.loads(line))) for line in file]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        message = " ".join(str(error).split())
        raise InputError(f"{path}: not the results of an evaluation ({message})") from error


def read_records(path: Path) -> list[Record]:
    """The records of a shard, in the order they were written.

    Raises:
      InputError: the shard is damaged.
    """
    try:
        return [Record(**_fields(row)) for row in _lines(path)]
    except (OSError, EOFError, ValueError, TypeError) as error:
        message = " ".join(str(error).split())
        raise InputError(f"{path}: not a shard of records ({message}); delete it and run again") from error


def _fields(row: dict[str, Any]) -> dict[str, Any]:
    """The fields of a record or result from its JSON object, which has lists for tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8", errors="surrogatepass") as file:
        for line in file:
            yield json.loads(line)
