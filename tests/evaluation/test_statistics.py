"""Intervals agree with closed forms, and cover the truth as often as they say."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from icl.evaluation.statistics import (
    Estimate,
    Scores,
    clopper_pearson,
    cluster_cells,
    crossed_variance,
    effective_n,
    estimate,
    jackknife,
    jackknife_sums,
    mean_estimate,
    nested_variance,
    pseudo_values,
)
from tools.check_coverage import Design, answers, coverage, f1, main
from tools.check_coverage import cases as simulations


def scores(values_CQS: NDArray[np.float64], *, crossed: bool = False, bounded: bool = True) -> Scores:
    """Scores of a full table [clusters, queries, seeds]."""
    clusters, queries, seeds = values_CQS.shape
    return Scores(
        values_CQS.ravel(),
        np.repeat(np.arange(clusters), queries * seeds),
        np.tile(np.arange(seeds), clusters * queries),
        bounded,
        crossed,
    )


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (3, 10), (10, 10), (77, 200)])
def test_clopper_pearson_is_that_of_scipy(successes: int, trials: int) -> None:
    exact = stats.binomtest(successes, trials).proportion_ci(0.95, "exact")
    assert clopper_pearson(successes, trials) == pytest.approx((exact.low, exact.high))


def test_crossed_variance_of_a_table_worked_by_hand() -> None:
    # Row means 1.5, 3.5, 4 and column means 8/3, 10/3 about 3. MS_cluster = 2 (2.25 + 0.25 + 1) / 2 = 3.5.
    # MS_seed = 3 (1/9 + 1/9) / 1 = 2/3 is below MS_error = 7/6: clusters alone decide.
    table_CS = np.array([[1.0, 2.0], [4.0, 3.0], [3.0, 5.0]])
    assert crossed_variance(table_CS) == pytest.approx((3.5 / 6, 2))


def test_crossed_variance_adds_the_spread_of_seeds_with_satterthwaite() -> None:
    # Row means 5, 6.5, 6.5 and column means 1, 11 about 6. MS_cluster = 1.5, MS_seed = 150, MS_error = 0.5.
    table_CS = np.array([[0.0, 10.0], [1.0, 12.0], [2.0, 11.0]])
    df = 151**2 / (150**2 / 1 + 1.5**2 / 2 + 0.5**2 / 2)
    assert crossed_variance(table_CS) == pytest.approx((151 / 6, df))


def test_one_fixed_set_leaves_the_spread_of_clusters() -> None:
    table_CS = np.array([[0.0], [1.0], [1.0]])
    assert crossed_variance(table_CS) == nested_variance(table_CS)


def test_clusters_weigh_by_their_queries() -> None:
    values = Scores(np.array([1.0, 1.0, 1.0, 0.0]), np.array([0, 0, 0, 1]), np.zeros(4, np.int64))
    cells_CS, value = cluster_cells(values)
    assert value == 0.75
    assert cells_CS.mean() == pytest.approx(0.75)
    # The ratio estimator: sum over clusters of (total - value x queries)^2 / (C - 1) / C, per mean size.
    spread = ((3 - 0.75 * 3) ** 2 + (0 - 0.75) ** 2) / 1 / 2 / 2**2
    assert nested_variance(cells_CS)[0] == pytest.approx(spread)


def test_independent_queries_have_an_effective_n_near_their_number() -> None:
    values_CQS = (np.arange(200) % 2).astype(float)[:, None, None]
    found = estimate(scores(values_CQS))
    n = effective_n(found.value, found.variance, found.df, 200, 200)
    assert n == pytest.approx(199)  # the sample variance divides by n - 1


def test_identical_queries_of_a_cluster_count_once() -> None:
    rng = np.random.default_rng(0)
    alone_CQS = rng.integers(0, 2, (40, 1, 1)).astype(float)
    once, repeated = estimate(scores(alone_CQS)), estimate(scores(np.repeat(alone_CQS, 10, axis=1)))
    assert (repeated.low, repeated.high) == pytest.approx((once.low, once.high), abs=0.01)


def test_clusters_that_agree_exactly_do_not_count_as_one_trial_each() -> None:
    """Every instance of an exhausted task holds the constant answer equally often."""
    values_CQS = np.tile(np.arange(7) == 0, (8, 1)).astype(float)[:, :, None]
    found = estimate(scores(values_CQS))
    n = 56 * float(stats.t.ppf(0.975, 55) / stats.t.ppf(0.975, 7)) ** 2
    assert (found.low, found.high) == pytest.approx(clopper_pearson(n / 7, n))


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("clusters", [20, 1000])
def test_scores_at_the_edge_have_an_exact_interval(value: float, clusters: int) -> None:
    found = estimate(scores(np.full((clusters, 1, 5), value)))
    assert found.method == "clopper_pearson"
    assert (found.low, found.high) == clopper_pearson(value * clusters, clusters)


def test_the_method_follows_design_and_number_of_clusters() -> None:
    rng = np.random.default_rng(0)
    few, many = (rng.integers(0, 2, (clusters, 1, 3)).astype(float) for clusters in (299, 300))
    assert estimate(scores(few)).method == "clopper_pearson"
    assert estimate(scores(many)).method == "cluster_bootstrap"
    assert estimate(scores(many, crossed=True)).method == "crossed_t"
    assert estimate(scores(few, bounded=False)).method == "cluster_t"
    assert estimate(scores(few[:1], bounded=False)).low is None


def test_the_bootstrap_agrees_with_the_normal_interval_of_many_clusters() -> None:
    rng = np.random.default_rng(0)
    values_CQS = rng.normal(size=(2000, 1, 1))
    found = estimate(scores(values_CQS, bounded=False))
    half = 1.96 * values_CQS.std() / 2000**0.5
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), abs=0.004)


def test_the_jackknife_of_a_mean_is_students_interval() -> None:
    values_C = np.random.default_rng(0).normal(size=12)
    found = jackknife(lambda kept_C: float(values_C[kept_C].mean()), 12)
    low, high = stats.t.interval(0.95, 11, values_C.mean(), values_C.std(ddof=1) / 12**0.5)
    assert (found.low, found.high) == pytest.approx((low, high))


def test_the_mean_over_tasks_adds_variances_with_welch_and_satterthwaite() -> None:
    one = Estimate(0.2, None, None, "", 0.01, 9, 500, 500)
    other = Estimate(0.6, None, None, "", 0.03, 4, 500, 500)
    found = mean_estimate([one, other], bounded=True)
    df = 0.04**2 / (0.01**2 / 9 + 0.03**2 / 4)
    half = float(stats.t.ppf(0.975, df)) * 0.01**0.5
    assert found.method == "stratified_t"
    assert found.value == pytest.approx(0.4)
    assert (found.low, found.high) == pytest.approx((0.4 - half, 0.4 + half))


def test_a_task_at_zero_still_adds_to_the_width_of_the_mean() -> None:
    rng = np.random.default_rng(0)
    half = estimate(scores(rng.integers(0, 2, (50, 1, 1)).astype(float)))
    none = estimate(scores(np.zeros((50, 1, 1))))
    found = mean_estimate([half, none], bounded=True)
    assert found.low is not None and found.high is not None
    assert found.variance > half.variance / 4
    assert found.low < found.value < found.high


def nested_table(rng: np.random.Generator, shape: tuple[int, int, int], rate: float) -> NDArray[np.float64]:
    """Right or wrong answers: rates vary by cluster and by query, and every seed draws anew."""
    clusters_C11 = rng.beta(4 * rate, 4 * (1 - rate), (shape[0], 1, 1))
    queries_CQ1 = rng.beta(2 * clusters_C11 + 1e-9, 2 * (1 - clusters_C11) + 1e-9, (*shape[:2], 1))
    return (rng.random(shape) < queries_CQ1).astype(float)


def crossed_table(rng: np.random.Generator, shape: tuple[int, int, int], rate: float) -> NDArray[np.float64]:
    """Right or wrong answers: a seed's demonstrations are good or bad for all clusters."""
    cluster, seed = 0.8, 0.4
    middle = stats.norm.ppf(rate) * (1 + cluster**2 + seed**2) ** 0.5
    clusters_C11 = cluster * rng.normal(size=(shape[0], 1, 1))
    latent_CQS = middle + clusters_C11 + seed * rng.normal(size=(1, 1, shape[2]))
    return (rng.random(shape) < stats.norm.cdf(latent_CQS)).astype(float)


