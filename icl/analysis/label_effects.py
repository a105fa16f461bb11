"""What a model takes from the labels of demonstrations, from the records of an evaluation under conditions.

Accuracy with random labels is what a model owes to knowing the task, and with abstract labels what it learns
of it from demonstrations (Pan et al. 2023, arXiv 2305.09731); whether it follows flipped labels says which of
the two wins (Wei et al. 2023, arXiv 2303.03846). And how far the order of demonstrations moves the accuracy
(Lu et al. 2022, arXiv 2104.08786).

Shapes: S models (training seeds), Q queries, D sets of demonstrations, O orders.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icl.analysis.calibration import calibration_sums, confidences, error_of_sums
from icl.data.keys import generator
from icl.errors import InputError
from icl.evaluation.records import Record
from icl.evaluation.statistics import Estimate, Scores, estimate, jackknife_sums

Floats = NDArray[np.float64]
RULES = ("sum", "calibrated")


@dataclasses.dataclass(frozen=True)
class Measured:
    """A figure, mean over models, with its 95 % interval, and its value for each model."""

    value: float
    low: float
    high: float
    models: tuple[float, ...]

    def plus(self, number: float) -> "Measured":
        """The same figure moved by so much."""
        shifted = (self.value + number, self.low + number, self.high + number)
        return Measured(*shifted, tuple(value + number for value in self.models))


Curve = Mapping[int, Measured]
"""A figure by number of demonstrations."""


def label_effects(models: Sequence[Sequence[Record]], labels: Sequence[str]) -> dict[str, Curve]:
    """What labels do, by name of the figure and number of demonstrations.

    "CONDITION" is the accuracy under that condition and "CONDITION, calibrated" that with contextual
    calibration, where it was asked for; "recognition" is the accuracy with random labels above a guess,
    "learning" that with abstract labels, "following" the share of queries answered as flipped labels have it;
    "ECE, CONDITION" is the expected calibration error of the option probabilities, which may be "calibrated"
    too. Intervals are over queries, for these models.

    Args:
      models: Records of models of one kind, such as training seeds; all were asked the same.
      labels: The task's, in its order (`icl.tasks.Task.labels`).

    Raises:
      InputError: there are no records, or models were asked different things.
    """
    found: dict[str, dict[int, Measured]] = {}
    for (condition, k), group in _groups(models).items():
        for rule in RULES:
            if rule == "sum" or group[0][0].calibration_log_likelihoods:
                suffix = "" if rule == "sum" else ", calibrated"
                pairs = [confidences(records, rule) for records in group]
                sure_SQ, right_SQ = (np.array(each) for each in zip(*pairs, strict=True))
                found.setdefault(condition + suffix, {})[k] = mean(right_SQ)
                found.setdefault(f"ECE, {condition}{suffix}", {})[k] = calibration_error(sure_SQ, right_SQ)
        if condition == "flipped_labels":
            follows_SQ = np.array([[follows_flip(record, labels) for record in records] for records in group])
            found.setdefault("following", {})[k] = mean(follows_SQ)
    for k, accuracy in found.get("random_labels", {}).items():
        found.setdefault("recognition", {})[k] = accuracy.plus(-1 / len(labels))
    if "abstract_labels" in found:
        found["learning"] = found["abstract_labels"]
    return dict(found)


def look_up_ceiling(classes: int, k: int) -> float:
    """Accuracy of one who knows nothing but k demonstrations of random classes, and what class they are of.

    The labels are known, so of d classes shown the next is guessed among classes - d labels: the mean of
    min(d + 1, classes) / classes over d.
    """
    chances_D = np.zeros(classes + 1)
    chances_D[0] = 1
    seen_D = np.arange(classes + 1)
    for _ in range(k):
        new_D = chances_D * (classes - seen_D) / classes
        chances_D = chances_D * seen_D / classes
        chances_D[1:] += new_D[:-1]
    return float(chances_D @ np.minimum(seen_D + 1, classes) / classes)


def follows_flip(record: Record, labels: Sequence[str]) -> float:
    """1 where the answer is what the flipped demonstrations call the query's class, else 0."""
    flipped = labels[(labels.index(record.gold) + 1) % len(labels)]
    return float(record.prediction == flipped)


def mean(values_SQ: Floats) -> Measured:
    """Mean of scores [models, queries] with the evaluation's interval, models nested in queries."""
    return _measured(estimate(_scores(values_SQ, bounded=True)), values_SQ.mean(axis=1))


def calibration_error(sure_SQ: Floats, right_SQ: Floats) -> Measured:
    """Expected calibration error of each model's answers, mean over models; jackknife over queries."""
    sums_SQX = np.array([calibration_sums(*pair) for pair in zip(sure_SQ, right_SQ, strict=True)])
    found = jackknife_sums(sums_SQX, error_of_sums, batched=True, bounded=True)
    return _measured(found, error_of_sums(sums_SQX.sum(axis=1)))


