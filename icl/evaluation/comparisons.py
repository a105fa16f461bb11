"""Paired differences of two sides, Holm's correction, and the regression over training runs.

A pair is a query under one seed that both sides answered after equally many demonstrations. What repeats is
the cluster, as in `icl.evaluation.statistics`. Claims about size are made of training runs (`over_size`), for
queries say nothing of another run. `icl.evaluation.differences` applies all this to records.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from icl.evaluation.statistics import (
    LEVEL,
    Floats,
    Ints,
    Scores,
    cluster_cells,
    crossed_variance,
    nested_variance,
    student_quantile,
)

FEW_DIFFER = 10
"""Clusters that differ, below which their spread is not trusted."""

_NO_VARIANCE = 1e-20


@dataclasses.dataclass(frozen=True)
class Side:
    """Observations of one metric on one side; clusters, queries and seeds are numbered as on the other.

    A query under a seed stands once. `k_used_N` is the number of demonstrations that its prompt held.
    """

    values_N: Floats
    clusters_N: Ints
    queries_N: Ints
    seeds_N: Ints
    k_used_N: Ints


@dataclasses.dataclass(frozen=True)
class Paired:
    """A mean of paired differences, with its pointwise interval and two-sided p-value.

    `df` are the interval's degrees of freedom, `df_p` those of the p-value.
    """

    value: float
    low: float | None
    high: float | None
    p: float
    variance: float
    df: float
    df_p: float
    n: int
    clusters: int
    dropped: int


def paired_difference(
    left: Side, right: Side, *, crossed: bool = False, level: float = LEVEL, bounded: bool = True
) -> Paired | None:
    """The mean of left minus right over the pairs that both have; None where there is no pair.

    Student's t with the design's degrees of freedom. Where all clusters differ by the same amount, say by
    none, the sample shows no variance: then for metrics in 0..1 (`bounded`) the interval lets as many others
    differ as Clopper and Pearson's bound for 0 of so many clusters allows, by as much as they can, and p is
    one less the level at which it touches 0: 1 for no difference, that of the sign test where all answers
    changed. Unbounded metrics have no interval then, a single cluster never has one: p is 1. Where few
    clusters differ, interval and p are those with two clusters more, of which half a one differs to each
    side by the largest amount seen (for paired proportions: Agresti and Min 2005, Statistics in Medicine 24).
    With crossed seeds p takes the cautious degrees of freedom, for a correction looks far into the tail.

    Raises:
      ValueError: a query stands twice under one seed.
    """
    lefts_N, rights_N = _shared(left, right)
    asked = len(left.values_N) + len(right.values_N) - len(lefts_N)
    same_N = left.k_used_N[lefts_N] == right.k_used_N[rights_N]
    lefts_N, rights_N = lefts_N[same_N], rights_N[same_N]
    if not len(lefts_N):
        return None
    values_N = left.values_N[lefts_N] - right.values_N[rights_N]
    cells_CS, value = cluster_cells(
        Scores(values_N, left.clusters_N[lefts_N], left.seeds_N[lefts_N], bounded=False, crossed=crossed)
    )
    variance, df = crossed_variance(cells_CS) if crossed else nested_variance(cells_CS)
    df_p = crossed_variance(cells_CS, cautious=True)[1] if crossed else df
    clusters = len(cells_CS)
    if variance <= _NO_VARIANCE:
        low, high, p = _without_variance(value, clusters, level) if bounded else (None, None, 1.0)
        variance = 0.0
    else:
        centre, spread = value, variance
        differing = len(np.unique(left.clusters_N[lefts_N][values_N != 0]))
        if bounded and differing < min(FEW_DIFFER, clusters / 2):
            centre, spread = _with_two_more(value, variance, cells_CS)
        low, high = _student(centre, spread, df, level, bounded)
        p = _p_value(centre, spread, df_p)
    return Paired(value, low, high, p, variance, df, df_p, len(lefts_N), clusters, asked - len(lefts_N))


def _shared(left: Side, right: Side) -> tuple[Ints, Ints]:
    """Where the queries under a seed that both sides have stand on either."""
    width = 1 + max(int(side.seeds_N.max(initial=0)) for side in (left, right))
    keys = [side.queries_N * width + side.seeds_N for side in (left, right)]
    if any(len(np.unique(key_N)) < len(key_N) for key_N in keys):
        raise ValueError("a query stands twice under one seed; expected it once")
    _, lefts_N, rights_N = np.intersect1d(keys[0], keys[1], assume_unique=True, return_indices=True)
    return lefts_N, rights_N


def _without_variance(value: float, clusters: int, level: float) -> tuple[float | None, float | None, float]:
    if clusters < 2:
        return None, None, 1.0
    others = 1 - ((1 - level) / 2) ** (1 / clusters)
    p = min(1.0, 2 * (1 + abs(value)) ** -clusters)
    return value - others * (1 + value), value + others * (1 - value), p


def _with_two_more(value: float, variance: float, cells_CS: Floats) -> tuple[float, float]:
    clusters, largest = len(cells_CS), float(np.abs(cells_CS.mean(axis=1)).max())
    share = clusters / (clusters + 2)
    return value * share, variance * share**2 + (largest / (clusters + 2)) ** 2


def _student(value: float, variance: float, df: float, level: float, bounded: bool) -> tuple[float, float]:
    half = student_quantile(df, level) * variance**0.5
    low, high = value - half, value + half
    if bounded:
        low, high = max(low, -1.0), min(high, 1.0)
    return low, high


def _p_value(value: float, variance: float, df: float) -> float:
    return float(2 * stats.t.sf(abs(value) / variance**0.5, df))


def mean_difference(parts: Sequence[Paired], level: float = LEVEL, bounded: bool = True) -> Paired:
    """The mean over tasks, each weighted alike: variances add up, degrees of freedom by Satterthwaite.

    A bounded task whose pairs show no variance contributes that of two clusters more, one for each side, as
    Agresti and Coull's (1998) added trials do.
    """
    value = float(np.mean([part.value for part in parts]))
    shares = [_variance_share(part, bounded) for part in parts]
    total = sum(variance for variance, *_ in shares)
    variance = total / len(parts) ** 2
    df, df_p = (
        total**2 / sum(share[0] ** 2 / share[which] for share in shares if share[0] > 0) if total > 0 else 0.0
        for which in (1, 2)
    )
    low: float | None = None
    high: float | None = None
    p = 1.0
    if df > 0:
        low, high = _student(value, variance, df, level, bounded)
        p = _p_value(value, variance, df_p)
    n, clusters, dropped = (
        sum(getattr(part, name) for part in parts) for name in ("n", "clusters", "dropped")
    )
    return Paired(value, low, high, p, variance, df, df_p, n, clusters, dropped)


def _variance_share(part: Paired, bounded: bool) -> tuple[float, float, float]:
    if part.variance > 0 or not bounded:
        return part.variance, part.df, part.df_p
    df = float(max(part.clusters - 1, 1))
    return 2 / (part.clusters + 2) ** 2, df, df


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values of one family, in the order given (Holm 1979, Scandinavian Journal of Statistics 6).

    Those at or below 0.05 may all be called differences with a chance of 5 % that any of them is none.
    """
    p_P = np.asarray(p_values, np.float64)
    order = np.argsort(p_P, kind="stable")
    steps_P = np.minimum(p_P[order] * np.arange(len(p_P), 0, -1), 1.0)
    adjusted_P = np.empty_like(p_P)
    adjusted_P[order] = np.maximum.accumulate(steps_P)
    return adjusted_P.tolist()