def covered(shape: tuple[int, int, int], rate: float, *, crossed: bool, tables: int) -> float:
    """How often the interval holds the true rate."""
    make = crossed_table if crossed else nested_table
    hits = 0
    for number in range(tables):
        found = estimate(scores(make(np.random.default_rng(number), shape, rate), crossed=crossed))
        assert found.low is not None and found.high is not None
        hits += found.low <= rate <= found.high
    return hits / tables


DESIGNS = [
    ((7, 9, 5), 0.5, False),
    ((64, 1, 5), 0.2, False),
    ((400, 1, 5), 0.5, False),
    ((64, 1, 5), 0.5, True),
    ((320, 1, 5), 0.7, True),
]


@pytest.mark.parametrize(("shape", "rate", "crossed"), DESIGNS)
def test_intervals_cover_the_truth_95_times_in_100(
    shape: tuple[int, int, int], rate: float, crossed: bool
) -> None:
    # 400 tables: one standard error is 1.1 points.
    assert 0.925 <= covered(shape, rate, crossed=crossed, tables=400) <= 0.98


def test_a_bootstrap_over_queries_would_miss_the_spread_of_fixed_sets() -> None:
    """What the crossed design is for: taken as nested, the same tables are covered far too rarely."""
    shape = (320, 1, 3)
    hits = 0
    for number in range(100):
        table = crossed_table(np.random.default_rng(number), shape, 0.5)
        found = estimate(scores(table, crossed=False))
        assert found.low is not None and found.high is not None
        hits += found.low <= 0.5 <= found.high
    assert hits < 60


