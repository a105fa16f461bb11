"""Metrics and the rules that need no model, worked by hand."""

import numpy as np
import pytest

from icl.evaluation.baselines import copy, lookup, majority, predictions, training_majority
from icl.evaluation.metrics import best, edit_distance, exact_match, option_scores, token_accuracy, word_f1
from icl.tasks import Cipher, Example, build_tasks
from tests.evaluation.toy import ToyTask, pairs, trial


@pytest.mark.parametrize(
    ("prediction", "gold", "distance"),
    [("abc", " abc", 0), ("", "abc", 1), ("abd", "abc", 1 / 3), ("kitten", "sitting", 3 / 7)],
)
def test_edit_distance_is_levenshteins_over_the_longer_text(
    prediction: str, gold: str, distance: float
) -> None:
    assert edit_distance(prediction, gold) == pytest.approx(distance)
    assert edit_distance(gold, prediction) == pytest.approx(distance)


def test_exact_match_ignores_white_space_around_and_nothing_else() -> None:
    assert exact_match(" sea", ["sea"]) == 1
    assert exact_match("Sea", ["sea"]) == 0
    assert exact_match("s ea", ["sea"]) == 0


def test_token_accuracy_counts_the_delimiter() -> None:
    assert token_accuracy([1, 2, 10], np.array([1, 3, 10], np.int32)) == pytest.approx(2 / 3)


SHOWN = [Example("a", "1"), Example("b", "2"), Example("c", "2"), Example("a", "3")]


def test_copy_answers_with_the_input() -> None:
    assert copy(Example("a", "9"), SHOWN) == "a"


def test_majority_answers_with_the_most_frequent_target_and_with_nothing_at_zero() -> None:
    assert majority(Example("a", "9"), SHOWN) == "2"
    assert majority(Example("a", "9"), SHOWN[:2]) == "1"  # of several the one shown first
    assert majority(Example("a", "9"), []) == ""


def test_lookup_answers_with_the_last_target_of_the_query_or_else_as_majority() -> None:
    assert lookup(Example("a", "9"), SHOWN) == "3"
    assert lookup(Example("z", "9"), SHOWN) == "2"
    assert lookup(Example("a", "9"), []) == ""


def test_rules_see_the_demonstrations_that_fit_and_no_more() -> None:
    asked = trial(ToyTask(pairs(3)), SHOWN, Example("a", "9"), max_k=1)
    assert predictions(asked, 4)["baseline:lookup"] == "1"
    assert predictions(asked, 0)["baseline:lookup"] == ""


def test_the_training_majority_is_that_of_a_finite_pool_only() -> None:
    examples = [Example("a", "1"), Example("b", "2"), Example("c", "2")]
    assert training_majority(ToyTask(examples), "held_out") == "2"
    (endless,) = build_tasks({"cipher": Cipher()})["cipher"]
    assert training_majority(endless, "held_out") is None


def test_options_compare_by_sum_length_or_what_they_gain_from_the_question() -> None:
    scores = option_scores(("ab", "é", "abcd"), (1, 1, 4), (-3.0, -2.0, -4.0), (-3.5, -1.0, -6.0))
    assert scores["sum"] == [-3, -2, -4]
    assert scores["token"] == [-3, -2, -1]
    assert scores["char"] == [-1.5, -2, -1]
    assert scores["byte"] == [-1.5, -1, -1]
    assert scores["unconditional"] == [0.5, -1, 2]
    assert [best(values) for values in scores.values()] == [1, 2, 2, 1, 2]
    assert "unconditional" not in option_scores(("a",), (1,), (-1.0,))


def test_answers_compare_as_in_squad_without_case_punctuation_and_articles() -> None:
    assert exact_match("The U.S.", ["us"], "squad") == 1
    assert exact_match("a  Theme", ["theme"], "squad") == 1
    assert exact_match("them", ["theme"], "squad") == 0
    assert exact_match("Austen", ["Jane Austen", "austen"], "squad") == 1
    assert exact_match("Austen", ["Jane Austen", "austen"]) == 0


def test_f1_counts_shared_words_once_each_and_takes_the_best_answer() -> None:
    assert word_f1("the big red dog", ["red dog"]) == pytest.approx(2 * 2 / (3 + 2))
    assert word_f1("dog dog", ["dog"]) == pytest.approx(2 / 3)
    assert word_f1("cat", ["dog", "Cat!"]) == 1
    assert word_f1("the", ["a"]) == 1 and word_f1("", ["dog"]) == 0
    assert word_f1("n/a", ["N/A"]) == 1
