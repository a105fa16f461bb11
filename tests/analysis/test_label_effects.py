"""Made-up models that answer by a rule have the curves that the rule implies."""

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from icl.analysis.calibration import expected_calibration_error
from icl.analysis.label_effects import (
    Measured,
    as_json,
    label_effects,
    look_up_ceiling,
    mean,
    order_spread,
)
from icl.analysis.label_figures import Trained, draw
from icl.data.tokenizer import ByteTokenizer
from icl.errors import InputError
from icl.evaluation.config import Condition, EvalConfig
from icl.evaluation.plan import Trial, make_plan
from icl.evaluation.records import Record
from icl.tasks import WordClass
from tests.analysis.responders import LABELS, answer, sure_of

KS = (0, 1, 4, 16)
SURE = 0.9
CONDITIONS: tuple[Condition, ...] = ("gold", "random_labels", "flipped_labels", "abstract_labels")
Responder = Callable[[Trial, int], int]
"""The option that a made-up model chooses for a trial at K."""
FAMILY = WordClass(names=LABELS)
(TASK,) = FAMILY.build("word_class")


@pytest.fixture(scope="module")
def trials() -> list[Trial]:
    """What an evaluation asks of held-out words under all conditions."""
    config = EvalConfig(ks=KS, seeds=1, queries=200, instruction=(False,), conditions=CONDITIONS)
    return list(make_plan(config, {"word_class": (TASK,)}, ByteTokenizer(), 512).trials["word_class"])


def kind(word: str) -> int:
    letters = [FAMILY.alphabet.index(letter) % 4 for letter in word]
    return max(range(4), key=letters.count)


def known(trial: Trial, k: int) -> int:
    """Follows what it knows: the usual name of the class, and the first option where there is none."""
    choices = trial.query.example.choices
    usual = LABELS[kind(trial.query.example.input)]
    return choices.index(usual) if usual in choices else 0


def shown(trial: Trial, k: int) -> int:
    """Follows the last demonstration of the same class, and the first option where there is none."""
    example = trial.query.example
    same = [d.target for d in trial.shown(k) if kind(d.input) == kind(example.input)]
    return example.choices.index(same[-1]) if same else 0


def records(trials: list[Trial], responder: Responder) -> Iterator[Record]:
    for trial in trials:
        example = trial.query.example
        for k in KS:
            yield answer(
                trial.query.name,
                sure_of(responder(trial, k), SURE),
                gold=example.choices.index(example.target),
                labels=example.choices,
                condition=trial.condition,
                k=k,
            )


def test_one_who_knows_the_labels_is_moved_by_none(trials: list[Trial]) -> None:
    found = label_effects([list(records(trials, known))], LABELS)
    for k in KS:
        for condition in ("gold", "random_labels", "flipped_labels"):
            assert found[condition][k].value == 1
        assert found["following"][k].value == 0
        assert found["recognition"][k].value == 0.75
        assert found["learning"][k].value == pytest.approx(0.25, abs=0.1)
        assert found["ECE, gold"][k].value == pytest.approx(1 - SURE)


def test_one_who_follows_demonstrations_learns_what_they_cover_and_knows_nothing_else(
    trials: list[Trial],
) -> None:
    found = label_effects([list(records(trials, shown))], LABELS)
    for k in KS:
        covered = 1 - 0.75**k
        learnt = covered + (1 - covered) / 4  # it does not exclude the labels that others have
        for figure in ("gold", "learning"):
            assert found[figure][k].value == pytest.approx(learnt, abs=0.1)
            assert found[figure][k].low < learnt < found[figure][k].high
        assert found["following"][k].value == pytest.approx(learnt, abs=0.1)
        assert found["flipped_labels"][k].value == pytest.approx((1 - covered) / 4, abs=0.1)
        assert found["recognition"][k].value == pytest.approx(0, abs=0.1)
    assert found["flipped_labels"][16].value < 0.03
    assert found["ECE, flipped_labels"][16].value > SURE - 0.03


def test_the_look_up_ceiling_is_that_of_all_demonstrations_there_are() -> None:
    for classes, k in ((4, 0), (4, 1), (4, 3), (2, 4), (3, 2)):
        everything = list(itertools.product(range(classes), repeat=k + 1))
        found = 0.0
        for *shown_classes, asked in everything:
            found += 1 if asked in shown_classes else 1 / (classes - len(set(shown_classes)))
        assert look_up_ceiling(classes, k) == pytest.approx(found / len(everything))
    assert look_up_ceiling(4, 200) == pytest.approx(1)


