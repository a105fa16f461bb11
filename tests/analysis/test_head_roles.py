"""Heads taken away from a model whose heads were written by hand: what they do stops, nothing else does."""

import json
from pathlib import Path

import numpy as np
import pytest

from icl.analysis.function_vectors import Prompts
from icl.analysis.head_roles import (
    CARRY,
    CARRY_ONLY,
    MATCH,
    MATCH_ONLY,
    RANDOM,
    accuracy,
    ask,
    copying_accuracy,
    head_sets,
    mean_by_group,
    overlap,
    rank_correlation,
)
from icl.analysis.heads import repeated_tokens
from icl.data.tokenizer import ByteTokenizer
from icl.errors import InputError
from icl.tasks import FAMILIES
from tests.analysis.hand_made import CONFIG, INDUCTION, PREVIOUS, START, induction_params
from tests.experiments import run_experiment

IDLE = [(0, 1), (1, 0)]


def test_without_the_induction_head_a_model_neither_copies_nor_looks_up() -> None:
    params = induction_params()
    repeated = repeated_tokens(np.arange(1, 30), START, length=10, repeats=3, samples=4)
    # What follows the last token is known once a repeat has begun after it.
    known = (3 - 1) * 10 - 1
    assert copying_accuracy(CONFIG, params, repeated) == pytest.approx(known / (known + 1), abs=0.01)
    assert copying_accuracy(CONFIG, params, repeated, IDLE) > 0.9
    rows_BT = np.array([[START, 3, 4, 5, 6, 3], [START, 7, 8, 9, 2, 9]], np.int32)
    prompts = Prompts(rows_BT, np.array([5, 5]), np.array([4, 2], np.int32))
    assert accuracy(CONFIG, params, prompts) == accuracy(CONFIG, params, prompts, IDLE) == 1
    for head in (INDUCTION, PREVIOUS):
        assert copying_accuracy(CONFIG, params, repeated, [head]) < 0.2
        assert accuracy(CONFIG, params, prompts, [head]) == 0


def test_sets_are_the_best_of_each_kind_and_the_exclusive_ones_share_no_head() -> None:
    effects_LH = np.array([[0.5, 0.4, 0.0], [0.3, 0.1, 0.2]])
    matching_LH = np.array([[0.9, 0.0, 0.1], [0.8, 0.7, 0.2]])
    sets = head_sets(effects_LH, matching_LH, 3, draws=5)
    assert sets[CARRY] == [[(0, 0), (0, 1), (1, 0)]]
    assert sets[MATCH] == [[(0, 0), (1, 0), (1, 1)]]
    assert sets[CARRY_ONLY] == [[(0, 1), (1, 2), (0, 2)]]
    assert sets[MATCH_ONLY] == [[(1, 1), (1, 2), (0, 2)]]
    assert len(sets[RANDOM]) == 5
    assert all(len(set(heads)) == 3 for heads in sets[RANDOM])
    assert len({tuple(sorted(heads)) for heads in sets[RANDOM]}) > 1
    assert overlap(sets[CARRY][0], sets[MATCH][0]) == pytest.approx(2 / 3)
    with pytest.raises(InputError, match="sets of 4 heads: expected 1 to 3"):
        head_sets(effects_LH, matching_LH, 4, draws=1)


def test_rank_correlation_and_means_by_group() -> None:
    scores_LH = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert rank_correlation(scores_LH, scores_LH**3) == pytest.approx(1)
    assert rank_correlation(scores_LH, -scores_LH) == pytest.approx(-1)
    assert np.isnan(rank_correlation(scores_LH, np.ones((2, 2))))
    groups = {"a": ["x", "y"], "b": ["z"], "c": ["none"]}
    assert mean_by_group({"x": 0.0, "y": 1.0, "z": 0.25}, groups) == {"a": 0.5, "b": 0.25}


def test_heads_are_judged_by_other_prompts_than_they_are_chosen_by() -> None:
    (task,) = FAMILIES["cipher"]().build("cipher")
    one = ask(task, task.instance("held_out", 0), ByteTokenizer(), demonstrations=4, count=6)
    assert {prompts.inputs_BT.shape[1] % 64 for prompts in one} == {0}
    chosen, judged = (
        {bytes(row[: last + 1].astype(np.uint8)) for row, last in zip(p.inputs_BT, p.last_B, strict=True)}
        for p in (one.chosen_by, one.judged_by)
    )
    assert len(chosen) == len(judged) == 6
    assert not chosen & judged
    assert one.alone.last_B.max() < one.chosen_by.last_B.min()


@pytest.mark.extended
@pytest.mark.timeout(900)
def test_the_command_looks_into_its_models(tmp_path: Path) -> None:
    """In the smoke size; with the models of another folder it trains none."""
    first, second = (tmp_path / name for name in ("first", "second"))
    for folder, more in ((first, []), (second, ["--ladder_dir", str(first)])):
        done = run_experiment("function_vectors", "--size", "smoke", "--experiment_dir", str(folder), *more)
        assert done.returncode == 0, done.stderr
    assert not list(second.glob("seed_*"))
    assert (first / "results.json").read_text() == (second / "results.json").read_text()
    found = json.loads((first / "results.json").read_text())
    (models,) = found["models"].values()
    assert len(models) == 2
    for model in models:
        assert set(model["removed"]) == {CARRY, MATCH, CARRY_ONLY, MATCH_ONLY, RANDOM}
        assert model["vector"]["accuracy"]["with demonstrations"]
    assert (first / "heads.png").read_bytes().startswith(b"\x89PNG")
