"""Metrics and the rules that need no model, worked by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icl.evaluation.baselines import copy, lookup, majority, predictions, training_majority
from icl.evaluation.metrics import (
    best,
    brier_score,
    edit_distance,
    exact_match,
    nearest,
    option_probability,
    option_scores,
    perplexity,
    token_accuracy,
    word_f1,
)
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


WORDS = st.lists(st.sampled_from(["the", "red", "dog", "Dog!", "cat", "7"]), max_size=4).map(" ".join)


@pytest.mark.parametrize(
    ("prediction", "golds", "f1"),
    [
        ("white", ["white", "White.", "yes white", "snow"], 1),  # another human says it too
        ("snow", ["white", "white", "yes white", "snow"], 3 / 4),  # only one human: 0 when that one is out
        ("yes", ["white", "white", "yes white", "snow"], 2 / 3 * 3 / 4),
        ("yes", ["yes", "no"], 1 / 2),
        ("yes", ["yes", "no", "yes"], 1),  # the same answer of two humans counts twice
        ("yes", ["Yes."], 1),
        ("", ["no", "the"], 1 / 2),
    ],
)
def test_coqa_leaves_each_human_answer_out_in_turn(prediction: str, golds: list[str], f1: float) -> None:
    assert word_f1(prediction, golds, "coqa") == pytest.approx(f1)


def test_coqa_leaves_out_in_exact_match_as_well() -> None:
    assert exact_match("snow", ["white", "white", "yes white", "Snow"], "coqa") == 3 / 4
    assert exact_match("yes", ["white", "white", "yes white", "snow"], "coqa") == 0
    assert exact_match("yes", ["yes", "YES", "no"], "coqa") == 1


@given(WORDS, st.lists(WORDS, min_size=1, max_size=4))
@settings(deadline=None)
def test_leaving_answers_out_never_gains_and_never_depends_on_their_order(
    prediction: str, golds: list[str]
) -> None:
    left_out = word_f1(prediction, golds, "coqa")
    each = [word_f1(prediction, [gold], "coqa") for gold in golds]
    assert left_out <= max(each) + 1e-12
    assert left_out == pytest.approx(word_f1(prediction, golds[::-1], "coqa"))
    assert word_f1(prediction, golds * 2, "coqa") == pytest.approx(max(each))  # all are said twice


def test_squad_v2_has_nothing_as_the_right_answer_only_where_no_answer_has_words() -> None:
    for score in (exact_match, word_f1):
        assert score("", [""], "squad") == score(" the.", [""], "squad") == 1
        assert score("dog", [""], "squad") == 0
        assert score("", ["", "dog"], "squad") == 0  # the script drops the empty one
        assert score("dog", ["", "dog"], "squad") == 1


@pytest.mark.parametrize(
    ("prediction", "golds", "match", "f1"),
    [
        ("1,000", ["1000.0"], 1, 1),
        ("35", ["3.5"], 0, 0),  # without punctuation they are alike
        ("42", ["42 yards"], 0, 0.67),  # two decimals, as the script rounds
        ("8 yards", ["7 yards"], 0, 0),  # the number is wrong: nothing for the word
        ("eight yards", ["yards"], 0, 0.67),
        ("seven", ["7", "Seven"], 1, 1),
        ("dog dog cat", ["dog cat"], 0, 1),  # sets of words
        ("the 2-yard run", ["2 yard run"], 1, 1),
        ("$5", ["5"], 1, 1),
        ("", [" "], 0, 0),
    ],
)
def test_drop_compares_numbers_by_value_and_words_as_sets(
    prediction: str, golds: list[str], match: float, f1: float
) -> None:
    assert exact_match(prediction, golds, "drop") == match
    assert word_f1(prediction, golds, "drop") == f1


def test_words_as_they_stand_compare_where_the_rule_is_exact() -> None:
    assert word_f1("The dog", ["the dog"], "exact") == 1 / 2
    assert word_f1("The dog", ["the dog"]) == 1


def test_calibration_and_channel_change_which_option_wins() -> None:
    scores = option_scores(
        ("yes", "no"), (1, 1), (-1.0, -2.0), calibration=(-0.5, -3.0), channel=(-9.0, -8.5)
    )
    assert scores["calibrated"] == [-0.5, 1.0]
    assert scores["channel"] == [-9, -8.5]
    assert best(scores["sum"]) == 0 and best(scores["calibrated"]) == best(scores["channel"]) == 1
    assert {"calibrated", "channel"}.isdisjoint(option_scores(("yes", "no"), (1, 1), (-1.0, -2.0)))
    with pytest.raises(ValueError):
        option_scores(("yes", "no"), (1, 1), (-1.0, -2.0), channel=(-9.0,))


@given(st.lists(st.floats(-50, 0), min_size=2, max_size=5), st.floats(-1000, 1000))
@settings(deadline=None)
def test_probabilities_of_options_sum_to_one_and_ignore_what_all_options_share(
    scores: list[float], shift: float
) -> None:
    moved = [score + shift for score in scores]
    each = [option_probability(scores, i) for i in range(len(scores))]
    assert sum(each) == pytest.approx(1)
    assert [option_probability(moved, i) for i in range(len(scores))] == pytest.approx(each, abs=1e-9)
    assert brier_score(scores, 0) == pytest.approx((1 - each[0]) ** 2 + sum(p**2 for p in each[1:]))
    assert 0 <= brier_score(scores, 0) <= 2


def test_brier_goes_from_sure_and_right_to_sure_and_wrong() -> None:
    assert option_probability([np.log(0.6), np.log(0.2)], 0) == pytest.approx(0.75)
    assert brier_score([0.0, 0.0], 1) == pytest.approx(0.5)
    assert brier_score([0.0, -1000.0], 0) == 0 and brier_score([0.0, -1000.0], 1) == 2


def test_perplexity_of_a_uniform_guess_is_the_number_of_choices_and_is_always_finite() -> None:
    assert perplexity(6 * np.log(1 / 8), 6) == pytest.approx(8)
    assert perplexity(6 * np.log(1 / 8), 2) == pytest.approx(8**3)  # three tokens a word
    assert np.isfinite(perplexity(-1e6, 1) ** 2)


def test_the_edit_distance_is_that_to_the_nearest_right_answer() -> None:
    assert nearest("www", ["one", "www"]) == 0.0
    assert nearest("on", ["one", "www"]) == edit_distance("on", "one")
