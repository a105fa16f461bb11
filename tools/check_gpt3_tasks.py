"""Runs every task of the GPT-3 paper end to end and prints a table of what was found.

    python -m tools.check_gpt3_tasks [--data ../shared/data] [--queries 2] [--tasks 'super_glue_*']

Each task that TFDS has is built from TFDS's mock data, through the builder's own schema; and, where the
folder of real files has its set, from that (`tools.gpt3_files`). A tiny model that was never trained answers
a few queries of each by the preset `gin/eval/gpt3_all.gin`; all are counted. The table is Markdown: queries
found, queries the paper states, and why they differ.
"""

import argparse
import contextlib
import dataclasses
import fnmatch
import sys
import tempfile
import types
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np

from icl import config
from icl.data.config import DataConfig
from icl.data.keys import generator
from icl.evaluation.config import EvalConfig
from icl.evaluation.runner import evaluate
from icl.model.config import ModelConfig
from icl.parallel.mesh import MeshConfig
from icl.tasks import FAMILIES, build_tasks, rebuild, tfds_source
from icl.tasks.pool import PoolTask
from icl.tasks.tfds_readers import TFDS_TASKS
from icl.training.checkpoints import Checkpoints
from icl.training.config import RunConfig, TrainConfig
from icl.training.setup import Setup
from tools.gpt3_files import REAL, Real, write_files

CONTEXT = 1024
MOCK_ROWS = 300
BUDGET = 16

# Queries of each set, Table C.1 of the paper.
PAPER_QUERIES = {
    "lambada": 5153, "story_cloze": 1871, "hellaswag": 10042, "natural_questions": 3610,
    "web_questions": 2032, "trivia_qa": 7993, "wmt14_*": 3003, "wmt16_*de*": 2999, "wmt16_*ro*": 1999,
    "winograd": 273, "winogrande": 1267, "piqa": 1838, "arc_challenge": 1144, "arc_easy": 2268,
    "openbookqa": 500, "race_high": 3498, "race_middle": 1436, "coqa": 7983, "quac": 7353,
    "squad_v2": 11873, "drop": 9536, "super_glue_boolq": 3270, "super_glue_cb": 56, "super_glue_copa": 100,
    "super_glue_rte": 277, "super_glue_wic": 638, "super_glue_wsc": 104, "super_glue_multirc": 953,
    "super_glue_record": 10000, "anli_r1": 1000, "anli_r2": 1000, "anli_r3": 1200,
    "*_digit_*": 2000, "*_word*": 10000,
}  # fmt: skip

# Where TFDS or this package cannot do as the paper did.
DIFFERENCES = {
    "lambada": "demonstrations from the test set: TFDS has no development set",
    "trivia_qa": "TFDS's validation set is the unfiltered one, 11,313; the paper's is Wikipedia's",
    "arc_*": "Table C.1 counts fewer than the test sets have (1,172 and 2,376)",
    "quac": "without earlier turns: TFDS keeps no order of turns",
    "coqa": "one human answer a turn in TFDS",
    "super_glue_wsc": "passages, not pairs of passage and noun, are counted; without a right noun none",
    "super_glue_multirc": "answers are counted, of 953 questions",
}


@dataclasses.dataclass(frozen=True)
class Line:
    """A row of the table."""

    task: str
    source: str
    queries: int
    why: str
    made: PoolTask
    settings: EvalConfig
    asked: int = 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--data", type=Path, help="folder of real files")
    parser.add_argument("--queries", type=int, default=2, help="queries asked of each task")
    parser.add_argument("--tasks", default="*", help="wildcard for the names of tasks")
    options = parser.parse_args(arguments)
    settings, overrides, *_ = config.load_eval(["eval/gpt3_all.gin"])
    names = [name for pattern in overrides["tfds"]["names"] for name in fnmatch.filter(TFDS_TASKS, pattern)]
    names = fnmatch.filter(names, options.tasks)
    settings = dataclasses.replace(
        settings,
        per_task={**settings.per_task, "*_word*": {"ks": (0, 1, 100)}},  # gpt3/scrambles.gin
    )
    real = {name: each for name, each in REAL.items() if fnmatch.fnmatchcase(name, options.tasks)}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = save_checkpoint(Path(folder) / "tiny")
        lines = []
        if names:
            with mock_data():
                lines += asked(
                    of_mock_data(names, settings), checkpoint, settings, Path(folder), options.queries
                )
        if options.data and real:
            entries = write_files(options.data, real, Path(folder) / "files")
            found = of_files(entries, real, settings)
            lines += asked((found, entries), checkpoint, settings, Path(folder), options.queries)
    print("\n".join(table(lines)))
    missing = [line.task for line in lines if not line.asked]
    if missing:
        print(f"no answers: {', '.join(missing)}", file=sys.stderr)
    return int(bool(missing))


