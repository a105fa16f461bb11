"""Laws are found as they are: exactly without noise, within their intervals with it, else refused."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import optimize

from icl.analysis.fitting import Problem, minimise, objective
from icl.analysis.law_forms import Form, KaplanForm, SumOfPowers
from icl.analysis.scaling_laws import (
    FitSettings,
    FittedLaw,
    RunPoint,
    efficient,
    fit_chinchilla_law,
    fit_compute_law,
    fit_kaplan_law,
    fit_size_law,
    naive_loss,
)
from icl.errors import InputError

SIZES, TOKENS = (10_000, 30_000, 100_000, 300_000), (500_000, 1_000_000, 2_000_000, 4_000_000)
CHINCHILLA = {"E": 1.0, "A": 30.0, "alpha": 0.4, "B": 40.0, "beta": 0.3}
KAPLAN = {"Nc": 2e7, "alpha_N": 0.12, "Dc": 1e8, "alpha_D": 0.15}
FORMS: list[Form] = [
    SumOfPowers(("params", "tokens")),
    SumOfPowers(("params",)),
    SumOfPowers(("flops",), irreducible=False),
    KaplanForm(),
]


def chinchilla(params: float, tokens: float) -> float:
    law = CHINCHILLA
    return law["E"] + law["A"] / params ** law["alpha"] + law["B"] / tokens ** law["beta"]


def kaplan(params: float, tokens: float) -> float:
    law = KAPLAN
    by_size = (law["Nc"] / params) ** (law["alpha_N"] / law["alpha_D"])
    return float((by_size + law["Dc"] / tokens) ** law["alpha_D"])


def size_law(params: float, tokens: float) -> float:
    return 1.2 + (3000.0 / params) ** 0.35


def power_of_compute(params: float, tokens: float) -> float:
    return float((1e13 / (6 * params * tokens)) ** 0.06)


def grid(law: Callable[[float, float], float], noise: float = 0.0, seed: int = 0) -> list[RunPoint]:
    """Finished runs of every size on every number of tokens, with noise of that deviation on log(loss)."""
    rng = np.random.default_rng(seed)
    return [RunPoint(n, d, law(n, d) * math.exp(noise * rng.normal())) for n in SIZES for d in TOKENS]


def test_without_noise_every_law_is_found_exactly() -> None:
    fits = {
        "chinchilla": (fit_chinchilla_law(grid(chinchilla), FitSettings(resamples=50)), CHINCHILLA),
        "kaplan": (fit_kaplan_law(grid(kaplan), FitSettings(resamples=50)), KAPLAN),
        "size": (
            fit_size_law(grid(size_law), FitSettings(resamples=50)),
            {"E": 1.2, "Nc": 3000.0, "alpha": 0.35},
        ),
        "compute": (
            fit_compute_law(grid(power_of_compute), FitSettings(resamples=50), irreducible=False),
            {"Cc": 1e13, "alpha": 0.06},
        ),
    }
    for name, (fitted, truth) in fits.items():
        for coefficient, value in truth.items():
            assert fitted.values[coefficient] == pytest.approx(value, rel=1e-5), (name, coefficient)
            assert fitted.intervals[coefficient] == pytest.approx((value, value), rel=1e-4), (
                name,
                coefficient,
            )
        assert fitted.scatter < 1e-9


def test_the_exponent_of_compute_optimal_size_follows_from_both_exponents() -> None:
    """At the least loss for a compute of 6 N D, N grows as C^(beta / (alpha + beta)) (Hoffmann, eq. 4)."""
    found = fit_chinchilla_law(grid(chinchilla), FitSettings(resamples=20)).values["a"]
    sizes = []
    for flops in (1e12, 1e14):
        best = optimize.minimize_scalar(
            lambda log_n, flops=flops: chinchilla(math.exp(log_n), flops / 6 / math.exp(log_n)),
            bounds=(5, 20),
            method="bounded",
            options={"xatol": 1e-9},
        )
        sizes.append(best.x)
    assert found == pytest.approx((sizes[1] - sizes[0]) / math.log(100), rel=1e-4)


def test_a_pure_power_law_is_the_straight_line_through_the_logs() -> None:
    """With errors small against delta Huber's loss is the square, whose minimum has a closed form."""
    points = grid(size_law, noise=0.05)
    fitted = fit_size_law(points, FitSettings(huber_delta=10.0), irreducible=False)
    x, y = np.log([(point.params, point.loss) for point in points]).T
    slope, intercept = np.polyfit(x, y, 1)
    assert fitted.values["alpha"] == pytest.approx(-slope, rel=1e-7)
    assert fitted.predict(params=1e6).loss == pytest.approx(
        math.exp(intercept + slope * math.log(1e6)), rel=1e-9
    )


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.formula)
def test_lbfgs_finds_no_lower_objective(form: Form) -> None:
    points = grid(chinchilla, noise=0.01)
    log_x_NV = np.log([[getattr(point, name) for name in form.variables] for point in points])
    loss_N = np.array([point.loss for point in points])
    problem = Problem(form, log_x_NV - log_x_NV.mean(axis=0), loss_N, 1e-3)
    ours = float(objective(problem, minimise(problem)[None])[0])
    bounds = list(zip(*form.bounds(loss_N), strict=True))
    starts_SP = form.starts(problem.log_x_NV, loss_N)
    others = [
        optimize.minimize(
            lambda theta_P: float(objective(problem, theta_P[None])[0]),
            start_P,
            method="L-BFGS-B",
            bounds=bounds,
        ).fun
        for start_P in starts_SP[np.argsort(objective(problem, starts_SP))[:3]]
    ]
    assert ours <= min(others) * (1 + 1e-6)
    assert ours > 0.5 * min(others)  # The same objective: the other method comes near.


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.formula)
def test_derivatives_are_those_of_the_losses(form: Form) -> None:
    rng = np.random.default_rng(0)
    log_x_NV, loss_N = rng.normal(size=(5, len(form.variables))), np.exp(rng.normal(size=5))
    theta_SP = rng.normal(size=(3, form.size)) * 0.3
    derivative_SNP = form.log_losses(theta_SP, log_x_NV)[1]
    for coefficient in range(form.size):
        step_P = 1e-6 * np.eye(form.size)[coefficient]
        up, down = (form.log_losses(theta_SP + sign * step_P, log_x_NV)[0] for sign in (1, -1))
        np.testing.assert_allclose(derivative_SNP[..., coefficient], (up - down) / 2e-6, atol=1e-8)
    low_P, high_P = form.bounds(loss_N)
    starts_SP = form.starts(log_x_NV, loss_N)
    assert np.all(np.isfinite(starts_SP)) and np.all(low_P < high_P)


