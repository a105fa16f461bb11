"""Many small runs: each row once a pass, what is measured counts what it says, and runs can be told apart."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from icl.analysis import small_runs
from icl.analysis.losses import present_answers
from icl.analysis.small_run_figures import Panel, draw
from icl.analysis.small_runs import (
    Probe,
    Trace,
    batch_places,
    fading,
    half_way,
    measure,
    read_trace,
    seen_inputs,
    train_and_probe,
    write_trace,
)
from icl.data.batch import Batch
from icl.data.config import DataConfig
from icl.data.loader import stack
from icl.data.rows import Rows
from icl.data.tokenizer import ByteTokenizer
from icl.errors import InputError
from icl.model.config import ModelConfig
from icl.tasks import FAMILIES, build_tasks
from icl.training.config import RunConfig, TrainConfig
from icl.training.optimizer import OptimizerConfig
from tests.analysis.hand_made import CONFIG, START, induction_params

EXAMPLES = 8


def small_run(**train: Any) -> RunConfig:
    """A one-layer model on the one instance of associative recall that there is."""
    return RunConfig(
        model=ModelConfig.small(num_layers=1, embed_dim=16, num_heads=1, max_length=32),
        data=DataConfig(row_length=24, weights={"recall": 1}, max_examples=EXAMPLES),
        families={"recall": FAMILIES["recall"](separator="", num_training_instances=1)},
        optimizer=OptimizerConfig.small(learning_rate=1e-2, warmup_steps=5),
        train=TrainConfig(**({"steps": 40, "batch_tokens": 8 * 24} | train)),
    )


def episodes(split: Any, number: int = 32) -> Batch:
    run = small_run()
    rows = Rows(run.data, build_tasks(run.families), ByteTokenizer(), split)
    return stack([rows[i] for i in range(number)])


def probe(split: Any) -> Probe:
    rows = episodes(split)
    return Probe(rows, {split: present_answers(rows.examples_BT, EXAMPLES)})


def run_small(**train: Any) -> Trace:
    return train_and_probe(
        small_run(**train), [probe("train"), probe("held_out")], distinct_rows=64, every=20
    )


def test_every_row_comes_once_a_pass_in_an_order_of_the_seed() -> None:
    passes = {
        (seed, lap): np.concatenate([batch_places(seed, 5 * lap + step, 4, 23) for step in range(5)])
        for seed in (0, 1)
        for lap in (0, 1)
    }
    for places in passes.values():
        assert len(set(places.tolist())) == 20 and places.max() < 23
    assert len({tuple(places.tolist()) for places in passes.values()}) == 4
    np.testing.assert_array_equal(batch_places(1, 7, 4, 23), passes[1, 1][8:12])


@pytest.fixture(scope="module")
def trace() -> Trace:
    return run_small()


def test_what_is_known_by_heart_is_right_on_trained_instances_only(trace: Trace) -> None:
    assert trace.steps == [0, 20, 40]
    assert np.isnan(trace.loss[0]) and trace.loss[1] > trace.loss[2]
    assert trace.scores["train"][0] < 0.2 and trace.scores["train"][-1] > 0.95
    assert trace.scores["held_out"][-1] < 0.3
    assert trace.answers["train"] == 32 * EXAMPLES


def test_runs_of_one_seed_are_the_same_and_of_two_are_not_and_nothing_is_compiled_again(trace: Trace) -> None:
    before = small_runs._compiled.cache_info().misses
    again, other = (run_small(seed=seed) for seed in (0, 1))
    assert small_runs._compiled.cache_info().misses == before
    assert trace.loss[1:] == again.loss[1:] and trace.scores == again.scores
    assert trace.loss[1:] != other.loss[1:]


def test_scores_count_the_answers_that_they_name() -> None:
    """A hand-made induction head answers what was shown before, and nothing else."""
    rng = np.random.default_rng(0)
    keys, pairs = 4, 12
    tokens_BT = []
    for _ in range(6):
        symbols = rng.permutation(START)[: 2 * keys].reshape(keys, 2)
        tokens_BT.append([START, *symbols[rng.integers(0, keys, pairs)].ravel()])
    tokens = np.array(tokens_BT, np.int32)
    inputs_BT, targets_BT = tokens[:, :-1], tokens[:, 1:]
    positions_BT = np.broadcast_to(np.arange(2 * pairs), inputs_BT.shape)
    examples_BT = np.where(positions_BT % 2 == 1, positions_BT // 2, -1)
    ones, zeros = np.ones_like(inputs_BT), np.zeros_like(inputs_BT)
    rows = Batch(
        inputs_BT, targets_BT, ones, positions_BT, np.float32(examples_BT >= 0), examples_BT, zeros, zeros
    )
    seen_BK = seen_inputs(rows, pairs)
    expected = [[key in row[1 : 1 + 2 * k : 2] for k, key in enumerate(row[1::2])] for row in tokens.tolist()]
    assert seen_BK.tolist() == expected
    params = jax.tree.map(np.asarray, induction_params())
    found = measure(CONFIG, params, [Probe(rows, {"seen": seen_BK, "unseen": ~seen_BK})])
    assert found == {"seen": 1.0, "unseen": 0.0}


def test_inputs_of_several_tokens_are_seen_as_wholes() -> None:
    run = small_run()
    families = {"word_label": FAMILIES["word_label"](letters=20, word_length=2)}
    config = dataclasses.replace(run.data, weights={"word_label": 1}, row_length=60)
    rows = Rows(config, build_tasks(families), ByteTokenizer(), "held_out")
    batch = stack([rows[i] for i in range(10)])
    seen_BK = seen_inputs(batch, EXAMPLES)
    for row in range(10):
        words = [line[:2] for line in ByteTokenizer().decode(np.asarray(batch.targets_BT)[row]).split("\n")][
            :EXAMPLES
        ]
        assert seen_BK[row].tolist() == [word in words[:k] for k, word in enumerate(words)]


def test_rises_and_fades_are_found() -> None:
    assert half_way([0, 10, 20, 30], [0.1, 0.4, 0.6, 0.9], 0.5) == 20
    assert half_way([0, 10], [0.1, 0.4], 0.5) is None
    assert fading([0.1, 0.9, 0.4]) == 0.5
    assert fading([0.1, 0.4, 0.9]) == 0.0


def test_a_trace_comes_back_as_it_was(tmp_path: Path) -> None:
    trace = Trace(10, [0, 5], {"a": [0.0, 1.0]}, {"a": 3}, [1.0, 0.5], 0.1)
    write_trace(tmp_path / "runs" / "trace.json", trace)
    assert read_trace(tmp_path / "runs" / "trace.json") == trace
    (tmp_path / "runs" / "trace.json").write_text('{"steps": []}')
    with pytest.raises(InputError, match="expected a trace of a run"):
        read_trace(tmp_path / "runs" / "trace.json")


def test_settings_that_make_no_small_run_are_refused() -> None:
    rows = probe("train")
    empty = Probe(rows.rows, {"none": np.zeros((32, EXAMPLES), bool)})
    with pytest.raises(InputError, match="expected a batch of 8 or more"):
        train_and_probe(small_run(), [rows], distinct_rows=4, every=10)
    with pytest.raises(InputError, match="expected names that differ"):
        train_and_probe(small_run(), [rows, rows], distinct_rows=8, every=10)
    with pytest.raises(InputError, match="none of the rows' answers counts"):
        train_and_probe(small_run(), [empty], distinct_rows=8, every=10)
    with pytest.raises(InputError, match="a row weighs more than so many"):
        train_and_probe(small_run(), [rows], distinct_rows=8, every=10, scored_positions=2)
    with pytest.raises(InputError, match="expected none of them in a small run"):
        train_and_probe(small_run(accumulation_steps=2), [rows], distinct_rows=8, every=10)


def test_the_figure_is_the_same_for_the_same_numbers() -> None:
    panels = [
        Panel(0, "one", "step", [0, 10, 20], {"a": [[0.0, 0.5, 1.0], [0.1, 0.4, 0.9]]}),
        Panel(1, "two", "instances", ["1", "4"], {"a": [[0.0, 0.5]], "b": [[1.0, 1.0]]}),
    ]
    assert draw(panels) == draw(panels) != draw(panels[:1])
    assert draw(panels).startswith(b"\x89PNG")
    with pytest.raises(InputError, match="expected curves of 3 values for 'a'"):
        draw([dataclasses.replace(panels[0], curves={"a": [[0.0, 0.5]]})])
    with pytest.raises(InputError, match="expected a panel"):
        draw([])
