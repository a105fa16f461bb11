"""Simulates evaluations whose true scores are known, and counts how often each interval holds the truth.

    python tools/check_coverage.py [--tables 1000] [--level 0.95] [--only WORD]

Prints a Markdown table: for every interval and design the share of tables that it covers, with the standard
error of that share, and its mean width in points. Where another interval is usual, it stands beside ours, of
the same tables. A thousand tables take about three minutes of one core.
"""

import argparse
import dataclasses
import functools
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from icl.evaluation.bands import band, simultaneous_level_of_mean
from icl.evaluation.comparisons import Side, holm, mean_difference, paired_difference
from icl.evaluation.statistics import (
    Floats,
    Scores,
    cluster_bootstrap,
    cluster_cells,
    estimate,
    jackknife_sums,
    mean_estimate,
)

RESAMPLES = 1000
Trial = tuple[str, bool, float]
"""What an interval is called, whether it held the truth, and its width."""


@dataclasses.dataclass(frozen=True)
class Design:
    """Clusters, queries a cluster and seeds; `crossed` where a seed's demonstrations serve all of them."""

    clusters: int
    queries: int
    seeds: int
    crossed: bool = False

    def __str__(self) -> str:
        seeds = f"{self.seeds} {'fixed set' if self.crossed else 'seed'}{'s' if self.seeds > 1 else ''}"
        each = f" of {self.queries} queries" if self.queries > 1 else ""
        return f"{self.clusters} clusters{each}, {seeds}"


@dataclasses.dataclass(frozen=True)
class Case:
    """One simulation: a table drawn and its intervals."""

    name: str
    design: str
    run: Callable[[np.random.Generator, float], Iterator[Trial]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--tables", type=int, default=1000, help="of each design (default: 1000)")
    parser.add_argument("--level", type=float, default=0.95, help="of the intervals (default: 0.95)")
    parser.add_argument("--only", default="", help="a word of the rows to run")
    settings = parser.parse_args(arguments)
    if settings.tables < 1 or not 0 < settings.level < 1:
        print("check_coverage: --tables: expected 1 or more; --level: between 0 and 1", file=sys.stderr)
        return 2
    print("| interval | design | covers, % | mean width, points |\n|---|---|---|---|")
    for case in cases():
        if settings.only in f"{case.name} {case.design}":
            for label, share, width in coverage(case, settings.tables, settings.level):
                error = (share * (1 - share) / settings.tables) ** 0.5
                points = "" if np.isnan(width) else f"{100 * width:.1f}"
                row = f"{100 * share:.1f} ± {100 * error:.1f} | {points}"
                print(f"| {case.name}: {label} | {case.design} | {row} |", flush=True)
    return 0


def coverage(case: Case, tables: int, level: float = 0.95) -> list[tuple[str, float, float]]:
    """By interval of a case: its name, the share of tables that it covers, its mean width."""
    found: dict[str, list[tuple[bool, float]]] = defaultdict(list)
    for number in range(tables):
        for label, hit, width in case.run(np.random.default_rng(number), level):
            found[label].append((hit, width))
    return [(label, *np.mean(trials, axis=0).tolist()) for label, trials in found.items()]


def cases() -> Iterator[Case]:
    """Every simulation, in the order of the table."""
    for design, rate in (
        (Design(7, 9, 5), 0.5),
        (Design(64, 1, 5), 0.2),
        (Design(20, 1, 5), 0.98),
        (Design(64, 1, 5), 0.02),
        (Design(1000, 1, 5), 0.01),
        (Design(400, 1, 5), 0.5),
        (Design(64, 1, 5, crossed=True), 0.5),
        (Design(64, 1, 5, crossed=True), 0.03),
        (Design(320, 1, 3, crossed=True), 0.5),
        (Design(320, 1, 5, crossed=True), 0.7),
    ):
        yield Case("score", f"{design}, rate {rate}", functools.partial(_score, design, rate))
    for design in (Design(56, 1, 5), Design(200, 5, 5), Design(200, 5, 5, crossed=True)):
        yield Case("corpus F1", str(design), functools.partial(_corpus, design))
    for design, rates in (
        (Design(64, 1, 5), _RISING),
        (Design(7, 9, 5), _RISING),
        (Design(400, 1, 5), _RISING),
        (Design(64, 1, 5), _EDGE),
        (Design(320, 1, 3, crossed=True), _RISING),
        (Design(320, 1, 5, crossed=True), _RISING),
    ):
        text = f"{design}, {len(rates)} K from {rates[0]} to {rates[-1]}"
        yield Case("K-curve", text, functools.partial(_band, design, rates))
    yield Case("K-curve of the mean", "4 tasks of 64 queries, 5 seeds, 6 K", _band_of_mean)
    for design, both in (
        (Design(64, 1, 5), (0.5, 0.6)),
        (Design(7, 9, 5), (0.4, 0.5)),
        (Design(64, 1, 1), (0.03, 0.01)),
        (Design(64, 1, 1), (0.1, 0.01)),
        (Design(20, 1, 1), (0.1, 0.1)),
        (Design(64, 1, 5), (0.05, 0.01)),
        (Design(400, 1, 5), (0.5, 0.5)),
        (Design(320, 1, 3, crossed=True), (0.6, 0.5)),
        (Design(320, 1, 5, crossed=True), (0.6, 0.5)),
    ):
        yield Case(
            "difference", f"{design}, {both[0]} to {both[1]}", functools.partial(_paired, design, both)
        )
    for design in (Design(64, 1, 5), Design(64, 1, 1), Design(320, 1, 3, crossed=True)):
        for rate in (0.5, 0.03):
            text = f"20 tasks of {design}, no difference at rate {rate}"
            yield Case("family", text, functools.partial(_unmarked, design, rate))
    for means in ((0.5, 0.3, 0.7, 0.2, 0.6), (0.5, 0.01, 0.02, 0.3, 0.01)):
        text = f"{len(means)} tasks of 64 queries, rates {means}"
        yield Case("mean over tasks", text, functools.partial(_mean, means))


_RISING = (0.2, 0.3, 0.4, 0.5, 0.55, 0.6)
_EDGE = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3)


