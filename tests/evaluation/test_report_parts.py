"""Parts of the report: curves chosen, scores against size, sampled prompts, differences, conditions."""

import dataclasses
import re

import pytest

from icl.evaluation.curves import curves, main_metric, outcome
from icl.evaluation.figures import lines
from icl.evaluation.records import Result
from icl.evaluation.report_differences import MAX_ROWS, differences_section
from icl.evaluation.report_html import score
from icl.evaluation.report_published import by_size_section, published_section
from icl.evaluation.report_samples import MAX_CHARACTERS, MAX_PROMPTS, samples_html
from icl.evaluation.report_tasks import task_page, variants
from icl.evaluation.results import MEAN, SEVERAL
from icl.evaluation.size_figures import size_panels
from tests.evaluation.test_report import difference, record, result
from tests.training.small import one_device_setup


def test_a_curve_is_of_the_main_scoring_format_and_condition() -> None:
    main = result("large", "cipher", 4, 0.7, scoring="options:token")
    generated = dataclasses.replace(main, value=0.1, scoring="generated")
    colon = dataclasses.replace(main, value=0.2, template="colon")
    flipped = dataclasses.replace(main, value=0.3, condition="flipped_labels")
    rows = [main, generated, colon, flipped]
    assert [curve.points for curve in curves(rows, "cipher", False)] == [{4: main}]
    (found,) = curves(rows, "cipher", False, scoring="generated")
    assert found.points == {4: generated}
    (found,) = curves(rows, "cipher", False, template="colon")
    assert found.points == {4: colon}
    (found,) = curves(rows, "cipher", False, condition="flipped_labels")
    assert found.points == {4: flipped}


def test_the_mean_of_tasks_each_scored_in_its_own_way_comes_first() -> None:
    rows = [result("large", MEAN, 4, v, scoring=s) for s, v in (("options:sum", 0.1), (SEVERAL, 0.7))]
    (curve,) = curves(rows, MEAN, False)
    assert curve.points[4].value == 0.7


def test_without_the_tasks_own_format_the_median_over_formats_stands_for_it() -> None:
    rows = [result("large", "cipher", 4, v, template=t) for t, v in (("colon", 0.1), ("median", 0.4))]
    (curve,) = curves(rows, "cipher", False)
    assert curve.points[4].value == 0.4


def test_a_task_is_judged_by_its_published_metric_where_there_is_one() -> None:
    exact, f1 = (result("large", "quac", 4, 0.2, metric=metric) for metric in ("exact_match", "f1"))
    assert main_metric([exact, f1], "quac") == "f1"
    assert main_metric([exact], "quac") == "exact_match"
    assert main_metric([dataclasses.replace(f1, task="cipher")], "cipher") == "exact_match"


def test_the_interval_of_a_mean_is_narrower_than_those_of_its_tasks_by_the_root_of_their_number() -> None:
    rows = [result("large", f"t{i}", 4, value) for i, value in enumerate((0.3, 0.4, 0.5, 0.6))]
    value, low, high = outcome(rows)
    assert (value, low, high) == pytest.approx((0.45, 0.425, 0.475))
    assert outcome([*rows, dataclasses.replace(rows[0], ci_low=None)])[1:] == (None, None)


def sized(task: str, *, ks: tuple[int, ...] = (0, 1, 50)) -> list[Result]:
    return [
        result(name, task, k, 0.1 * number + k / 100, params=10**number)
        for number, name in ((3, "small"), (4, "large"))
        for k in ks
    ]


def test_few_shot_is_the_most_demonstrations_of_each_task() -> None:
    rows = sized("two_digit_addition") + sized("lambada", ks=(0, 1, 15))
    (panel,) = size_panels(rows)
    assert panel.ks == "15–50" and {row.name for row in panel.published} == {"2D+", "LAMBADA"}
    small = next(point for point in panel.ours["few"] if point.checkpoint == "small")
    assert small.params == 1000 and small.value == pytest.approx(100 * (0.3 + (0.15 + 0.5) / 2))
    assert [point.value for point in panel.ours["one"]] == pytest.approx([31, 41])


def test_a_checkpoint_that_lacks_a_task_is_not_in_the_mean() -> None:
    rows = sized("two_digit_addition") + [row for row in sized("lambada") if row.checkpoint == "large"]
    (panel,) = size_panels(rows)
    assert {point.checkpoint for points in panel.ours.values() for point in points} == {"large"}


def test_published_curves_stand_behind_the_same_tasks_only() -> None:
    shared, every = size_panels(sized("two_digit_addition") + sized("cipher"))
    assert shared.tasks == ("two_digit_addition",) and len(shared.published) == 1
    assert set(every.tasks) == {"two_digit_addition", "cipher"} and not every.published


def test_suspect_published_points_have_a_footnote() -> None:
    provenance = {"small": one_device_setup().description()}
    said = by_size_section(size_panels(sized("two_digit_addition")), provenance)
    assert "Hollow: in 1 of these 1 rows" in said and "Trained on other examples of these tasks: none" in said
    assert "Hollow" not in by_size_section(size_panels(sized("natural_questions")), provenance)