def _over_sets(values_SD: Floats) -> Measured:
    """Mean of shares [models, sets], which are no single answers; Student's t over sets, within 0..1."""
    found = _measured(estimate(_scores(values_SD, bounded=False)), values_SD.mean(axis=1))
    return dataclasses.replace(found, low=max(found.low, 0.0), high=min(found.high, 1.0))


def _scores(values_SQ: Floats, *, bounded: bool) -> Scores:
    models, queries = values_SQ.shape
    queries_N, models_N = np.tile(np.arange(queries), models), np.repeat(np.arange(models), queries)
    return Scores(values_SQ.ravel(), queries_N, models_N, bounded=bounded)


def _measured(found: Estimate, models_S: Floats) -> Measured:
    low, high = (found.value if end is None else end for end in (found.low, found.high))
    return Measured(found.value, float(low), float(high), tuple(map(float, models_S)))


def _groups(models: Sequence[Sequence[Record]]) -> dict[tuple[str, int], list[list[Record]]]:
    """Records by condition and K, one list a model, in one order of queries."""
    groups: dict[tuple[str, int], list[list[Record]]] = {}
    for number, records in enumerate(models):
        for record in records:
            lists = groups.setdefault((record.condition, record.k), [[] for _ in models])
            lists[number].append(record)
    for (condition, k), lists in groups.items():
        for records in lists:
            records.sort(key=_asked)
        if any(list(map(_asked, records)) != list(map(_asked, lists[0])) for records in lists):
            raise InputError(
                f"records under {condition!r} at K = {k}: expected the same queries of all models"
            )
    if not groups:
        raise InputError("records of an evaluation: there are none; expected some of every model")
    return groups


def _asked(record: Record) -> tuple[str, int, int]:
    return record.query, record.seed, record.order


@dataclasses.dataclass(frozen=True)
class OrderSpread:
    """How the order of the same demonstrations moves accuracy; mean over sets of demonstrations and models.

    `best`, `worst` and `mean` are of the orders of a set, `spread` is best less worst; intervals are over
    sets. Best and worst of several orders differ by chance already: `by_chance` is the spread where, for each
    query, it is left to chance which order its answers belong to.
    """

    best: Measured
    worst: Measured
    mean: Measured
    spread: Measured
    by_chance: float


def order_spread(models: Sequence[Sequence[Record]], shuffles: int = 100) -> OrderSpread:
    """The spread over orders of sets of demonstrations that serve all queries.

    Args:
      models: Records of models of one kind, of fixed demonstrations at one K under one condition.
      shuffles: How often answers are shuffled to tell the spread by chance.

    Raises:
      InputError: there are several conditions or K, demonstrations of each query's own, or one order.
    """
    groups = _groups(models)
    if len(groups) > 1 or any(r.demonstrations != "fixed" for records in models for r in records):
        raise InputError("spread over orders: expected fixed demonstrations, one K and one condition")
    (group,) = groups.values()
    first = group[0]
    shape = tuple(len({getattr(r, name) for r in first}) for name in ("query", "seed", "order"))
    if shape[2] < 2:
        raise InputError("spread over orders: there is one; expected EvalConfig.orders of 2 or more")
    # Sorted by query, then set, then order.
    right_SQDO = np.array([[record.exact_match for record in records] for records in group]).reshape(
        -1, *shape
    )

    accuracy_SDO = right_SQDO.mean(axis=1)
    best_SD, worst_SD = accuracy_SDO.max(axis=2), accuracy_SDO.min(axis=2)
    rng = generator("orders by chance", *shape)
    shuffled = (rng.permuted(right_SQDO, axis=3).mean(axis=1) for _ in range(shuffles))
    by_chance = [np.ptp(accuracy_SDO, axis=2).mean() for accuracy_SDO in shuffled]
    return OrderSpread(
        best=_over_sets(best_SD),
        worst=_over_sets(worst_SD),
        mean=_over_sets(accuracy_SDO.mean(axis=2)),
        spread=_over_sets(best_SD - worst_SD),
        by_chance=float(np.mean(by_chance)),
    )


def as_json(figure: Any, digits: int = 4) -> Any:
    """Figures, and mappings of them, as JSON: value, ends of the interval, and the value of each model."""
    if isinstance(figure, Measured):
        numbers = [figure.value, figure.low, figure.high]
        return [*(round(number, digits) for number in numbers), [round(one, digits) for one in figure.models]]
    if isinstance(figure, OrderSpread):
        return {field.name: as_json(getattr(figure, field.name)) for field in dataclasses.fields(figure)}
    if isinstance(figure, Mapping):
        return {str(name): as_json(one) for name, one in figure.items()}
    return round(figure, digits)