class Run(NamedTuple):
    """One training run: its parameters and its score, the mean over tasks."""

    params: int
    value: float


@dataclasses.dataclass(frozen=True)
class Slope:
    """What a tenfold size adds to a score; `runs` and `sizes` count what it rests on."""

    value: float
    low: float | None
    high: float | None
    p: float
    runs: int
    sizes: int


def over_size(points: Sequence[Run], level: float = LEVEL) -> Slope | None:
    """The score's regression on log10 of the parameters; Student's t with two fewer degrees than runs.

    A training run is one point, for runs of the same size differ by more than queries tell: the interval of a
    score over queries says how well this model is known, not what another training would give. None with
    fewer than three runs or a single size. Points on a line show no spread between runs: no interval then.
    """
    sizes_R = np.log10([run.params for run in points])
    values_R = np.array([run.value for run in points])
    runs, sizes = len(points), len({run.params for run in points})
    if runs < 3 or sizes < 2:
        return None
    centred_R = sizes_R - sizes_R.mean()
    square = float(centred_R @ centred_R)
    slope = float(centred_R @ values_R) / square
    rest_R = values_R - values_R.mean() - slope * centred_R
    variance = float(rest_R @ rest_R) / (runs - 2) / square
    if variance <= _NO_VARIANCE:
        return Slope(slope, None, None, 1.0, runs, sizes)
    low, high = _student(slope, variance, runs - 2, level, bounded=False)
    return Slope(slope, low, high, _p_value(slope, variance, runs - 2), runs, sizes)
