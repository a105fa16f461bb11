"""Claims about named word classes: what a class is, what is held out, and what can be known."""

import itertools
from typing import Any

import pytest

from icl.data.keys import generator
from icl.errors import InputError
from icl.evaluation.conditions import ABSTRACT, relabel
from icl.tasks import Example, Query, Split, Task, TaskInstance, WordClass
from icl.tasks.task import SPLITS

NAMES = ("sun", "fig", "owl", "key")


def build(**settings: Any) -> Task:
    (task,) = WordClass(**settings).build("word_class")
    return task


def examples(instance: TaskInstance, number: int | None = None) -> list[Example]:
    return list(itertools.islice(instance.demonstrations(generator("test")), number))


def kind(word: str, strays: int = 1) -> int:
    """The class by its definition: the one that all letters but the strays belong to."""
    kinds = [WordClass.alphabet.index(letter) % 4 for letter in word]
    (found,) = (number for number in range(4) if kinds.count(number) == len(word) - strays)
    return found


def instances(task: Task, split: Split, number: int = 40) -> list[TaskInstance]:
    return [task.instance(split, i) for i in range(task.num_instances(split) or number)]


def test_the_usual_name_follows_from_most_letters() -> None:
    for settings in ({}, {"strays": 0, "word_length": 2}):
        strays = settings.get("strays", 1)
        for split in SPLITS:
            (instance,) = instances(build(**settings), split)
            shown = examples(instance)
            assert all(example.target == NAMES[kind(example.input, strays)] for example in shown)
            assert {example.choices for example in shown} == {tuple(sorted(NAMES))}


@pytest.mark.parametrize("naming", ["usual", "permuted", "drawn"])
def test_words_are_held_out_alike_under_all_names(naming: str) -> None:
    usual, other = build(), build(naming=naming)
    words = {split: {example.input for example in examples(usual.instance(split, 0))} for split in SPLITS}
    assert not words["train"] & words["held_out"]
    # A class's place for the stray, two letters of five of its own, one of fifteen others; of four classes.
    assert len(words["train"] | words["held_out"]) == 4 * 3 * 5 * 5 * 15
    assert abs(len(words["held_out"]) / 4500 - 0.2) < 0.02
    for split in SPLITS:
        for instance in instances(other, split, 3):
            shown = examples(instance)
            assert len(shown) == len(words[split]) and {one.input for one in shown} == words[split]
            assert all(example.key == example.input for example in shown)


def test_names_of_an_instance_stand_for_the_same_classes() -> None:
    for naming in ("permuted", "drawn"):
        for split in SPLITS:
            for instance in instances(build(naming=naming), split, 5):
                name_of = {kind(example.input): example.target for example in examples(instance)}
                assert [name_of[i] for i in range(4)] == instance.name.split()
                assert all(e.target == name_of[kind(e.input)] for e in examples(instance, 200))


def test_flipped_labels_are_a_permutation_that_is_held_out() -> None:
    usual, permuted = build(), build(naming="permuted")
    trained = {instance.name for instance in instances(permuted, "train")}
    held_out = {instance.name for instance in instances(permuted, "held_out")}
    everything = {" ".join(order) for order in itertools.permutations(NAMES)}
    assert trained | held_out | {" ".join(NAMES)} == everything
    assert (len(trained), len(held_out)) == (20, 3)
    instance = usual.instance("held_out", 0)
    shown = examples(instance, 100)
    query = Query(instance, shown[0], "query")
    flipped = {kind(e.input): e.target for e in relabel("flipped_labels", query, shown, usual.labels(), 0)[1]}
    assert " ".join(flipped[i] for i in range(4)) in held_out


def test_names_of_held_out_instances_and_reserved_ones_are_never_trained_on() -> None:
    """Of names of one letter there are few, so each shows up again and again."""
    settings: dict[str, Any] = {"names": ("a", "b", "c", "d"), "naming": "drawn", "reserved": ("x", "y")}
    with pytest.raises(InputError, match="held_out_share"):
        build(**settings)
    task = build(naming="drawn", reserved=ABSTRACT[:4], names=("no", "up", "so", "by"))
    names = {
        split: {name for one in instances(task, split, 1500) for name in one.name.split()} for split in SPLITS
    }
    assert not names["train"] & names["held_out"]
    assert 640 < len(names["train"] | names["held_out"]) <= 26 * 26 - 4
    assert not (names["train"] | names["held_out"]) & {"no", "up", "so", "by"}
    reserved = next(iter(names["train"]))
    without = build(naming="drawn", reserved=(reserved,), names=("no", "up", "so", "by"))
    assert reserved not in {name for one in instances(without, "train", 1500) for name in one.name.split()}


def test_the_ceiling_is_what_the_names_shown_leave_open() -> None:
    by_kind: dict[int, Example] = {}
    for naming, expected in (
        ("usual", [1, 1, 1]),
        # Of one other's name known, the rotations are told apart; 3 are held out.
        ("permuted", [1 / 3, 1, 1]),
        ("drawn", [1 / 4, 1 / 3, 1 / 2]),
    ):
        instance = instances(build(naming=naming), "held_out", 1)[0]
        by_kind = {kind(example.input): example for example in examples(instance)}
        for number, best in enumerate(expected):
            shown = [by_kind[i] for i in range(number)]
            assert instance.ceiling(by_kind[3], shown) == pytest.approx(best)
        assert instance.ceiling(by_kind[3], [by_kind[3]]) == 1
    usual = build().instance("held_out", 0)
    assert usual.ceiling(by_kind[0], [by_kind[1]]) is None  # none of the usual names


def test_queries_are_different_words_and_an_instance_is_a_function_of_its_number() -> None:
    for naming in ("usual", "permuted", "drawn"):
        task = build(naming=naming)
        queries = list(itertools.islice(task.queries("held_out"), 100))
        assert len({query.name for query in queries}) == 100
        assert [one.name for one in instances(task, "train", 5)] == [
            one.name for one in instances(build(naming=naming), "train", 5)
        ]
    assert build().labels() == NAMES == build(naming="permuted").labels()
    assert build(naming="drawn").labels() == ()
    few = build(naming="drawn", num_training_instances=3)
    rng = generator("few")
    assert len({few.sample("train", rng).name for _ in range(50)}) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"names": ("one",)}, r"WordClass.names = \('one',\): expected two or more different words"),
        ({"names": ("a b", "c")}, "expected two or more different words"),
        ({"names": ("sun", "fig", "owl")}, "WordClass.alphabet"),
        ({"strays": 2}, "WordClass.strays = 2: expected fewer than half of word_length = 3"),
        ({"naming": "permuted", "names": ("sun", "fig")}, "expected 3 to 6 names to permute"),
        ({"num_training_instances": 5}, "WordClass.num_training_instances = 5: expected 0"),
        ({"word_length": 5}, "WordClass.word_length = 5"),
        ({"word_length": 1, "strays": 0}, "WordClass.held_out_share = 0.2"),
        ({"naming": "other"}, "WordClass.naming"),
    ],
)
def test_settings_that_make_no_task_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        WordClass(**settings)
