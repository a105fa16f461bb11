"""The experiment functions_in_context: its sizes load, and its command writes what it says."""

import json
from pathlib import Path
from typing import Any

import jax
import pytest

from experiments.functions_in_context.run import BAR, SIZES, experiment, of_linear, runs_of
from icl import config
from icl.errors import InputError
from icl.functions.setup import FunctionSetup
from icl.functions.transformer import num_params
from tests.experiments import run_experiment

NAME = "functions_in_context"


@pytest.mark.extended
@pytest.mark.timeout(900)
def test_the_command_trains_and_measures_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    flags = ["--size", "smoke", "--experiment_dir", str(tmp_path / "run")]
    done = run_experiment(NAME, *flags)
    assert done.returncode == 0, done.stderr
    first = (tmp_path / "run" / "results.json").read_bytes()
    results = json.loads(first)
    assert set(results["rungs"]) == {"linear", "sparse_linear", "tree", "network"}
    linear = results["rungs"]["linear"]
    assert set(linear["tests"]) >= {"none", "orthants", "subspace", "skewed", "noise_doubled"}
    for k, excess in enumerate(linear["tests"]["none"]["excess"][0]["mean"]):
        model, bayes = (
            linear["tests"]["none"][group][name]["mean"][k]
            for group, name in (("models", 0), ("estimators", "Bayes"))
        )
        assert excess == pytest.approx(model - bayes, abs=2e-5)
    assert (tmp_path / "run" / "functions.png").read_bytes().startswith(b"\x89PNG")
    assert "largest excess over Bayes" in done.stdout
    again = run_experiment(NAME, *flags)
    assert again.returncode == 0 and (tmp_path / "run" / "results.json").read_bytes() == first


@pytest.mark.parametrize("name", SIZES)
def test_every_size_loads_and_its_settings_give_the_same_run_again(name: str) -> None:
    for rung in SIZES[name].rungs:
        for run in runs_of(SIZES[name], rung, []).values():
            assert config.load_function_runs([], [run.config_text]) == [run]


def test_the_bar_is_set_on_five_dimensions_with_noise_up_to_twice_as_many_points() -> None:
    (run,) = runs_of(SIZES["cpu"], "linear", []).values()
    assert (run.data.kind, run.data.dimension, run.data.noise) == ("linear", 5, 0.5)
    assert run.data.points == 2 * run.data.dimension + 1 and BAR == 0.05


def test_the_gpu_size_is_that_of_the_paper() -> None:
    """Garg et al. 2022, appendix A: GPT-2, 12 layers, 8 heads, width 256; 41 points of 20 dimensions."""
    (run,) = runs_of(SIZES["gpu"], "linear", []).values()
    assert (run.model.num_layers, run.model.num_heads, run.model.embed_dim) == (12, 8, 256)
    assert (run.data.dimension, run.data.points, run.data.noise, run.batch_rows) == (20, 41, 0.0, 64)
    assert FunctionSetup(run, jax.devices()[:1]).abstract_state().step.shape == ()
    # 22.4 million in the paper, of which 12.9 are a table of tokens that nothing uses.
    assert num_params(run.model, run.data) == pytest.approx(9.5e6, rel=0.01)


def test_the_largest_excess_decides() -> None:
    def curve(*mean: float) -> dict[str, Any]:
        return {"mean": list(mean), "low": [m - 0.01 for m in mean], "high": [m + 0.01 for m in mean]}

    test = {"excess": [curve(0, 0.04, 0.02), curve(0, 0.01, 0.06)], "models": [curve(1, 0.5, 0.2)] * 2}
    found = of_linear(test, 2)
    assert found["largest_excess"] == [0.04, 0.06] and found["at_k"] == [1, 2]
    assert found["within_bar"] == [True, False] and found["error_after_d_points"] == [0.2, 0.2]


def test_a_setting_of_functions_that_does_not_exist_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="FunctionConfig has no setting 'dimensions'; did you mean"):
        experiment(tmp_path / "run", SIZES["smoke"], ["FunctionConfig.dimensions = 3"])
    with pytest.raises(InputError, match=r"FunctionConfig.points = 0: .*\(--gin_bindings"):
        experiment(tmp_path / "run", SIZES["smoke"], ["linear/FunctionConfig.points = 0"])
    assert not (tmp_path / "run").exists()