def answers(rng: np.random.Generator, design: Design, rates: Sequence[float]) -> Floats:
    """Right and wrong answers [conditions, clusters, queries, seeds], whose true rates are `rates`.

    Right with the probit of what a condition, a cluster, a query and, where crossed, a seed add, the last
    three in part for all conditions alike and in part for each.
    """
    shape = (len(rates), design.clusters, design.queries, design.seeds)
    parts = [((1, 1), 0.7), ((1, 0), 0.6)] if design.queries > 1 else [((1, 1), 0.9)]
    seed = 0.4 if design.crossed else 0.0
    latent = np.zeros(shape)
    for (clusters, queries), spread in parts:
        sizes = (design.clusters if clusters else 1, design.queries if queries else 1, 1)
        latent = latent + spread * rng.normal(size=(1, *sizes)) + 0.3 * rng.normal(size=(len(rates), *sizes))
    latent = latent + seed * rng.normal(size=(1, 1, 1, design.seeds))
    latent = latent + seed / 2 * rng.normal(size=(len(rates), 1, 1, design.seeds))
    variance = 1 + sum(spread**2 + 0.3**2 for _, spread in parts) + seed**2 * 1.25
    middle = stats.norm.ppf(rates) * variance**0.5
    return (rng.random(shape) < stats.norm.cdf(latent + middle[:, None, None, None])).astype(np.float64)


def scores(values_CQS: Floats, design: Design) -> Scores:
    """The table of one condition as scores."""
    return Scores(values_CQS.ravel(), *_numbers(design), crossed=design.crossed)


def side(values_CQS: Floats, design: Design) -> Side:
    """The table of one condition as one side of a comparison."""
    clusters_N, seeds_N = _numbers(design)
    queries_N = np.repeat(np.arange(design.clusters * design.queries), design.seeds)
    return Side(values_CQS.ravel(), clusters_N, queries_N, seeds_N, np.ones_like(seeds_N))


def _numbers(design: Design) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    clusters_N = np.repeat(np.arange(design.clusters), design.queries * design.seeds)
    return clusters_N, np.tile(np.arange(design.seeds), design.clusters * design.queries)


def _trial(label: str, low: float | None, high: float | None, truth: float) -> Trial:
    if low is None or high is None:
        return label, True, float("nan")
    return label, low <= truth <= high, high - low


def _score(design: Design, rate: float, rng: np.random.Generator, level: float) -> Iterator[Trial]:
    table = scores(answers(rng, design, [rate])[0], design)
    found = estimate(table, level=level)
    yield _trial("ours", found.low, found.high, rate)
    if design.crossed:
        cells_CS, _ = cluster_cells(table)
        yield _trial("two-level bootstrap", *two_level_bootstrap(cells_CS, level), rate)
        yield _trial("bootstrap of queries", *cluster_bootstrap(cells_CS, RESAMPLES, level), rate)


def two_level_bootstrap(cells_CS: Floats, level: float) -> tuple[float, float]:
    """The usual percentile interval: seeds and clusters drawn with replacement, each by itself."""
    clusters_RC, seeds_RS = (_draws(size) for size in cells_CS.shape)
    means_R = np.einsum("rc,rc->r", clusters_RC, seeds_RS @ cells_CS.T)
    low, high = np.quantile(means_R, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)


