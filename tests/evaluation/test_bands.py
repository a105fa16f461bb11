"""Bands hold for all K at once, and a run detects the difference that it promises."""

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from icl.evaluation.bands import band, simultaneous_level, simultaneous_level_of_mean
from icl.evaluation.comparisons import paired_difference
from icl.evaluation.planning import detectable_difference
from icl.evaluation.statistics import Scores, estimate
from tools.check_coverage import Design, cases, coverage, scores, side

BONFERRONI = 1 - 0.05 / 4


def curve(values_KCS: NDArray[np.float64], *, crossed: bool = False) -> list[Scores]:
    """Scores of several K, one query a cluster."""
    design = Design(values_KCS.shape[1], 1, values_KCS.shape[2], crossed)
    return [dataclasses.replace(scores(table_CS, design), bounded=False) for table_CS in values_KCS]


def test_scores_that_move_together_need_no_more_than_the_pointwise_level() -> None:
    one_CS = np.random.default_rng(0).normal(size=(50, 3))
    together = curve(np.stack([one_CS, 2 * one_CS, one_CS + 1, -one_CS]))
    assert simultaneous_level(together) == pytest.approx(0.95, abs=0.003)


def test_scores_that_move_alone_need_the_level_of_independent_ones() -> None:
    alone = curve(np.random.default_rng(0).normal(size=(4, 5000, 1)))
    assert simultaneous_level(alone) == pytest.approx(0.95 ** (1 / 4), abs=0.002)


@pytest.mark.parametrize("crossed", [False, True])
def test_the_level_lies_between_the_pointwise_and_bonferronis(crossed: bool) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        shared_CS = rng.normal(size=(12, 3))
        found = simultaneous_level(
            curve(shared_CS + rng.uniform(0, 3) * rng.normal(size=(4, 12, 3)), crossed=crossed)
        )
        assert 0.95 <= found <= BONFERRONI


def test_of_a_pair_the_level_is_that_of_the_bivariate_normal() -> None:
    rng = np.random.default_rng(0)
    first_C = rng.normal(size=400)
    values_KC1 = np.stack([first_C, 0.5 * first_C + rng.normal(size=400)])[:, :, None]
    correlation = stats.pearsonr(*values_KC1[..., 0]).statistic
    normal = stats.multivariate_normal(cov=[[1, correlation], [correlation, 1]])
    reach = stats.norm.ppf((1 + simultaneous_level(curve(values_KC1))) / 2)
    inside = normal.cdf([reach, reach], lower_limit=[-reach, -reach])
    assert inside == pytest.approx(0.95, abs=0.004)


def test_a_k_without_variance_is_left_out() -> None:
    values_KCS = np.random.default_rng(0).normal(size=(3, 50, 1))
    still = np.concatenate([values_KCS, np.ones((1, 50, 1))])
    assert simultaneous_level(curve(still)) == simultaneous_level(curve(values_KCS))
    assert simultaneous_level(curve(still[3:])) == 0.95
    assert simultaneous_level(curve(values_KCS[:1])) == 0.95


def test_clusters_are_aligned_by_their_number() -> None:
    values_KCS = np.random.default_rng(0).normal(size=(1, 200, 1))
    (one,) = curve(values_KCS)
    order = np.random.default_rng(1).permutation(200)
    shuffled = dataclasses.replace(one, values_N=one.values_N[order], clusters_N=one.clusters_N[order])
    assert simultaneous_level([one, shuffled]) == pytest.approx(0.95, abs=0.003)
    part = Scores(one.values_N[:100], one.clusters_N[:100], one.seeds_N[:100], bounded=False)
    # Half the clusters in common correlate by the root of a half.
    assert 0.96 < simultaneous_level([one, part]) < 0.972


