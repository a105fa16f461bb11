"""What appears when: a checkpoint is measured as it is, and a rise is found where it was put."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from icl.analysis.emergence import (
    Probe,
    Snapshot,
    doublings,
    half_rise,
    measure,
    read_snapshots,
    token_counts,
    write_snapshots,
)
from icl.analysis.emergence_figures import draw, draw_on_text
from icl.analysis.heads import repeated_tokens
from icl.analysis.losses import exact_by_demonstration
from icl.data.batch import Batch
from icl.data.config import DataConfig
from icl.data.loader import stack
from icl.data.rows import Rows
from icl.data.tokenizer import ByteTokenizer
from icl.errors import InputError
from icl.tasks import Recall, build_tasks
from icl.training.checkpoints import PARAMS, save_params
from icl.training.checksums import describe_arrays
from icl.training.description import Description
from tests.analysis.hand_made import CONFIG, INDUCTION, START, VOCAB, induction_params
from tests.experiments import run_experiment


def episodes(number: int = 6, keys: int = 4, times: int = 5) -> Batch:
    """Pairs of a token and its own value, each pair `times` times in turn."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(number):
        symbols = rng.permutation(START)[: 2 * keys]
        rows.append([START, *np.tile(symbols.reshape(2, keys).T.ravel(), times)])
    tokens_BT = np.array(rows, np.int32)
    inputs_BT, targets_BT = tokens_BT[:, :-1], tokens_BT[:, 1:]
    positions_BT = np.broadcast_to(np.arange(inputs_BT.shape[1]), inputs_BT.shape)
    is_answer_BT = positions_BT % 2 == 1
    examples_BT = np.where(is_answer_BT, positions_BT // 2, -1)
    ones, zeros = np.ones_like(inputs_BT), np.zeros_like(inputs_BT)
    weights_BT = is_answer_BT.astype(np.float32)
    return Batch(inputs_BT, targets_BT, ones, positions_BT, weights_BT, examples_BT, zeros, zeros)


def description() -> Description:
    return Description(
        model=CONFIG,
        data={},
        tasks={},
        tokenizer={},
        optimizer={},
        train={},
        rung="",
        step=7,
        tokens=700,
        params=0,
        train_seed=0,
        config_text="",
        versions={},
        git="",
        data_fingerprint="",
        trained_tasks=(),
        excluded={},
        checksums={},
    )


def test_a_checkpoint_with_an_induction_head_is_measured_as_one(tmp_path: Path) -> None:
    params = jax.tree.map(np.asarray, induction_params())
    said = dataclasses.replace(description(), checksums=describe_arrays(induction_params(), PARAMS))
    save_params(tmp_path, params, said)
    probe = Probe(episodes(), repeated_tokens(range(START), START), num_examples=20, late=30, early=4)
    found = measure(tmp_path, 7, probe)
    assert (found.step, found.tokens) == (7, 700)
    # The first four keys are new; from then on each is known.
    assert found.exact_match[:4] == [0.0] * 4
    assert found.exact_match[4:] == [1.0] * 16
    # 39 tokens are predicted: the 1st, the 2nd, the 3rd and 4th, ...; only those of answers count.
    parts = np.split(np.arange(1, 41), [1, 2, 4, 8, 16, 32])
    answers = [[found.loss[n // 2 - 1] for n in part if n % 2 == 0] for part in parts]
    assert len(found.position_loss) == len(parts) and np.isnan(found.position_loss[0])
    assert np.allclose(found.position_loss[1:], [np.mean(part) for part in answers[1:]], atol=2e-3)
    assert min(found.loss[:4]) > np.log(VOCAB) and max(found.loss[4:]) < 0.01
    assert found.in_context_learning < -3
    assert found.best_head() == INDUCTION
    assert found.prefix_matching[1][1] >= 0.99 and found.copying[1][1] >= 0.99


def test_snapshots_come_back_as_they_were(tmp_path: Path) -> None:
    written = [snapshot(step, 0.1 * step) for step in (1, 2)]
    write_snapshots(tmp_path / "snapshots.json", written)
    assert read_snapshots(tmp_path / "snapshots.json") == written
    (tmp_path / "snapshots.json").write_text('[{"step": 1}]')
    with pytest.raises(InputError, match="expected snapshots of a run"):
        read_snapshots(tmp_path / "snapshots.json")


def test_an_answer_is_exact_when_all_of_its_tokens_are() -> None:
    examples_BT = np.array([[0, 0, 1, 1, -1], [0, -1, 1, 2, 2]])
    targets_BT = np.zeros((2, 5), int)
    best_BT = np.array([[0, 0, 0, 9, 9], [9, 9, 0, 0, 0]])
    found = exact_by_demonstration(best_BT, targets_BT, examples_BT, 4)
    np.testing.assert_array_equal(found.mean, [0.5, 0.5, 1.0, np.nan])
    assert found.number.tolist() == [2, 2, 1, 0]


def test_the_half_of_a_rise_is_found_where_it_is() -> None:
    steps = range(0, 101, 5)
    step_up = [0.2 + 0.6 / (1 + np.exp(-(step - 42.0) / 3)) for step in steps]
    found = half_rise(steps, step_up, least=0.3)
    assert found is not None and abs(found - 42) < 1
    assert half_rise([0, 10, 20], [0.0, 0.0, 1.0], least=0.5, last=1) == 15.0
    assert half_rise(steps, step_up, least=0.7) is None
    assert half_rise(steps, step_up[::-1], least=0.1) is None


def test_what_fades_and_comes_back_counts_from_when_it_stays() -> None:
    assert half_rise(range(6), [0, 1, 0, 0, 1, 1], least=0.5, last=2) == 3.5


def test_a_rise_of_one_value_is_refused() -> None:
    with pytest.raises(InputError, match="1 steps and 1 values"):
        half_rise([0], [1.0], least=0.1)


def test_counts_are_those_of_the_rows() -> None:
    config = DataConfig(row_length=32, weights={"recall": 1})
    rows = Rows(config, build_tasks({"recall": Recall(separator="")}), ByteTokenizer())
    counts_V = token_counts(rows, 5, 264)
    batch = stack([rows[i] for i in range(5)])
    assert np.asarray(batch.inputs_BT).shape == (5, 32)
    assert counts_V.sum() == (np.asarray(batch.segments_BT) > 0).sum()
    assert counts_V[ByteTokenizer.start_id] == sum(
        len(set(row) - {0}) for row in np.asarray(batch.segments_BT)
    )
    assert counts_V[ByteTokenizer.pad_id] == 0


@pytest.mark.parametrize(("length", "starts"), [(1, []), (2, [1]), (5, [1, 2, 4]), (8, [1, 2, 4])])
def test_parts_of_a_context_are_as_long_as_all_before_them(length: int, starts: list[int]) -> None:
    assert doublings(length) == starts
    assert all(len(part) for part in np.split(np.arange(length), doublings(length)))


def snapshot(step: int, score: float) -> Snapshot:
    heads, losses = [[score, 0.0], [0.0, 0.1]], [3.0, 3.0 - score]
    return Snapshot(step, 10 * step, [0.0, score], losses, -score, heads, heads, heads, losses)


def test_the_figure_is_the_same_for_the_same_numbers() -> None:
    runs = {name: [[snapshot(step, step / 4) for step in (1, 2, 3)]] for name in ("one", "two")}
    figures = [draw(runs, {"one": [None], "two": [1.5]}, ks=(0, 1), chance=0.03) for _ in range(2)]
    assert figures[0] == figures[1] and figures[0].startswith(b"\x89PNG")
    assert figures[0] != draw(runs, {"one": [2.0], "two": [1.5]}, ks=(0, 1), chance=0.03)


def test_the_figure_on_text_is_the_same_for_the_same_numbers() -> None:
    runs = {name: [[snapshot(step, step / 4) for step in (1, 2, 3)]] for name in ("one", "two")}
    figures = [draw_on_text(runs, chance=0.03) for _ in range(2)]
    assert figures[0] == figures[1] and figures[0].startswith(b"\x89PNG")


@pytest.mark.extended
@pytest.mark.timeout(600)
def test_the_command_on_text_measures_every_model_at_every_checkpoint(tmp_path: Path) -> None:
    """In the smoke size; a second time it trains nothing and gives the same."""
    letters = np.random.default_rng(0).choice(list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJ \n"), 60_000)
    (tmp_path / "text.txt").write_text("".join(letters))
    flags = ["--size", "smoke", "--gin_bindings", f"text = ['{tmp_path / 'text.txt'}']", "--experiment_dir"]
    first, second = (run_experiment("context_on_text", *flags, str(tmp_path / "out")) for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert first.stdout == second.stdout and second.stderr.count("nothing left to train") == 2
    found = json.loads((tmp_path / "out/results.json").read_text())["runs"]
    assert list(found) == ["one_layer", "two_layers"]
    for (run,) in found.values():
        assert [one["step"] for one in run["snapshots"]] == [10, 20]
        assert len(run["snapshots"][0]["position_loss"]) == 10  # 512 tokens
    assert (tmp_path / "out/context.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "text.txt").write_text("".join(letters[:9000]))
    short = run_experiment("context_on_text", *flags, str(tmp_path / "short"))
    assert short.returncode == 2 and "has 9,002 tokens" in short.stderr
    assert not (tmp_path / "short").exists()


@pytest.mark.extended
@pytest.mark.timeout(600)
def test_the_command_measures_every_model_at_every_checkpoint(tmp_path: Path) -> None:
    """In the smoke size, from the command line; a second time it trains nothing and gives the same."""
    flags = ["--size", "smoke", "--experiment_dir", str(tmp_path)]
    first, second = (run_experiment("when_it_appears", *flags) for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert first.stdout == second.stdout
    assert "nothing left to train" in second.stderr and "nothing left to train" not in first.stderr
    found = json.loads((tmp_path / "results.json").read_text())["runs"]
    assert list(found) == ["one_layer", "two_layers", "one_layer_with_convolution"]
    for name, runs in found.items():
        (run,) = runs
        layers = 2 if name == "two_layers" else 1
        assert run["steps"] == [10, 20, 30, 40]
        assert np.array(run["curves"]["prefix_matching"]).shape == (4, layers, 2)
        assert len(run["ablated"]) == 2 * layers
    assert (tmp_path / "emergence.png").read_bytes().startswith(b"\x89PNG")


def test_snapshots_are_plain_json() -> None:
    assert json.loads(json.dumps(dataclasses.asdict(snapshot(3, 0.5))))["step"] == 3
