"""Claims about labels with an accident: how often it holds, what is kept out, what an ideal learner does."""

import itertools
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icl.data.keys import generator
from icl.errors import InputError
from icl.tasks import CueLabel, CueTrials, Example, TaskInstance
from icl.tasks.cue_label import evidence, ideal_answers


def instance(number: int = 0, **changes: Any) -> TaskInstance:
    (task,) = CueLabel(**changes).build("cue_label")
    return task.instance("held_out", number)


def examples(of: TaskInstance, number: int) -> list[Example]:
    return list(itertools.islice(of.demonstrations(generator("test")), number))


def deciding(shown: list[Example], at: int) -> bool:
    """Whether the character at a place of the input tells the label."""
    found = {(example.input[at], example.target) for example in shown}
    return len(found) == len({character for character, _ in found})


def test_one_of_letter_and_mark_decides_and_either_does_as_often() -> None:
    deciders: Counter[bool] = Counter()
    for number in range(300):
        shown = examples(instance(number), 200)
        by_letter, by_mark = deciding(shown, 4), deciding(shown, -1)
        assert by_letter != by_mark
        deciders[by_letter] += 1
        assert len({example.target for example in shown}) == 2
        assert len({example.key for example in shown}) == 200
    assert abs(deciders[True] / 300 - 0.5) < 0.1


@pytest.mark.parametrize("agreement", [0.0, 0.3, 0.5, 0.9, 1.0])
def test_the_mark_goes_along_as_often_as_said(agreement: float) -> None:
    shown = examples(instance(3, decides="letter", agreement=agreement), 3000)
    assert deciding(shown, 4)
    counts = Counter((example.input[-1], example.target) for example in shown)
    marks = sorted({mark for mark, _ in counts})
    labels = sorted({label for _, label in counts})
    straight = sum(counts[pair] for pair in zip(marks, labels, strict=True)) / 3000 if len(marks) == 2 else 0
    assert min(abs(straight - agreement), abs(1 - straight - agreement)) < 0.03
    # Half of the letters have one label, half the other.
    by_letter = {example.input[4]: example.target for example in shown}
    assert sorted(Counter(by_letter.values()).values()) == [4, 4]


def test_held_out_maps_of_letters_never_occur_in_training() -> None:
    (task,) = CueLabel(letters=4, labels="012").build("cue_label")
    rng = generator("split")
    trained, held_out = (
        {task.sample(split, rng).name.split()[0] for _ in range(600)} for split in ("train", "held_out")
    )
    assert trained and held_out and not trained & held_out


SMALL = CueLabel(letters=4, alphabet="ABCD", length=2, place=0, labels="012")


def brute(labelled: list[tuple[str, str]]) -> float:
    """The share of all instances, one by one, that give these labels."""
    agree = total = 0
    for pair in itertools.permutations(SMALL.labels, 2):
        for first in itertools.combinations(SMALL.alphabet, 2):
            for marks in (pair, pair[::-1]):
                for decides in ("letter", "mark"):
                    total += 1
                    agree += all(
                        label
                        == (
                            pair[0 if text[0] in first else 1]
                            if decides == "letter"
                            else marks[SMALL.marks.index(text[-1])]
                        )
                        for text, label in labelled
                    )
    return agree / total


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(
            st.tuples(st.sampled_from("ABCD"), st.sampled_from("AB"), st.sampled_from(".!")).map("".join),
            st.sampled_from("012"),
        ),
        max_size=6,
    )
)
def test_evidence_is_the_share_of_instances_that_agree(labelled: list[tuple[str, str]]) -> None:
    assert evidence(SMALL, labelled) == pytest.approx(brute(labelled), abs=1e-12)


def test_the_ideal_learner_prefers_the_mark_until_one_example_is_against_it() -> None:
    family = CueLabel()
    shown = [Example(f"AAAA{letter}{'.' if i % 2 else '!'}", str(i % 2)) for i, letter in enumerate("ABCDEF")]
    # G was never shown; the mark says 1, and so far it has always been right.
    found = ideal_answers(family, "AAAAG.", shown)
    assert math.isclose(sum(found.values()), 1.0) and found["1"] > 0.9
    # A was shown as 0, but here with the mark of 1: the simpler rule wins.
    assert ideal_answers(family, "AAAAA.", shown)["1"] > 0.9
    against = [*shown, Example("AAAAH.", "0")]
    assert ideal_answers(family, "AAAAA.", against)["0"] == 1.0
    assert all(value == pytest.approx(0.1) for value in ideal_answers(family, "AAAAA.", []).values())


def test_the_ceiling_is_how_often_the_ideal_learner_is_right() -> None:
    """Over many instances its own confidence is its hit rate."""
    hits, said, shown = [], [], examples(instance(), 7)
    for number in range(400):
        of = instance(number)
        shown = examples(of, 7)
        found = ideal_answers(CueLabel(), shown[6].input, shown[:6])
        hits.append(max(found, key=lambda label: found[label]) == shown[6].target)
        ceiling = of.ceiling(shown[6], shown[:6])
        assert ceiling == max(found.values())
        said.append(ceiling)
    assert abs(np.mean(hits) - np.mean(said)) < 0.06
    assert instance(decides="letter").ceiling(shown[0], []) is None


def test_trials_share_what_is_learnt_and_ask_the_same_words() -> None:
    tasks = CueTrials(agreement=0.9, size=1000, queries=300).build("nine/cue_trials")
    assert [task.name for task in tasks] == ["nine_holds", "nine_breaks", "nine_reverses"]
    learnt = [examples(task.instance("held_out", 0), 2000) for task in tasks]
    assert learnt[0] == learnt[1] == learnt[2] and len(learnt[0]) == 1000
    asked = [{q.example.key: q.example for q in task.queries("held_out")} for task in tasks]
    assert set(asked[0]) == set(asked[1]) == set(asked[2]) and len(asked[0]) == 300
    assert not set(asked[0]) & {example.key for example in learnt[0]}
    mark = {example.target: example.input[-1] for example in asked[0].values()}
    shares = [
        np.mean([e.input[-1] == mark[e.target] for e in of.values()])
        for of in (*asked, {e.key: e for e in learnt[0]})
    ]
    assert shares[0] == 1 and shares[2] == 0 and abs(shares[1] - 0.5) < 0.1 and abs(shares[3] - 0.9) < 0.03
    assert all(asked[0][key].target == asked[2][key].target for key in asked[0])
    assert deciding(learnt[0], 4) and not deciding(learnt[0], -1)
    assert all(task.chance() == 0.5 and not task.trained for task in tasks)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"letters": 7}, "letters = 7: expected an even number"),
        ({"place": 5}, "place = 5"),
        ({"marks": "."}, "marks = '.': expected 2 distinct"),
        ({"marks": "AB"}, "expected no letters of the words"),
        ({"labels": "1"}, "labels = '1'"),
        ({"agreement": 1.5}, "agreement = 1.5: expected a probability"),
    ],
)
def test_bad_settings_are_named(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        CueLabel(**changes)


def test_more_words_than_there_are_is_one_line() -> None:
    with pytest.raises(InputError, match="expected at most 64"):
        CueTrials(settings={"letters": 8, "length": 2, "place": 0}, size=100).build("cue_trials")
    with pytest.raises(InputError, match="agreement = 2"):
        CueTrials(agreement=2.0)