def test_seeds_that_all_k_share_correlate_the_curve() -> None:
    rng = np.random.default_rng(0)
    values_KCS = rng.normal(size=(4, 100, 5)) + 3 * rng.normal(size=(1, 1, 5))
    crossed, nested = (simultaneous_level(curve(values_KCS, crossed=way)) for way in (True, False))
    assert crossed < 0.96 < 0.98 < nested


def test_tasks_add_their_covariances() -> None:
    rng = np.random.default_rng(0)
    apart = [curve(rng.normal(size=(3, 300, 1))) for _ in range(3)]
    together = [curve(np.repeat(rng.normal(size=(1, 300, 1)), 3, axis=0)) for _ in range(3)]
    assert simultaneous_level_of_mean(apart[:1]) == simultaneous_level(apart[0])
    assert simultaneous_level_of_mean(apart) > 0.98
    assert simultaneous_level_of_mean(together) == pytest.approx(0.95, abs=0.003)
    assert simultaneous_level_of_mean([apart[0], [None, None, None]]) == simultaneous_level(apart[0])


def test_a_band_is_the_interval_at_the_simultaneous_level() -> None:
    tables = curve(np.random.default_rng(0).normal(size=(3, 40, 2)))
    level = simultaneous_level(tables)
    assert band(tables) == [estimate(table, level=level) for table in tables]


@pytest.mark.parametrize(
    ("design", "most"),
    [("64 clusters, 5 seeds, 6 K from 0.2", 0.99), ("320 clusters, 5 fixed sets, 6 K from 0.2", 1.0)],
)
def test_bands_cover_the_whole_curve_95_times_in_100(design: str, most: float) -> None:
    case = next(case for case in cases() if case.name == "K-curve" and case.design.startswith(design))
    shares = {label: share for label, share, _ in coverage(case, 100)}
    assert 0.9 <= shares["max-t band"] <= most  # one standard error is 2.2 points
    assert shares["pointwise"] < 0.89


def related(rng: np.random.Generator, design: Design, rate: float, correlation: float) -> NDArray[np.float64]:
    """Answers of which any two of a cluster correlate so (beta-binomial)."""
    strength = 1 / correlation - 1
    clusters_C11 = rng.beta(rate * strength, (1 - rate) * strength, (design.clusters, 1, 1))
    return (rng.random((design.clusters, design.queries, design.seeds)) < clusters_C11).astype(float)


@pytest.mark.parametrize(
    ("design", "correlation"), [(Design(200, 1, 5), 0.5), (Design(20, 8, 2), 0.2), (Design(100, 1, 1), 0.5)]
)
def test_the_detectable_difference_is_detected_four_times_in_five(design: Design, correlation: float) -> None:
    least = detectable_difference(
        design.clusters, design.clusters * design.queries, design.seeds, correlation=correlation
    )
    assert least is not None
    rates = (0.5 + least / 2, 0.5 - least / 2)
    found = 0
    for number in range(300):
        rng = np.random.default_rng(number)
        pair = paired_difference(*(side(related(rng, design, rate, correlation), design) for rate in rates))
        found += pair is not None and pair.p <= 0.05
    assert 0.74 <= found / 300 <= 0.9  # one standard error is 2.3 points


def test_more_clusters_detect_less_and_one_detects_nothing() -> None:
    found = [detectable_difference(clusters, 100, 5) or 1.0 for clusters in (2, 5, 20, 100)]
    assert found == sorted(found, reverse=True)
    assert detectable_difference(1, 100, 5) is None
    # Once a cluster of equal answers, 2 p (1 - p) / n and (1.96 + 0.84) standard errors.
    exact = (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) * (0.5 / 10_000) ** 0.5
    assert detectable_difference(10_000, 10_000, 5, correlation=1.0) == pytest.approx(exact, rel=1e-3)


def test_fixed_sets_detect_less_than_new_ones() -> None:
    new, fixed = (detectable_difference(500, 500, 3, set_correlation=share) for share in (0.0, 0.05))
    assert new is not None and fixed is not None and fixed > 3 * new
