"""The exceptions that dealias raises on bad input; the command line prints them as one line."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


class InputError(ValueError):
    """Bad input: the message names the argument, its value and what would do."""


class InputTypeError(InputError, TypeError):
    """An input of the wrong type or dtype."""


class MissingExtraError(ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""


def require(module: str, extra: str) -> ModuleType:
    """Import `module`, or raise `MissingExtraError` naming the extra of dealias that installs it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise
        raise MissingExtraError(f"{module} is not installed: pip install 'dealias[{extra}]'", name=module) from None
