"""Learning within a row: every answer is counted once under its own K, and a row is drawn as it stands."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from icl.analysis.inner_loop import by_demonstration, draw
from icl.analysis.losses import token_scores
from icl.analysis.row_figure import cells, draw_row
from icl.data.batch import NO_SEGMENT, Batch
from icl.data.config import DataConfig
from icl.data.loader import stack
from icl.data.rows import Rows
from icl.data.tokenizer import ByteTokenizer
from icl.model import ModelConfig, init_params
from icl.tasks import Cipher, Recall, build_tasks
from tests.experiments import run_experiment

TOKENIZER = ByteTokenizer()
MODEL = ModelConfig(vocab_size=264, max_length=96, num_layers=1, embed_dim=16, num_heads=2)


@pytest.fixture(scope="module")
def rows() -> Rows:
    """Rows of several short episodes of two tasks."""
    config = DataConfig(
        row_length=96,
        weights={"recall": 1, "cipher": 1},
        max_examples=4,
        instruction_share=0.0,
    )
    tasks = build_tasks(
        {"recall": Recall(), "cipher": Cipher(letters=8, lengths=(3,), length_weights=(1.0,))}
    )
    return Rows(config, tasks, TOKENIZER)


def test_each_answer_counts_under_the_demonstrations_before_it(rows: Rows) -> None:
    """Against a sum over single rows, tokens and tasks, written out."""
    params = init_params(MODEL, jax.random.key(0))
    batch = stack([rows[i] for i in range(6)])
    found = by_demonstration(MODEL, params, batch, len(rows.components), 4)
    loss_BT = np.asarray(token_scores(MODEL, params, batch).cross_entropy_BT)
    everything: dict[int, list[float]] = {k: [] for k in range(4)}
    of_task: dict[tuple[int, int], list[float]] = {}
    for b, t in np.ndindex(*loss_BT.shape):
        k, task = int(np.asarray(batch.examples_BT)[b, t]), int(np.asarray(batch.tasks_BT)[b, t])
        if k >= 0:
            everything[k].append(float(loss_BT[b, t]))
            of_task.setdefault((task, k), []).append(float(loss_BT[b, t]))
    assert np.allclose(found["loss"], [np.mean(everything[k]) for k in range(4)], atol=1e-4)
    assert found["exact"] is None  # an answer of several episodes has no row to be counted by
    for (task, k), losses in of_task.items():
        assert found["by_task"][task][k] == pytest.approx(np.mean(losses), abs=1e-4)


@given(number=st.integers(0, 200), width=st.integers(1, 90))
def test_a_drawn_row_is_its_text_in_order_and_within_its_lines(rows: Rows, number: int, width: int) -> None:
    row = rows[number]
    drawn = list(cells(row, TOKENIZER, width))
    positions = np.flatnonzero(np.asarray(row.segments_BT) != NO_SEGMENT)
    assert [cell.position for cell in drawn] == positions.tolist()
    text = TOKENIZER.decode(np.asarray(row.targets_BT)[positions].tolist())
    assert "".join(cell.text for cell in drawn) == text.replace("\n", "\u21b5").replace(" ", "\u2423")
    assert sum(cell.opens for cell in drawn) == np.max(row.segments_BT)
    places = [(cell.line, cell.left) for cell in drawn]
    assert places == sorted(set(places))
    assert all(cell.left + len(cell.text) <= max(width, len(cell.text)) for cell in drawn)


def test_only_answers_are_tinted_by_their_loss(rows: Rows) -> None:
    """Two strips that differ at an answer differ in the drawing; at a position of the input they do not."""
    row: Batch = rows[0]
    answers_T = np.asarray(row.examples_BT) >= 0
    loss_T = np.ones(96)

    def faces(loss_T: np.ndarray) -> list[Any]:
        axes = Figure().subplots()
        draw_row(axes, row, TOKENIZER, rows.components, {"a": loss_T})
        return [patch.get_facecolor() for patch in axes.patches]

    assert faces(loss_T) == faces(np.where(answers_T, loss_T, 3.0))
    assert faces(loss_T) != faces(np.where(answers_T, 3.0, loss_T))


def test_the_figure_is_the_same_for_the_same_numbers(rows: Rows) -> None:
    curve = {"loss": [3.0, 2.0, None], "by_task": [[3.0, 1.0, None], [3.0, 2.0, 1.0]], "exact": None}
    results = {
        "steps": [1, 2],
        "components": ["recall", "cipher"],
        "runs": [{"seed": 0, "training": [curve, curve], "held_out": [curve, curve]}],
    }
    figures = [draw(results, rows[0], {"early": np.ones(96)}, TOKENIZER) for _ in range(2)]
    assert figures[0] == figures[1] and figures[0].startswith(b"\x89PNG")


@pytest.mark.extended
@pytest.mark.timeout(600)
def test_the_command_measures_every_step(tmp_path: Path) -> None:
    """In the smoke size; a second time it trains nothing and gives the same."""
    flags = ["--experiment_dir", str(tmp_path), "--size", "smoke"]
    first, second = (run_experiment("inner_loop", *flags) for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert first.stdout == second.stdout and "nothing left to train" in second.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    (run,) = results["runs"]
    assert len(run["held_out"]) == len(run["training"]) == len(results["steps"]) == 2
    early, late = (step["loss"] for step in run["held_out"])
    assert len(late) == 17 and np.mean(late) < np.mean(early)
    assert (tmp_path / "inner_loop.png").read_bytes().startswith(b"\x89PNG")


def test_a_missing_folder_is_one_line() -> None:
    done = run_experiment("inner_loop")
    assert done.returncode == 2 and done.stderr.startswith("error: --experiment_dir is missing")
