"""The registry of task families: a family's settings are a frozen dataclass that builds its tasks.

Adding a family is one file with one such class under `@register("name")`, and one import in
`icl/tasks/__init__.py`. A mixture maps keys to families; a key is a family's name, or `scope/name` for
another set of its settings. `describe` and `rebuild` carry families through a checkpoint's JSON.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from icl.errors import InputError
from icl.tasks.task import Task


class Family(Protocol):
    """Settings of a family of tasks: a frozen dataclass that checks itself."""

    def build(self, name: str) -> tuple[Task, ...]:
        """The tasks, named after `name`, the family's key in the mixture."""
        ...


FAMILIES: dict[str, type[Any]] = {}

_FamilyClass = TypeVar("_FamilyClass", bound=type[Any])


def register(name: str) -> Callable[[_FamilyClass], _FamilyClass]:
    """Makes a settings class known as the family `name`; the same class defined anew takes its place.

    A notebook's cell that defines a family can so be run again.
    """

    def add(cls: _FamilyClass) -> _FamilyClass:
        known = FAMILIES.get(name)
        if known is not None and (known is cls or _home(known) != _home(cls)):
            raise ValueError(f"task family {name!r} is registered twice: {FAMILIES[name]} and {cls}")
        if not dataclasses.is_dataclass(cls):
            raise TypeError(f"task family {name!r}: {cls} must be a frozen dataclass")
        FAMILIES[name] = cls
        return cls

    return add


def _home(cls: type[Any]) -> tuple[str, str]:
    """Where a class is defined: a definition that is run again has the same."""
    return cls.__module__, cls.__qualname__


def family_class(key: str) -> type[Any]:
    """The settings class that a mixture key (`family` or `scope/family`) names.

    Raises:
      InputError: no family has that name.
    """
    name = key.rsplit("/", 1)[-1]
    if name not in FAMILIES:
        raise InputError(f"mixture key {key!r}: no task family {name!r}; there are {sorted(FAMILIES)}")
    return FAMILIES[name]


def describe(families: Mapping[str, object]) -> dict[str, Any]:
    """The families as JSON, from which `rebuild` makes equal ones."""
    return {key: dataclasses.asdict(family) for key, family in families.items()}  # type: ignore[call-overload]


def rebuild(description: Mapping[str, Any]) -> dict[str, Any]:
    """The families of a description made by `describe`.

    Raises:
      InputError: the description names an unknown family or setting, or a wrong value.
    """
    families = {}
    for key, settings in description.items():
        cls = family_class(key)
        if not isinstance(settings, Mapping):
            raise InputError(
                f"description of tasks: {key!r} holds {settings!r}, expected a mapping of settings"
            )
        unknown = set(settings) - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise InputError(f"description of tasks: {cls.__name__} has no settings {sorted(unknown)}")
        families[key] = cls(**settings)
    return families


def build_tasks(families: Mapping[str, Any]) -> dict[str, tuple[Task, ...]]:
    """The tasks of every family, by mixture key.

    Raises:
      InputError: a file is missing or malformed, or two tasks have one name.
    """
    tasks: dict[str, tuple[Task, ...]] = {}
    owners: dict[str, str] = {}
    for key, family in families.items():
        tasks[key] = tuple(family.build(key))
        for task in tasks[key]:
            if task.name in owners:
                raise InputError(
                    f"two tasks are named {task.name!r}: of {owners[task.name]!r} and of {key!r}"
                )
            owners[task.name] = key
    return tasks


def task_names(tasks: Mapping[str, Sequence[Task]]) -> tuple[str, ...]:
    """Names of all tasks, in the order of the mixture."""
    return tuple(task.name for family in tasks.values() for task in family)
