"""Claims about the mixture: shares are kept, slots are in closed form, stages begin where they should."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icl.data.config import DataConfig
from icl.data.mixture import CorpusSlots, EpisodeMixture, Stage, shares, tempered
from icl.errors import InputError

weights = st.dictionaries(st.sampled_from("abcde"), st.floats(0.01, 10), min_size=1)
stages = st.lists(st.tuples(st.integers(1, 3000), weights), max_size=3).map(
    lambda found: [Stage(sum(length for length, _ in found[:i]), shares(w)) for i, (_, w) in enumerate(found)]
)


@settings(max_examples=30, deadline=None)
@given(stages.filter(bool))
def test_slots_are_numbered_without_gap_in_every_stage(found: list[Stage[str]]) -> None:
    """Place in closed form equals counting row by row."""
    slots = CorpusSlots(found)
    counted: Counter[str] = Counter()
    for row in range(found[-1].first_row + 1500):
        if row % 700 == 0:
            assert {k: n for k, n in slots.counts(row).items() if n} == dict(counted)
        item, number = slots.place(row)
        assert number == counted[item]
        counted[item] += 1


def test_slots_keep_their_shares_in_any_stretch_of_rows() -> None:
    slots = CorpusSlots([Stage(0, {"a": 0.7, "b": 0.2, "c": 0.1})])
    items = [slots.place(row)[0] for row in range(5000)]
    for start in range(0, 4900, 100):
        found = Counter(items[start : start + 100])
        assert abs(found["a"] - 70) <= 2 and abs(found["b"] - 20) <= 2 and abs(found["c"] - 10) <= 2
    assert slots.place(10**12)[1] in (7 * 10**11, 2 * 10**11, 10**11)


def test_first_points_of_neighbouring_rows_keep_the_shares() -> None:
    mixture = EpisodeMixture([Stage(0, {"a": 0.5, "b": 0.3, "c": 0.2})], seed=3)
    for start in (0, 10**9):
        found = Counter(mixture.item(row, mixture.first_point(row)) for row in range(start, start + 100))
        assert abs(found["a"] - 50) <= 2 and abs(found["b"] - 30) <= 2 and abs(found["c"] - 20) <= 2


def test_a_curriculum_begins_with_the_row_that_holds_its_token() -> None:
    config = DataConfig(
        row_length=100,
        weights={"cipher": 1, "affine": 0},
        curriculum={250: {"affine": 3}, 1000: {"cipher": 0}},
    )
    assert config.trained_families == ("cipher", "affine")
    assert [(row, families) for row, families, _ in config.stages] == [
        (0, {"cipher": 1, "affine": 0}),
        (3, {"cipher": 1, "affine": 3}),
        (10, {"cipher": 0, "affine": 3}),
    ]
    mixture = EpisodeMixture([Stage(row, shares(w)) for row, w, _ in config.stages], seed=0)
    at = {row: {mixture.item(row, point) for point in np.linspace(0, 0.99, 50)} for row in (0, 2, 3, 9, 10)}
    assert at == {
        0: {"cipher"},
        2: {"cipher"},
        3: {"cipher", "affine"},
        9: {"cipher", "affine"},
        10: {"affine"},
    }


def test_a_temperature_weighs_by_size() -> None:
    sizes = {"a": 100, "b": 10_000, "endless": None}
    assert set(tempered(sizes, 0, 0).values()) == {1.0}
    assert tempered(sizes, 1, 0) == {"a": 100, "b": 10_000, "endless": 10_000}
    assert tempered(sizes, 2, 0) == pytest.approx({"a": 10, "b": 100, "endless": 100})
    assert tempered(sizes, 1, 400) == {"a": 100, "b": 400, "endless": 400}
    with pytest.raises(InputError, match="size_limit"):
        tempered({"endless": None}, 1, 0)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"curriculum": {0: {"cipher": 1}}}, "numbers of tokens above 0"),
        ({"curriculum": {5: {"cipher": -1}}}, "0 or more each"),
        ({"curriculum": {5: {"affine": 1}}}, "'affine'"),
        ({"curriculum": {5: {"cipher": 0}}}, "a family above 0 at every stage"),
        ({"curriculum": {5: {"book": 1}}, "corpora": {"book": ("a",)}}, "corpus_weights"),
        ({"corpus_weights": {"book": 1}}, "one for each of"),
        ({"corpora": {"book": ()}}, "at least one source"),
        ({"temperature": -1}, "0 (none) or more"),
    ],
)
def test_bad_mixtures_are_named(changed: dict[str, object], says: str) -> None:
    with pytest.raises(InputError) as caught:
        DataConfig(**({"weights": {"cipher": 1}} | changed))  # type: ignore[arg-type]
    assert says in str(caught.value)
