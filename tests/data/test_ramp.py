"""Rows of steps follow from the step alone, and count up to what was promised."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from icl.data.ramp import Ramp, make_ramp

RAMPS = st.builds(
    lambda start, times, to_full, stages: make_ramp(start * times, start, to_full, stages),
    start=st.integers(1, 8),
    times=st.integers(1, 50),
    to_full=st.integers(0, 20_000),
    stages=st.integers(1, 12),
)


@given(RAMPS)
def test_the_first_row_of_a_step_is_the_sum_of_the_batches_before(ramp: Ramp) -> None:
    steps = min(ramp.stages[-1].first_step + 5, 3_000)
    sizes = [ramp.rows(step) for step in range(steps)]
    assert [ramp.first_row(step) for step in range(steps)] == [0, *np.cumsum(sizes)[:-1]]
    assert sizes == sorted(sizes)
    assert all(size % sizes[0] == 0 for size in sizes)
    assert ramp.first_row(10**9) == ramp.stages[-1].first_row + ramp.stages[-1].rows * (
        10**9 - ramp.stages[-1].first_step
    )


@given(RAMPS, st.integers(1, 30_000))
def test_the_steps_of_a_number_of_rows_reach_it_and_no_fewer_do(ramp: Ramp, rows: int) -> None:
    steps = ramp.steps(rows)
    assert ramp.first_row(steps) >= rows > ramp.first_row(steps - 1)


@given(RAMPS, st.integers(0, 5_000))
def test_progress_in_full_batches_is_that_of_the_rows(ramp: Ramp, step: int) -> None:
    full = ramp.stages[-1].rows
    np.testing.assert_allclose(ramp.full_steps(step), ramp.first_row(step) / full, rtol=1e-5, atol=1e-5)


def test_without_a_ramp_progress_is_the_step_exactly() -> None:
    steps = np.arange(2**20, dtype=np.int32)
    np.testing.assert_array_equal(make_ramp(7).full_steps(steps), steps.astype(np.float32))


def test_the_batch_rises_linearly_with_the_rows_taken() -> None:
    """GPT-3's 175B: 32 thousand tokens to 3.2 million over 12 billion, in rows of 2,048."""
    full, start, to_full = 1_536, 16, 12_000_000_000 // 2048
    ramp = make_ramp(full, start, to_full, 8)
    assert [stage.rows for stage in ramp.stages][:2] + [ramp.stages[-1].rows] == [16, 208, 1_536]
    for stage in ramp.stages:
        linear = start + (full - start) * stage.first_row / to_full
        assert abs(stage.rows - linear) <= full / 64
    assert abs(ramp.stages[-1].first_row - to_full) <= full
