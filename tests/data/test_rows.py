"""Claims about rows: pure, full, uncut, marked, and free of what is held out."""

import dataclasses
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from icl.data.batch import Batch
from icl.data.config import DataConfig
from icl.data.rows import Rows
from icl.data.tokenizer import ByteTokenizer, SentencePieceTokenizer, Tokenizer
from icl.errors import InputError
from icl.tasks import (
    Affine,
    Cipher,
    FileTasks,
    PositionMap,
    Task,
    Template,
    WordLabel,
    build_tasks,
)
from icl.tasks.generated import is_held_out
from tools.train_tokenizer import train

Tasks = Mapping[str, tuple[Task, ...]]
BYTES = ByteTokenizer()


class Segment(NamedTuple):
    """A segment read back from a row."""

    task: str
    text: str
    answers: dict[int, str]
    weights: np.ndarray
    positions: np.ndarray
    first_id: int


def segments(rows: Rows, row: Batch, tokenizer: Tokenizer = BYTES) -> Iterator[Segment]:
    ids = np.asarray(row.segments_BT)
    for number in range(1, ids.max() + 1):
        (place,) = np.nonzero(ids == number)
        assert (np.diff(place) == 1).all()
        inputs, targets, _, positions, weights, examples, tasks, _ = (
            np.asarray(array)[place] for array in row
        )
        assert (inputs[1:] == targets[:-1]).all()
        (task,) = set(tasks.tolist())
        known = sorted(set(examples.tolist()) - {-1})
        answers = {k: tokenizer.decode(targets[examples == k]) for k in known}
        text = tokenizer.decode(targets)
        yield Segment(rows.components[task], text, answers, weights, positions, int(inputs[0]))


def solved(text: str) -> tuple[str | None, list[tuple[str, str]]]:
    """The instruction and the demonstrations of an episode of the synthetic families."""
    assert text.endswith("\n")
    lines = text[:-1].split("\n")
    instruction = None if ">" in lines[0] else lines.pop(0)
    pairs = [tuple(line.split(">")) for line in lines]
    assert all(len(pair) == 2 and all(pair) for pair in pairs)
    return instruction, pairs  # type: ignore[return-value]


def fill(rows: Rows, number: int) -> float:
    return float(np.mean([(np.asarray(rows[i].segments_BT) > 0).mean() for i in range(number)]))


def same(one: Batch, two: Batch) -> bool:
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize(("length", "least"), [(160, 0.97), (168, 0.97), (176, 0.97), (1024, 0.99)])
def test_episodes_fill_rows(tasks: Tasks, weights: dict[str, float], length: int, least: float) -> None:
    rows = Rows(DataConfig(row_length=length, weights=weights), tasks, BYTES)
    assert fill(rows, 300 if length < 1000 else 60) >= least


def test_longer_words_fill_rows_too(weights: dict[str, float]) -> None:
    position_map = PositionMap(lengths=(2, 3, 4), length_weights=(0.15, 0.25, 0.6), repeat_letters=False)
    tasks = build_tasks({"position_map": position_map})
    for length, least in ((160, 0.97), (184, 0.97), (1024, 0.99)):
        rows = Rows(DataConfig(row_length=length, weights={"position_map": 1}), tasks, BYTES)
        assert fill(rows, 200) >= least


def test_no_demonstration_is_cut_and_each_is_right(tasks: Tasks, weights: dict[str, float]) -> None:
    """Every line of every segment is whole: an input, and the answer that its instance gives."""
    for length, number in ((168, 60), (512, 15)):
        rows = Rows(DataConfig(row_length=length, weights=weights), tasks, BYTES)
        for segment in itertools.chain.from_iterable(segments(rows, rows[i]) for i in range(number)):
            instruction, pairs = solved(segment.text)
            assert segment.first_id == BYTES.start_id
            assert (segment.positions == np.arange(len(segment.positions))).all()
            check = {"cipher": is_cipher, "position_map": is_map, "word_label": is_label, "affine": is_affine}
            assert check[segment.task](pairs), (instruction, pairs)


def is_cipher(pairs: list[tuple[str, str]]) -> bool:
    letters = {(a, b) for word, code in pairs for a, b in zip(word, code, strict=True)}
    return len(letters) == len({a for a, _ in letters}) == len({b for _, b in letters})


