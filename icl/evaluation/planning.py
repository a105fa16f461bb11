"""What a run could find out before it is made: the smallest difference it detects."""

from scipy import stats

from icl.evaluation.statistics import LEVEL, student_quantile


def detectable_difference(
    clusters: int,
    queries: int,
    seeds: int,
    rate: float = 0.5,
    level: float = LEVEL,
    power: float = 0.8,
    correlation: float = 0.5,
    set_correlation: float = 0.0,
) -> float | None:
    """The smallest difference in accuracy between two conditions that a run detects with the given power.

    Both conditions are asked on the same queries. Any two answers of a cluster, to two queries or to one
    under two seeds, correlate by `correlation` within a condition; at 1 a cluster counts once. This is
    conservative: answers under two conditions are taken as independent, while pairing lessens the variance of
    the difference by their correlation; and a `rate` of 0.5 is the worst. It is for a single comparison:
    Holm's correction over a family asks for more. Student's t with clusters - 1 degrees of freedom; None for
    a single cluster, which shows no variance.

    Args:
      clusters: Clusters of the run (instances, passages, or queries).
      queries: Queries in all.
      seeds: Demonstration seeds.
      rate: Accuracy about which the two conditions lie.
      level: Of the interval of the difference, two-sided.
      power: Probability of an interval without 0.
      correlation: Of two answers of a cluster.
      set_correlation: Of answers of two clusters under one seed, where its demonstrations serve all clusters;
        0 where they are drawn anew for each query.
    """
    if clusters < 2:
        return None
    answers = queries * seeds / clusters
    between = 2 * rate * (1 - rate) * (1 + (answers - 1) * correlation) / (answers * clusters)
    shared = 2 * rate * (1 - rate) * set_correlation / seeds
    df = float(clusters - 1)
    if shared > 0 and seeds > 1:
        df = (between + shared) ** 2 / (between**2 / df + shared**2 / (seeds - 1))
    reach = student_quantile(df, level) + float(stats.t.ppf(power, df))
    return min(1.0, reach * (between + shared) ** 0.5)
