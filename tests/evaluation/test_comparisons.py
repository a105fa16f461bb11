"""Differences are of pairs, hold for the design, and are marked after Holm's correction only."""

import dataclasses
import random
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from icl.evaluation.comparisons import Run, Side, holm, mean_difference, over_size, paired_difference
from icl.evaluation.differences import CHECKPOINTS, CONDITIONS, INSTRUCTION, Difference, differences
from icl.evaluation.records import Record
from icl.evaluation.statistics import clopper_pearson
from tools.check_coverage import Design, answers, cases, coverage, side


def single(values: list[float], **changes: Any) -> Side:
    """One query a cluster under one seed."""
    numbers_N = np.arange(len(values))
    whole = Side(np.array(values), numbers_N, numbers_N, np.zeros_like(numbers_N), np.full_like(numbers_N, 4))
    return dataclasses.replace(whole, **changes)


def test_a_paired_difference_is_the_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.random(30), rng.random(30)
    found = paired_difference(single(left.tolist()), single(right.tolist()))
    test = stats.ttest_rel(left, right)
    interval = test.confidence_interval(0.95)
    assert found is not None
    assert (found.value, found.p) == pytest.approx((np.mean(left - right), test.pvalue))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_queries_are_paired_by_what_they_are_not_by_where_they_stand() -> None:
    rng = np.random.default_rng(0)
    design = Design(20, 2, 3)
    left, right = (side(table, design) for table in answers(rng, design, (0.4, 0.6)))
    order = rng.permutation(len(right.values_N))
    shuffled = Side(*(getattr(right, field.name)[order] for field in dataclasses.fields(Side)))
    assert paired_difference(left, shuffled) == paired_difference(left, right)


def test_what_one_side_lacks_or_saw_other_demonstrations_for_is_dropped_and_counted() -> None:
    left = single([1.0, 0.0, 1.0, 1.0, 0.0])
    right = single([0.0, 0.0, 0.0, 1.0], queries_N=np.array([0, 1, 2, 9]), k_used_N=np.array([4, 4, 3, 4]))
    found = paired_difference(left, right)
    assert found is not None
    # Pairs: queries 0 and 1. Dropped: 2 (3 demonstrations against 4), 3 and 4 (left alone), 9 (right alone).
    assert (found.value, found.n, found.clusters, found.dropped) == (0.5, 2, 2, 4)
    assert paired_difference(left, single([1.0], queries_N=np.array([7]))) is None


def test_a_query_that_stands_twice_is_refused() -> None:
    twice = single([1.0, 0.0], queries_N=np.array([3, 3]))
    with pytest.raises(ValueError, match="twice"):
        paired_difference(twice, single([1.0]))


@pytest.mark.parametrize("crossed", [False, True])
def test_equal_answers_differ_by_nothing_and_not_surely(crossed: bool) -> None:
    design = Design(40, 1, 3, crossed)
    one = side(answers(np.random.default_rng(0), design, (0.5,))[0], design)
    found = paired_difference(one, one, crossed=crossed)
    assert found is not None
    assert (found.value, found.p) == (0, 1)
    bound = clopper_pearson(0, 40)[1]
    assert (found.low, found.high) == pytest.approx((-bound, bound))
    unbounded = paired_difference(one, one, crossed=crossed, bounded=False)
    assert unbounded is not None and unbounded.low is None and unbounded.p == 1


def test_where_every_answer_changed_p_is_the_sign_tests() -> None:
    found = paired_difference(single([1.0] * 12), single([0.0] * 12))
    assert found is not None
    assert found.p == pytest.approx(stats.binomtest(12, 12).pvalue)
    assert found.high == 1 and found.low is not None and 0 < found.low < 1


def test_a_single_cluster_shows_no_difference() -> None:
    found = paired_difference(single([1.0]), single([0.0]))
    assert found is not None
    assert (found.value, found.low, found.high, found.p) == (1, None, None, 1)


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.0, 0.5, 1.0])), min_size=2, max_size=30
    )
)
@settings(deadline=None, max_examples=100)
def test_intervals_hold_the_difference_and_turn_round_with_the_sides(
    pairs: list[tuple[float, float]],
) -> None:
    left, right = (single([pair[which] for pair in pairs]) for which in (0, 1))
    found, turned = paired_difference(left, right), paired_difference(right, left)
    assert found is not None and found.low is not None and found.high is not None
    assert turned is not None and turned.low is not None and turned.high is not None
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high
    assert (turned.value, turned.p) == pytest.approx((-found.value, found.p))
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low), abs=1e-12)
    # Where an interval of 95 % excludes 0, p says so.
    assert (found.p < 0.05) == (not found.low <= 0 <= found.high) or found.p == pytest.approx(0.05)


