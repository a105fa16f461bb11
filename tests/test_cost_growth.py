"""Power laws are found as they are, and their standard errors are those of the noise."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tools.cost_figures import Sweep, as_json, draw, fit_power_law, table
from tools.cost_growth import main, take_turns

SIZES = st.lists(st.floats(1e-3, 1e9), min_size=3, max_size=12, unique_by=lambda x: round(np.log(x), 1))


@given(x=SIZES, factor=st.floats(1e-9, 1e9), exponent=st.floats(-3, 3))
def test_an_exact_power_law_is_found_without_error(x: list[float], factor: float, exponent: float) -> None:
    found = fit_power_law(x, factor * np.array(x) ** exponent)
    assert found.exponent == pytest.approx(exponent, abs=1e-9)
    assert np.log(found.factor) == pytest.approx(np.log(factor), abs=1e-7)
    assert found.standard_error < 1e-9
    assert found.low <= found.exponent <= found.high


@given(x=SIZES, seed=st.integers(0, 2**32 - 1))
def test_the_fit_is_the_linear_regression_of_logs(x: list[float], seed: int) -> None:
    y = np.exp(np.random.default_rng(seed).normal(size=len(x)))
    found, expected = fit_power_law(x, y), stats.linregress(np.log(x), np.log(y))
    assert found.exponent == pytest.approx(expected.slope, abs=1e-9)
    assert np.log(found.factor) == pytest.approx(expected.intercept, abs=1e-8)
    assert found.standard_error == pytest.approx(expected.stderr, abs=1e-9)


@given(scale=st.floats(1e-6, 1e6), unit=st.floats(1e-6, 1e6), seed=st.integers(0, 1000))
def test_units_do_not_change_the_exponent(scale: float, unit: float, seed: int) -> None:
    x, y = np.exp(np.random.default_rng(seed).normal(size=(2, 6)))
    here, there = fit_power_law(x, y), fit_power_law(scale * x, unit * y)
    assert there.exponent == pytest.approx(here.exponent, abs=1e-8)
    assert there.standard_error == pytest.approx(here.standard_error, abs=1e-8)


def test_the_standard_error_is_that_of_the_noise_and_the_interval_covers() -> None:
    """With noise of deviation s on logs, that of the exponent is s / sqrt(sum of squares of log x)."""
    x, exponent, noise, trials = 2.0 ** np.arange(5), 0.7, 0.05, 2000
    logs = exponent * np.log(x) + np.random.default_rng(0).normal(scale=noise, size=(trials, len(x)))
    fits = [fit_power_law(x, np.exp(one)) for one in logs]
    closed_form = noise / (np.log(2) * np.sqrt(10))
    assert np.std([fit.exponent for fit in fits]) == pytest.approx(closed_form, rel=0.05)
    squares = [fit.standard_error**2 for fit in fits]
    assert np.sqrt(np.mean(squares)) == pytest.approx(closed_form, rel=0.05)
    assert np.mean([fit.low < exponent < fit.high for fit in fits]) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize("x", [[1.0, 2.0], [3.0, 3.0, 3.0]])
def test_no_exponent_is_made_up_where_none_shows(x: list[float]) -> None:
    with pytest.raises(ValueError, match="three points"):
        fit_power_law(x, [1.0] * len(x))


def test_points_take_turns_and_every_other_round_goes_backwards() -> None:
    calls: list[int] = []

    def turn(i: int) -> float:
        calls.append(i)
        return float(len(calls))

    samples = take_turns([functools.partial(turn, i) for i in range(3)], 2, lambda: None)
    assert calls == [0, 1, 2, 2, 1, 0]
    assert samples == ((1.0, 6.0), (2.0, 5.0), (3.0, 4.0))


def test_a_sweep_is_reported_with_its_exponents() -> None:
    x = (1.0, 2.0, 4.0, 8.0)
    samples = tuple((3 * one**0.5,) * 3 for one in x)
    grows = Sweep("step", "fixed", "x", x, tuple(one**0.25 for one in x), "model FLOPs", samples)
    flat = Sweep("all", "fixed", "x", x, (1.0,) * 4, "no growth", ((2.0,) * 3,) * 4)
    assert grows.against_expected is not None
    assert grows.against_expected.exponent == pytest.approx(2)
    assert grows.last_exponents == pytest.approx((0.5, 0.25))
    assert flat.against_expected is None
    _, first, second = table({"x": [grows, flat]})
    assert "0.500 ± 0.000" in first and "2.000 ± 0.000" in first and "0.000 ± 0.000" in second
    assert json.loads(json.dumps(as_json({"x": [grows, flat]})))["x"][0]["fit"]["exponent"] == pytest.approx(
        0.5
    )
    assert draw([grows, flat], "Title").startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--output_dir", "{box}", "--rounds", "0"], "--rounds 0"),
        (["--output_dir", "{box}", "--rounds", "many"], "'many'"),
        (["--output_dir", "{box}/file"], "{box}/file"),
        (["--output_dir", "{box}", "--fast"], "--fast"),
        ([], "--output_dir"),
    ],
)
def test_a_bad_flag_is_refused_in_one_line(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main([argument.replace("{box}", str(tmp_path)) for argument in arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and says.replace("{box}", str(tmp_path)) in line
