"""Low-pass filters of one axis, by name, by number of taps or by their taps."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from functools import cache
from numbers import Integral, Real
from typing import Any, TypeAlias

from dealias.errors import InputError, InputTypeError, as_int, shown
from dealias.optional import require

Filter: TypeAlias = str | int | Sequence[float] | Any
"""A name of `FILTERS` or of a wavelet, "ideal", the number of taps of a binomial filter, or a 1-D sequence, array or
tensor of taps."""

Taps: TypeAlias = tuple[float, ...]

IDEAL: Taps = ()
"""Stands for the taps of the filter "ideal", which follow from the size of the map."""

MAX_TAPS = 1024


def _binomial(length: int) -> Taps:
    return tuple(math.comb(length - 1, i) / 2 ** (length - 1) for i in range(length))


FILTERS: dict[str, Taps] = {
    name: _binomial(length)
    for name, length in (("none", 1), ("rect2", 2), ("tri3", 3), ("bin4", 4), ("bin5", 5), ("bin6", 6), ("bin7", 7))
}
"""The named filters of Zhang (2019, section 4.1) and longer ones: normalised rows of Pascal's triangle."""

_WAVELET = re.compile(r"haar|dmey|(db|sym|coif)[0-9]{1,3}|(bior|rbio)[0-9]\.[0-9]")


@cache
def _wavelet(name: str) -> Taps:
    """The low-pass taps of a wavelet's analysis, in the order in which they are correlated with samples."""
    try:
        taps: Sequence[float] = require("pywt").Wavelet(name).dec_lo[::-1]
    except ValueError:
        raise InputError(f"filter={name!r} is not a wavelet of PyWavelets: see pywt.wavelist()") from None
    return tuple(tap / sum(taps) for tap in taps)


def resolve_filter(filter: Filter) -> Taps:
    """The taps of `filter` as Python floats that sum to 1.

    >>> resolve_filter("bin4")
    (0.125, 0.375, 0.375, 0.125)
    >>> resolve_filter(3) == resolve_filter("tri3") == resolve_filter([1, 2, 1])
    True

    "ideal" is the Fourier low-pass filter of a map that wraps around: behind a stride s it keeps the frequencies below
    the Nyquist frequency of what is left, 1 / (2 s) a pixel, and nothing else. As many taps as the map has pixels would
    do it; here it has none, `IDEAL`.

    Args:
        filter: a key of `FILTERS`, or "ideal"; a discrete wavelet of PyWavelets, such as "db2", for its low-pass taps;
            an int k >= 1 for the binomial filter of k taps; or any non-empty 1-D sequence (list, NumPy array, tensor)
            of finite taps with a sum other than 0. At most 1,024 taps.

    Raises:
        InputError: `filter` is not one of these.
        MissingExtraError: it is a wavelet, and PyWavelets is not installed.
    """
    if isinstance(filter, str):
        if filter in FILTERS:
            return FILTERS[filter]
        if filter == "ideal":
            return IDEAL
        if _WAVELET.fullmatch(filter):
            return _wavelet(filter)
        raise InputError(
            f"filter={shown(filter)} is unknown: use one of {', '.join(FILTERS)}, ideal, a wavelet such as db2, "
            "an int or a sequence of taps"
        )
    if isinstance(filter, Integral) and not isinstance(filter, bool):  # NumPy's integers too
        if filter < 1:
            raise InputError(f"filter={shown(filter)} has no taps: the number of taps must be at least 1")
        _check_length(filter, int(filter))
        return _binomial(int(filter))
    values = _numbers(filter)
    _check_length(filter, len(values))
    total = sum(values)
    rounding = 1e-12 * max(map(abs, values), default=0)  # [0.1, 0.2, -0.3] sums to 5.6e-17
    if not math.isfinite(total) or abs(total) <= rounding:
        raise InputError(
            f"filter={shown(filter)} cannot be normalised: give at least one tap, all finite, with a sum other than 0"
        )
    return tuple(tap / total for tap in values)


def _check_length(filter: Filter, taps: int) -> None:
    if taps > MAX_TAPS:
        raise InputError(f"filter={shown(filter)} has {shown(taps)} taps: use at most {MAX_TAPS}")


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _numbers(filter: Any) -> Taps:
    """The taps of a sequence, not normalised."""
    try:
        values = filter.tolist() if hasattr(filter, "tolist") else filter
        if isinstance(values, Iterable) and not isinstance(values, (bytes, bytearray, set, frozenset, dict)):
            plain = [one.tolist() if getattr(one, "ndim", None) == 0 else one for one in values]
            if all(map(_is_number, plain)):
                return tuple(map(float, plain))
    except (TypeError, ValueError, OverflowError, RuntimeError):  # arrays and tensors without values raise these
        pass
    raise InputTypeError(
        f"filter={shown(filter)} is not a 1-D sequence of numbers: "
        "use a name, a number of taps or taps such as [1, 2, 1]"
    )


def resolve_filters(filter: Filter, spatial: int) -> tuple[Taps, ...]:
    """The taps of each spatial axis: those of `filter`, or of a tuple of filters, one for each axis.

    >>> resolve_filters(("tri3", "none"), 2)
    ((0.25, 0.5, 0.25), (1.0,))

    A tuple or list of plain numbers is one filter, given by its taps.

    Raises:
        InputError: `filter` is neither a filter that `resolve_filter` takes nor a tuple of `spatial` such filters.
    """
    if isinstance(filter, (tuple, list)) and filter and not all(map(_is_tap, filter)):
        if len(filter) != spatial:
            raise InputError(
                f"filter={shown(filter)} has {len(filter)} filters: give one, or {spatial} for the spatial axes"
            )
        return tuple(map(resolve_filter, filter))
    return (resolve_filter(filter),) * spatial