def test_each_published_metric_stands_beside_ours() -> None:
    rows = sized("lambada") + [
        dataclasses.replace(row, metric="perplexity", value=9.5) for row in sized("lambada")
    ]
    text = published_section(rows, {"small": one_device_setup().description()})
    assert "LAMBADA, acc" in text and "LAMBADA, ppl" in text
    assert "86.4" in text and "1.92" in text and "9.500" in text and "57.4" in text
    assert "†" in text and published_section(sized("cipher"), {}) == ""


def test_an_interval_of_a_spread_over_orders_is_told_with_the_score() -> None:
    cell = score(result("large", "cipher", 4, 0.5, order_values=(0.31, 0.62), k_effective=3.5))
    assert "50.0" in cell and "45–55" in cell and "orders 31.0–62.0" in cell and "K fitted 3.5" in cell


def test_conditions_and_formats_are_shown_only_where_there_are_several() -> None:
    plain = [result("large", "cipher", k, 0.5) for k in (0, 4)]
    assert variants(plain, "cipher") == ""
    flipped = [dataclasses.replace(row, condition="flipped_labels", value=0.123) for row in plain]
    text = variants(plain + flipped, "cipher")
    assert "flipped labels" in text and "12.3" in text and text.count("<svg") == 1
    formats = [dataclasses.replace(row, template="colon") for row in plain]
    formats += [dataclasses.replace(row, template="median", template_values=(0.4, 0.6)) for row in plain]
    text = variants(plain + formats, "cipher")
    assert "formats 40.0–60.0" in text and "Labels" not in text


def test_a_page_of_a_task_has_every_metric_and_the_baselines() -> None:
    rows = [result("large", "cipher", 4, 0.5)]
    rows += [result("large", "cipher", 4, 0.321, metric="accuracy", scoring="options:sum")]
    rows += [result("large", "cipher", 4, -1.234, metric="log_likelihood", ci_low=-1.3, ci_high=-1.1)]
    rows += [result("baseline", "cipher", 4, 0.077, params=None, scoring="baseline:copy")]
    page = task_page(1, rows, lines(rows), [], {}, {})
    for said in ("32.1", "options:sum", "-1.234", "-1.30 to -1.10", "copy", "7.7", "records/"):
        assert said in page


def test_only_differences_that_stay_after_the_correction_are_emphasised() -> None:
    text = differences_section([difference(), difference(right="other", marked=False, p_holm=0.2)])
    rows = re.findall(r"<tr>.*?</tr>", text)[1:]
    assert [("marked" in row, "large – small" in row) for row in rows] == [
        (True, True),
        (False, False),
    ]
    assert "1 of 2" in text and "Holm" in text and "+20.0" in rows[0]
    assert differences_section([]) == ""


def test_marked_differences_are_never_left_out_before_others() -> None:
    many = [difference(marked=False, p=0.0, left=f"x{i}") for i in range(MAX_ROWS)]
    text = differences_section([*many, difference(left="kept", p=0.9)])
    assert "kept – small" in text and text.count("<tr>") == MAX_ROWS + 1


def test_shown_prompts_are_bounded_and_counted() -> None:
    base = record("cipher", "p" * (3 * MAX_CHARACTERS) + "QUERY", "y")
    many = [dataclasses.replace(base, query=f"q{i}", prompt_sha256=f"{i:064x}") for i in range(100)]
    text = samples_html(many)
    assert text.count("<details class='prompt'") == MAX_PROMPTS and f"{MAX_PROMPTS} of 100" in text
    assert text.count("QUERY") == MAX_PROMPTS and len(text) < MAX_PROMPTS * (MAX_CHARACTERS + 2000)
    assert f"{2 * MAX_CHARACTERS + 5:,} characters" in text


def test_which_prompts_are_shown_does_not_depend_on_the_answers() -> None:
    def shown(answer: str) -> list[str]:
        base = record("cipher", "p", answer)
        many = [
            dataclasses.replace(base, query=f"q{i}", prompt_sha256=f"{i * 7 % 97:064x}") for i in range(97)
        ]
        return re.findall(r"<small>(q\d+)</small>", samples_html(many))

    assert shown("y") == shown("n") and len(shown("y")) == MAX_PROMPTS


def test_answers_carry_what_the_filters_ask_for_and_are_visible_without_a_script() -> None:
    text = samples_html(
        [record("cipher", "p", "n"), dataclasses.replace(record("cipher", "p", "y"), checkpoint="b")]
    )
    assert "<li data-checkpoint='large' data-k='4' data-instruction='without'" in text
    assert "data-answer='wrong'" in text and "data-answer='right'" in text
    assert re.findall(r"<(\w+)[^>]* hidden", text) == ["form"]


def test_tokens_have_their_probability_and_options_every_rule() -> None:
    sample = dataclasses.replace(
        record("cipher", "p", "n"),
        pieces=(" y", "\n"),
        piece_log_likelihoods=(-0.0001, -7.0),
        options=("n", "y"),
        gold_option=1,
        option_tokens=(1, 2),
        option_log_likelihoods=(-1.0, -1.5),
        scoring="options:sum",
    )
    text = samples_html([sample])
    assert ">·y<small>100</small>" in text and ">⏎<small>&lt;1</small>" in text
    assert "token p5" in text and "token p1" in text and "-7.000 nats" in text
    gold = next(row for row in re.findall(r"<tr>.*?</tr>", text) if "class='gold'" in row)
    assert "<td>-1.500</td>" in gold and "<strong>-0.750</strong>" in gold
