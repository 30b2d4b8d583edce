"""The exceptions that dealias raises on bad input; the command line prints them as one line."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class InputError(ValueError):
    """Bad input: the message names the argument, its value and the values that are valid."""


class InputTypeError(InputError, TypeError):
    """An input of the wrong type or dtype."""


class MissingExtraError(ImportError):
    """An optional package is not installed: the message names the extra that installs it."""


def shown(value: Any) -> str:
    """The repr of `value` for a message: one line of at most 80 characters."""
    try:
        text = printable(" ".join(repr(value).split()))
    except ValueError:  # Python prints no int of more than 4,300 digits
        text = f"<{type(value).__name__} that is too long to print>"
    return text if len(text) <= 80 else f"{text[:76]} ..."


def printable(text: str) -> str:
    r"""`text` with its control characters and undecodable bytes escaped, so that terminals, JSON and HTML take it.

    >>> print(printable("one\ntwo\x1b[31m\udcff"))
    one\ntwo\x1b[31m\udcff
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def reason(error: BaseException) -> str:
    """What an exception says, in one line of at most 200 characters."""
    if isinstance(error, MemoryError):
        return "there is not enough memory"
    if isinstance(error, SystemExit):
        return f"it ends the program (SystemExit: {error.code})"
    text = printable(next((line.strip() for line in str(error).splitlines() if line.strip()), ""))
    text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= 200 else f"{text[:196]} ..."


@contextmanager
def users_code(problem: str) -> Iterator[None]:
    """Turn whatever the user's code raises into one `InputError` that begins with `problem`.

    Ctrl-C and the errors of dealias pass.
    """
    try:
        yield
    except (InputError, MissingExtraError):
        raise
    except (Exception, SystemExit) as error:
        raise InputError(f"{problem}: {reason(error)}") from error


def as_int(name: str, value: Any, minimum: int = 1, *, given: Any = None, bits: int = 63, valid: str = "an int") -> int:
    """Check that `value` is an int of at least `minimum` and below 2**`bits`.

    Args:
        name: of the argument, for the message.
        value: an int, or an object that Python takes as an index.
        minimum, bits: of the range.
        given: the value that the message shows in place of `value`: the user's sequence, of which `value` is a part.
        valid: the values that would do, for the message.

    Raises:
        InputTypeError: `value` is not an int.
        InputError: `value` is out of range.
    """
    if type(value) is int and minimum <= value < 2**bits:  # nearly always: layers are called with it
        return value
    problem, kind = "", InputError
    try:
        if isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool"):
            raise TypeError
        result = operator.index(value)
        if result < minimum:
            problem = f"is too small: it must be at least {minimum}"
        elif result >= 2**bits:
            problem = f"is too large: it must be less than 2**{bits}"
    except (TypeError, RuntimeError):  # a tensor without values raises the latter
        problem, kind = f"must be {valid}", InputTypeError
    if problem:  # only now is the value written out: a long sequence takes long
        raise kind(f"{name}={shown(value if given is None else given)} {problem}")
    return result


def check_flag(name: str, value: bool) -> bool:
    """Check that `value` is a bool: any other value that counts as true or false may mean something else.

    Raises:
        InputTypeError: it is not.
    """
    if not isinstance(value, bool):
        raise InputTypeError(f"{name}={shown(value)} must be True or False")
    return value


def check_callable(name: str, value: Any, valid: str) -> None:
    """Check that `value` can be called.

    Raises:
        InputTypeError: it cannot; the message tells the `valid` values.
    """
    if not callable(value):
        raise InputTypeError(f"{name}={shown(value)} must be {valid}, got {type(value).__name__}")


def check_kind(name: str, value: Any, kind: type | tuple[type, ...], valid: str) -> None:
    """Check that `value` is of a type.

    Raises:
        InputTypeError: it is not; the message tells the `valid` values.
    """
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise InputTypeError(f"{name}={shown(value)} must be {valid}, got {type(value).__name__}")