def maps_of(pairs: list[tuple[str, str]]) -> list[tuple[int, ...]]:
    length = len(pairs[0][0])
    maps = itertools.product(range(length), repeat=len(pairs[0][1]))
    return [m for m in maps if all("".join(word[i] for i in m) == target for word, target in pairs)]


def is_map(pairs: list[tuple[str, str]]) -> bool:
    return len(maps_of(pairs)) >= 1


def is_label(pairs: list[tuple[str, str]]) -> bool:
    return len(set(pairs)) == len({w for w, _ in pairs}) == len({label for _, label in pairs}) <= 4


def affine_of(pairs: list[tuple[str, str]]) -> list[tuple[int, int]]:
    every = itertools.product(range(1, 11), range(11))
    return [(a, b) for a, b in every if all((a * int(x) + b) % 11 == int(y) for x, y in pairs)]


def is_affine(pairs: list[tuple[str, str]]) -> bool:
    return len(affine_of(pairs)) >= 1


def test_what_is_held_out_never_occurs_in_a_training_row(tasks: Tasks, weights: dict[str, float]) -> None:
    """Read back from the text of the rows, not from the tasks that made them."""
    held_maps = {tasks["position_map"][0].instance("held_out", i).name for i in range(7)}
    held_pairs = {tasks["affine"][0].instance("held_out", i).name for i in range(22)}
    rows = Rows(DataConfig(row_length=256, weights=weights, instruction_share=0.3), tasks, BYTES)
    counted: Counter[str] = Counter()
    for segment in itertools.chain.from_iterable(segments(rows, rows[i]) for i in range(600)):
        _, pairs = solved(segment.text)
        if segment.task == "word_label":
            assert not any(is_held_out(0.2, word) for word, _ in pairs)
        elif segment.task == "cipher":
            image = {a: b for word, code in pairs for a, b in zip(word, code, strict=True)}
            if len(image) < 6:
                continue
            assert not is_held_out(0.25, "abcdef", "".join(image[letter] for letter in "abcdef"))
        elif segment.task == "position_map":
            names = {f"{len(m)}:" + " ".join(str(i + 1) for i in m) for m in maps_of(pairs)}
            if len(names) > 1:
                continue
            assert not names & held_maps
        else:
            names = {f"{a} {b} mod 11" for a, b in affine_of(pairs)}
            if len(names) > 1:
                continue
            assert not names & held_pairs
        counted[segment.task] += 1
    assert all(counted[task] > 40 for task in weights), counted


def test_held_out_rows_hold_what_training_rows_do_not(tasks: Tasks, weights: dict[str, float]) -> None:
    held_maps = {tasks["position_map"][0].instance("held_out", i).name for i in range(7)}
    rows = Rows(DataConfig(row_length=200, weights=weights), tasks, BYTES, "held_out", max_examples=17)
    for index in range(80):
        (segment,) = segments(rows, rows[index])
        _, pairs = solved(segment.text)
        assert segment.task == rows.components[index % 4]
        assert list(segment.answers) == list(range(17)) == list(range(len(pairs)))
        if segment.task == "word_label":
            assert all(is_held_out(0.2, word) for word, _ in pairs)
        if segment.task == "position_map":
            names = {f"3:{' '.join(str(i + 1) for i in m)}" for m in maps_of(pairs)}
            assert names & held_maps
        if segment.task in ("cipher", "position_map"):
            assert all(len(word) == 3 for word, _ in pairs) and len({w for w, _ in pairs}) == 17


def test_held_out_rows_differ_only_by_the_instruction(tasks: Tasks, weights: dict[str, float]) -> None:
    config = DataConfig(row_length=200, weights=weights)
    plain = Rows(config, tasks, BYTES, "held_out", max_examples=9)
    told = Rows(
        dataclasses.replace(config, seed=5), tasks, BYTES, "held_out", instruction=True, max_examples=9
    )
    for index in range(12):
        (one,), (two,) = segments(plain, plain[index]), segments(told, told[index])
        instruction, pairs = solved(two.text)
        assert solved(one.text) == (None, pairs)
        assert instruction and instruction.split()[0] in ("cipher", "apply", "label", "affine")


