"""How many labelled examples for fine-tuning a number of demonstrations is worth, with an interval.

By analogy with Le Scao and Rush 2021 (arXiv 2103.08493), who ask how many examples a prompt is worth between
two ways to fine-tune. Here one side is a frozen model with K demonstrations in its context, the other the
same model fine-tuned on N examples: K is worth the N at which fine-tuning is as accurate. Dimension letters:
S seeds, Q queries, N sizes of the fine-tuning set, K numbers of demonstrations, C both, R replicates.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from icl.data.keys import generator
from icl.errors import InputError

Floats = NDArray[np.float64]

_EQUAL = 1e-9
"""Accuracies that differ by less are the same: means are rounded."""
BELOW, ABOVE = -math.inf, math.inf
"""Worth of demonstrations that the fewest examples already match, and of those that not even the most do."""


@dataclasses.dataclass(frozen=True)
class Worth:
    """What K demonstrations are worth, in labelled examples.

    `examples`, `low` and `high` are numbers of examples; `BELOW` where the smallest N that was tried does as
    well, `ABOVE` where the largest does worse: those are censored.
    """

    k: int
    accuracy: float
    examples: float
    low: float
    high: float
    smallest: int
    largest: int

    @property
    def is_censored(self) -> bool:
        """Whether the curves do not cross between the smallest and the largest N."""
        return math.isinf(self.examples)

    def text(self) -> str:
        """In words, with the interval."""
        if self.is_censored and self.examples == self.low == self.high:
            return self._number(self.examples)
        return f"{self._number(self.examples)} ({self._number(self.low)} to {self._number(self.high)})"

    def to_json(self) -> dict[str, float | int | str]:
        """Its fields, with "below" and "above" for what is censored."""
        fields = {name: round(value, 6) for name, value in dataclasses.asdict(self).items()}
        named = {BELOW: "below", ABOVE: "above"}
        return {name: named.get(value, value) for name, value in fields.items()} | {"text": self.text()}

    def _number(self, examples: float) -> str:
        if examples == BELOW:
            return f"at most {self.smallest:,}"
        return f"more than {self.largest:,}" if examples == ABOVE else f"{examples:,.0f}"


def prompt_worth(
    sizes: Sequence[int],
    tuned_SQN: ArrayLike,
    ks: Sequence[int],
    prompted_SQK: ArrayLike,
    *,
    replicates: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> list[Worth]:
    """What each number of demonstrations is worth.

    The accuracies of fine-tuning become a rising curve (isotonic regression), linear in log N between the
    sizes; worth is the smallest N where it is as high as the accuracy with K demonstrations.

    Seeds (of the model, and of the examples that are drawn) and queries are crossed: every seed is asked the
    same queries, on both sides. The interval resamples the queries, and for the seeds draws from the
    multivariate Student distribution with S - 1 degrees of freedom about their mean, as a resample of three
    seeds would vary too little. Both curves move together, as they belong to the same seeds and queries. With
    a single seed the interval is that of the queries alone.

    Args:
      sizes: Numbers N of examples, rising.
      tuned_SQN: Scores (0..1) after fine-tuning on N examples.
      ks: Numbers of demonstrations.
      prompted_SQK: Scores (0..1) with K demonstrations.
      replicates: Draws of the interval.
      level: Of the interval, two-sided.
      seed: Of the draws.

    Raises:
      InputError: sizes do not rise, or the shapes do not fit.
    """
    tuned, prompted = np.asarray(tuned_SQN, np.float64), np.asarray(prompted_SQK, np.float64)
    if len(sizes) < 2 or list(sizes) != sorted(set(sizes)) or sizes[0] < 1:
        raise InputError(f"sizes = {list(sizes)}: expected two or more, from 1 on, each larger than the last")
    shapes = [(*tuned.shape[:2], len(sizes)), (*tuned.shape[:2], len(ks))]
    if tuned.ndim != 3 or tuned.size == 0 or [tuned.shape, prompted.shape] != shapes:
        raise InputError(
            f"scores of shapes {tuned.shape} and {prompted.shape}: expected (seeds, queries, {len(sizes)})"
            f" and (seeds, queries, {len(ks)})"
        )
    both_SQC = np.concatenate([tuned, prompted], axis=2)
    drawn_RC = _replicates(both_SQC, replicates, generator("prompt worth", seed))
    points_K = _worths(sizes, both_SQC.mean((0, 1))[None])[0]
    drawn_RK = _worths(sizes, drawn_RC)
    tail = (1 - level) / 2
    return [
        Worth(
            k=k,
            accuracy=float(prompted[..., i].mean()),
            examples=float(points_K[i]),
            low=_quantile(drawn_RK[:, i], tail),
            high=_quantile(drawn_RK[:, i], 1 - tail),
            smallest=sizes[0],
            largest=sizes[-1],
        )
        for i, k in enumerate(ks)
    ]


def crossing(sizes: Sequence[int], accuracies_N: ArrayLike, accuracy: float) -> float:
    """The smallest N at which a rising curve through the accuracies reaches `accuracy`; linear in log N.

    Returns:
      N, or `BELOW` where the smallest size is that accurate already, or `ABOVE` where the largest is not.
    """
    return float(_worths(sizes, np.append(np.asarray(accuracies_N, np.float64), accuracy)[None])[0, 0])


def rising(values_RN: Floats) -> Floats:
    """The rising curves nearest to curves [replicates, sizes], by least squares.

    Point n is the largest, over starts up to n, of the smallest mean from there to n or further (the min-max
    formula of isotonic regression; Robertson, Wright and Dykstra 1988, section 1.4).
    """
    number = values_RN.shape[1]
    sums_RN = np.cumsum(np.pad(values_RN, ((0, 0), (1, 0))), axis=1)
    curve_RN = np.full_like(values_RN, -np.inf)
    for first in range(number):
        last_N = np.arange(first + 1, number + 1)
        means_RN = (sums_RN[:, last_N] - sums_RN[:, first : first + 1]) / (last_N - first)
        smallest_RN = np.minimum.accumulate(means_RN[:, ::-1], axis=1)[:, ::-1]
        curve_RN[:, first:] = np.maximum(curve_RN[:, first:], smallest_RN)
    return curve_RN


def _worths(sizes: Sequence[int], means_RC: Floats) -> Floats:
    """The crossings [replicates, K] of mean accuracies of all sizes, then of all K."""
    number, logs_N = len(sizes), np.log(sizes)
    curve_RN, accuracy_RK = rising(means_RC[:, :number]), means_RC[:, number:]
    after_RK = np.sum(curve_RN[:, :, None] < accuracy_RK[:, None] - _EQUAL, axis=1)
    upper_RK = np.clip(after_RK, 1, number - 1)
    low_RK, high_RK = (np.take_along_axis(curve_RN, at_RK, axis=1) for at_RK in (upper_RK - 1, upper_RK))
    with np.errstate(invalid="ignore", divide="ignore"):
        share_RK = np.clip((accuracy_RK - low_RK) / (high_RK - low_RK), 0, 1)
        inside_RK = np.exp(logs_N[upper_RK - 1] + share_RK * (logs_N[upper_RK] - logs_N[upper_RK - 1]))
    return np.where(after_RK == 0, BELOW, np.where(after_RK == number, ABOVE, inside_RK))


def _replicates(scores_SQC: Floats, number: int, rng: np.random.Generator) -> Floats:
    """Means [replicates, columns] as other queries and seeds would have given them."""
    seeds, queries, _ = scores_SQC.shape
    by_query_QC = scores_SQC.mean(0)
    counts_RQ = rng.multinomial(queries, np.full(queries, 1 / queries), number)
    drawn_RC: Floats = counts_RQ @ by_query_QC / queries
    if seeds > 1:
        by_seed_SC = scores_SQC.mean(1)
        normal_RS = rng.standard_normal((number, seeds))
        chi_R1 = np.sqrt(rng.chisquare(seeds - 1, (number, 1)) / (seeds - 1))
        spread_RC = normal_RS @ (by_seed_SC - by_seed_SC.mean(0)) / np.sqrt(seeds * (seeds - 1))
        drawn_RC = drawn_RC + spread_RC / chi_R1
    return np.clip(drawn_RC, 0.0, 1.0)  # as accuracies are


def _quantile(values_R: Floats, share: float) -> float:
    """A quantile that is one of the values, as between a number and infinity there is none."""
    return float(np.quantile(values_R, share, method="inverted_cdf"))