@pytest.mark.parametrize(
    "table",
    [
        scores(np.random.default_rng(0).integers(0, 2, (400, 1, 3)).astype(float)),
        scores(np.random.default_rng(0).integers(0, 2, (40, 1, 3)).astype(float)),
        scores(np.random.default_rng(0).integers(0, 2, (40, 1, 3)).astype(float), crossed=True),
        scores(np.random.default_rng(0).normal(size=(40, 1, 3)), bounded=False),
        scores(np.zeros((40, 1, 3))),
    ],
)
def test_a_higher_level_gives_a_wider_interval_of_the_same_method(table: Scores) -> None:
    found = [estimate(table, level=level) for level in (0.9, 0.95, 0.99)]
    assert len({one.method for one in found}) == 1
    assert found[1] == estimate(table)
    ends = np.array([(one.low, one.high) for one in found], float)
    assert np.all(np.diff(ends[:, 0]) <= 0) and np.all(np.diff(ends[:, 1]) > 0)


def test_cautious_degrees_of_freedom_are_those_of_the_seeds() -> None:
    rng = np.random.default_rng(0)
    cells_CS = rng.normal(size=(300, 3))
    cells_CS -= cells_CS.mean(axis=0)
    near_CS, apart_CS = cells_CS + np.array([[0.0, 0.01, 0.02]]), cells_CS + np.array([[0.0, 1.0, 2.0]])
    assert crossed_variance(near_CS)[1] == 299
    for table_CS in (near_CS, apart_CS):
        assert crossed_variance(table_CS, cautious=True)[0] == crossed_variance(table_CS)[0]
        assert 1.9 <= crossed_variance(table_CS, cautious=True)[1] <= 2
    alike_CS = np.repeat(cells_CS[:, :1], 3, axis=1)
    assert crossed_variance(alike_CS, cautious=True) == crossed_variance(alike_CS)
    assert crossed_variance(alike_CS, cautious=True)[1] == 299