@pytest.mark.parametrize("loss_on", ["answers", "query", "all"])
def test_examples_mark_exactly_the_answers(tasks: Tasks, weights: dict[str, float], loss_on: Any) -> None:
    rows = Rows(DataConfig(row_length=300, weights=weights, loss_on=loss_on), tasks, BYTES)
    for index in range(40):
        row = rows[index]
        for segment in segments(rows, row):
            _, pairs = solved(segment.text)
            assert segment.answers == {k: f"{target}\n" for k, (_, target) in enumerate(pairs)}
            if loss_on == "query":
                assert segment.weights.sum() == len(segment.answers[len(pairs) - 1])
                assert segment.weights[-1] == 1
        marked, used = np.asarray(row.examples_BT) >= 0, np.asarray(row.segments_BT) > 0
        if loss_on != "query":
            assert (np.asarray(row.weights_BT) == (marked if loss_on == "answers" else used)).all()
        empty = ~used
        assert (np.asarray(row.tasks_BT)[empty] == -1).all() and (
            np.asarray(row.examples_BT)[empty] == -1
        ).all()
        assert (np.asarray(row.inputs_BT)[empty] == BYTES.pad_id).all()


def test_rows_are_pure_functions_of_settings_seed_and_index(
    families: dict[str, Any], weights: dict[str, float]
) -> None:
    config = DataConfig(row_length=100, weights=weights, seed=3)
    one, two = (Rows(config, build_tasks(families), BYTES) for _ in range(2))
    wanted = [7, 0, 10**12, 3]
    first = {i: one[i] for i in wanted}
    assert all(same(two[i], first[i]) for i in reversed(wanted))
    assert all(same(one[i], first[i]) for i in wanted)
    reseeded = Rows(dataclasses.replace(config, seed=4), build_tasks(families), BYTES)
    assert not any(same(reseeded[i], first[i]) for i in wanted)
    assert not same(first[0], first[3])
    with pytest.raises(IndexError):
        one[-1]


def test_a_row_never_changes() -> None:
    """Seeds and checkpoints of runs that go on rely on it; change it knowingly."""
    families = {"cipher": Cipher(lengths=(2,), length_weights=(1,)), "affine": Affine(prime=5)}
    config = DataConfig(row_length=40, weights={"cipher": 1, "affine": 1})
    row = Rows(config, build_tasks(families), BYTES)[1]
    assert BYTES.decode(np.asarray(row.targets_BT).tolist()) == "cipher\neb>be\nac>ad\nea>ba\nbf>ec\ncf>dc\n"


def test_neighbouring_rows_are_spread_over_the_mixture(tasks: Tasks, weights: dict[str, float]) -> None:
    rows = Rows(DataConfig(row_length=64, weights=weights), tasks, BYTES)
    for start in (0, 1000, 12345):
        first = Counter(rows.components[int(np.asarray(rows[start + i].tasks_BT)[0])] for i in range(34))
        for name, weight in weights.items():
            assert abs(first[name] - 34 * weight / 17) <= 2


def test_instruction_share_is_the_share_of_episodes_that_carry_it(
    tasks: Tasks, weights: dict[str, float]
) -> None:
    for share in (0.0, 0.3, 1.0):
        rows = Rows(DataConfig(row_length=64, weights=weights, instruction_share=share), tasks, BYTES)
        told = [
            solved(s.text)[0] is not None
            for i in range(300)
            for s in itertools.islice(segments(rows, rows[i]), 1)
        ]
        assert abs(np.mean(told) - share) < (0.1 if share == 0.3 else 1e-9)


def test_number_of_examples_is_limited_at_both_ends(tasks: Tasks, weights: dict[str, float]) -> None:
    rows = Rows(DataConfig(row_length=300, weights=weights, max_examples=6, min_examples=4), tasks, BYTES)
    numbers = Counter(len(s.answers) for i in range(60) for s in segments(rows, rows[i]))
    assert set(numbers) <= {4, 5, 6} and numbers[6] > 100
    limited = Rows(DataConfig(row_length=300, weights=weights, max_examples=1), tasks, BYTES)
    assert {len(s.answers) for s in segments(limited, limited[0])} == {1}