@functools.lru_cache(maxsize=8)
def _draws(size: int) -> Floats:
    return np.random.default_rng(size).multinomial(size, np.full(size, 1 / size), RESAMPLES) / size


def _corpus(design: Design, rng: np.random.Generator, level: float) -> Iterator[Trial]:
    """F1 of the positive class: a third of the queries are positive, and 70 % of the answers are right."""
    positive_CQ1 = rng.random((design.clusters, design.queries, 1)) < 1 / 3
    right_CQS = answers(rng, design, [0.7])[0] > 0
    hits_CS, misses_CS, alarms_CS = (
        np.sum(table_CQS, axis=1)
        for table_CQS in (positive_CQ1 & right_CQS, positive_CQ1 & ~right_CQS, ~positive_CQ1 & ~right_CQS)
    )
    sums_SCX = np.stack([hits_CS, misses_CS, alarms_CS], axis=-1).swapaxes(0, 1)
    found = jackknife_sums(sums_SCX, f1, level, batched=True, bounded=True, crossed=design.crossed)
    truth = float(f1(np.array([0.7 / 3, 0.3 / 3, 0.3 * 2 / 3])))
    yield _trial("jackknife", found.low, found.high, truth)


def f1(sums_X: Floats) -> Floats:
    """F1 from hits, misses and false alarms in the last axis."""
    hits, misses, alarms = np.moveaxis(np.asarray(sums_X, np.float64), -1, 0)
    return 2 * hits / np.maximum(2 * hits + misses + alarms, 1e-9)


def _band(design: Design, rates: Sequence[float], rng: np.random.Generator, level: float) -> Iterator[Trial]:
    curve = [scores(values_CQS, design) for values_CQS in answers(rng, design, rates)]
    found = band(curve, level=level)
    yield _joint(
        "max-t band", [_trial("", e.low, e.high, rate) for e, rate in zip(found, rates, strict=True)]
    )
    for label, pointwise in (("Bonferroni", 1 - (1 - level) / len(rates)), ("pointwise", level)):
        found = [estimate(table, level=pointwise) for table in curve]
        yield _joint(label, [_trial("", e.low, e.high, rate) for e, rate in zip(found, rates, strict=True)])


def _band_of_mean(rng: np.random.Generator, level: float) -> Iterator[Trial]:
    design, rates = Design(64, 1, 5), _RISING
    curves = [[scores(values, design) for values in answers(rng, design, rates)] for _ in range(4)]
    ours = simultaneous_level_of_mean(curves, level)
    for label, pointwise in (("max-t band", ours), ("pointwise", level)):
        means = [
            mean_estimate([estimate(curve[k], level=pointwise) for curve in curves], True, pointwise)
            for k in range(len(rates))
        ]
        yield _joint(label, [_trial("", e.low, e.high, rate) for e, rate in zip(means, rates, strict=True)])


def _joint(label: str, trials: Sequence[Trial]) -> Trial:
    return label, all(hit for _, hit, _ in trials), float(np.mean([width for *_, width in trials]))


def _paired(
    design: Design, rates: Sequence[float], rng: np.random.Generator, level: float
) -> Iterator[Trial]:
    left, right = (side(values_CQS, design) for values_CQS in answers(rng, design, rates))
    found = paired_difference(left, right, crossed=design.crossed, level=level)
    if found is not None:
        yield _trial("paired", found.low, found.high, rates[0] - rates[1])


def _unmarked(design: Design, rate: float, rng: np.random.Generator, level: float) -> Iterator[Trial]:
    """A family of true null hypotheses: it is covered where nothing is marked."""
    tables = [answers(rng, design, (rate, rate)) for _ in range(20)]
    pairs = [
        paired_difference(side(t[0], design), side(t[1], design), crossed=design.crossed) for t in tables
    ]
    p_values = [pair.p for pair in pairs if pair is not None]
    yield "nothing marked", min(holm(p_values)) > 1 - level, float("nan")
    yield "nothing marked, uncorrected", min(p_values) > 1 - level, float("nan")


def _mean(rates: Sequence[float], rng: np.random.Generator, level: float) -> Iterator[Trial]:
    design = Design(64, 1, 5)
    tables = [answers(rng, design, (rate, rate)) for rate in rates]
    found = mean_estimate([estimate(scores(t[0], design), level=level) for t in tables], True, level)
    yield _trial("score", found.low, found.high, float(np.mean(rates)))
    pairs = [paired_difference(side(t[0], design), side(t[1], design), level=level) for t in tables]
    mean = mean_difference([pair for pair in pairs if pair is not None], level)
    yield _trial("paired difference", mean.low, mean.high, 0.0)


if __name__ == "__main__":
    sys.exit(main())