def test_intervals_hold_exponents_and_the_next_loss_as_often_as_they_say() -> None:
    """Over many noisy ladders; nor are they wide for nothing."""
    noise, trials, level = 0.005, 40, 0.95
    alpha_held, loss_held, widths = 0, 0, []
    for seed in range(trials):
        fitted = fit_chinchilla_law(grid(chinchilla, noise, seed), FitSettings(resamples=100, level=level))
        low, high = fitted.intervals["alpha"]
        alpha_held += low <= CHINCHILLA["alpha"] <= high
        predicted = fitted.predict(params=1_000_000, tokens=8_000_000)
        measured = chinchilla(1e6, 8e6) * math.exp(noise * np.random.default_rng(1000 + seed).normal())
        loss_held += predicted.low <= measured <= predicted.high
        widths.append((predicted.high - predicted.low) / predicted.loss)
    assert min(alpha_held, loss_held) >= 0.85 * trials
    assert np.median(widths) < 0.08  # 16 noise deviations, of a prediction beyond all points.


def test_a_prediction_allows_for_the_scatter_of_a_single_run() -> None:
    """Among the points the law is known well, and what is left is the noise of one run."""
    noise, points = 0.02, []
    for seed in range(6):
        points += [dataclasses.replace(point, seed=seed) for point in grid(chinchilla, noise, seed)]
    fitted = fit_chinchilla_law(points, FitSettings(resamples=300))
    predicted = fitted.predict(params=60_000, tokens=1_500_000)
    half = math.log(predicted.high / predicted.low) / 2
    assert half == pytest.approx(1.96 * noise, rel=0.35)
    assert fitted.scatter == pytest.approx(noise, rel=0.2)


