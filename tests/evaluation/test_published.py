"""The published table is whole, found by our names, and its traps are marked."""

import pytest

from icl.evaluation.published import (
    SETTINGS,
    SIZES,
    accuracy_row,
    accuracy_rows,
    mean_score,
    published,
    table,
)
from icl.tasks.tfds_readers import TFDS_TASKS


def test_every_row_of_the_table_is_known_with_every_score() -> None:
    assert len(table()) == 63
    assert all(len(row.scores[setting]) == len(SIZES) == 8 for row in table() for setting in SETTINGS)


def test_the_mean_of_the_42_accuracies_is_figure_1_3() -> None:
    rows = accuracy_rows()
    assert len(rows) == 42
    means = {s: [round(mean_score(rows, s, size), 1) for size in ("125M", "175B")] for s in SETTINGS}
    assert means == {"zero": [23.2, 42.6], "one": [25.2, 51.1], "few": [25.2, 57.4]}


def test_the_few_shot_scores_of_the_smallest_model_are_suspect_on_27_rows() -> None:
    suspect = {row.name for row in table() if row.is_suspect}
    assert sum(row.is_suspect for row in table()) == 27
    assert {"LAMBADA", "2D+", "RACE-h"} <= suspect and not {"1DC", "HellaSwag", "NQs"} & suspect


def test_every_row_belongs_to_a_task_of_ours_but_the_average() -> None:
    names = [*TFDS_TASKS, "sat_analogies", *(f"gpt3_{name}" for name in _BATTERY)]
    reached = {row for name in names for row in ((one.name, one.metric) for one in published(name))}
    assert {(row.name, row.metric) for row in table()} - reached == {("SuperGLUE", "average")}


_BATTERY = (
    *(f"{n}_digit_{sign}" for n in ("two", "three", "four", "five") for sign in ("addition", "subtraction")),
    "two_digit_multiplication",
    "single_digit_three_ops",
    "cycle_letters_in_word",
    "mid_word_1_anagrams",
    "mid_word_2_anagrams",
    "random_insertion_in_word",
    "reversed_words",
)


@pytest.mark.parametrize(
    ("task", "name", "ours", "k", "best"),
    [
        ("natural_questions", "NQs", ("exact_match",), 64, 29.9),
        ("paper_race_high", "RACE-h", ("exact_match",), 10, 46.8),
        ("wmt16_en_ro", "En-Ro 16", ("bleu",), 64, 25.8),
        ("quac", "QuAC", ("f1",), 5, 44.3),
        ("super_glue_multirc", "MultiRC", ("group_accuracy",), 32, 32.5),
        ("squad_v2", "SQuADv2", ("exact_match",), 16, 64.9),
        ("winograd", "Winograd", ("exact_match",), 7, 88.6),
        ("two_digit_addition", "2D+", ("exact_match",), 50, 100.0),
    ],
)
def test_a_task_finds_its_main_row_by_name(
    task: str, name: str, ours: tuple[str, ...], k: int, best: float
) -> None:
    row = published(task)[0]
    assert (row.name, row.ours, row.k, row.scores["few"]["175B"]) == (name, ours, k, best)


def test_other_tasks_find_no_row() -> None:
    assert not any(map(published, ("cipher", "glue_rte", "gsm8k", "mean")))


def test_scores_that_are_no_accuracy_do_not_count_in_figure_1_3() -> None:
    assert accuracy_row("wmt14_fr_en") is None and accuracy_row("drop") is None
    lambada = accuracy_row("lambada")
    assert lambada is not None and lambada.metric == "acc"
