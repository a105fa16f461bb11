"""A run starts from a checkpoint, learns N examples of one task, and keeps the step that does best."""

import dataclasses
import json
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from icl.config import load_runs
from icl.data.config import DataConfig
from icl.data.tokenizer import ByteTokenizer
from icl.errors import InputError
from icl.evaluation.prompts import encode
from icl.evaluation.subjects import find_subjects
from icl.start import find_start
from icl.tasks import Cipher, FileTasks, OneInstance, Task
from icl.training import train
from icl.training.checkpoints import read_description, restore_params
from icl.training.config import RunConfig
from icl.training.description import Description
from icl.training.fine_tuning import FineTuneConfig
from icl.training.fine_tuning_development import EarlyStopping, ExampleScorer, Measured, summarise
from icl.training.fine_tuning_rows import (
    ExampleWriter,
    FineTuningRows,
    draw_examples,
    fine_tuned_task,
)
from icl.training.fine_tuning_runs import FineTuner
from icl.training.metrics import MetricWriters
from icl.training.setup import Setup
from tests.interop.folders import GPT2, make_folder
from tests.training.small import small_run

CIPHER = OneInstance(family="cipher", settings={"letters": 6})
(TASK,) = CIPHER.build("one_instance")
TASKS: dict[str, tuple[Task, ...]] = {"one_instance": (TASK,)}
SETTINGS = FineTuneConfig(examples=20, test_queries=30, eval_every=2, patience=3)
DATA = DataConfig(row_length=64, weights={"one_instance": 1})


def rows(**changes: Any) -> FineTuningRows:
    return FineTuningRows(dataclasses.replace(SETTINGS, **changes), DATA, TASKS, ByteTokenizer())


def test_one_instance_is_one_that_is_held_out_from_the_family() -> None:
    (family,) = Cipher(letters=6).build("cipher")
    instance = family.instance("held_out", 0)
    shown = {(e.input, e.target) for e in instance.demonstrations(np.random.default_rng(0))}
    (query, *_), number = list(TASK.queries("held_out")), TASK.size("train")
    assert (query.example.input, query.example.target) in shown
    assert (number or 0) + (TASK.size("held_out") or 0) == 6**3 == len(shown)
    assert TASK.name == "cipher-0" and TASK.chance() == family.chance()
    (second,) = OneInstance(family="cipher", settings={"letters": 6}, number=1).build("x/one_instance")
    assert second.name == "x" and second.fingerprint() != TASK.fingerprint()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"family": "cyfer"}, "OneInstance.family = 'cyfer': expected a generated family"),
        ({"family": "cipher", "settings": {"leters": 6}}, r"Cipher has no settings \['leters'\]"),
        ({"family": "scrambles"}, "OneInstance.family = 'scrambles': builds 5 tasks"),
        ({"family": "position_map", "number": 999}, "OneInstance.number = 999: expected less than"),
    ],
)
def test_an_instance_that_is_none_is_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        OneInstance(**settings).build("one_instance")


def test_the_examples_of_a_seed_are_nested_and_never_tested_on() -> None:
    few, many = (draw_examples(dataclasses.replace(SETTINGS, examples=n), TASK) for n in (10, 50))
    assert (len(few.train), len(few.development)) == (8, 2)
    assert (len(many.train), len(many.development)) == (40, 10)
    chosen = [{e.input for e in (*drawn.train, *drawn.development)} for drawn in (few, many)]
    assert len(chosen[0]) == 10 and chosen[0] < chosen[1] and len(chosen[1]) == 50
    assert not chosen[1] & {query.example.input for query in TASK.queries("held_out")}
    assert draw_examples(dataclasses.replace(SETTINGS, seed=1), TASK) != draw_examples(SETTINGS, TASK)


def test_a_task_with_too_few_inputs_is_refused_by_how_many_it_has() -> None:
    with pytest.raises(InputError, match=r"has 216 different inputs, \d+ to learn from and \d+ to be tested"):
        draw_examples(dataclasses.replace(SETTINGS, examples=4096), TASK)
    with pytest.raises(InputError, match="FineTuneConfig.test_queries = 500"):
        draw_examples(dataclasses.replace(SETTINGS, test_queries=500), TASK)
    (family,) = Cipher().build("cipher")
    with pytest.raises(InputError, match="'cipher': draws a new instance for every query"):
        draw_examples(SETTINGS, family)


