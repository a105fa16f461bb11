"""Bands that hold for all K of a curve at once.

The scores at several K answer the same queries, so they err together, and the Bonferroni level is wider than
needed. A band is the interval of `estimate` at each K, at the level found here.
"""

import functools
from collections.abc import Sequence

import numpy as np
from scipy import stats

from icl.evaluation.statistics import LEVEL, Estimate, Floats, Scores, cluster_cells, estimate

DRAWS = 20_000


def band(curve: Sequence[Scores], resamples: int = 2000, level: float = LEVEL) -> list[Estimate]:
    """The estimate at each K with an interval that holds at all K of the curve at once.

    With fixed sets of demonstrations the degrees of freedom are the cautious ones.
    """
    pointwise = simultaneous_level(curve, level)
    return [estimate(scores, resamples, pointwise, cautious=True) for scores in curve]


def simultaneous_level(curve: Sequence[Scores], level: float = LEVEL) -> float:
    """The pointwise level at which the intervals at all K of a curve hold together with probability `level`.

    The max-t value of the Gaussian multiplier bootstrap: given the scores, the means it draws are normal with
    the correlation of the clusters' deviations, so they are drawn from that. Its share of the normal
    distribution is the pointwise level; each interval puts that share on its own scale (Student's t with the
    degrees of freedom at that K, or Clopper and Pearson's). This is exact for normal deviations without
    correlation and with full correlation, where the estimated standard errors are as dependent as the means,
    and near it between.

    Clusters bear the same number at every K; one that is missing at a K adds nothing there. With crossed
    seeds the covariance is that of the clusters plus that of the seeds beyond the error, each from its mean
    products. A K whose scores do not vary tells no correlation and is left out. Never below `level`, nor
    above Bonferroni's.
    """
    return _pointwise(_covariance(curve), level)


def simultaneous_level_of_mean(curves: Sequence[Sequence[Scores | None]], level: float = LEVEL) -> float:
    """The same for the curve of the mean over tasks, from the curves of the tasks.

    Tasks are independent: their covariances add up. All curves have the same K; None stands where a task has
    no scores at one.
    """
    return _pointwise(np.sum([_covariance(curve) for curve in curves], axis=0), level)


def _pointwise(covariance_KK: Floats, level: float) -> float:
    spread_K = np.sqrt(np.diag(covariance_KK))
    varies_K = spread_K > 1e-9
    count = int(varies_K.sum())
    if count < 2:
        return level
    spread_K = spread_K[varies_K]
    correlation_KK = covariance_KK[np.ix_(varies_K, varies_K)] / np.outer(spread_K, spread_K)
    # The symmetric root is the same whatever basis the eigenvectors of equal eigenvalues come in.
    draws_RK = _normal_draws(count) @ _mapped(correlation_KK, np.sqrt)
    critical = float(np.quantile(np.abs(draws_RK).max(axis=1), level))
    return float(np.clip(2 * stats.norm.cdf(critical) - 1, level, 1 - (1 - level) / count))


@functools.lru_cache(maxsize=8)
def _normal_draws(count: int) -> Floats:
    return np.random.Generator(np.random.Philox(key=count)).standard_normal((DRAWS, count))


def _mapped(symmetric_KK: Floats, function: np.ufunc) -> Floats:
    """The matrix with a function of its eigenvalues in their place; negative ones count as 0."""
    values_K, vectors_KK = np.linalg.eigh(symmetric_KK)
    return (vectors_KK * function(np.maximum(values_K, 0.0))) @ vectors_KK.T


def _covariance(curve: Sequence[Scores | None]) -> Floats:
    """Covariance [K, K] of the means, from the mean products of the analysis of variance."""
    deviations_KCS = _deviations(curve)
    ks, clusters, seeds = deviations_KCS.shape
    if clusters < 2:
        return np.zeros((ks, ks))
    rows_KC, columns_KS = deviations_KCS.mean(axis=2), deviations_KCS.mean(axis=1)
    total_KK = seeds * rows_KC @ rows_KC.T / (clusters - 1)
    if seeds > 1:
        rest_KCS = deviations_KCS - rows_KC[:, :, None] - columns_KS[:, None, :]
        rest_KN = rest_KCS.reshape(ks, -1)
        seed_KK = clusters * columns_KS @ columns_KS.T / (seeds - 1)
        error_KK = rest_KN @ rest_KN.T / ((clusters - 1) * (seeds - 1))
        total_KK += _mapped(seed_KK - error_KK, np.positive)
    return total_KK / (clusters * seeds)


def _deviations(curve: Sequence[Scores | None]) -> Floats:
    """Deviations [K, clusters, seeds] of the cells from the mean at their K, clusters and seeds aligned."""
    present = [scores for scores in curve if scores is not None]
    clusters_C = np.unique(np.concatenate([scores.clusters_N for scores in present] or [np.zeros(0, int)]))
    tables = {}
    for number, scores in enumerate(curve):
        if scores is not None:
            cells_CS, value = cluster_cells(scores)
            rows = np.unique(scores.clusters_N)
            tables[number] = (rows, cells_CS - value, tuple(np.unique(scores.seeds_N)))
    crossed = {seeds for _, cells_CS, seeds in tables.values() if cells_CS.shape[1] > 1}
    width = len(next(iter(crossed))) if len(crossed) == 1 else 1
    deviations_KCS = np.zeros((len(curve), len(clusters_C), width))
    for number, (rows, cells_CS, _) in tables.items():
        if cells_CS.shape[1] != width:
            cells_CS = cells_CS.mean(axis=1, keepdims=True)
        # The mean over the clusters at this K is that over all of them after this.
        deviations_KCS[number, np.searchsorted(clusters_C, rows)] = cells_CS * (len(clusters_C) / len(rows))
    return deviations_KCS