def test_the_order_of_the_points_does_not_matter() -> None:
    points = grid(chinchilla, noise=0.01)
    shuffled = [points[i] for i in np.random.default_rng(1).permutation(len(points))]
    one, other = (fit_chinchilla_law(order, FitSettings(resamples=30)) for order in (points, shuffled))
    assert one.values == other.values and one.intervals == other.intervals
    where = {"params": 1e6, "tokens": 1e7}
    assert one.predict(**where) == other.predict(**where)


def test_units_of_size_and_tokens_do_not_change_a_prediction() -> None:
    points = grid(chinchilla, noise=0.01)
    scaled = [dataclasses.replace(p, params=7 * p.params, tokens=1000 * p.tokens, flops=0.0) for p in points]
    one = fit_chinchilla_law(points, FitSettings(resamples=30)).predict(params=1e6, tokens=1e7)
    other = fit_chinchilla_law(scaled, FitSettings(resamples=30)).predict(params=7e6, tokens=1e10)
    assert other.loss == pytest.approx(one.loss, rel=1e-6)
    assert (other.low, other.high) == pytest.approx((one.low, one.high), rel=1e-3)


def test_one_outlier_moves_the_prediction_little() -> None:
    """Whichever run goes wrong by 20 %; the squared error's prediction mostly moves several times as much."""
    errors: dict[float, list[float]] = {1e-3: [], 10.0: []}
    for spoilt in range(len(SIZES) * len(TOKENS)):
        points = grid(chinchilla, noise=0.002)
        points[spoilt] = dataclasses.replace(points[spoilt], loss=1.2 * points[spoilt].loss)
        for huber_delta, found in errors.items():
            fitted = fit_chinchilla_law(points, FitSettings(resamples=2, huber_delta=huber_delta))
            predicted = fitted.predict(params=1_000_000, tokens=8_000_000)
            found.append(abs(math.log(predicted.loss / chinchilla(1e6, 8e6))))
    assert max(errors[1e-3]) < 0.012
    assert np.median(errors[10.0]) > 4 * np.median(errors[1e-3])


def test_the_naive_guess_is_the_loss_of_the_most_compute() -> None:
    points = grid(chinchilla, noise=0.01)
    largest = next(p for p in points if p.params == max(SIZES) and p.tokens == max(TOKENS))
    assert naive_loss(points) == largest.loss
    assert (
        fit_chinchilla_law(points, FitSettings(resamples=5)).predict(params=1e6, tokens=8e6).naive
        == largest.loss
    )


def test_no_run_beats_an_efficient_one_with_less_compute() -> None:
    points = grid(chinchilla, noise=0.02)
    kept = efficient(points)
    assert 2 < len(kept) < len(points)
    for point in points:
        rivals = [other for other in points if other.flops <= point.flops and other.loss < point.loss]
        assert (point in kept) == (not rivals)


def spoil(index: int, **changes: object) -> Callable[[list[RunPoint]], list[RunPoint]]:
    def change(points: list[RunPoint]) -> list[RunPoint]:
        points[index] = dataclasses.replace(points[index], **changes)  # type: ignore[arg-type]
        return points

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda points: points[:5], "expected at least 6"),
        (
            lambda points: [p for p in points if p.params < 50_000],
            "params = 10000, 30000: expected at least 3",
        ),
        (
            lambda points: [p for p in points if p.tokens < 1_500_000],
            "tokens = 500000, 1e.06: expected at least 3",
        ),
        (spoil(3, loss=math.nan), "loss nan: expected a finite"),
        (spoil(3, loss=math.inf), "loss inf: expected a finite"),
        (spoil(3, loss=0.0), "above 0"),
        (spoil(3, finished=False), "schedule is not finished"),
        (spoil(3, repeats=1.5), r"saw its text 1\.5 times"),
        (spoil(3, tokens=0), "expected at least one parameter"),
    ],
)
def test_points_that_say_nothing_of_the_law_are_refused(
    change: Callable[[list[RunPoint]], list[RunPoint]], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        fit_chinchilla_law(change(grid(chinchilla)))


def test_a_prediction_needs_every_variable_of_its_law() -> None:
    fitted: FittedLaw = fit_chinchilla_law(grid(chinchilla), FitSettings(resamples=2))
    with pytest.raises(InputError, match="needs tokens"):
        fitted.predict(params=1e6)