def test_a_pool_that_queries_and_examples_share_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sums.json"
    path.write_text(json.dumps([{"input": f"{i}", "output": f"{i + 1}"} for i in range(100)]))
    (split,) = FileTasks(glob=str(path)).build("files")
    (shared,) = FileTasks(glob=str(path), pool="shared").build("files")
    assert len(draw_examples(dataclasses.replace(SETTINGS, test_queries=10), split).train) == 16
    with pytest.raises(InputError, match="has 100 different inputs, 0 to learn from"):
        draw_examples(SETTINGS, shared)
    with pytest.raises(InputError, match="FineTuneConfig.task = '': expected one of cipher-0, sums"):
        fine_tuned_task(SETTINGS, TASKS | {"files": (split,)})


def test_an_example_is_the_zero_shot_prompt_of_the_evaluation() -> None:
    made = rows()
    row = made[0]
    tokens, targets, segments, weights = map(
        np.asarray, (row.inputs_BT, row.targets_BT, row.segments_BT, row.weights_BT)
    )
    assert segments.max() == made.writer.per_row == 64 // 8
    of_text = {e.input: e for e in made.drawn.train}
    for number in range(1, segments.max() + 1):
        at = segments == number
        text = ByteTokenizer().decode(tokens[at])
        example = of_text[text.split(">")[0]]
        asked = encode(ByteTokenizer(), TASK.template.context(example), example.target, "\n")
        assert [*tokens[at], targets[at][-1]] == asked.full
        assert targets[at][weights[at] > 0].tolist() == asked.gold


def test_every_epoch_shows_every_example_once_with_the_rows_in_an_order_of_its_own() -> None:
    made = rows(examples=100)  # 80 to train on, 8 a row
    assert made.rows_of_an_epoch == 10 and made.usage(25)["cipher-0"].used == 200
    orders = []
    for epoch in range(3):
        shown = Counter[str]()
        for index in range(10 * epoch, 10 * epoch + 10):
            row = made[index]
            for number in range(1, int(np.max(row.segments_BT)) + 1):
                at = np.asarray(row.segments_BT) == number
                shown[ByteTokenizer().decode(np.asarray(row.inputs_BT)[at])[:3]] += 1
        assert set(shown) == {e.input for e in made.drawn.train} and set(shown.values()) == {1}
        orders.append(tuple(shown))
    assert len(set(orders)) == 3
    assert made.fingerprint == rows(examples=100).fingerprint != rows(examples=100, seed=1).fingerprint


def test_a_row_holds_as_many_as_fit(tmp_path: Path) -> None:
    path = tmp_path / "repeats.json"
    path.write_text(
        json.dumps([{"input": f"{i}" * (1 + i % 3), "output": "x" * (i % 7 + 1)} for i in range(90)])
    )
    (task,) = FileTasks(glob=str(path)).build("files")
    writer = ExampleWriter(DATA, task, ByteTokenizer(), instruction=False)
    examples = draw_examples(dataclasses.replace(SETTINGS, examples=50, test_queries=1), task).train
    filled = writer.fill(examples)
    assert [example for together in filled for example in together] == list(examples)
    for together, after in zip(filled, filled[1:], strict=False):
        used = sum(map(writer.length, together))
        assert used <= 64 < used + writer.length(after[0]) and len(together) <= writer.per_row
        assert np.count_nonzero(writer.row(together).segments_BT) == used
    data = dataclasses.replace(DATA, answer_positions=12)
    writer = ExampleWriter(data, TASK, ByteTokenizer(), instruction=False)
    assert writer.per_row == 3  # of four answer tokens each
    data = DataConfig(row_length=8, answer_positions=2, weights={"x": 1})
    with pytest.raises(InputError, match="row_length = 8, answer_positions = 2: expected at least 8 and 4"):
        ExampleWriter(data, TASK, ByteTokenizer(), instruction=False)


