"""Claims about associative recall: what an instance is, what is held out, and what can be known."""

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest

from icl.data.keys import generator
from icl.errors import InputError
from icl.tasks import Example, Recall, Task, TaskInstance


def build(**settings: Any) -> Task:
    (task,) = Recall(**settings).build("recall")
    return task


def examples(instance: TaskInstance, number: int) -> list[Example]:
    return list(itertools.islice(instance.demonstrations(generator("test")), number))


def test_every_key_has_one_value_and_no_symbol_is_both() -> None:
    for number in range(50):
        shown = examples(build().instance("held_out", number), 200)
        value = {example.input: example.target for example in shown}
        assert all(value[example.input] == example.target for example in shown)
        assert len(value) == len(set(value.values())) == 4
        assert not set(value) & set(value.values())


def test_held_out_maps_never_occur_in_training() -> None:
    """Of three symbols few maps can be made, so both splits show theirs again and again."""
    task = build(letters=5, num_keys=2, held_out_share=0.4)
    rng = generator("split")
    trained, held_out = (
        {task.sample(split, rng).name for _ in range(1500)} for split in ("train", "held_out")
    )
    assert not trained & held_out
    # 5 x 4 x 3 x 2 orders of four symbols, by two orders of the pairs.
    assert len(trained) + len(held_out) == 60
    assert abs(len(held_out) / 60 - 0.4) < 0.2


def test_an_instance_is_a_function_of_its_number() -> None:
    names = [[build().instance("train", number).name for number in range(20)] for _ in range(2)]
    assert names[0] == names[1]
    assert len(set(names[0])) == 20
    few = build(num_training_instances=3)
    rng = generator("few")
    assert {few.sample("train", rng).name for _ in range(100)} == {
        few.instance("train", i).name for i in range(3)
    }


def test_keys_come_as_often_as_the_skew_says() -> None:
    for skew in (0.0, 1.0, 2.0):
        instance = build(skew=skew).instance("train", 0)
        counts = Counter(example.input for example in examples(instance, 20_000))
        expected = np.arange(1, 5) ** -skew
        found = np.array(sorted(counts.values(), reverse=True)) / 20_000
        np.testing.assert_allclose(found, expected / expected.sum(), atol=0.02)


def test_the_ceiling_is_what_an_exact_reasoner_gets() -> None:
    """Over all maps of five symbols that agree with what was shown, the best guess at an unseen key."""
    task = build(letters=5, num_keys=2)
    instance = task.instance("train", 0)
    first, other = {e.input: e for e in examples(instance, 50)}.values()
    assert instance.ceiling(first, [first]) == 1.0
    assert instance.ceiling(first, []) == 1 / 4 == task.chance()
    possible = [
        (a, b)
        for a, b in itertools.permutations("abcde", 2)
        if a not in (first.input, first.target, other.input) and b == other.input
    ]
    assert instance.ceiling(other, [first]) == 1 / len(possible) == 1 / 2


def test_the_separator_is_written_between_key_and_value() -> None:
    example = Example("a", "B")
    for separator in ("", ">", ":-"):
        template = build(separator=separator).template
        assert template.context(example) + template.completion(example) == f"a{separator}B"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_keys": 1}, "Recall.num_keys = 1: expected 2 to 26"),
        ({"letters": 8, "num_keys": 5}, "Recall.num_keys = 5: expected 2 to 4"),
        ({"skew": -1.0}, "Recall.skew = -1.0: expected 0 or more"),
        ({"separator": " "}, "Recall.separator = ' ': expected nothing of the alphabet"),
        ({"separator": "x"}, "Recall.separator = 'x'"),
        ({"letters": 4, "num_keys": 2, "held_out_share": 0.1}, "Recall.held_out_share = 0.1"),
    ],
)
def test_settings_that_make_no_task_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Recall(**settings)