def confusions(seed: int, *, seeds: int = 3, clusters: int = 20) -> NDArray[np.float64]:
    """Hits, misses and false alarms [seeds, clusters, 3]."""
    return np.random.default_rng(seed).integers(0, 5, (seeds, clusters, 3)).astype(float)


def test_the_jackknife_of_sums_is_the_jackknife_that_leaves_clusters_out() -> None:
    sums_SCX = confusions(0)
    slow = jackknife(lambda kept_C: float(np.mean(f1(sums_SCX[:, kept_C].sum(axis=1)))), 20)
    alone = jackknife_sums(sums_SCX, f1)
    assert (alone.value, alone.low, alone.high) == pytest.approx((slow.value, slow.low, slow.high))
    batched = jackknife_sums(sums_SCX, f1, batched=True)
    assert (batched.low, batched.high) == pytest.approx((alone.low, alone.high))


def test_pseudo_values_of_a_mean_are_the_values() -> None:
    values_SC = np.random.default_rng(0).normal(size=(3, 9))
    sums_SCX = np.stack([values_SC, np.ones((3, 9))], axis=-1)
    pseudo_CS, value = pseudo_values(sums_SCX, lambda sums_X: sums_X[0] / sums_X[1])
    assert pseudo_CS == pytest.approx(values_SC.T)
    assert value == pytest.approx(values_SC.mean())


def test_a_crossed_corpus_metric_has_the_spread_of_its_fixed_sets() -> None:
    sums_SCX = confusions(0)
    sums_SCX[0, :, 0] += 20
    nested, crossed = jackknife_sums(sums_SCX, f1), jackknife_sums(sums_SCX, f1, crossed=True)
    assert crossed.value == nested.value
    assert crossed.variance > 5 * nested.variance


def test_a_corpus_metric_at_its_edge_has_an_exact_interval() -> None:
    sums_CX = np.tile([0.0, 1.0, 2.0], (30, 1))
    found = jackknife_sums(sums_CX, f1, bounded=True)
    assert (found.low, found.high) == clopper_pearson(0, 30)


@pytest.mark.parametrize(("crossed", "queries"), [(False, 1), (True, 5)])
def test_simulated_answers_have_the_rates_asked_for(crossed: bool, queries: int) -> None:
    design = Design(50, queries, 40, crossed)
    tables = [answers(np.random.default_rng(number), design, (0.2, 0.6)) for number in range(60)]
    assert np.mean(tables, axis=(0, 2, 3, 4)) == pytest.approx((0.2, 0.6), abs=0.02)


@pytest.mark.parametrize(
    "name", ["corpus F1 56 clusters, 5 seeds", "mean over tasks 5 tasks of 64 queries, rates (0.5, 0.01"]
)
def test_corpus_metrics_and_means_over_tasks_are_covered(name: str) -> None:
    case = next(case for case in simulations() if f"{case.name} {case.design}".startswith(name))
    for _, share, _ in coverage(case, 120):
        assert 0.9 <= share <= 0.99  # one standard error is 2 points


def test_the_usual_bootstrap_of_seeds_and_queries_misses_three_fixed_sets() -> None:
    case = next(case for case in simulations() if case.design == "320 clusters, 3 fixed sets, rate 0.5")
    shares = {label: share for label, share, _ in coverage(case, 200)}
    assert shares["ours"] >= 0.9
    assert shares["two-level bootstrap"] <= 0.87


def test_the_simulation_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--tables", "2", "--only", "20 clusters"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| interval | design | covers, % | mean width, points |"
    assert lines[2].startswith("| score: ours | 20 clusters, 5 seeds, rate 0.98 | 100.0")
    assert main(["--tables", "0"]) == 2