def test_intervals_are_over_queries_and_models_are_shown(trials: list[Trial]) -> None:
    models = [list(records(trials, known)), list(records(trials, shown))]
    gold = label_effects(models, LABELS)["gold"][0]
    of_second = label_effects(models[1:], LABELS)["gold"][0]
    assert gold.models == (1.0, of_second.value)
    assert gold.value == pytest.approx(np.mean(gold.models))
    assert gold.low < gold.value < gold.high and gold.high - gold.low < of_second.high - of_second.low


def test_the_order_of_records_does_not_matter_and_other_queries_are_refused(trials: list[Trial]) -> None:
    one = list(records(trials, shown))
    assert label_effects([one, one[::-1]], LABELS) == label_effects([one, one], LABELS)
    with pytest.raises(InputError, match="the same queries of all models"):
        label_effects([one, one[:-1]], LABELS)
    with pytest.raises(InputError, match="there are none"):
        label_effects([], LABELS)


def ordered(rule: Callable[[int, int, int], bool], queries: int = 64) -> list[Record]:
    """Records of 3 sets in 4 orders; the rule says whether (query, set, order) is answered rightly."""
    return [
        answer(
            f"q{query}",
            sure_of(0 if rule(query, number, order) else 1),
            gold=0,
            demonstrations="fixed",
            seed=number,
            order=order,
        )
        for query in range(queries)
        for number in range(3)
        for order in range(4)
    ]


def test_an_order_that_costs_a_quarter_of_the_queries_is_told_from_chance() -> None:
    found = order_spread([ordered(lambda query, number, order: order != number or query % 4 > 0)])
    assert found.best.value == 1 and found.worst.value == 0.75
    assert found.mean.value == pytest.approx(1 - 0.25 / 4)
    assert found.spread == Measured(0.25, 0.25, 0.25, (0.25,))
    assert 0 < found.by_chance < 0.15


def test_answers_that_no_order_moves_spread_as_by_chance() -> None:
    rng = np.random.default_rng(0)
    table = rng.random((64, 3, 4)) < 0.5
    found = order_spread([ordered(lambda *place: bool(table[place]))])
    assert found.spread.value == pytest.approx(found.by_chance, abs=0.06)
    assert found.spread.low < found.by_chance < found.spread.high


def test_what_is_no_set_of_orders_is_refused() -> None:
    one = ordered(lambda *place: True)
    with pytest.raises(InputError, match="there is one"):
        order_spread([[record for record in one if not record.order]])
    with pytest.raises(InputError, match="expected fixed demonstrations"):
        order_spread([[answer("q", sure_of(0), gold=0)]])


def test_the_interval_of_a_calibration_error_holds_the_truth_as_often_as_it_says() -> None:
    from icl.analysis.label_effects import calibration_error

    rng, held = np.random.default_rng(0), 0
    for _ in range(200):
        sure_SQ = rng.uniform(0.6, 1, (2, 300))
        right_SQ = (rng.random(sure_SQ.shape) < sure_SQ - 0.3).astype(float)
        found = calibration_error(sure_SQ, right_SQ)
        held += found.low <= 0.3 <= found.high
        assert found.models == tuple(map(expected_calibration_error, sure_SQ, right_SQ))
    assert 180 <= held <= 199


def test_figures_are_written_with_interval_and_models() -> None:
    figure = mean(np.array([[1.0, 0.0], [1.0, 1.0]]))
    assert as_json({"gold": {4: figure}})["gold"]["4"][0] == 0.75
    assert as_json(figure)[3] == [0.5, 1.0]


def test_the_figure_shows_all_models(trials: list[Trial]) -> None:
    effects = label_effects([list(records(trials, known)), list(records(trials, shown))], LABELS)
    calibrated = {f"{name}, calibrated": effects[name] for name in CONDITIONS}
    spread = order_spread([ordered(lambda query, number, order: order != number)])
    models = [
        Trained(name, 1000, LABELS, {**effects, **calibrated}, {1: effects, 2: effects}, {"gold": spread})
        for name in ("small", "large")
    ]
    figure = draw(models, models)
    assert figure.startswith(b"\x89PNG") and len(figure) > 50_000
