"""Claims about keyed random numbers and permutations."""

import numpy as np
import pytest

from icl.data.keys import digest, fraction, generator
from icl.data.permutation import Permutation


def test_generators_are_functions_of_their_key() -> None:
    assert (
        generator("row", 1, 2).integers(0, 2**60, 4).tolist()
        == generator("row", 1, 2).integers(0, 2**60, 4).tolist()
    )
    draws = {
        int(generator(*key).integers(2**60)) for key in (("a", 1), ("a", 2), ("a", "1"), ("a1",), (1, "a"))
    }
    assert len(draws) == 5


def test_keys_do_not_run_into_each_other() -> None:
    assert (
        len({digest("ab", "c"), digest("a", "bc"), digest("abc"), digest("a", "b", "c"), digest(b"abc")}) == 5
    )


def test_keys_never_change() -> None:
    """A changed key would change every row and every split of runs that go on."""
    assert digest("row", 0, 1) == "188ad07b9b81800c8c760921480fea5d"
    assert generator("row", 0, 1).integers(0, 100, 5).tolist() == [75, 10, 44, 73, 55]


def test_fractions_are_uniform() -> None:
    values = np.array([fraction("x", i) for i in range(4000)])
    assert values.min() >= 0 and values.max() < 1
    assert np.abs(np.histogram(values, 10, (0, 1))[0] - 400).max() < 100


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 65, 1000])
def test_permutation_visits_every_element_once(size: int) -> None:
    order = Permutation(size, "test")
    assert sorted(order[i] for i in range(len(order))) == list(range(size))


def test_permutation_depends_on_its_key_and_mixes() -> None:
    one, two = ([Permutation(500, "test", seed)[i] for i in range(500)] for seed in (1, 2))
    assert one != two
    assert abs(np.corrcoef(one, np.arange(500))[0, 1]) < 0.2
    assert sum(a == i for i, a in enumerate(one)) < 10


def test_permutation_of_a_huge_range_needs_no_table() -> None:
    order = Permutation(10**15, "test")
    assert len({order[i] for i in range(100)}) == 100


@pytest.mark.parametrize("index", [-1, 5])
def test_permutation_refuses_what_lies_outside(index: int) -> None:
    with pytest.raises(IndexError):
        Permutation(5, "test")[index]
