"""Intervals, of 95 % by default, that hold for the design of the evaluation (design page, section 7).

Demonstrations drawn anew for each query: seeds are nested in queries, so what varies is the cluster, and
the mean over its queries and seeds is its value. One fixed set for all queries: clusters and seeds are
crossed random effects. Both designs give a variance and degrees of freedom; from these, the value and the
number of clusters, `estimate` builds the interval. Corpus metrics, no means over queries, get theirs by the
jackknife over clusters.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FEW_CLUSTERS = 300
LEVEL = 0.95
_NO_SPREAD = 1e-20


@dataclasses.dataclass(frozen=True)
class Scores:
    """Scores of one metric under one condition, one entry an observation (a query under one seed).

    `bounded` says that the metric lies in 0..1. `crossed` says that every seed's demonstrations serve all
    clusters, so that a seed is an effect of its own.
    """

    values_N: Floats
    clusters_N: Ints
    seeds_N: Ints
    bounded: bool = True
    crossed: bool = False


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean with its interval, and what the mean over tasks needs to combine it with others.

    `variance` is that of `value` under the design and `df` its degrees of freedom; both are 0 where a single
    cluster gives none. `trials` counts observations: no effective n exceeds it.
    """

    value: float
    low: float | None
    high: float | None
    method: str
    variance: float
    df: float
    clusters: int
    trials: int


def estimate(
    scores: Scores, resamples: int = 2000, level: float = LEVEL, *, cautious: bool = False
) -> Estimate:
    """Mean and interval of one metric under one condition.

    Metrics in 0..1 with fewer than 300 clusters, or at 0 or 1: Clopper-Pearson at the effective n.
    Otherwise the cluster bootstrap (nested seeds) or Student's t (crossed seeds, and unbounded metrics of
    few clusters). `cautious` is for levels well above 95 %: see `crossed_variance`.
    """
    cells_CS, value = cluster_cells(scores)
    clusters = len(cells_CS)
    variance, df = crossed_variance(cells_CS, cautious) if scores.crossed else nested_variance(cells_CS)
    part = Estimate(value, None, None, "none", variance, df, clusters, len(scores.values_N))
    at_edge = scores.bounded and not 0 < value < 1
    if scores.bounded and (at_edge or clusters < FEW_CLUSTERS):
        successes = effective_n(value, variance, df, clusters, part.trials, level)
        low, high = clopper_pearson(value * successes, successes, level)
        return dataclasses.replace(part, low=low, high=high, method="clopper_pearson")
    if df <= 0:
        return part
    if scores.crossed or clusters < FEW_CLUSTERS:
        return _student(part, "crossed_t" if scores.crossed else "cluster_t", scores.bounded, level)
    low, high = cluster_bootstrap(cells_CS, resamples, level)
    return dataclasses.replace(part, low=low, high=high, method="cluster_bootstrap")


def cluster_cells(scores: Scores) -> tuple[Floats, float]:
    """Cells [clusters, seeds] (or [clusters, 1] for nested seeds) whose plain mean is the mean score.

    A cell is the linearised score of its cluster: clusters with more queries weigh more. Seeds that do not
    cover the same queries of a cluster (a slice of the records) cannot be crossed: they count as nested.
    """
    totals_CS, counts_CS = _tables(scores)
    if not scores.crossed or np.any(counts_CS != counts_CS[:, :1]):
        totals_CS, counts_CS = totals_CS.sum(1, keepdims=True), counts_CS.sum(1, keepdims=True)
    value = float(totals_CS.sum() / counts_CS.sum())
    weights_CS = counts_CS / counts_CS.mean()
    return value + weights_CS * (totals_CS / counts_CS - value), value


def _tables(scores: Scores) -> tuple[Floats, Floats]:
    """Sums and counts of the observations of each cluster under each seed, [clusters, seeds]."""
    clusters, rows_N = np.unique(scores.clusters_N, return_inverse=True)
    seeds, columns_N = np.unique(scores.seeds_N, return_inverse=True)
    shape = (len(clusters), len(seeds))
    cells_N = rows_N * shape[1] + columns_N
    size = shape[0] * shape[1]
    totals = np.bincount(cells_N, scores.values_N, size).astype(np.float64)
    counts = np.bincount(cells_N, None, size).astype(np.float64)
    return totals.reshape(shape), counts.reshape(shape)


def nested_variance(cells_CS: Floats) -> tuple[float, float]:
    """Variance of the mean and its degrees of freedom, seeds nested in queries: spread of cluster means."""
    means_C = cells_CS.mean(axis=1)
    if len(means_C) < 2:
        return 0.0, 0.0
    return float(means_C.var(ddof=1) / len(means_C)), float(len(means_C) - 1)