def test_families_left_out_never_feed_training_rows_but_are_evaluated(
    tasks: Tasks, weights: dict[str, float]
) -> None:
    config = DataConfig(row_length=128, weights={**weights, "word_label": 0}, leave_out=("affine",))
    rows, held_out = Rows(config, tasks, BYTES), Rows(config, tasks, BYTES, "held_out", max_examples=3)
    seen = {s.task for i in range(150) for s in segments(rows, rows[i])}
    assert seen == {"cipher", "position_map"}
    assert {s.task for i in range(4) for s in segments(held_out, held_out[i])} == set(weights)
    assert rows.components == held_out.components


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name, suffix in (("upper", "!"), ("mirror", "?"), ("kept_out", "~")):
        pairs = [{"input": f"{name} {'long ' * (i % 7)}{i}", "output": f"{i}{suffix}"} for i in range(120)]
        (tmp_path / f"{name}.json").write_text(json.dumps(pairs))
    return tmp_path


def test_files_and_synthetic_families_share_rows(files: Path, weights: dict[str, float]) -> None:
    tasks = build_tasks({"cipher": Cipher(), "files": FileTasks(glob=str(files), held_out=("kept_out",))})
    tokenizer = SentencePieceTokenizer(
        train([f"{n} long {i}" for i in range(99) for n in ("upper", "mirror")], 290, "bpe")
    )
    config = DataConfig(row_length=200, weights={"cipher": 1, "files": 2})
    rows = Rows(config, tasks, tokenizer)
    made = {task.name: task for task in tasks["files"]}
    tests = {n: {q.example.input for q in t.queries("held_out")} for n, t in made.items()}
    seen: Counter[str] = Counter()
    for segment in itertools.chain.from_iterable(segments(rows, rows[i], tokenizer) for i in range(80)):
        seen[segment.task] += 1
        if segment.task == "cipher":
            continue
        pairs = [tuple(line.split(" -> ")) for line in segment.text[:-1].split("\n")]
        assert segment.answers == {k: f" {target}\n" for k, (_, target) in enumerate(pairs)}
        assert not {word for word, _ in pairs} & tests[segment.task]
    assert seen["upper"] > 10 and seen["mirror"] > 10 and seen["cipher"] > 10 and not seen["kept_out"]
    assert fill(rows, 80) > 0.95
    curve = Rows(config, tasks, tokenizer, "held_out", max_examples=4)
    for segment in itertools.chain.from_iterable(segments(curve, curve[i], tokenizer) for i in range(8)):
        if segment.task in tests:
            assert {line.split(" -> ")[0] for line in segment.text[:-1].split("\n")} <= tests[segment.task]


def test_a_held_out_episode_never_passes_over_a_long_example(files: Path) -> None:
    tasks = build_tasks({"files": FileTasks(glob=str(files))})
    short = Rows(DataConfig(row_length=64, weights={"files": 1}), tasks, BYTES, "held_out")
    long = Rows(DataConfig(row_length=2000, weights={"files": 1}), tasks, BYTES, "held_out")
    for index in range(9):
        (one,), (two,) = segments(short, short[index]), segments(long, long[index])
        assert two.text.startswith(one.text)


def test_an_answer_never_shares_its_key_with_an_earlier_demonstration(tmp_path: Path) -> None:
    pairs = [
        {"input": word, "output": word} for i in range(60) for word in (f"word{i}", f"Word{i}", f"WORD{i}")
    ]
    (tmp_path / "cases.json").write_text(json.dumps(pairs))
    tasks = build_tasks({"files": FileTasks(glob=str(tmp_path))})
    for split in ("train", "held_out"):
        rows = Rows(DataConfig(row_length=600, weights={"files": 1}), tasks, BYTES, split)
        for segment in itertools.chain.from_iterable(segments(rows, rows[i]) for i in range(10)):
            words = [line.split(" ->")[0].casefold() for line in segment.text[:-1].split("\n")]
            assert len(set(words)) == len(words) >= 2


