import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.optimize import isotonic_regression

from icl.analysis.prompt_worth import ABOVE, BELOW, crossing, prompt_worth, rising
from icl.errors import InputError

SIZES = (8, 16, 64, 256, 1024, 4096)
LOGS = np.log(SIZES)


def line(n: float) -> float:
    """Accuracy after fine-tuning on n examples: 0.1 at 8, 0.9 at 4,096, linear in log n."""
    return 0.1 + 0.8 * math.log(n / 8) / math.log(512)


def sampled(
    rng: np.random.Generator, ks: Sequence[float], seeds: int, queries: int, spread: float
) -> tuple[np.ndarray, np.ndarray]:
    """Right and wrong answers of seeds that differ by `spread`, to queries that differ in difficulty."""
    means = np.array([*(line(n) for n in SIZES), *ks])
    seed_SC = spread * rng.standard_normal((seeds, 1, len(means)))
    query_Q = rng.uniform(-0.1, 0.1, (1, queries, 1))
    chance = np.clip(means + seed_SC + query_Q, 0, 1)
    scores = (rng.random((seeds, queries, len(means))) < chance).astype(float)
    return scores[..., : len(SIZES)], scores[..., len(SIZES) :]


@pytest.mark.parametrize("n", [9.0, 50.0, 64.0, 4000.0])
def test_a_known_crossing_is_found(n: float) -> None:
    found = crossing(SIZES, [line(size) for size in SIZES], line(n))
    assert found == pytest.approx(n, rel=1e-9)


def test_a_curve_that_falls_is_made_to_rise_first() -> None:
    accuracies = [0.1, 0.3, 0.2, 0.5, 0.6, 0.7]
    pooled = [0.1, 0.25, 0.25, 0.5, 0.6, 0.7]
    for accuracy in (0.15, 0.24, 0.26, 0.4):
        assert crossing(SIZES, accuracies, accuracy) == pytest.approx(crossing(SIZES, pooled, accuracy))
    assert crossing(SIZES, accuracies, 0.25) == pytest.approx(16)  # where the plateau begins


def test_a_curve_is_made_to_rise_by_isotonic_regression() -> None:
    values = np.random.default_rng(0).normal(size=(50, 7))
    expected = [isotonic_regression(row).x for row in values]
    np.testing.assert_allclose(rising(values), expected, atol=1e-12)


def test_curves_that_do_not_cross_are_censored() -> None:
    curve = [line(size) for size in SIZES]
    assert crossing(SIZES, curve, 0.95) == ABOVE and crossing(SIZES, curve, 0.05) == BELOW
    assert crossing(SIZES, curve, curve[0]) == BELOW  # not more than the fewest
    assert crossing(SIZES, curve, curve[-1]) == pytest.approx(4096)
    ones, zeros = np.ones((3, 20, 1)), np.zeros((3, 20, 1))
    tuned = np.broadcast_to((np.arange(20) % 2)[None, :, None], (3, 20, 6)).astype(float)
    low, high = prompt_worth(SIZES, tuned, (0, 4), np.concatenate([zeros, ones], 2), replicates=50)
    assert (low.examples, low.low, low.high) == (BELOW, BELOW, BELOW) and low.text() == "at most 8"
    assert (high.examples, high.low, high.high) == (ABOVE, ABOVE, ABOVE) and high.text() == "more than 4,096"
    assert low.is_censored and low.to_json()["examples"] == "below" and high.to_json()["high"] == "above"


def test_an_end_of_the_interval_may_be_censored() -> None:
    tuned, prompted = sampled(np.random.default_rng(1), [line(3800)], seeds=3, queries=200, spread=0.03)
    (worth,) = prompt_worth(SIZES, tuned, (4,), prompted, replicates=400)
    assert worth.high == ABOVE and 500 < worth.low < 4096
    assert worth.text().endswith("to more than 4,096)")


@pytest.mark.parametrize(("seeds", "spread"), [(3, 0.05), (1, 0.0)])
def test_the_interval_holds_the_truth_as_often_as_it_says(seeds: int, spread: float) -> None:
    rng = np.random.default_rng(seeds)
    truth, trials = 100.0, 200
    held = 0
    for trial in range(trials):
        tuned, prompted = sampled(rng, [line(truth)], seeds, 150, spread)
        (worth,) = prompt_worth(SIZES, tuned, (4,), prompted, replicates=200, seed=trial)
        held += worth.low <= truth <= worth.high
    assert held / trials >= 0.92  # two standard errors below 0.95


def test_more_seeds_and_queries_narrow_the_interval() -> None:
    widths = []
    for seeds, queries in ((3, 50), (12, 1000)):
        rng = np.random.default_rng(0)
        tuned, prompted = sampled(rng, [line(100)], seeds, queries, spread=0.02)
        (worth,) = prompt_worth(SIZES, tuned, (4,), prompted, replicates=300)
        assert not worth.is_censored and worth.low < worth.examples < worth.high
        widths.append(math.log(worth.high / worth.low))
    assert widths[1] < widths[0] / 3


def test_the_interval_is_drawn_by_seed() -> None:
    tuned, prompted = sampled(np.random.default_rng(0), [0.4, 0.6], 3, 50, 0.05)
    first, again = (prompt_worth(SIZES, tuned, (1, 4), prompted, replicates=60) for _ in range(2))
    assert first == again
    assert first != prompt_worth(SIZES, tuned, (1, 4), prompted, replicates=60, seed=1)


def test_scores_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match=r"sizes = \[8, 8\]"):
        prompt_worth((8, 8), np.ones((1, 2, 2)), (1,), np.ones((1, 2, 1)))
    with pytest.raises(InputError, match=r"expected \(seeds, queries, 2\) and \(seeds, queries, 1\)"):
        prompt_worth((8, 16), np.ones((1, 2, 2)), (1,), np.ones((1, 3, 1)))
