"""Claims about a stream of everything at once: corpus, files, pairs, TFDS tasks and generated families."""

import itertools
import json
import random
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds

from icl.data.batch import NO_EXAMPLE, Batch
from icl.data.config import DataConfig
from icl.data.corpus_cache import make_plan, prepare
from icl.data.loader import batches
from icl.data.rows import Rows
from icl.data.tokenizer import ByteTokenizer
from icl.tasks import Arithmetic, Cipher, FileTasks, PairTasks, Scrambles, Task, TfdsTasks, build_tasks
from icl.tasks.exclusion import input_identity
from tests.data.tfds_set import prepare_set

BATCH_ROWS = 16
LENGTH = 1024
FAR = 1_000_000
TOKENIZER = ByteTokenizer()
SECRET = "the quick brown fox jumps over the lazy dog and then runs far away from here"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a mixture of every kind."""
    folder = tmp_path_factory.mktemp("mixed")
    rng = random.Random(0)
    for name in ("upper", "double"):
        (folder / "tasks").mkdir(exist_ok=True)
        words = [f"{rng.randrange(10**5):05d}" for _ in range(400)]
        examples = [{"input": word, "output": f"{name} {word[::-1]}"} for word in words]
        (folder / "tasks" / f"{name}.jsonl").write_text("\n".join(map(json.dumps, examples)))
    choices = [{"query": f"is {i} even?", "choices": ["no", "yes"], "gold": 1 - i % 2} for i in range(300)]
    (folder / "tasks" / "even.json").write_text(json.dumps(choices))
    (folder / "secret.jsonl").write_text(
        "\n".join(
            json.dumps({"context": f"Q: What is {a} plus {b}?\n\nA:", "completion": f" {a + b}"})
            for a in range(20, 60)
            for b in range(20, 60)
        )
        + "\n"
        + json.dumps({"context": SECRET, "completion": " to sleep"})
    )
    (folder / "typos.txt").write_text("\n".join(f"w{i}x->word{i}" for i in range(300)))
    texts = [" ".join(f"w{rng.randrange(900)}" for _ in range(rng.randrange(5, 400))) for _ in range(500)]
    texts[7] = f"before {SECRET} to sleep, after " * 2
    (folder / "web.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    features = {k: tfds.features.Text() for k in ("question", "answer", "annotation", "short_answer")}
    splits = {
        split: [
            {**dict.fromkeys(features, ""), "question": f"{split} {i}?", "answer": f"so\n#### {i * i}"}
            for i in range(100)
        ]
        for split in ("train", "test")
    }
    prepare_set(folder / "tfds", "gsm8k", features, splits)
    held_out = (f"{SECRET} to sleep",)
    prepare(make_plan([str(folder / "web.jsonl")], TOKENIZER, held_out), folder / "cache")
    return folder


@pytest.fixture(scope="module")
def tasks(folder: Path) -> Mapping[str, tuple[Task, ...]]:
    return build_tasks(
        {
            "files": FileTasks(glob=str(folder / "tasks")),
            "typos": PairTasks(glob=str(folder / "typos.txt"), columns="->"),
            "tfds": TfdsTasks(names=("gsm8k",), data_dir=str(folder / "tfds")),
            "cipher": Cipher(),
            "arithmetic": Arithmetic(tasks=("two_digit_addition", "three_digit_subtraction")),
            "scrambles": Scrambles(tasks=("reversed_words",)),
        }
    )


def mixed(folder: Path, tasks: Mapping[str, tuple[Task, ...]], **settings: Any) -> Rows:
    config = DataConfig(
        row_length=LENGTH,
        weights=dict.fromkeys(tasks, 1.0),
        corpora={"web": (str(folder / "web.jsonl"),)},
        corpus_share=0.25,
        exclude=(str(folder / "secret.jsonl"),),
        **settings,
    )
    return Rows(config, tasks, TOKENIZER)


@pytest.fixture(scope="module")
def rows(folder: Path, tasks: Mapping[str, tuple[Task, ...]]) -> Rows:
    return mixed(folder, tasks)


def content(batch: Batch) -> list[bytes]:
    return [np.asarray(array).tobytes() for array in batch]


def read(rows: Rows, start: int, number: int = 2, **settings: Any) -> list[list[bytes]]:
    return [content(b) for b in itertools.islice(batches(rows, BATCH_ROWS, start, **settings), number)]


def segments(row: Batch) -> Iterator[tuple[str, str]]:
    """Task and text of every segment of a row; the names are numbers."""
    ids, inputs = np.asarray(row.segments_BT), np.asarray(row.inputs_BT)
    for segment in range(1, int(ids.max()) + 1):
        held = ids == segment
        yield str(np.asarray(row.tasks_BT)[held][0]), TOKENIZER.decode(inputs[held].tolist())


@pytest.mark.parametrize("start", [0, FAR])
@pytest.mark.parametrize("num_hosts", [1, 2, 4, 8])
def test_the_number_of_hosts_changes_no_byte(rows: Rows, num_hosts: int, start: int) -> None:
    def host(number: int) -> Batch:
        size = BATCH_ROWS // num_hosts
        held = range(number * size, (number + 1) * size)
        return next(batches(rows, BATCH_ROWS, start, host=lambda _: held, num_threads=0))

    parts = [host(number) for number in range(num_hosts)]
    joined = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
    assert content(Batch(*joined)) == read(rows, start, 1, num_threads=0)[0]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_the_number_of_workers_changes_no_byte(rows: Rows, num_workers: int) -> None:
    assert read(rows, FAR, num_workers=num_workers) == read(rows, FAR, num_threads=0)


def test_a_batch_far_on_is_there_at_once(rows: Rows) -> None:
    began = time.monotonic()
    next(batches(rows, BATCH_ROWS, FAR, num_threads=0))
    assert time.monotonic() - began < 1


def test_a_cache_gives_the_rows_of_its_source(folder: Path, tasks: Any, rows: Rows) -> None:
    config = rows._config
    cached = Rows(
        DataConfig(**{**vars(config), "corpora": {"web": (str(folder / "cache"),)}, "exclude": ()}),
        tasks,
        TOKENIZER,
    )
    assert cached.corpora["web"].num_tokens == rows.corpora["web"].num_tokens
    assert all((cached.corpora["web"].block(i) == rows.corpora["web"].block(i)).all() for i in range(50))


def test_every_component_has_its_share_and_rows_are_full(rows: Rows) -> None:
    sample = [rows[i] for i in range(300)]
    filled = np.mean([np.count_nonzero(np.asarray(row.segments_BT)) for row in sample]) / LENGTH
    assert filled >= 0.995
    names = np.concatenate([np.asarray(row.tasks_BT)[np.asarray(row.segments_BT) > 0] for row in sample])
    found = {rows.components[i]: share for i, share in enumerate(np.bincount(names) / len(names))}
    assert found.keys() == set(rows.components) and found["web"] == pytest.approx(0.25, abs=0.01)
    for names_of_family in (("upper", "double", "even"), ("typos",), ("gsm8k",), ("cipher",)):
        assert sum(found[name] for name in names_of_family) == pytest.approx(0.125, rel=0.4)


def test_no_demonstration_is_cut(rows: Rows, tasks: Any) -> None:
    """Every example ends in its task's delimiter, within the segment."""
    ends = {task.name: task.template.delimiter for family in tasks.values() for task in family}
    for index in range(100):
        row = rows[index]
        for number, text in segments(row):
            name = rows.components[int(number)]
            held = np.asarray(row.tasks_BT) == int(number)
            examples = np.asarray(row.examples_BT)[held]
            if name in ends and (examples != NO_EXAMPLE).any():
                last = TOKENIZER.decode([int(np.asarray(row.targets_BT)[held][-1])])
                assert last == ends[name][-1], (index, name, text)


def test_what_is_held_out_is_in_no_row_and_is_counted(folder: Path, tasks: Any, rows: Rows) -> None:
    secret = {
        input_identity(json.loads(line)["context"])
        for line in (folder / "secret.jsonl").read_text().split("\n")
    }
    excluded = 0
    for index in range(400):
        row = rows[index]
        excluded += int(np.asarray(row.excluded_BT).sum())
        for _, text in segments(row):
            assert SECRET not in text
            for question in text.split("Q: What is ")[1:]:
                operands = question.split("?")[0]
                if "plus" in operands:
                    a, b = operands.split(" plus ")
                    assert input_identity(f"What is {a} plus {b}?") not in secret
                    assert input_identity(f"What is {b} plus {a}?") not in secret
    assert excluded > 0
    assert sum(rows.corpora["web"].excluded.values()) > 0


def test_tfds_tasks_train_on_their_training_split_alone(rows: Rows) -> None:
    texts = [text for i in range(300) for _, text in segments(rows[i])]
    questions = [text for text in texts if "Question: train " in text]
    assert questions and not any("Question: test " in text for text in texts)