@pytest.mark.parametrize(
    "design",
    ["64 clusters, 5 seeds, 0.5 to", "64 clusters, 1 seed, 0.03 to", "320 clusters, 5 fixed sets, 0.6 to"],
)
def test_differences_are_covered_95_times_in_100(design: str) -> None:
    case = next(case for case in cases() if case.name == "difference" and case.design.startswith(design))
    ((_, share, _),) = coverage(case, 300)
    assert share >= 0.915  # one standard error is 1.3 points


@pytest.mark.parametrize(
    "design",
    ["20 tasks of 64 clusters, 5 seeds, no difference at rate 0.5", "20 tasks of 320 clusters, 3 fixed"],
)
def test_a_family_without_differences_is_rarely_marked(design: str) -> None:
    case = next(case for case in cases() if case.design.startswith(design))
    shares = {label: share for label, share, _ in coverage(case, 40)}
    assert shares["nothing marked"] >= 0.88
    assert shares["nothing marked, uncorrected"] < 0.85


def test_the_mean_difference_adds_variances_with_satterthwaite() -> None:
    rng = np.random.default_rng(0)
    parts = []
    for clusters in (30, 50):
        found = paired_difference(
            single(rng.random(clusters).tolist()), single(rng.random(clusters).tolist())
        )
        assert found is not None
        parts.append(found)
    mean = mean_difference(parts)
    total = sum(part.variance for part in parts)
    df = total**2 / sum(part.variance**2 / part.df for part in parts)
    low, high = stats.t.interval(0.95, df, np.mean([part.value for part in parts]), total**0.5 / 2)
    assert (mean.low, mean.high, mean.n) == pytest.approx((low, high, 80))


def test_a_mean_of_equal_answers_is_not_sure() -> None:
    same = paired_difference(single([1.0] * 30), single([1.0] * 30))
    assert same is not None
    mean = mean_difference([same, same])
    assert mean.value == 0 and mean.p == 1
    assert mean.low is not None and mean.high is not None and mean.low < 0 < mean.high


def test_holm_of_an_example_worked_by_hand() -> None:
    # In order 0.005, 0.01, 0.03, 0.04: times 4, 3, 2, 1 are 0.02, 0.03, 0.06, 0.04; none below one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
