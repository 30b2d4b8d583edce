"""Which parameters of a test `make test` runs."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any

import pytest


def only(quick: Container[Any], values: Iterable[Any]) -> list[Any]:
    """The values as parameters: `make test` runs those in `quick`, the sweep all of them."""
    return [value if value in quick else pytest.param(value, marks=pytest.mark.sweep) for value in values]