def test_an_instruction_longer_than_the_row_leaves_a_held_out_row_empty(files: Path) -> None:
    tasks = build_tasks(
        {"files": FileTasks(glob=str(files / "upper.json"), instructions={"upper": "long " * 50})}
    )
    rows = Rows(
        DataConfig(row_length=64, weights={"files": 0, "cipher": 1}),
        {**tasks, "cipher": Cipher().build("cipher")},
        BYTES,
        "held_out",
        instruction=True,
    )
    assert not np.asarray(rows[0].segments_BT).any()


def test_fingerprint_follows_content_and_settings(
    families: dict[str, Any], weights: dict[str, float]
) -> None:
    config = DataConfig(row_length=64, weights=weights)
    reference = Rows(config, build_tasks(families), BYTES).fingerprint
    assert Rows(config, build_tasks(families), BYTES).fingerprint == reference
    others = [
        Rows(dataclasses.replace(config, seed=1), build_tasks(families), BYTES),
        Rows(dataclasses.replace(config, loss_on="all"), build_tasks(families), BYTES),
        Rows(config, build_tasks({**families, "cipher": Cipher(held_out_share=0.2)}), BYTES),
        Rows(config, build_tasks({**families, "affine": Affine(num_training_instances=80)}), BYTES),
        Rows(config, build_tasks({**families, "word_label": WordLabel(labels="0123456798")}), BYTES),
    ]
    assert len({reference, *(rows.fingerprint for rows in others)}) == 6


def test_what_cannot_be_packed_is_named(tasks: Tasks, files: Path) -> None:
    with pytest.raises(InputError, match=r"no tasks for \['ciphers'\]"):
        Rows(DataConfig(weights={"ciphers": 1}), tasks, BYTES)
    too_long = build_tasks({"position_map": PositionMap(lengths=(4,), length_weights=())})
    with pytest.raises(InputError, match=r"row_length = 8: .*'position_map'"):
        Rows(DataConfig(row_length=8, weights={"position_map": 1}), too_long, BYTES)
    held_out = build_tasks({"files": FileTasks(glob=str(files), held_out=("*",))})
    with pytest.raises(InputError, match="all tasks of 'files' are held out"):
        Rows(DataConfig(weights={"files": 1}), held_out, BYTES)


@pytest.mark.parametrize(
    "settings",
    [
        {"row_length": 4},
        {"row_length": 64.5},
        {"weights": {}},
        {"weights": {"cipher": -1.0}},
        {"weights": {"cipher": float("inf")}},
        {"weights": {"cipher": "much"}},
        {"weights": {"cipher": 1}, "leave_out": ("cipher",)},
        {"instruction_share": 1.5},
        {"max_examples": -1},
        {"min_examples": 0},
        {"loss_on": "everything"},
        {"corpora": {"book": ("a.txt",)}, "corpus_share": 1.0},
        {"corpus_share": 0.0},
        {"corpora": {"book": "a.txt"}},
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"DataConfig\.\w+ = .*expected"):
        DataConfig(**{"weights": {"cipher": 1}, **settings})


def test_template_never_ends_a_context_in_a_space() -> None:
    for template in (Template(), FileTasks(glob="x").template):
        assert not template.separator.endswith(" ")


@pytest.mark.parametrize("budget", [10, 30])
def test_answers_take_no_more_positions_than_they_may(budget: int) -> None:
    families = {"cipher": Cipher(), "affine": Affine()}
    config = DataConfig(row_length=96, weights={"cipher": 1.0, "affine": 1.0}, answer_positions=budget)
    rows = Rows(config, build_tasks(families), BYTES)
    assert config.scored_positions == budget
    counts = [np.count_nonzero(np.asarray(rows[i].weights_BT)) for i in range(50)]
    assert max(counts) <= budget
    assert min(counts) > budget - 8


def test_half_of_the_row_is_no_limit_where_answers_are_not_longer_than_inputs() -> None:
    families = {"cipher": Cipher(), "affine": Affine(prime=7), "word_label": WordLabel()}
    config = DataConfig(row_length=96, weights=dict.fromkeys(families, 1.0))
    free = Rows(config, build_tasks(families), BYTES)
    held = Rows(dataclasses.replace(config, answer_positions=48), build_tasks(families), BYTES)
    for i in range(50):
        assert all(np.array_equal(a, b) for a, b in zip(free[i], held[i], strict=True))
