"""Dataclasses kept as JSON: writers and readers share one definition, and pydantic checks what is read.

>>> from dataclasses import dataclass
>>> @dataclass(frozen=True)
... class Point:
...     name: str
...     place: tuple[int, int]
>>> from_json(Point, b'{"name": "corner", "place": [0, 3]}', "points.json")
Point(name='corner', place=(0, 3))
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from dealias.errors import InputError, printable
from dealias.optional import require

_Record = TypeVar("_Record")


def read_json(kind: type[_Record], path: Path) -> _Record:
    """The record in a file, as `from_json` reads it.

    Raises:
        InputError: the file cannot be read or is not JSON, a key is missing, or a value has another type.
        FileNotFoundError: there is no such file.
    """
    with _readable(path):
        content = path.read_bytes()
    return from_json(kind, content, str(path))


def read_json_lines(kind: type[_Record], path: Path) -> list[_Record]:
    """The records in a file, one in each line; half a last line, which a killed process left, is left out.

    Raises:
        InputError, FileNotFoundError: as for `read_json`.
    """
    return list(iterate_json_lines(kind, path))


def iterate_json_lines(kind: type[_Record], path: Path) -> Iterator[_Record]:
    """The records of `read_json_lines` one by one: the file may be larger than the memory."""
    with _readable(path), path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.endswith(b"\n"):
                yield from_json(kind, line, f"{path}, line {number}")


def drop_half_line(path: Path) -> None:
    """Remove the half line that a killed process left at the end of a file, so that the next record begins a line."""
    if not path.exists():
        return
    whole = 0
    with path.open("rb+") as file:
        for line in file:
            whole += len(line) if line.endswith(b"\n") else 0
        file.truncate(whole)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read: {error.strerror or error}") from None


def from_json(kind: type[_Record], content: bytes, file: str) -> _Record:
    """The dataclass, or list or dict of dataclasses, that JSON holds.

    Args:
        kind: dataclasses, lists, dicts, tuples, `X | None`, literals and plain values, one in the other.
        content: the JSON.
        file: its name, for the message.

    Raises:
        InputError: it is not JSON, a key is missing, or a value has another type.
    """
    try:
        record: _Record = _adapter(cast(Hashable, kind)).validate_json(content, strict=True)
    except require("pydantic").ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = printable(".".join(map(str, first["loc"])))
        problem = f"lacks the key {key}"
        if first["type"] != "missing":
            problem = f"has a wrong value for {key}" if key else "is damaged"
            problem += f" ({printable(first['msg'])})"
        raise InputError(f"{file!r} {problem}: start again in another folder") from None
    return record


@cache
def _adapter(kind: Hashable) -> Any:
    return require("pydantic").TypeAdapter(kind)
