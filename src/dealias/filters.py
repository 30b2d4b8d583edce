"""One-dimensional low-pass filters, by name, by length or by taps.

>>> resolve_filter("bin4")
(0.125, 0.375, 0.375, 0.125)
>>> resolve_filter(3) == resolve_filter("tri3") == resolve_filter([1, 2, 1])
True
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any, TypeAlias

from dealias.errors import InputError, InputTypeError

Filter: TypeAlias = str | int | Sequence[float] | Any
"""A name of `FILTERS`, the number of taps of a binomial filter, or a 1-D sequence, array or tensor of taps."""

Taps: TypeAlias = tuple[float, ...]


def _binomial(length: int) -> Taps:
    return tuple(math.comb(length - 1, i) / 2 ** (length - 1) for i in range(length))


FILTERS: dict[str, Taps] = {
    name: _binomial(length)
    for name, length in (("none", 1), ("rect2", 2), ("tri3", 3), ("bin4", 4), ("bin5", 5), ("bin6", 6), ("bin7", 7))
}
"""The named filters of Zhang (2019, section 4.1) and their larger siblings; all are rows of Pascal's triangle."""


def resolve_filter(filter: Filter) -> Taps:
    """The taps of `filter` as Python floats that sum to 1.

    Args:
        filter: a key of `FILTERS`; an int k >= 1 for the binomial filter of k taps; or any non-empty 1-D
            sequence (list, NumPy array, tensor) of finite taps with a sum other than 0.

    Raises:
        InputError: `filter` is none of these.
    """
    if isinstance(filter, str):
        if filter not in FILTERS:
            raise InputError(
                f"filter={filter!r} is unknown: use one of {', '.join(FILTERS)}, an int or a sequence of taps"
            )
        return FILTERS[filter]
    if isinstance(filter, (bool, bytes)):
        raise InputTypeError(f"filter={filter!r} is no filter: use a name, a number of taps or a sequence of taps")
    if isinstance(filter, (int, Integral)):  # NumPy's integers too
        if filter < 1:
            raise InputError(f"filter={filter} has no taps: the number of taps must be at least 1")
        return _binomial(int(filter))
    try:
        values = filter.tolist() if hasattr(filter, "tolist") else list(filter)
        taps = tuple(float(tap) for tap in values)
    except (TypeError, ValueError):
        raise InputTypeError(
            f"filter={filter!r} is no 1-D sequence of numbers: use a name, a number of taps or taps such as [1, 2, 1]"
        ) from None
    total = sum(taps)
    rounding = 1e-12 * max(map(abs, taps), default=0)  # [0.1, 0.2, -0.3] sums to 5.6e-17
    if not math.isfinite(total) or abs(total) <= rounding:
        raise InputError(
            f"filter={filter!r} cannot be normalised: give at least one tap, all finite, with a sum other than 0"
        )
    return tuple(tap / total for tap in taps)


def parse_filter(text: str) -> Filter:
    """The filter that `text` names: a name, a number of taps, or taps separated by commas."""
    if text.isdecimal():
        return int(text)
    if "," not in text:
        return text
    try:
        return [float(tap) for tap in text.split(",")]
    except ValueError:
        raise InputError(f"filter={text!r} is no list of taps: write numbers such as 1,2,1") from None
