"""What generated tasks share: numbering of instances, queries that spread over them, splits by content.

A generated task draws instance i of a split from the key (family, split, i). Which split content belongs to
is decided by a hash of the content alone, never by the task's name, a seed or an index: so two entries of a
mixture that hold out the same share never train on what the other holds out.
"""

import abc
import itertools
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from icl.data.keys import digest, fraction, generator
from icl.errors import InputError
from icl.tasks.task import Query, Split, Task, TaskInstance, Template

_MAX_REPEATS = 1000


def is_held_out(share: float, *content: int | str) -> bool:
    """Whether a hash of the content puts it into the held-out split of this share."""
    return fraction("held out", *content) < share


def exact_split(items: Sequence[str], share: float, salt: str) -> tuple[list[int], list[int]]:
    """Splits items by the order of their hashes; exactly round(share x items) are held out.

    Returns:
      Indices of the training and of the held-out items, each in hash order.
    """
    order = sorted(range(len(items)), key=lambda i: digest(salt, items[i]))
    num_held_out = round(share * len(items))
    return order[num_held_out:], order[:num_held_out]


class GeneratedFamily(Protocol):
    """Settings that every generated family has."""

    @property
    def num_training_instances(self) -> int:
        """Training instances that there are; 0 for all, or for fresh ones without end."""
        ...

    @property
    def held_out_share(self) -> float:
        """Share of the family's content that training never sees."""
        ...


def check_generated(settings: GeneratedFamily) -> None:
    """Checks what generated families have in common.

    Raises:
      InputError: names the setting, its value and what was expected.
    """
    family = type(settings).__name__
    share, number = settings.held_out_share, settings.num_training_instances
    if not 0 < share < 1:
        raise InputError(f"{family}.held_out_share = {share!r}: expected a share between 0 and 1")
    if number < 0:
        raise InputError(f"{family}.num_training_instances = {number}: expected 0 (all) or more")


def check_hash_split(settings: GeneratedFamily, num_items: int, least: int) -> None:
    """Checks that a split by `is_held_out` leaves enough on both sides, so that drawing finds it.

    Raises:
      InputError: either side is expected to hold fewer than `least` of the items.
    """
    share = settings.held_out_share
    if min(share, 1 - share) * num_items < least:
        raise InputError(
            f"{type(settings).__name__}.held_out_share = {share!r}: expected a share that puts at least "
            f"{least} of {num_items} into each split, or more letters"
        )


def check_exact_split(settings: GeneratedFamily, num_items: int) -> None:
    """Checks that an `exact_split` leaves something on both sides, and the training instances asked for.

    Raises:
      InputError: names the setting, its value and what was expected.
    """
    family = type(settings).__name__
    share, number = settings.held_out_share, settings.num_training_instances
    num_training = num_items - round(share * num_items)
    if not 1 <= num_training < num_items:
        raise InputError(
            f"{family}.held_out_share = {share!r}: expected a share that holds out at least one of the "
            f"{num_items} instances and leaves one"
        )
    if number > num_training:
        raise InputError(
            f"{family}.num_training_instances = {number}: expected at most {num_training}, the {num_items} "
            "instances less those held out"
        )


class GeneratedTask(Task):
    """A task whose instances are drawn; subclasses say how in `draw`."""

    def __init__(self, name: str, settings: GeneratedFamily) -> None:
        self.name = name
        self.template = Template()
        self._num_training_instances = settings.num_training_instances
        self._fingerprint = digest(name, repr(settings))

    @abc.abstractmethod
    def draw(self, split: Split, rng: np.random.Generator) -> TaskInstance:
        """A random instance of the split."""

    def num_instances(self, split: Split) -> int | None:
        return (self._num_training_instances or None) if split == "train" else None

    def instance(self, split: Split, index: int) -> TaskInstance:
        return self.draw(split, generator("instance", type(self).__name__, split, index))

    def sample(self, split: Split, rng: np.random.Generator) -> TaskInstance:
        return self.draw(split, rng) if self.num_instances(split) is None else super().sample(split, rng)

    def fingerprint(self) -> str:
        return self._fingerprint

    def queries(self, split: Split) -> Iterator[Query]:
        """One query of each instance in turn, then the next of each; ends when no new one is found."""
        num_instances = self.num_instances(split)
        seen: set[str] = set()
        repeats = 0
        for number in itertools.count():
            index, lap = number, 0
            if num_instances is not None:
                lap, index = divmod(number, num_instances)
            instance = self.instance(split, index)
            rng = generator("query", instance.name, lap)
            example = next(iter(instance.demonstrations(rng)))
            name = f"{instance.name}:{example.input}"
            if name in seen:
                repeats += 1
                if repeats == _MAX_REPEATS:
                    return
                continue
            seen.add(name)
            repeats = 0
            yield Query(instance, example, name)