def crossed_variance(cells_CS: Floats, cautious: bool = False) -> tuple[float, float]:
    """Variance of the mean of two crossed random effects, and Satterthwaite's degrees of freedom.

    max(MS_seed + MS_cluster - MS_error, MS_cluster) / (clusters x seeds), from the two-way analysis of
    variance with one observation a cell. A single seed says nothing of the spread between demonstration
    sets: then only clusters vary.

    Where few seeds differ little by chance, Satterthwaite's degrees rise just as the variance falls. About
    95 % this evens out; further out it does not, and the seeds' own degrees are the `cautious` ones, unless
    all seeds agree exactly, as they do without demonstrations.
    """
    clusters, seeds = cells_CS.shape
    if clusters < 2 or seeds < 2:
        return nested_variance(cells_CS)
    mean = cells_CS.mean()
    rows_C1, columns_1S = cells_CS.mean(1, keepdims=True), cells_CS.mean(0, keepdims=True)
    df_cluster, df_seed = clusters - 1, seeds - 1
    df_error = df_cluster * df_seed
    ms_cluster = seeds * float(np.square(rows_C1 - mean).sum()) / df_cluster
    ms_seed = clusters * float(np.square(columns_1S - mean).sum()) / df_seed
    ms_error = float(np.square(cells_CS - rows_C1 - columns_1S + mean).sum()) / df_error
    fewest = float(df_seed) if cautious and ms_seed > _NO_SPREAD else np.inf
    if ms_seed <= ms_error:
        return ms_cluster / (clusters * seeds), min(float(df_cluster), fewest)
    combined = ms_seed + ms_cluster - ms_error
    spread = ms_seed**2 / df_seed + ms_cluster**2 / df_cluster + ms_error**2 / df_error
    return combined / (clusters * seeds), min(combined**2 / spread, fewest)


def effective_n(
    value: float, variance: float, df: float, clusters: int, trials: int, level: float = LEVEL
) -> float:
    """How many independent trials would be as informative: binomial variance over design variance.

    Never more than the trials there are, and corrected for the few clusters behind the variance by (t of
    the trials / t of the design)^2 at the level's tail (Korn and Graubard 1998, Survey Methodology 24). At 0
    and 100 % the sample shows no variance; then each cluster counts once, for its queries may all agree.
    """
    if not 0 < value < 1 or df <= 0:
        return float(clusters)
    informative = min(value * (1 - value) / variance, trials) if variance > 0 else trials
    correction = student_quantile(max(trials - 1, df), level) / student_quantile(df, level)
    return float(informative * correction**2)


def clopper_pearson(successes: float, trials: float, level: float = LEVEL) -> tuple[float, float]:
    """The exact binomial interval (Clopper and Pearson 1934), for whole or fractional counts."""
    failures, tail = trials - successes, (1 - level) / 2
    low = 0.0 if successes <= 0 else float(stats.beta.ppf(tail, successes, failures + 1))
    high = 1.0 if failures <= 0 else float(stats.beta.ppf(1 - tail, successes + 1, failures))
    return low, high


def cluster_bootstrap(cells_CS: Floats, resamples: int, level: float = LEVEL) -> tuple[float, float]:
    """Percentile interval of the mean over resampled clusters; always the same resamples."""
    means_C = cells_CS.mean(axis=1)
    means_R = _resampled_counts(len(means_C), resamples) @ means_C / len(means_C)
    low, high = np.quantile(means_R, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)


@functools.lru_cache(maxsize=8)
def _resampled_counts(clusters: int, resamples: int) -> NDArray[np.float32]:
    """How often each cluster stands in each resample, [resamples, clusters]."""
    rng = np.random.Generator(np.random.Philox(key=clusters))
    return rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=resamples).astype(np.float32)


def jackknife(
    statistic: Callable[[NDArray[np.bool_]], float], clusters: int, level: float = LEVEL
) -> Estimate:
    """Interval of a corpus metric, one that is no mean over queries: leaves out one cluster at a time.

    `statistic` takes a mask [clusters] of those that stay in. Student's t with clusters - 1 degrees.
    """
    value = statistic(np.ones(clusters, bool))
    if clusters < 2:
        return Estimate(value, None, None, "none", 0.0, 0.0, clusters, clusters)
    without_C = np.array([statistic(np.arange(clusters) != left_out) for left_out in range(clusters)])
    variance = float((clusters - 1) * without_C.var())
    part = Estimate(value, None, None, "none", variance, float(clusters - 1), clusters, clusters)
    return _student(part, "jackknife_t", False, level)


