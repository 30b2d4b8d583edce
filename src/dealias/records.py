"""Dataclasses kept as JSON: writers and readers share one definition.

>>> from dataclasses import dataclass
>>> @dataclass(frozen=True)
... class Point:
...     name: str
...     place: tuple[int, int]
>>> from_json(Point, {"name": "corner", "place": [0, 3]}, "points.json")
Point(name='corner', place=(0, 3))
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from dealias.errors import InputError

_Record = TypeVar("_Record")


def read_json(kind: type[_Record], path: Path) -> _Record:
    """The record in a file, as `from_json` reads it.

    Raises:
        InputError: the file cannot be read or is not JSON, a key is missing, or a value has another type.
        FileNotFoundError: there is no such file.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"{str(path)!r} cannot be read: {error}") from None
    return from_json(kind, stored, path)


def from_json(kind: type[_Record], stored: Any, file: str | Path) -> _Record:
    """The dataclass, or list or dict of dataclasses, that JSON holds.

    Args:
        kind: dataclasses, lists, dicts, tuples, `X | None`, literals and plain values, one in the other.
        stored: what `json.loads` gives, or `dataclasses.asdict`.
        file: its name, for the message.

    Raises:
        InputError: a key is missing, or a value has another type.
    """
    found: _Record = _read(kind, stored, str(file), "")
    return found


def _read(kind: Any, stored: Any, file: str, key: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return stored
    if origin is UnionType:
        if stored is None and NoneType in arguments:
            return None
        (kind,) = (each for each in arguments if each is not NoneType)
        return _read(kind, stored, file, key)
    if is_dataclass(kind):
        return _read_fields(kind, _checked(stored, Mapping, file, key), file, key)
    if origin is dict:
        items = _checked(stored, Mapping, file, key).items()
        return {name: _read(arguments[1], value, file, f"{key}[{name!r}]") for name, value in items}
    if origin is list or (origin is tuple and arguments[-1] is ...):
        values = _checked(stored, (list, tuple), file, key)
        return origin(_read(arguments[0], value, file, f"{key}[{place}]") for place, value in enumerate(values))
    if origin is tuple:
        values = _checked(stored, (list, tuple), file, key)
        if len(values) != len(arguments):
            raise InputError(f"{file!r} has {len(values)} values for {_named(key)}: expected {len(arguments)}")
        return tuple(
            _read(each, value, file, f"{key}[{place}]")
            for place, (each, value) in enumerate(zip(arguments, values, strict=True))
        )
    if origin is Literal:
        if stored not in arguments:
            raise InputError(f"{file!r} has {stored!r} for {_named(key)}: expected one of {arguments}")
        return stored
    return _checked(stored, (int, float) if kind is float else kind, file, key)


def _read_fields(kind: Any, stored: Mapping[str, Any], file: str, key: str) -> Any:
    hints, found = _hints(kind), {}
    for field in fields(kind):
        path = f"{key}.{field.name}" if key else field.name
        if field.name in stored:
            found[field.name] = _read(hints[field.name], stored[field.name], file, path)
        elif field.default is MISSING and field.default_factory is MISSING:
            raise InputError(f"{file!r} lacks the key {path}")
    return kind(**found)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _checked(stored: Any, kind: Any, file: str, key: str) -> Any:
    if not isinstance(stored, kind) or (isinstance(stored, bool) and kind is not bool):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        names = " or ".join(each.__name__.lower() for each in kinds)
        raise InputError(f"{file!r} has {type(stored).__name__} for {_named(key)}: expected {names}")
    return stored


def _named(key: str) -> str:
    return f"the key {key}" if key else "its content"
