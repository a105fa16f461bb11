"""The one exception a person can cause: bad input, and the type check that settings start with.

Whatever comes from outside (a file, a gin binding, a flag, a checkpoint) and is wrong raises
`InputError` with one line that names what and where, and what was expected. The binaries print that
line and exit with code 2; everything else is a bug and keeps its traceback.
"""

import dataclasses
import functools
import math
import numbers
import os
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any


class InputError(ValueError):
    """Bad input, in one line: what is wrong, where, and what was expected."""


def check_is_no_url(path: str | os.PathLike[str], name: str) -> None:
    """Refuses gs://bucket/run where a folder is written: it would become a folder `gs:` of this machine.

    Raises:
      InputError: names `name`, the setting.
    """
    if re.match(r"[a-z][a-z0-9+.-]+:/", os.fspath(path)):
        raise InputError(
            f"{name} {os.fspath(path)}: expected a folder of a mounted file system, not a URL (a bucket can"
            " be mounted, for instance with gcsfuse)"
        )


def check_types(settings: object) -> None:
    """Holds the fields of a frozen dataclass of settings against their annotations.

    Call it first in `__post_init__`. gin knows no types, so what it means is taken over: a list where a
    tuple belongs, an integer where a float belongs, and an integral float (`1e3`) where an integer belongs
    are converted in place. A bool is no number; NaN and infinity are never settings.

    Raises:
      InputError: names `Class.field`, the value, and what was expected.
    """
    cls: Any = type(settings)
    for field, annotation in _annotations(cls).items():
        value = getattr(settings, field)
        try:
            typed = _as_type(annotation, value)
        except _MismatchError:
            expected = _describe(annotation)
            raise InputError(f"{cls.__name__}.{field} = {value!r}: expected {expected}") from None
        if typed is not value:
            object.__setattr__(settings, field, typed)


class _MismatchError(Exception):
    """The value does not have the annotated type."""


@functools.cache
def _annotations(cls: type[Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _as_type(annotation: Any, value: Any) -> Any:
    """The value as the annotation wants it; the same object where nothing had to change."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in (Any, object):
        return value
    if origin is typing.Literal:
        if any(value == option and type(value) is type(option) for option in args):
            return value
        raise _MismatchError
    if origin in (typing.Union, types.UnionType):
        return _as_member(args, value)
    if origin is tuple or annotation is tuple:
        return _as_tuple(args, value)
    if origin is not None and issubclass(origin, Mapping):
        return _as_mapping(args, value)
    if annotation in (int, float):
        return _as_number(annotation, value)
    if isinstance(value, annotation if origin is None else origin):
        return value
    raise _MismatchError


def _as_member(members: tuple[Any, ...], value: Any) -> Any:
    for member in members:
        try:
            return _as_type(type(None) if member is None else member, value)
        except _MismatchError:
            continue
    raise _MismatchError


def _as_number(kind: type, value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise _MismatchError
    if type(value) is kind:
        return value
    if kind is int and not float(value).is_integer():
        raise _MismatchError
    return kind(value)


def _as_tuple(args: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise _MismatchError
    if not args or (len(args) == 2 and args[1] is Ellipsis):
        args = (args[0] if args else Any,) * len(value)
    if len(args) != len(value):
        raise _MismatchError
    items = tuple(_as_type(arg, item) for arg, item in zip(args, value, strict=True))
    same = all(a is b for a, b in zip(items, value, strict=True))
    return value if isinstance(value, tuple) and same else items


def _as_mapping(args: tuple[Any, ...], value: Any) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise _MismatchError
    key_type, item_type = args or (Any, Any)
    items = {_as_type(key_type, key): _as_type(item_type, item) for key, item in value.items()}
    same = all(items.get(key) is item for key, item in value.items())
    return value if same else items


_WORDS = {
    int: "an integer",
    float: "a finite number",
    bool: "True or False",
    str: "a string",
    type(None): "None",
}


def _describe(annotation: Any) -> str:
    """The annotation in words that a person who writes gin files reads."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in _WORDS:
        return _WORDS[annotation]
    if origin is typing.Literal:
        return "one of " + ", ".join(repr(option) for option in args)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_describe(arg) for arg in args)
    if origin is tuple:
        if len(args) == 2 and args[1] is Ellipsis:
            return f"a list, each item {_describe(args[0])}"
        return "a list of " + ", ".join(_describe(arg) for arg in args)
    if origin is not None and issubclass(origin, Mapping):
        return f"a dict from {_describe(args[0])} to {_describe(args[1])}"
    return getattr(annotation, "__name__", str(annotation))


def utf8(text: str) -> bytes:
    """The UTF-8 of a text. Raises InputError for a lone surrogate, which has none."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"text holds a lone surrogate (U+{ord(text[error.start]):04X} at {error.start}); "
            "expected Unicode text"
        ) from error
