"""Narrow data: the ideal learner falls for a perfect accident, and the experiment runs from its command."""

import json
from pathlib import Path

import pytest

from icl.analysis.narrow_figures import draw
from icl.tasks import CueTrials
from icl.tasks.cue_label import ACCIDENTS, ideal_score
from tests.experiments import run_experiment


def test_only_a_perfect_accident_deceives_the_ideal_learner() -> None:
    def scores(agreement: float) -> list[float]:
        tasks = CueTrials(agreement=agreement, size=2000, queries=200).build("x/cue_trials")
        return [ideal_score(task, 24, 200) for task in tasks]

    holds, breaks, reverses = scores(1.0)
    assert holds > 0.95 and abs(breaks - 0.5) < 0.1 and reverses < 0.05
    assert min(scores(0.5)) > 0.85  # most letters were shown, and the mark was found out
    mean = sum(scores(0.9)) / 3
    assert 0.7 < mean < 1.0


def test_the_figure_is_the_same_for_the_same_numbers() -> None:
    def side(numbers: tuple[int, ...], share: float) -> dict[str, dict[str, float]]:
        return {f"at90_{accident}": {str(n): share for n in numbers} for accident in ACCIDENTS}

    run = {"demonstrations": side((0, 4), 0.6), "ideal": side((0, 4), 0.7), "fine_tuning": side((8, 64), 0.5)}
    results = {"agreement": {"at90": 0.9}, "examples": [8, 64], "runs": [run, run]}
    figures = [draw(results) for _ in range(2)]
    assert figures[0] == figures[1] and figures[0].startswith(b"\x89PNG")


@pytest.mark.extended
@pytest.mark.timeout(900)
def test_the_command_adapts_the_base_model_both_ways(tmp_path: Path) -> None:
    """In the smoke size; a second time it trains nothing and gives the same."""
    flags = ["--experiment_dir", str(tmp_path), "--size", "smoke"]
    first, second = (run_experiment("narrow_data", *flags) for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert first.stdout == second.stdout and "nothing left to train" in second.stderr
    (run,) = json.loads((tmp_path / "results.json").read_text())["runs"]
    for side, numbers in (
        ("demonstrations", ["0", "2"]),
        ("ideal", ["0", "2"]),
        ("fine_tuning", ["8", "16"]),
    ):
        assert len(run[side]) == 4 * len(ACCIDENTS)
        assert all(list(shares) == numbers for shares in run[side].values())
    assert (tmp_path / "narrow.png").read_bytes().startswith(b"\x89PNG")
