"""Whether a model is as often right as it is sure: reliability and expected calibration error.

Confidence is the probability of the option chosen among the options. A model is calibrated where, of the
answers given with confidence p, the share p is right (Guo et al. 2017, arXiv 1706.04599).
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from icl.errors import InputError
from icl.evaluation.records import Record

Floats = NDArray[np.float64]
BINS = 10


class Bin(NamedTuple):
    """The answers whose confidence lies in one stretch: its mean, the share that is right, and how many."""

    confidence: float
    accuracy: float
    number: int


def expected_calibration_error(confidence: Any, right: Any, bins: int = BINS) -> float:
    """Mean over answers of |accuracy - confidence| of the bin that they are in (Guo et al. 2017, eq. 3).

    Few answers a bin make it too large: of a calibrated model it is 0 only in the limit.

    Args:
      confidence: Of every answer, [answers], 0..1.
      right: Whether it is right, [answers], 0 or 1.
      bins: Stretches of equal width that 0..1 is cut into, each with its upper end.

    Raises:
      InputError: there are no answers, or another number of outcomes.
    """
    return float(error_of_sums(calibration_sums(confidence, right, bins).sum(axis=0)))


def calibration_sums(confidence: Any, right: Any, bins: int = BINS) -> Floats:
    """What each answer adds to the sums that the error is made of, [answers, bins + 1]: gaps, and its number.

    Arguments and errors as of `expected_calibration_error`.
    """
    confidence_N, right_N, places_N = _binned(confidence, right, bins)
    sums_NX = np.zeros((len(confidence_N), bins + 1))
    sums_NX[np.arange(len(places_N)), places_N] = right_N - confidence_N
    sums_NX[:, -1] = 1
    return sums_NX


def error_of_sums(sums_X: Floats) -> Floats:
    """The error from sums of what answers add, [..., bins + 1] to [...]."""
    return np.asarray(np.abs(sums_X[..., :-1]).sum(axis=-1) / sums_X[..., -1], np.float64)


def reliability(confidence: Any, right: Any, bins: int = BINS) -> list[Bin]:
    """The bins that hold answers, from low confidence to high.

    Arguments and errors as of `expected_calibration_error`.
    """
    confidence_N, right_N, places_N = _binned(confidence, right, bins)
    members = (places_N == place for place in np.unique(places_N))
    return [
        Bin(float(confidence_N[of_N].mean()), float(right_N[of_N].mean()), int(of_N.sum()))
        for of_N in members
    ]


def _binned(confidence: Any, right: Any, bins: int) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Confidence, outcome and bin of every answer, [answers] each."""
    confidence_N, right_N = np.asarray(confidence, np.float64), np.asarray(right, np.float64)
    if not confidence_N.size or confidence_N.shape != right_N.shape:
        raise InputError(
            f"calibration: {confidence_N.size} confidences and {right_N.size} outcomes; expected as many of"
            " both, one or more"
        )
    return confidence_N, right_N, np.clip(np.ceil(confidence_N * bins).astype(int) - 1, 0, bins - 1)


def probabilities(scores: Sequence[float]) -> Floats:
    """Probabilities of options from their scores in nats: the softmax."""
    weights_O = np.exp(np.asarray(scores, np.float64) - max(scores))
    return np.asarray(weights_O / weights_O.sum(), np.float64)


def confidences(records: Iterable[Record], rule: str = "sum") -> tuple[Floats, Floats]:
    """Confidence in the option that a rule chooses, and whether it is right, [answers] each.

    Args:
      records: Of queries with options.
      rule: "sum", or "calibrated" for contextual calibration (Zhao et al. 2021, arXiv 2102.09690), whose
        scores are log-probabilities too.

    Raises:
      InputError: a record has no options, or was not asked by the rule.
    """
    sure, right = [], []
    for record in records:
        scores = record.option_scores().get(rule) if record.options else None
        if scores is None:
            raise InputError(f"query {record.query!r}: no options compared by {rule!r}; expected some")
        chances_O = probabilities(scores)
        sure.append(chances_O.max())
        right.append(float(chances_O.argmax() == record.gold_option))
    return np.array(sure), np.array(right)
