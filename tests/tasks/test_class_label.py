"""Claims about classes with labels: when the context tells, which come how often, what is held out."""

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
from scipy import stats

from icl.data.keys import generator
from icl.errors import InputError
from icl.tasks import ClassLabel, Example, Task, TaskInstance

SMALL: dict[str, Any] = {"num_classes": 40, "letters": 9, "labels": "ABCDEFGHIJKL"}


def build(**settings: Any) -> tuple[Task, ...]:
    return tuple(ClassLabel(**(SMALL | settings)).build("classes"))


def episode(instance: TaskInstance, *key: int) -> tuple[list[Example], Example]:
    """The demonstrations of an episode, and its query."""
    *shown, query = instance.demonstrations(generator("test", *key))
    return shown, query


def training_episodes(number: int, **settings: Any) -> list[tuple[list[Example], Example]]:
    task, rng = build(**settings)[0], generator("episodes")
    return [episode(task.sample("train", rng), i) for i in range(number)]


@pytest.mark.parametrize("burstiness", [0.0, 0.3, 0.9, 1.0])
def test_a_share_of_the_episodes_is_bursty_and_only_those_show_the_class(burstiness: float) -> None:
    episodes = training_episodes(1500, burstiness=burstiness)
    bursty = 0
    for shown, query in episodes:
        counts = Counter(example.input for example in shown)
        assert len(shown) == 8
        if query.input in counts:
            bursty += 1
            assert set(counts.values()) == {2} and len(counts) == 4
        else:
            assert set(counts.values()) == {1}
    assert stats.binomtest(bursty, 1500, burstiness).pvalue > 1e-3


@pytest.mark.parametrize("skew", [0.0, 1.0, 1.5])
@pytest.mark.parametrize("burstiness", [0.0, 1.0])
def test_the_classes_of_queries_follow_zipfs_law(skew: float, burstiness: float) -> None:
    task = build(skew=skew, burstiness=burstiness)[0]
    counts = Counter(query.input for _, query in training_episodes(2000, skew=skew, burstiness=burstiness))
    shares = np.arange(1, 41) ** -skew
    observed = [counts[key] for key in task.classes]  # type: ignore[attr-defined]
    assert sum(observed) == 2000
    assert stats.chisquare(observed, 2000 * shares / shares.sum()).pvalue > 1e-3


def test_the_places_of_demonstrations_tell_nothing() -> None:
    """The query's class stands at each place of a bursty context equally often."""
    places = Counter(
        i
        for shown, query in training_episodes(1500, burstiness=1.0)
        for i, example in enumerate(shown)
        if example.input == query.input
    )
    assert stats.chisquare([places[i] for i in range(8)]).pvalue > 1e-3


def test_a_class_has_one_label_for_good_and_labels_are_shared_evenly() -> None:
    label: dict[str, str] = {}
    for shown, query in training_episodes(800):
        for example in (*shown, query):
            assert label.setdefault(example.input, example.target) == example.target
        assert len({e.target for e in (*shown, query)}) == len({e.input for e in (*shown, query)})
    assert len(label) == 40
    assert set(Counter(label.values()).values()) == {3, 4}


def test_novel_classes_never_occur_in_training() -> None:
    tasks = build()
    trained = {example.input for shown, query in training_episodes(800) for example in (*shown, query)}
    rng = generator("novel")
    novel = {
        example.input
        for i in range(200)
        for example in tasks[0].sample("held_out", rng).demonstrations(generator(str(i)))
    }
    assert len(trained) == 40 and len(novel) == round(0.25 * 81)
    assert not trained & novel


def test_novel_classes_have_labels_that_only_the_context_tells() -> None:
    task = build()[0]
    labels: dict[str, set[str]] = {}
    for i in range(200):
        shown, query = episode(task.instance("held_out", i), i)
        assert Example(query.input, query.target) in shown
        labels.setdefault(query.input, set()).add(query.target)
    assert np.mean([len(known) for known in labels.values()]) > 4


def test_relabelled_classes_keep_none_of_their_labels() -> None:
    own = {e.input: e.target for shown, query in training_episodes(500) for e in (*shown, query)}
    _, relabelled, *_ = build()
    for i in range(100):
        shown, query = episode(relabelled.instance("held_out", i), i)
        assert query in shown
        assert all(example.target != own[example.input] for example in shown)


def test_in_weights_the_context_does_not_show_the_class_and_labels_are_those_of_training() -> None:
    own = {e.input: e.target for shown, query in training_episodes(500) for e in (*shown, query)}
    for task in build(skew=1.5)[2:]:
        for i in range(100):
            shown, query = episode(task.instance("held_out", i), i)
            assert all(own[example.input] == example.target for example in (*shown, query))
            assert query.input not in {example.input for example in shown}


def test_even_probes_ask_for_every_class_alike_whatever_the_skew() -> None:
    tasks = build(skew=1.5)
    asked = [
        Counter(episode(task.instance("held_out", i), i)[1].input for i in range(2000)) for task in tasks[2:]
    ]
    assert stats.chisquare([asked[1][key] for key in tasks[0].classes]).pvalue > 1e-3  # type: ignore[attr-defined]
    shares = np.arange(1, 41) ** -1.5
    assert abs(max(asked[0].values()) / 2000 - shares[0] / shares.sum()) < 0.03


def test_only_the_first_task_is_trained_on() -> None:
    assert [task.trained for task in build()] == [True, False, False, False]
    assert [task.num_instances("train") for task in build()] == [None, 0, 0, 0]
    few = build(num_training_instances=3)[0]
    rng = generator("few")
    assert {few.sample("train", rng).name for _ in range(50)} == {
        few.instance("train", i).name for i in range(3)
    }


def test_the_ceiling_knows_by_heart_what_training_taught_and_looks_up_the_rest() -> None:
    novel, relabelled, in_weights, _ = (task.instance("held_out", 0) for task in build())
    for instance in (novel, relabelled):
        shown, query = episode(instance)
        others = [example for example in shown if example.input != query.input]
        assert instance.ceiling(query, shown) == 1.0
        assert instance.ceiling(query, others) == 1 / (12 - 3)
        assert instance.ceiling(query, []) == 1 / 12 == build()[0].chance()
    assert in_weights.ceiling(episode(in_weights)[1], []) == 1.0


def test_queries_are_those_of_the_episodes() -> None:
    for task in build():
        for number, query in enumerate(itertools.islice(task.queries("held_out"), 20)):
            assert query.example == episode(task.instance("held_out", number))[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_classes": 62}, "ClassLabel.num_classes = 62: expected 12 .* to 61"),
        ({"num_classes": 11}, "ClassLabel.num_classes = 11"),
        ({"context": 9}, "ClassLabel.context = 9: expected a multiple of copies = 2"),
        ({"copies": 8}, "ClassLabel.context = 8: expected a multiple of copies = 8, twice"),
        ({"labels": "ABCDEFGH"}, "ClassLabel.labels = 'ABCDEFGH': expected more than context = 8"),
        ({"labels": "ABCDEFGHIJKLMa"}, "expected no letter of the keys"),
        ({"burstiness": 1.2}, "ClassLabel.burstiness = 1.2"),
        ({"skew": -0.5}, "ClassLabel.skew = -0.5"),
        ({"separator": "A"}, "ClassLabel.separator = 'A'"),
        ({"held_out_share": 0.05}, "ClassLabel.held_out_share = 0.05: expected one that holds out more than"),
        ({"key_length": 9}, "ClassLabel.key_length = 9"),
    ],
)
def test_settings_that_make_no_task_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ClassLabel(**(SMALL | settings))