@settings(deadline=None)
def test_holm_keeps_the_order_and_lies_between_p_and_bonferroni(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for p, corrected in zip(p_values, adjusted, strict=True):
        assert p <= corrected <= min(1, p * len(p_values)) + 1e-12
    by_p = [corrected for _, corrected in sorted(zip(p_values, adjusted, strict=True))]
    assert by_p == sorted(by_p)
    assert min(adjusted) == min(1, min(p_values) * len(p_values))


def test_the_slope_over_size_is_that_of_scipy() -> None:
    params, values = [10**5, 10**6, 10**6, 10**7, 10**8], [0.1, 0.25, 0.2, 0.3, 0.5]
    found = over_size([Run(*point) for point in zip(params, values, strict=True)])
    fit = stats.linregress(np.log10(params), values)
    assert found is not None
    half = stats.t.ppf(0.975, 3) * fit.stderr
    assert (found.value, found.p) == pytest.approx((fit.slope, fit.pvalue))
    assert (found.low, found.high) == pytest.approx((fit.slope - half, fit.slope + half))
    assert (found.runs, found.sizes) == (5, 4)


def test_too_few_runs_or_one_size_say_nothing_of_size() -> None:
    assert over_size([Run(10, 0.1), Run(100, 0.2)]) is None
    assert over_size([Run(10, 0.1), Run(10, 0.2), Run(10, 0.3)]) is None
    level = over_size([Run(10, 0.1), Run(100, 0.1), Run(1000, 0.1)])
    assert level is not None and (level.low, level.high, level.p) == (None, None, 1)


def record(task: str, query: int, value: float, **changes: Any) -> Record:
    """A record of one query a cluster under seed 0 at K = 4."""
    fields: dict[str, Any] = dict(
        checkpoint="", step=1, task=task, split="held_out", instance=task, query=f"q{query}",
        cluster=f"c{query}", seed=0, k=4, k_effective=4, instruction=False, condition="gold",
        demonstrations="per_query", template="default", prompt_sha256="", prompt_tokens=1, lost=0, input="",
        gold="", gold_tokens=1, prediction="", exact_match=value, token_accuracy=0.0, log_likelihood=0.0,
        answer_log_likelihood=0.0,
        edit_distance=0.0, query_seen=False, scoring="greedy",
    )  # fmt: skip
    return Record(**(fields | changes))


def table(rate: float, task: str = "toy", queries: int = 40, **changes: Any) -> list[Record]:
    return [record(task, query, float(query < rate * queries), **changes) for query in range(queries)]


def named(rows: list[Difference]) -> list[tuple[str, str, str, str]]:
    return [(row.family, row.left, row.right, row.task) for row in rows]


def test_checkpoints_are_compared_in_pairs_the_later_less_the_earlier() -> None:
    rows = differences({"small": table(0.2), "middle": table(0.2), "large": table(0.9)})
    assert named(rows) == [
        (CHECKPOINTS, "middle", "small", "toy"),
        (CHECKPOINTS, "large", "small", "toy"),
        (CHECKPOINTS, "large", "middle", "toy"),
    ]
    assert [row.value for row in rows] == [0, 0.7, 0.7]
    assert [row.marked for row in rows] == [False, True, True]
    assert all(row.checkpoint is None and row.condition == "gold" for row in rows)
    assert rows[1].p_holm == pytest.approx(3 * rows[1].p, rel=1e-4)


def test_conditions_are_compared_with_gold_and_the_instruction_with_its_absence() -> None:
    changed = table(0.3, condition="random_labels") + table(0.8, condition="random_labels", k=0)
    rows = differences({"one": table(0.8) + table(0.8, k=0) + changed + table(0.5, instruction=True)})
    conditions, instruction = rows
    assert named(rows) == [
        (CONDITIONS, "random_labels", "gold", "toy"),
        (INSTRUCTION, "with", "without", "toy"),
    ]
    assert (conditions.checkpoint, conditions.condition, conditions.k, conditions.value) == (
        "one",
        None,
        4,
        -0.5,
    )
    assert (instruction.instruction, instruction.value) == (None, -0.3)


def test_the_mean_over_tasks_is_a_family_of_its_own() -> None:
    sides = {
        "small": table(0.2, "a") + table(0.4, "b", scoring="options:token"),
        "large": table(0.6, "a") + table(0.6, "b", scoring="options:token"),
    }
    rows = differences(sides)
    assert named(rows)[2:] == [("checkpoints, mean over tasks", "large", "small", "mean")]
    assert (rows[2].value, rows[2].n, rows[2].scoring) == (0.3, 80, "declared")
    assert rows[2].p_holm == rows[2].p


def test_one_fixed_set_for_all_queries_is_crossed() -> None:
    def sides(**changes: Any) -> dict[str, list[Record]]:
        rows = [
            [
                record("t", query, value, seed=seed, **changes)
                for query in range(30)
                for seed, value in enumerate(seeds)
            ]
            for seeds in ((0.0, 0.0, 0.0), (1.0, 0.0, 1.0))
        ]
        return dict(zip(("small", "large"), rows, strict=True))

    (nested,) = differences(sides())
    (crossed,) = differences(sides(demonstrations="fixed"))
    assert nested.marked and not crossed.marked
    assert crossed.value == nested.value


def test_orders_are_paired_one_by_one_and_other_templates_are_left_out() -> None:
    def side_of(values: tuple[float, float]) -> list[Record]:
        orders = [row for order in (0, 1) for row in table(values[order], order=order)]
        return orders + table(1.0, template="other")

    (row,) = differences({"small": side_of((0.0, 0.5)), "large": side_of((0.5, 1.0))})
    assert (row.value, row.n, row.clusters, row.dropped) == (0.5, 80, 40, 0)


def test_differences_do_not_depend_on_the_order_of_records() -> None:
    rng = random.Random(0)
    sides = {
        label: [
            record(task, query, float(rng.random() < rate), seed=seed, k=k, k_effective=min(k, query))
            for task in ("b", "a")
            for query in range(12)
            for seed in range(3)
            for k in (1, 4, 16)
        ]
        for label, rate in (("small", 0.3), ("large", 0.7))
    }
    shuffled = {label: rng.sample(rows, len(rows)) for label, rows in sides.items()}
    assert differences(shuffled) == differences(sides)
    assert [row.k for row in differences(sides)] == [1, 4, 16, 1, 4, 16, 1, 4, 16]


def test_a_hundred_thousand_records_take_a_few_seconds() -> None:
    rows = [
        record(f"t{task}", query, float((query * k + seed) % 3 > 0), seed=seed, k=k, instruction=instruction)
        for task in range(15) for instruction in (False, True) for k in range(6)
        for query in range(56) for seed in range(5)
    ]  # fmt: skip
    start = time.process_time()
    found = differences({"small": rows, "large": rows})
    assert len(found) == 2 * (15 * 6 * 2 + 6 * 2)
    assert time.process_time() - start < 10
