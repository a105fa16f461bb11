"""Which task an episode is of, and which corpus a row's slot holds: functions of the row's index alone.

Weights may change at given token counts (stages). Both answers are in closed form, so that seeking to any row
is free, and a corpus knows how many of its blocks lie before it.
"""

import bisect
import itertools
from collections.abc import Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from icl.data.keys import digest
from icl.errors import InputError

_GOLDEN_RATIO = 0x9E3779B97F4A7C15
"""2^64 times the golden ratio's fraction."""
_PERIOD = 1000

_Item = TypeVar("_Item")


class Stage(NamedTuple, Generic[_Item]):
    """From row `first_row` on, the items with their shares, which sum to 1."""

    first_row: int
    shares: Mapping[_Item, float]


class EpisodeMixture(Generic[_Item]):
    """The items (tasks) of episodes."""

    def __init__(self, stages: Sequence[Stage[_Item]], seed: int) -> None:
        self._first_rows = [stage.first_row for stage in stages]
        self._items = [tuple(stage.shares) for stage in stages]
        self._bounds = [np.cumsum(tuple(stage.shares.values()))[:-1].tolist() for stage in stages]
        self._offset = int(digest("mixture", seed)[:16], 16)

    def first_point(self, row: int) -> float:
        """Where the first episode of a row falls in the mixture, from 0 to 1.

        Multiples of the golden ratio spread neighbouring rows over the mixture more evenly than chance, so
        that every batch holds close to its share of every item.
        """
        return ((self._offset + row * _GOLDEN_RATIO) % 2**64) / 2**64

    def item(self, row: int, point: float) -> _Item:
        """The item at a point of the mixture in force at a row."""
        stage = bisect.bisect_right(self._first_rows, row) - 1
        return self._items[stage][bisect.bisect_right(self._bounds[stage], point)]


class CorpusSlots(Generic[_Item]):
    """The item (corpus) that the slot of each row holds, and how many slots of that item lie before it."""

    def __init__(self, stages: Sequence[Stage[_Item]]) -> None:
        self._stages = [_SlotStage(stage) for stage in stages]
        self._first_rows = [stage.first_row for stage in stages]
        self._before: list[dict[_Item, int]] = [{}]
        for stage, end in zip(self._stages, self._first_rows[1:], strict=False):
            known = self._before[-1]
            counts = stage.counts(end - stage.first_row)
            self._before.append({item: known.get(item, 0) + counts.get(item, 0) for item in known | counts})

    def place(self, row: int) -> tuple[_Item, int]:
        """The item of a row's slot, and its number among the slots of that item, from 0."""
        stage = bisect.bisect_right(self._first_rows, row) - 1
        item, number = self._stages[stage].place(row - self._first_rows[stage])
        return item, self._before[stage].get(item, 0) + number

    def counts(self, rows: int) -> dict[_Item, int]:
        """How many slots of each item the first rows hold."""
        stage = max(bisect.bisect_left(self._first_rows, rows) - 1, 0)
        counts = self._stages[stage].counts(rows - self._first_rows[stage])
        before = self._before[stage]
        return {item: before.get(item, 0) + counts.get(item, 0) for item in before | counts}


class _SlotStage(Generic[_Item]):
    """The slots of one stage: a fixed order of a thousand, again and again."""

    def __init__(self, stage: Stage[_Item]) -> None:
        self.first_row = stage.first_row
        self._items = tuple(stage.shares)
        wanted = np.array(tuple(stage.shares.values())) * _PERIOD
        numbers = np.maximum(np.floor(wanted).astype(int), 1)
        while numbers.sum() < _PERIOD:
            numbers[np.argmax(wanted - numbers)] += 1
        while numbers.sum() > _PERIOD:
            numbers[np.argmax(numbers - wanted)] -= 1
        # Slot j of n of an item lies at (j + 1/2) / n of the period: each is spread as evenly as can be.
        places = ((j + 0.5) / n for n in numbers.tolist() for j in range(n))
        owners = itertools.chain.from_iterable([i] * n for i, n in enumerate(numbers.tolist()))
        self._order = np.array([owner for _, owner in sorted(zip(places, owners, strict=True))])
        of_item_IP = self._order[None] == np.arange(len(self._items))[:, None]
        self._before_IP = np.concatenate([np.zeros((len(self._items), 1), int), of_item_IP.cumsum(1)], axis=1)

    def place(self, slot: int) -> tuple[_Item, int]:
        period, place = divmod(slot, _PERIOD)
        number = int(self._order[place])
        before = period * int(self._before_IP[number, -1]) + int(self._before_IP[number, place])
        return self._items[number], before

    def counts(self, slots: int) -> dict[_Item, int]:
        periods, rest = divmod(slots, _PERIOD)
        numbers_I = periods * self._before_IP[:, -1] + self._before_IP[:, rest]
        return dict(zip(self._items, map(int, numbers_I), strict=True))


def shares(weights: Mapping[_Item, float]) -> dict[_Item, float]:
    """Weights above 0, divided by their sum."""
    total = sum(weights.values())
    return {item: weight / total for item, weight in weights.items() if weight > 0}


def tempered(sizes: Mapping[_Item, int | None], temperature: float, limit: int) -> dict[_Item, float]:
    """Weights by size, as in T5 (arXiv 1910.10683, section 3.5.2): min(size, limit)^(1 / temperature).

    Args:
      sizes: Examples or tokens of each item; None for one without end, which counts as the limit.
      temperature: 1 for weights in proportion; larger ones are more even; 0 for equal weights.
      limit: Sizes above count as this; 0 for the largest size.

    Raises:
      InputError: an item without end has no limit to count as.
    """
    if not temperature:
        return dict.fromkeys(sizes, 1.0)
    finite = [size for size in sizes.values() if size is not None]
    if not finite and not limit:
        raise InputError("DataConfig.size_limit = 0: expected a size for the tasks without end")
    limit = limit or max(finite)
    return {
        item: min(limit if size is None else size, limit) ** (1 / temperature) for item, size in sizes.items()
    }