def test_patience_counts_measurements_that_are_no_better() -> None:
    stopping = EarlyStopping(patience=2)
    found = [Measured(1, 2.0), Measured(1, 1.5), Measured(0, 0.1), Measured(2, 9.0), Measured(2, 9.0)]
    assert [stopping.add(step, measured) for step, measured in enumerate(found)] == [
        *(True, True, False, True, False)
    ]
    assert not stopping.is_over and stopping.best_step == 3
    assert not stopping.add(5, Measured(1, 0.0)) and stopping.is_over


def checked(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    assert train(small_run(train={"steps": 4, "keep_last": 9}, mesh={"data": -1}), folder)
    return folder


def tuning_run(base: Path, **train_settings: Any) -> RunConfig:
    start = find_start(f"{base}@4")
    return dataclasses.replace(
        small_run(
            data={"weights": {"one_instance": 1.0}},
            train={"steps": 12, "save_every": 5} | train_settings,
            optimizer={"schedule": "constant", "learning_rate": 1e-2},
            mesh={"data": 2, "fsdp": 2, "tensor": 2},
            families={"one_instance": CIPHER},
        ),
        model=start.description.model,
        fine_tune=dataclasses.replace(SETTINGS, checkpoint=f"{base}@4"),
        start=start,
    )


@pytest.fixture(scope="module")
def tuned(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fine-tuned without an interruption."""
    folder = tmp_path_factory.mktemp("tuned")
    before = checked(base)
    assert train(tuning_run(base), folder)
    assert checked(base) == before
    return folder


def history(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "development.jsonl").read_text().splitlines()]


@pytest.mark.extended
def test_a_run_starts_with_the_parameters_of_the_checkpoint_in_its_own_shards(base: Path) -> None:
    setup = Setup(tuning_run(base))
    state = setup.init_state()
    expected, _ = restore_params(base, 4)
    jax.tree.map(np.testing.assert_array_equal, state.params, expected)
    assert jax.tree.map(lambda leaf: leaf.sharding, state.params) == setup.shardings.params
    assert all(not np.any(moment) for moment in jax.tree.leaves(state.moments)) and int(state.step) == 0
    older = Setup(dataclasses.replace(tuning_run(base), start=find_start(f"{base}/checkpoints/2")))
    other = older.init_state().params
    assert not np.array_equal(jax.tree.leaves(other)[0], jax.tree.leaves(expected)[0])


@pytest.mark.extended
def test_the_best_step_is_kept_as_a_checkpoint_and_says_where_it_comes_from(base: Path, tuned: Path) -> None:
    measured = [(each["step"], Measured(each["right"], each["loss"])) for each in history(tuned)]
    assert [step for step, _ in measured] == [0, 2, 4, 6, 8, 10, 12]
    step, best = max(measured, key=lambda pair: (pair[1].right, -pair[1].loss))
    (subject,) = find_subjects([tuned / "best"])
    assert subject.description.step == step > 0 and subject.description.tokens == step * 512
    setup = Setup(tuning_run(base))
    assert isinstance(setup.rows, FineTuningRows)
    scorer = ExampleScorer(setup, setup.rows.writer)
    development = scorer.batches(setup.rows.drawn.development)
    answered = scorer.answers(subject.restore(setup.shardings.params), development)
    assert summarise(answered) == best
    said = subject.description.start
    assert said["step"] == 4 and said["settings"]["examples"] == 20
    assert said["parameters"] == find_start(str(base)).identity["parameters"]
    assert set(subject.description.trained_tasks) == {"cipher", "word_label", "cipher-0"}
    assert json.loads((tuned / "run.json").read_text())["FineTuneConfig"]["parameters"] == said["parameters"]


def test_a_killed_fine_tuning_goes_on_bit_for_bit(
    base: Path, tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = MetricWriters.write

    def terminate(self: MetricWriters, line: Any) -> None:
        write(self, line)
        if line["step"] == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(MetricWriters, "write", terminate)
        assert not train(tuning_run(base), tmp_path / "run")
    assert len(history(tmp_path / "run")) < 7
    (tmp_path / "run/best/checkpoints/999").mkdir()  # what a kill between two saves leaves, if not committed
    (tmp_path / "run/best/checkpoints/999").rmdir()
    assert train(tuning_run(base), tmp_path / "run")
    assert history(tmp_path / "run") == history(tuned)
    for name in ("", "best"):
        there, whole = (read_description(folder / name) for folder in (tmp_path / "run", tuned))
        assert (there.step, there.checksums) == (whole.step, whole.checksums)


@pytest.mark.extended
def test_patience_ends_a_run_for_good(base: Path, tmp_path: Path) -> None:
    run = tuning_run(base, steps=40)
    run = dataclasses.replace(run, fine_tune=dataclasses.replace(run.fine_tune, patience=1))
    run = dataclasses.replace(run, optimizer=dataclasses.replace(run.optimizer, learning_rate=1.0))
    assert train(run, tmp_path)
    ended = read_description(tmp_path).step
    assert ended < 40 and history(tmp_path)[-1]["step"] == ended
    before = checked(tmp_path)
    assert train(run, tmp_path)
    assert checked(tmp_path) == before


@pytest.mark.extended
def test_in_memory_it_comes_to_the_same_as_in_a_folder(base: Path, tuned: Path) -> None:
    tuner = FineTuner(tuning_run(base))
    found = tuner.tune(dataclasses.replace(SETTINGS, task="cipher-0"))
    expected, description = restore_params(tuned / "best")
    assert (found.best_step, found.steps) == (description.step, 12)
    jax.tree.map(np.testing.assert_array_equal, found.params, expected)
    start, _ = restore_params(base, 4)
    jax.tree.map(np.testing.assert_array_equal, tuner.params, start)  # kept for the next one
    assert found.flops > 3 * 12 * 8 * tuner.reading_flops([64]) * 0.5


@pytest.mark.extended
def test_another_start_or_a_folder_of_the_start_is_refused(base: Path, tuned: Path) -> None:
    run = tuning_run(base)
    other = dataclasses.replace(run, start=find_start(f"{base}@2"))
    with pytest.raises(InputError, match=r"run has FineTuneConfig.step = 4, this run 2; use another"):
        train(other, tuned)
    for folder in (base, base / "checkpoints", base / "checkpoints/tuned"):
        with pytest.raises(InputError, match="--workdir"):
            train(run, folder)


def test_settings_that_contradict_the_checkpoint_are_refused(base: Path) -> None:
    def load(*bindings: str) -> RunConfig:
        start = ["DataConfig.weights = {'cipher': 1}", f"FineTuneConfig.checkpoint = '{base}'"]
        own = ["DataConfig.row_length = 64", "TrainConfig.batch_tokens = 64"]
        return load_runs([], [*start, *own, *bindings])[0]

    run = load("ModelConfig.embed_dim = 16", "ModelConfig.remat = 'none'")
    assert run.model == read_description(base).model
    (again,) = load_runs([], run.config_text.splitlines())
    assert again == run
    with pytest.raises(InputError, match="the run starts from: its model has ModelConfig.embed_dim = 16"):
        load("ModelConfig.embed_dim = 32")
    with pytest.raises(InputError, match=r"FineTuneConfig.checkpoint: checkpoint .*nowhere does not exist"):
        load("FineTuneConfig.checkpoint = '/nowhere'")
    with pytest.raises(InputError, match="there is no step 3"):
        load(f"FineTuneConfig.checkpoint = '{base}@3'")


def test_a_public_model_is_a_start_like_any_other(tmp_path: Path) -> None:
    folder = tmp_path / "public"
    make_folder(folder, GPT2)
    bindings = [
        "DataConfig.weights = {'one_instance': 1}",
        "OneInstance.family = 'cipher'",
        f"FineTuneConfig.checkpoint = 'hf:{folder}'",
        "FineTuneConfig.examples = 20",
        "FineTuneConfig.test_queries = 20",
        "DataConfig.row_length = 32",
        "TrainConfig.batch_tokens = 256",
    ]
    setup = Setup(load_runs([], bindings)[0])
    expected = find_start(f"hf:{folder}").restore(None)
    jax.tree.map(np.testing.assert_array_equal, setup.init_state().params, expected)
    assert setup.tokenizer.kind == "huggingface" and setup.rows[0] is not None
    with pytest.raises(InputError, match="holds or is in the checkpoint that the run starts from"):
        train(setup.run, folder)


@pytest.mark.extended
def test_a_description_without_a_start_is_what_it_was_before_there_were_any(base: Path) -> None:
    description = read_description(base)
    written = description.to_json()
    assert "start" not in written
    assert Description.from_json(written, "here") == description