def jackknife_sums(
    stats_SCX: Floats,
    value: Callable[[Floats], Any],
    level: float = LEVEL,
    *,
    batched: bool = False,
    bounded: bool = False,
    crossed: bool = False,
) -> Estimate:
    """The jackknife of a corpus metric that is a function of sums, such as BLEU or macro F1; mean over seeds.

    Where all seeds share their demonstrations (`crossed`), the pseudo-values of cluster and seed make up the
    table whose variance is that of crossed effects. A bounded metric at 0 or 1, where no cluster differs from
    another, has Clopper and Pearson's interval for as many trials as clusters.

    Args:
      stats_SCX: What each cluster adds to the sums under each seed, [seeds, clusters, sums], or of one seed
        [clusters, sums].
      value: The metric from the sums [sums] of a set of clusters.
      level: Of the interval.
      batched: `value` takes [clusters, sums] as well, and returns [clusters].
      bounded: The metric lies in 0..1.
      crossed: Every seed's demonstrations serve all clusters.
    """
    pseudo_CS, found = pseudo_values(stats_SCX, value, batched=batched)
    clusters = len(pseudo_CS)
    variance, df = crossed_variance(pseudo_CS) if crossed else nested_variance(pseudo_CS)
    part = Estimate(found, None, None, "none", variance, df, clusters, clusters)
    if bounded and not 0 < found < 1:
        low, high = clopper_pearson(found * clusters, clusters, level)
        return dataclasses.replace(part, low=low, high=high, method="clopper_pearson")
    return part if df <= 0 else _student(part, "jackknife_t", bounded, level)


def pseudo_values(
    stats_SCX: Floats, value: Callable[[Floats], Any], *, batched: bool = False
) -> tuple[Floats, float]:
    """Tukey's pseudo-values [clusters, seeds] of a metric of sums, and the metric, mean over seeds.

    A pseudo-value is what a cluster contributes: the metric times the number of clusters, less the metric
    without that cluster times one fewer. Of a mean they are the clusters' values, and as scores of unbounded
    observations they serve where those do. Leaving out is a subtraction from the sums.
    """
    stats_SCX = np.asarray(stats_SCX, np.float64)
    stats_SCX = stats_SCX if stats_SCX.ndim == 3 else stats_SCX[None]
    totals_SX = stats_SCX.sum(axis=1)
    values_S = np.array([float(value(total_X)) for total_X in totals_SX])
    clusters = stats_SCX.shape[1]
    if clusters < 2:
        return np.tile(values_S, (clusters, 1)), float(values_S.mean())
    without_SCX = totals_SX[:, None] - stats_SCX
    if batched:
        without_SC = np.array([value(sums_CX) for sums_CX in without_SCX], np.float64)
    else:
        without_SC = np.array([[float(value(sums_X)) for sums_X in sums_CX] for sums_CX in without_SCX])
    pseudo_SC = clusters * values_S[:, None] - (clusters - 1) * without_SC
    return pseudo_SC.T, float(values_S.mean())


def mean_estimate(parts: Sequence[Estimate], bounded: bool, level: float = LEVEL) -> Estimate:
    """Mean over tasks, each weighted alike, with its interval; tasks are fixed, their clusters are random.

    Variances add up, and degrees of freedom by Welch and Satterthwaite. A bounded task whose sample shows
    no variance contributes that of (successes + 2) / (n + 4) (Agresti and Coull 1998), n its effective n.
    """
    value = float(np.mean([part.value for part in parts]))
    clusters, trials = sum(part.clusters for part in parts), sum(part.trials for part in parts)
    shares = [_variance_share(part, bounded) for part in parts]
    total = sum(variance for variance, _ in shares)
    spread = sum(variance**2 / df for variance, df in shares if df > 0)
    variance, df = total / len(parts) ** 2, total**2 / spread if spread > 0 else 0.0
    mean = Estimate(value, None, None, "none", variance, df, clusters, trials)
    if bounded and (clusters < FEW_CLUSTERS or not 0 < value < 1):
        fewest = len(parts) * min(part.clusters for part in parts)
        n = effective_n(value, variance, df, fewest, trials, level)
        low, high = clopper_pearson(value * n, n, level)
        return dataclasses.replace(mean, low=low, high=high, method="clopper_pearson")
    if df <= 0 or any(df <= 0 for _, df in shares):
        return mean
    return _student(mean, "stratified_t", bounded, level)


def _variance_share(part: Estimate, bounded: bool) -> tuple[float, float]:
    if not bounded or part.variance > 0:
        return part.variance, part.df
    count = part.trials if 0 < part.value < 1 and part.df > 0 else part.clusters
    rate = (part.value * count + 2) / (count + 4)
    return rate * (1 - rate) / (count + 4), float(max(part.clusters - 1, 1))


def student_quantile(df: float, level: float) -> float:
    """How many standard errors Student's interval of this level reaches to either side."""
    return float(stats.t.ppf((1 + level) / 2, df))


def _student(part: Estimate, method: str, bounded: bool, level: float) -> Estimate:
    half = student_quantile(part.df, level) * part.variance**0.5
    low, high = part.value - half, part.value + half
    if bounded:
        low, high = max(low, 0.0), min(high, 1.0)
    return dataclasses.replace(part, low=low, high=high, method=method)
