"""One held-out instance of a generated family as a task of its own: a cipher, a position map.

A generated family draws a new instance for every episode. What is learnt from examples of one task, by
fine-tuning or from demonstrations, is asked of the same instance again and again, on inputs kept apart.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from icl.data.keys import generator
from icl.errors import InputError, check_types
from icl.tasks.exclusion import normalise
from icl.tasks.pool import PoolTask
from icl.tasks.registry import FAMILIES, rebuild, register
from icl.tasks.task import Example, Task, TaskInstance

_MAX_REPEATS = 10_000


@register("one_instance")
@dataclasses.dataclass(frozen=True)
class OneInstance:
    """Settings of the family of single instances.

    With the settings that a checkpoint was trained with, its instance is one that was held out from it.

    Attributes:
      family: A generated family by its name, as "cipher".
      settings: Settings of that family that differ from its defaults.
      number: Which of the held-out instances.
      size: Different inputs that are taken at most.
      test_share: Share of them that are queries; the others are shown as demonstrations and learnt from.
    """

    family: str = ""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    number: int = 0
    size: int = 8192
    test_share: float = 0.2

    def __post_init__(self) -> None:
        check_types(self)
        if not 0 < self.test_share < 1:
            raise InputError(f"OneInstance.test_share = {self.test_share}: expected a share between 0 and 1")
        for field, least in (("number", 0), ("size", 2)):
            if getattr(self, field) < least:
                raise InputError(f"OneInstance.{field} = {getattr(self, field)}: expected {least} or more")
        known = FAMILIES.get(self.family, OneInstance)
        if known is OneInstance:
            raise InputError(
                f"OneInstance.family = {self.family!r}: expected a generated family by its name, as 'cipher'"
            )

    def build(self, name: str) -> tuple[PoolTask, ...]:
        """One task, named by the scope of its entry (`c/one_instance`), or else as "cipher-0".

        Raises:
          InputError: the family is of several tasks, or has no held-out instance of this number.
        """
        tasks = rebuild({self.family: self.settings})[self.family].build(self.family)
        if len(tasks) != 1:
            raise InputError(
                f"OneInstance.family = {self.family!r}: builds {len(tasks)} tasks; expected settings with one"
            )
        try:
            instance = tasks[0].instance("held_out", self.number)
        except IndexError:
            raise InputError(
                f"OneInstance.number = {self.number}: expected less than"
                f" {tasks[0].num_instances('held_out')}, the held-out instances of {self.family!r}"
            ) from None
        scope = name.rpartition("/")[0]
        return (_InstanceTask(scope or f"{self.family}-{self.number}", tasks[0], instance, self),)


class _InstanceTask(PoolTask):
    """The examples of one instance, which share their rule."""

    def __init__(self, name: str, of: Task, instance: TaskInstance, settings: OneInstance) -> None:
        super().__init__(
            name,
            of.template,
            _distinct(instance, settings.size),
            where=f"OneInstance.family = {settings.family!r}",
            instruction=instance.instruction,
            test_share=settings.test_share,
            answer_rule=of.answer_rule,
            option_rule=of.option_rule,
            answer_context=of.answer_context,
        )
        self._chance = of.chance()

    def chance(self) -> float:
        """That of the family: which instance it is is not known."""
        return self._chance


def _distinct(instance: TaskInstance, size: int) -> list[Example]:
    """The first different inputs that the instance shows, each with a key."""
    found: dict[str, Example] = {}
    repeats = 0
    for example in instance.demonstrations(generator("one instance", instance.task, instance.name)):
        key = normalise(example.input)
        repeats = repeats + 1 if key in found else 0
        found.setdefault(key, dataclasses.replace(example, key=example.key or key))
        if len(found) == size or repeats == _MAX_REPEATS:
            break
    return list(found.values())
