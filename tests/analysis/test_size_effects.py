"""Curves of a ladder with several seeds: means over tasks and seeds, by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from icl.analysis.size_effect_figures import draw
from icl.analysis.size_effects import chance, size_curves
from icl.errors import InputError
from icl.evaluation.records import Result
from tests.evaluation.test_report import result
from tests.experiments import run_experiment

REPOSITORY = Path(__file__).parents[2]
GROUPS = {"new": ["cipher", "affine"], "alone": ["digits"]}
SCORES = {("cipher", 0): 0.1, ("cipher", 4): 0.5, ("affine", 0): 0.3, ("affine", 4): 0.7, ("digits", 0): 0.0}


def results() -> list[Result]:
    """Two rungs by two seeds; the larger gains 0.1 on every score, the second seed loses 0.02."""
    rows = []
    for rung, more in (("large", 0.1), ("small", 0.0)):
        for seed in (0, 1):
            for (task, k), score in SCORES.items():
                value = score + more - 0.02 * seed
                name = f"seed_{seed}/{rung}"
                params = 9000 if rung == "large" else 1000
                rows.append(result(name, task, k, value, rung=rung, train_seed=seed, params=params))
    for task, k in SCORES:
        changes = {"params": None, "scoring": "baseline:chance", "ci_low": None, "ci_high": None, "n": 0}
        rows.append(result("baseline", task, k, 0.25 if task == "affine" else 0.05, **changes))
    return rows


def test_a_curve_is_the_mean_over_its_tasks_for_each_seed() -> None:
    found = size_curves(results(), GROUPS)
    assert [(curve.group, curve.rung) for curve in found] == [
        ("new", "small"),
        ("new", "large"),
        ("alone", "small"),
        ("alone", "large"),
    ]
    small, large, alone, _ = found
    assert small.ks == large.ks == (0, 4) and alone.ks == (0,)
    assert np.allclose(small.score_RK, [[0.2, 0.6], [0.18, 0.58]])
    assert np.allclose(large.mean_K, small.mean_K + 0.1)
    assert np.allclose(small.gain_R, 0.4)
    # Two tasks with intervals of 0.05 to each side, as if independent.
    assert np.allclose(small.half_width_RK, np.hypot(0.05, 0.05) / 2)
    assert json.loads(json.dumps(small.as_json()))["score"][1] == [18.0, 58.0]


def test_a_rung_without_one_of_the_seeds_is_named() -> None:
    kept = [row for row in results() if (row.rung, row.train_seed) != ("small", 1)]
    with pytest.raises(InputError, match="rung 'small': no results of training seed 1"):
        size_curves(kept, GROUPS)


def test_chance_is_the_mean_over_tasks_or_nothing() -> None:
    rows = results()
    assert chance(rows, GROUPS["new"], False) == pytest.approx({0: 0.15, 4: 0.15})
    without = [row for row in rows if (row.checkpoint, row.task) != ("baseline", "affine")]
    assert chance(without, GROUPS["new"], False) == {}


def test_the_figure_is_the_same_for_the_same_numbers() -> None:
    curves = size_curves(results(), GROUPS)
    figures = [draw(curves, {("new", False): {0: 0.1, 4: 0.1}}, ()) for _ in range(2)]
    assert figures[0] == figures[1] and figures[0].startswith(b"\x89PNG")
    assert figures[0] != draw(curves, {}, ())


@pytest.mark.extended
@pytest.mark.timeout(900)
def test_the_command_trains_every_rung_with_every_seed_and_asks_them(tmp_path: Path) -> None:
    """In the smoke size; a second time it trains and asks nothing and gives the same."""
    flags = ["--experiment_dir", str(tmp_path), "--size", "smoke"]
    first, second = (run_experiment("k_curves_by_size", *flags) for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert first.stdout == second.stdout and second.stderr.count("nothing left to train") == 4
    found = json.loads((tmp_path / "results.json").read_text())
    assert list(found["groups"]) == ["new instances", "the paper's synthetic battery"]
    assert {curve["rung"] for curve in found["curves"]} == {"w8", "w16"}
    assert all(curve["train_seeds"] == [0, 1] for curve in found["curves"])
    assert (tmp_path / "k_curves.png").read_bytes().startswith(b"\x89PNG")


def test_word_tasks_that_are_not_named_are_one_line() -> None:
    done = run_experiment("k_curves_by_size", "--experiment_dir", "nowhere")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "tasks" in done.stderr
    assert not (REPOSITORY / "nowhere").exists()