def _is_tap(value: Any) -> bool:
    return isinstance(value, Real) or getattr(value, "ndim", None) == 0


def scaled(filter: Filter, stride: int) -> Taps:
    """The taps of `filter` for a site that keeps every `stride`-th sample.

    >>> scaled("rect2", 4)
    (0.25, 0.25, 0.25, 0.25)
    >>> scaled("bin4", 2) == resolve_filter("bin4")
    True

    The named filters are made for stride 2: "rect2", "tri3", "bin4" ... are 1, 2, 3 ... boxes of 2 samples, convolved
    with each other. At stride s each box has s samples, so that the filter has (s - 1) * m + 1 taps for m boxes.
    Frequencies above the new Nyquist frequency, pi / s, alias onto lower ones. For white input the aliased power is the
    integral of |H|^2 over that band divided by pi; at no stride is it larger than at stride 2. "none" stays [1], and
    "ideal" has no taps (see `resolve_filter`). A wavelet at stride 4, 8 ... has the taps of two, three ... levels of
    its decomposition (Mallat, 1989). A number of taps and explicit taps are taken literally.

    Raises:
        InputError: `filter` or `stride` is out of range, or the result would have more than 1,024 taps.
        MissingExtraError: as `resolve_filter`.
    """
    taps = resolve_filter(filter)
    stride = as_int("stride", stride, 1)
    if not isinstance(filter, str) or taps == IDEAL:
        return taps
    boxes = len(taps) - 1
    if (stride - 1) * boxes >= MAX_TAPS:
        raise InputError(
            f"filter={filter!r} has {shown((stride - 1) * boxes + 1)} taps at stride={shown(stride)}: "
            f"use a shorter filter, the most are {MAX_TAPS}"
        )
    if filter not in FILTERS:
        return _levels(filter, taps, stride)
    counts = [1]
    for _ in range(boxes):
        counts = [sum(counts[max(0, i - stride + 1) : i + 1]) for i in range(len(counts) + stride - 1)]
    return tuple(count / stride**boxes for count in counts)


def _levels(wavelet: str, taps: Taps, stride: int) -> Taps:
    """The taps of log2(stride) levels of a wavelet's decomposition, as one filter."""
    if stride & (stride - 1):
        raise InputError(
            f"filter={wavelet!r} subsamples by 2, 4, 8 ...: at stride={shown(stride)} use another filter, e.g. 'bin4'"
        )
    result, step = [1.0], 1
    while step < stride:
        longer = [0.0] * (len(result) + step * (len(taps) - 1))
        for i, tap in enumerate(taps):
            for j, value in enumerate(result):
                longer[step * i + j] += tap * value
        result, step = longer, 2 * step
    return tuple(result)


def kaiser(taps: int, cutoff: float = 0.5, width: float = 0.5) -> Taps:
    """A low-pass filter by the window method: a sinc, under a Kaiser window as wide as the transition band asks for.

    >>> [round(tap, 3) for tap in kaiser(6)]
    [-0.053, 0.124, 0.43, 0.43, 0.124, -0.053]

    Args:
        taps: their number, at most 1,024.
        cutoff: where the response is a half, as a share of the Nyquist frequency; 1 / stride in front of a stride.
        width: of the transition band, as a share of the Nyquist frequency: a smaller one asks for more taps.

    Raises:
        InputError: an argument is out of range.

    Source: Kaiser, *Nonrecursive digital filter design using the I0-sinh window function*, 1974; as used by Karras et
    al., *Alias-free generative adversarial networks*, NeurIPS 2021, appendix C.
    """
    taps = as_int("taps", taps, 1)
    if taps > MAX_TAPS:
        raise InputError(f"taps={shown(taps)} is too large: use at most {MAX_TAPS}")
    for name, value in (("cutoff", cutoff), ("width", width)):
        if not _is_number(value) or not 0 < value < 1:
            raise InputError(f"{name}={shown(value)} must be a number between 0 and 1, the Nyquist frequency")
    attenuation = 2.285 * (taps - 1) * math.pi * width + 7.95  # dB
    beta = 0.0
    if attenuation > 50:
        beta = 0.1102 * (attenuation - 8.7)
    elif attenuation > 21:
        beta = 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    middle = (taps - 1) / 2
    values = []
    for index in range(taps):
        place = index - middle
        sinc = math.sin(math.pi * cutoff * place) / (math.pi * place) if place else cutoff
        edge = place / middle if middle else 0.0
        values.append(sinc * _bessel_i0(beta * math.sqrt(max(0.0, 1 - edge * edge))))
    return resolve_filter(values)


def _bessel_i0(x: float) -> float:
    """The modified Bessel function of the first kind of order 0, by its series."""
    total, term, order = 1.0, 1.0, 1
    while term > 1e-17 * total:
        term *= (x / (2 * order)) ** 2
        total += term
        order += 1
    return total


def parse_filter(text: str) -> Filter:
    """Read a filter from text: a name, a number of taps, or taps separated by commas."""
    if text.isdecimal():
        if len(text) > 9:  # Python reads no int of more than 4,300 digits
            raise InputError(f"filter={shown(text)} is too large: use at most {MAX_TAPS} taps")
        return int(text)
    if "," not in text:
        return text
    try:
        return [float(tap) for tap in text.split(",")]
    except ValueError:
        raise InputError(f"filter={shown(text)} is not a list of taps: write numbers such as 1,2,1") from None