def save_checkpoint(folder: Path) -> Path:
    """A run folder with one checkpoint of fresh parameters."""
    run = RunConfig(
        model=ModelConfig(num_layers=1, embed_dim=16, num_heads=2, max_length=CONTEXT, positions="rotary"),
        data=DataConfig(row_length=CONTEXT, weights={"word_label": 1.0}),
        families={"word_label": FAMILIES["word_label"]()},
        train=TrainConfig(steps=1, batch_tokens=CONTEXT),
        mesh=MeshConfig(data=1),
    )
    setup = Setup(run, devices=jax.devices()[:1])
    with Checkpoints(folder, keep_last=1) as checkpoints:
        checkpoints.save(1, setup.init_state(), setup.description())
    return folder


def of_mock_data(names: Sequence[str], settings: EvalConfig) -> tuple[list[Line], dict[str, Any]]:
    """A line for each task from TFDS's mock data, and what the evaluation must bind."""
    entries = {"tfds": {"names": tuple(names), "max_train": MOCK_ROWS // 2, "max_test": MOCK_ROWS // 2}}
    (tasks,) = build_tasks(rebuild(entries)).values()
    lines = [
        Line(task.name, "TFDS mock", size(task), "mock rows", task, settings.of(task.name))
        for task in tasks
        if isinstance(task, PoolTask)
    ]
    return lines, entries


def of_files(entries: Mapping[str, Any], real: Mapping[str, Real], settings: EvalConfig) -> list[Line]:
    """A line for each task from a real file."""
    lines = []
    for name, (task,) in zip(real, build_tasks(rebuild(entries)).values(), strict=True):
        assert isinstance(task, PoolTask)
        lost = {word: getattr(task, f"num_{word}") for word in ("repeats", "conflicts", "unfit")}
        notes = [real[name].why, *(f"{count} {word}" for word, count in lost.items() if count)]
        lines.append(
            Line(name, real[name].files, size(task), "; ".join(filter(None, notes)), task, settings.of(name))
        )
    return lines


def size(task: PoolTask) -> int:
    """How many queries a task has."""
    return sum(1 for _ in task.queries("held_out"))


def asked(
    found: tuple[list[Line], Mapping[str, Any]],
    checkpoint: Path,
    settings: EvalConfig,
    folder: Path,
    queries: int,
) -> list[Line]:
    """The lines with the number of results that an evaluation of a few queries gave."""
    lines, entries = found
    per_task = {
        line.made.name: {
            "ks": sorted({min(k, most_demonstrations(line.made)) for k in line.settings.ks}),
            "choice_answers": line.settings.choice_answers,
            "demonstrations": line.settings.demonstrations,
        }
        for line in lines
    }
    few = dataclasses.replace(
        settings,
        tasks=tuple(line.made.name for line in lines),
        ks=(0, 1),
        queries=queries,
        per_task=per_task,
        max_new_tokens=BUDGET,
        batch_rows=8,
        bootstrap=100,
    )
    with contextlib.redirect_stdout(sys.stderr):
        results = evaluate([checkpoint], few, folder / lines[0].source.replace("/", "_"), overrides=entries)
    counts = {line.made.name: 0 for line in lines}
    for result in results:
        if result.task in counts and not result.checkpoint.startswith("baseline"):
            counts[result.task] += 1
    return [dataclasses.replace(line, asked=counts[line.made.name]) for line in lines]


def most_demonstrations(task: PoolTask) -> int:
    """How many demonstrations every query of a task has at least."""
    pool = list(task.instance("held_out", 0).demonstrations(generator("pool")))
    return len(pool) - max(Counter(example.key for example in pool).values())


def table(lines: Sequence[Line]) -> Iterator[str]:
    """The lines as a Markdown table, mock and real beside each other."""
    yield "| task | source | queries | paper | K | scoring | metric | results | why the numbers differ |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for line in sorted(lines, key=lambda line: (line.task, line.source)):
        paper = next(
            (n for pattern, n in PAPER_QUERIES.items() if fnmatch.fnmatchcase(line.task, pattern)), None
        )
        known = [why for pattern, why in DIFFERENCES.items() if fnmatch.fnmatchcase(line.task, pattern)]
        why = "; ".join(filter(None, [line.why, *known])) if line.queries != paper else ""
        cells = (
            line.task, line.source, f"{line.queries:,}", f"{paper:,}" if paper else "-",
            f"{line.settings.ks[-1]}{' fixed' if line.settings.demonstrations == 'fixed' else ''}",
            scoring(line), metric(line.made), line.asked, why,
        )  # fmt: skip
        yield f"| {' | '.join(map(str, cells))} |"


def scoring(line: Line) -> str:
    """How answers are found."""
    example = next(line.made.queries("held_out")).example
    if not example.choices:
        return f"beam of {line.settings.beam_width}"
    rule = line.made.option_rule
    named = f"ratio to {line.made.answer_context!r}" if rule == "unconditional" else f"per {rule}"
    compared = f"partial, {named}" if example.ending else f"options, {named}"
    return compared if line.settings.choice_answers == "options" else f"{compared}, and generated"


def metric(task: PoolTask) -> str:
    """What is measured, the metrics of all answers together last."""
    example = next(task.queries("held_out")).example
    single = ("accuracy",) if example.choices else ("EM",) if task.answer_rule == "exact" else ("EM", "F1")
    return ", ".join((*single, *task.corpus_metrics))


@contextlib.contextmanager
def mock_data() -> Iterator[None]:
    """TFDS's mock data, with the marks and letters that random rows lack."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.features import feature
    from tensorflow_datasets.text import super_glue

    caches = (tfds_source.open_builder, tfds_source.data_source)
    for cache in caches:
        cache.cache_clear()

    def read_rows(name: str, data_dir: str | None, split: str, numbers: Sequence[int]) -> Iterator[Any]:
        for number, row in zip(numbers, tfds_source.read_rows(name, data_dir, split, numbers), strict=True):
            yield mended(name, dict(row), number)

    # SuperGLUE's builder and nested lists name types by TensorFlow, which is not installed; TFDS's own mock
    # of `__getitems__` asks for an argument `self` that it is never given.
    patches = (
        mock.patch.object(super_glue, "tf", types.SimpleNamespace(int32=np.int32)),
        mock.patch.object(feature.TensorInfo, "dtype", property(lambda info: info.np_dtype)),
        mock.patch("tensorflow_datasets.testing.mocking._getitems", rows_of),
        mock.patch("icl.tasks.tfds.check_prepared", lambda *_: None),
        mock.patch("icl.tasks.tfds.read_rows", read_rows),
        tfds.testing.mock_data(num_examples=MOCK_ROWS),
    )
    with contextlib.ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        yield
    for cache in caches:
        cache.cache_clear()


def rows_of(numbers: Sequence[int], generator: Any) -> list[Any]:
    """Mock rows by number, with the names of arguments that TFDS gives."""
    return [generator[number] for number in numbers]


def mended(builder: str, row: dict[str, Any], number: int) -> dict[str, Any]:
    """A mock row with what its reader needs to find an answer in it."""
    if builder.partition("/")[0] in ("hellaswag", "piqa", "story_cloze", "winogrande", "wsc273"):
        row["label"] = number % 2  # any whole number, by their schemas
    if builder.startswith("race"):
        count = len(row["questions"])
        letters = ["ABCD"[(number + i) % 4] for i in range(count)]
        return {**row, "answers": letters, "options": [[f"{word} {number}" for word in "pqrs"]] * count}
    if builder.endswith("/record"):
        entities = [f"{number} {name}" for name in ("Ann", "Ben", "Cleo")]
        return {**row, "query": f"@placeholder {row['query']}", "entities": entities, "answers": entities[:2]}
    if builder.endswith("/wsc.fixed"):
        passage = f"It and {number // 2} lamps fell."
        return {**row, "text": passage, "span2_index": 0, "label": number % 2}
    if builder == "wsc273":
        people = {"option1": f"Ann {number}", "option2": f"Sue {number}"}
        return {**row, **people, "text": "The wind rose as it ran.", "pronoun_start": 17, "pronoun_end": 19}
    if builder == "winogrande":
        return {**row, "sentence": f"{row['sentence']} as _ was {number}."}
    return row


if __name__ == "__main__":
    raise SystemExit(main())
