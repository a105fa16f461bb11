"""Points come from finished runs on unique text only, and losses on unseen text are those of the model."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from icl import model
from icl.analysis.run_points import find_runs, read_curve, read_points
from icl.analysis.text_loss import text_loss
from icl.data import corpus
from icl.data.config import DataConfig
from icl.data.rows import Rows
from icl.data.tokenizer import load_tokenizer
from icl.errors import InputError
from icl.training import train
from icl.training.checkpoints import read_description, restore_params
from icl.training.config import RunConfig
from tests.training.small import small_run

ROW, BATCH = 64, 512


def text_run(text: Path, steps: int, rung: str = "", **changes: Any) -> RunConfig:
    """A small run on text alone."""
    return small_run(
        rung=rung,
        data={"weights": {}, "corpora": {"text": (str(text),)}, **changes},
        train={"steps": steps, "save_every": 2, "log_every": 2, "seed": steps},
        families={},
        mesh={"data": -1},
    )


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 13 thousand letters: enough for 200 rows."""
    letters = np.random.default_rng(0).choice(list("abcdefgh \n"), 13_000)
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("".join(letters))
    return path


@pytest.fixture(scope="module")
def ladder(tmp_path_factory: pytest.TempPathFactory, text: Path) -> Path:
    """Two runs, of 4 and 8 steps of 512 tokens."""
    folder = tmp_path_factory.mktemp("ladder")
    for steps in (4, 8):
        assert train(text_run(text, steps, f"steps{steps}"), folder / "runs" / f"steps{steps}")
    return folder


@pytest.fixture
def spoilt(ladder: Path, tmp_path: Path) -> Path:
    """A copy of the ladder."""
    return Path(shutil.copytree(ladder, tmp_path / "ladder"))


def test_a_ladders_folder_is_enough(ladder: Path) -> None:
    points = read_points([ladder])
    config = read_description(ladder / "runs" / "steps4").model
    assert [point.tokens for point in points] == [4 * BATCH, 8 * BATCH]
    assert [point.seed for point in points] == [4, 8]
    for point in points:
        assert point.params == model.num_non_embedding_params(config)
        assert point.flops == point.tokens * model.flops_per_token(config, ROW)
        lines = [json.loads(line) for line in (Path(point.name) / "metrics.jsonl").read_text().splitlines()]
        assert point.loss == lines[-1]["loss"]
        assert point.finished and 0 < point.repeats <= 1
    assert {point.params for point in read_points([ladder], count="all")} == {model.num_params(config)}
    curve = read_curve(ladder / "runs" / "steps8")
    assert curve.tokens_N.tolist() == [BATCH, 2 * BATCH, 4 * BATCH, 6 * BATCH, 8 * BATCH]
    assert curve.flops_N[-1] == points[-1].flops and curve.loss_N[-1] == points[-1].loss


def test_a_run_named_twice_is_one_point(ladder: Path) -> None:
    assert find_runs([ladder, ladder / "runs" / "steps4"]) == find_runs([ladder])


def test_the_loss_on_unseen_rows_is_that_of_the_model(ladder: Path, text: Path) -> None:
    """Against a plain log-softmax over the logits of each row by itself."""
    rows, folder = range(70, 110), ladder / "runs" / "steps8"
    params, description = restore_params(folder)
    stream = Rows(DataConfig(row_length=ROW, corpora={"text": (str(text),)}), {}, load_tokenizer("bytes"))
    losses = []
    for row in map(stream.__getitem__, rows):
        inputs_BT, segments_BT, positions_BT, targets_BT = (
            jnp.asarray(array)[None]
            for array in (row.inputs_BT, row.segments_BT, row.positions_BT, row.targets_BT)
        )
        logits_BTV = model.logits(description.model, params, inputs_BT, segments_BT, positions_BT)
        log_p_BTV = jax.nn.log_softmax(logits_BTV)
        losses.append(-np.asarray(jnp.take_along_axis(log_p_BTV, targets_BT[..., None], axis=2)).mean())
    found = text_loss(folder, rows)
    assert found.loss == pytest.approx(np.mean(losses), rel=1e-5)
    assert found.standard_error == pytest.approx(np.std(losses, ddof=1) / np.sqrt(len(losses)), rel=1e-4)
    assert found.tokens == len(rows) * ROW
    assert [point.loss for point in read_points([folder], rows=rows)] == [found.loss]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (range(63, 80), "was trained on 64 rows"),
        (range(190, 210), "expected rows of text that comes once"),
        (range(70, 70), "expected one or more"),
    ],
)
def test_rows_that_are_not_unseen_are_refused(ladder: Path, rows: range, message: str) -> None:
    with pytest.raises(InputError, match=message):
        text_loss(ladder / "runs" / "steps8", rows)


def test_a_run_that_has_not_come_to_its_end_is_refused(spoilt: Path) -> None:
    shutil.rmtree(spoilt / "runs" / "steps8" / "checkpoints" / "8")
    with pytest.raises(InputError, match=r"steps8: is at step 6 of 8, its schedule is not finished"):
        read_points([spoilt])


def test_a_run_without_a_schedule_that_ends_is_refused(spoilt: Path) -> None:
    path = spoilt / "runs" / "steps4" / "run.json"
    settings = json.loads(path.read_text())
    settings["OptimizerConfig"]["schedule"] = "constant"
    path.write_text(json.dumps(settings))
    with pytest.raises(InputError, match="steps4: its learning rate stays constant"):
        read_points([spoilt])


def test_a_run_on_repeated_text_is_refused(tmp_path: Path, text: Path) -> None:
    """8 steps of 8 rows, of text that fills 50."""
    short = tmp_path / "short.txt"
    short.write_text(text.read_text()[:3200])
    assert train(text_run(short, 8), tmp_path / "run")
    with pytest.raises(InputError, match=r"saw its text 1\.2\d times; expected unique text only"):
        read_points([tmp_path / "run"])


def test_runs_whose_losses_do_not_compare_are_refused(ladder: Path, tmp_path: Path, text: Path) -> None:
    assert train(text_run(text, 4, loss_on="all"), tmp_path / "run")
    with pytest.raises(InputError, match=r"differ in data \(loss_on\)"):
        read_points([ladder, tmp_path / "run"])


def test_text_that_has_changed_is_not_measured(ladder: Path, text: Path) -> None:
    kept = text.read_text()
    text.write_text(kept[::-1])
    corpus._tokenize.cache_clear()  # A process keeps the text it has read.
    try:
        with pytest.raises(InputError, match="its text has changed"):
            text_loss(ladder / "runs" / "steps4", range(70, 80))
    finally:
        text.write_text(kept)
        corpus._tokenize.cache_clear()


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no run"):
        read_points([tmp_path])
