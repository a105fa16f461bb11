"""Calibration errors of answers whose probabilities are known."""

import math

import numpy as np
import pytest

from icl.analysis.calibration import (
    calibration_sums,
    confidences,
    error_of_sums,
    expected_calibration_error,
    probabilities,
    reliability,
)
from icl.errors import InputError
from tests.analysis.responders import answer


def test_the_error_is_the_gap_of_every_bin_weighed_by_its_answers() -> None:
    """Three of four right at 0.9, one of four at 0.55: (4 x 0.15 + 4 x 0.3) / 8."""
    sure, right = [0.9] * 4 + [0.55] * 4, [1, 1, 1, 0, 1, 0, 0, 0]
    assert expected_calibration_error(sure, right) == pytest.approx((4 * 0.15 + 4 * 0.3) / 8)
    low, high = reliability(sure, right)
    assert (low.accuracy, low.number, high.accuracy, high.number) == (0.25, 4, 0.75, 4)
    assert (low.confidence, high.confidence) == pytest.approx((0.55, 0.9))


def test_answers_as_often_right_as_sure_have_no_error_and_overconfidence_is_told() -> None:
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.25, 1, 40_000)
    for excess in (0.0, 0.2):
        right = rng.random(len(sure)) < sure - excess
        assert expected_calibration_error(sure, right) == pytest.approx(excess, abs=0.015)


def test_gaps_of_one_bin_cancel_and_those_of_two_do_not() -> None:
    assert expected_calibration_error([0.61, 0.69], [0, 1]) == pytest.approx(0.15)
    assert expected_calibration_error([0.31, 0.69], [1, 0]) == pytest.approx(0.69)
    assert expected_calibration_error([0.61, 0.69], [0, 1], bins=100) == pytest.approx((0.61 + 0.31) / 2)


def test_the_error_is_a_function_of_sums_over_answers() -> None:
    rng = np.random.default_rng(1)
    sure, right = rng.random((3, 50)), rng.random((3, 50)) < 0.5
    sums_SX = np.array([calibration_sums(*pair).sum(axis=0) for pair in zip(sure, right, strict=True)])
    by_bins = [
        sum(one.number * abs(one.accuracy - one.confidence) for one in reliability(*pair)) / 50
        for pair in zip(sure, right, strict=True)
    ]
    np.testing.assert_allclose(error_of_sums(sums_SX), by_bins)


def test_confidence_is_the_probability_of_the_option_chosen() -> None:
    right = answer("right", (0.1, 0.7, 0.1, 0.1), gold=1)
    wrong = answer("wrong", (0.4, 0.3, 0.2, 0.1), gold=1)
    sure_N, right_N = confidences([right, wrong])
    np.testing.assert_allclose(sure_N, [0.7, 0.4])
    assert right_N.tolist() == [1, 0]
    assert probabilities([-1.0, math.log(2) - 1, -1.0]).tolist() == pytest.approx([0.25, 0.5, 0.25])


def test_contextual_calibration_divides_by_what_an_empty_input_brings() -> None:
    record = answer("biased", (0.5, 0.3, 0.1, 0.1), gold=1, without_content=(0.7, 0.1, 0.1, 0.1))
    sure_N, right_N = confidences([record], "calibrated")
    expected = np.array([0.5 / 0.7, 0.3 / 0.1, 1, 1])
    np.testing.assert_allclose(sure_N, (expected / expected.sum()).max())
    assert right_N.tolist() == [1]


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(InputError, match="0 confidences"):
        expected_calibration_error([], [])
    with pytest.raises(InputError, match="2 confidences and 1 outcomes"):
        reliability([0.5, 0.5], [1])
    with pytest.raises(InputError, match="no options compared by 'calibrated'"):
        confidences([answer("plain", (0.4, 0.3, 0.2, 0.1), gold=0)], "calibrated")
