"""Hypothesis strategies that draw whole calls of the operations, for the tests of every backend.

A case is the arguments of one call and a recipe for its input tensor::

    @given(case=blur_cases(spatial=2, dtypes=[torch.float32]))
    def test_my_kernel(case):
        x = case.input(device)
        my_kernel(x, case.blur)  # or F.blur_pool2d(x, **case.arguments)

Restrict `spatial`, `dtypes`, `layouts`, `values`, `filters`, `strides` or `padding_modes` to what a backend covers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from dealias import functional
from dealias.filters import FILTERS, Filter, Taps, resolve_filter
from dealias.ops.arguments import Blur

DTYPES = functional.DTYPES
PADDING_MODES = functional.PADDING_MODES
LAYOUTS = ("contiguous", "channels_last", "unaligned", "sliced", "transposed", "expanded")
VALUES = ("normal", "ties")
SPECIAL_VALUES = ("infinite", "nan")
"""Not drawn by default: inputs with -inf and +inf, or with NaN, among normal values."""

MAX_SIZE = {1: 64, 2: 20, 3: 8}
CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


class PerAxis(tuple[Filter, ...]):
    """A filter for each axis."""


def make_values(shape: Sequence[int], values: str, seed: int) -> Tensor:
    """A float64 tensor of one kind of `VALUES` or `SPECIAL_VALUES`, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator, dtype=torch.float64)
    if values == "ties":
        return x.round()
    chance = torch.rand(*shape, generator=generator, dtype=torch.float64)
    if values == "infinite":
        return x.masked_fill(chance < 0.3, float("-inf")).masked_fill(chance > 0.97, float("inf"))
    if values == "nan":
        return x.masked_fill(chance < 0.05, float("nan"))
    return x


def lay_out(x: Tensor, layout: str) -> Tensor:
    """A copy of (N, C, *spatial) `x`, with the same values, in one of `LAYOUTS`."""
    if layout == "channels_last" and x.ndim > 3:
        return x.contiguous(memory_format=CHANNELS_LAST[x.ndim - 2])
    if layout == "unaligned":  # contiguous, one element past the start of its storage
        storage = x.new_empty(x.numel() + 1)
        return storage[1:].view(x.shape).copy_(x)
    if layout == "sliced":  # every other column of a larger map
        larger = x.new_full((*x.shape[:-1], 2 * x.shape[-1] + 1), float("nan"))
        larger[..., 1::2] = x
        return larger[..., 1::2]
    if layout == "transposed":
        return x.transpose(1, -1).contiguous().transpose(1, -1)
    return x.contiguous()


@dataclass(frozen=True)
class BlurCase:
    """One call of blur_pool or relu_blur_pool."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    layout: str
    values: str
    seed: int
    filter: Filter
    stride: tuple[int, ...]
    padding_mode: str

    @property
    def spatial(self) -> int:
        return len(self.shape) - 2

    @property
    def taps(self) -> tuple[Taps, ...]:
        """Of each axis: none along an axis of stride 1, unless all are of stride 1."""
        each = self.filter if isinstance(self.filter, PerAxis) else (self.filter,) * self.spatial
        plain = set(self.stride) == {1}
        steps = zip(each, self.stride, strict=True)
        return tuple(resolve_filter(one) if plain or step > 1 else (1.0,) for one, step in steps)

    @property
    def blur(self) -> Blur:
        """What `dealias.ops.blur_pool` takes."""
        return Blur(self.taps, self.stride, self.padding_mode)

    @property
    def gain(self) -> float:
        """How much the filter amplifies at most: 1 for non-negative taps."""
        return max(1.0, math.prod(sum(map(abs, line)) for line in self.taps))

    @property
    def arguments(self) -> dict[str, Any]:
        """What `dealias.functional.blur_pool{1,2,3}d` takes beside the input."""
        return {"filter": self.filter, "stride": self.stride, "padding_mode": self.padding_mode}

    def input(self, device: str | torch.device = "cpu") -> Tensor:
        """The input tensor, (N, C, *spatial), in the case's dtype and layout."""
        shape = (self.shape[0], 1, *self.shape[2:]) if self.layout == "expanded" else self.shape
        x = make_values(shape, self.values, self.seed).to(device=device, dtype=self.dtype)
        return x.expand(self.shape) if self.layout == "expanded" else lay_out(x, self.layout)


@dataclass(frozen=True)
class MaxBlurCase(BlurCase):
    """One call of max_blur_pool."""

    kernel_size: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    ceil_mode: bool

    @property
    def pool_arguments(self) -> dict[str, Any]:
        """What `torch.nn.functional.max_pool{1,2,3}d` takes beside the input."""
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
        return {name: getattr(self, name) for name in names}

    @property
    def arguments(self) -> dict[str, Any]:
        """What `dealias.functional.max_blur_pool{1,2,3}d` takes beside the input."""
        return {**self.pool_arguments, "filter": self.filter, "padding_mode": self.padding_mode}


def _any_filter() -> st.SearchStrategy[Filter]:
    tap = st.integers(-3, 9).map(lambda quarter: quarter / 4)
    arbitrary = st.lists(tap, min_size=1, max_size=7).filter(lambda taps: sum(taps) >= 0.5).map(tuple)
    return st.one_of(st.sampled_from(list(FILTERS)), st.integers(1, 7), arbitrary)


ANY_FILTER = _any_filter()
"""Named filters, binomial ones by length, and arbitrary, mostly asymmetric taps of length 1 to 7."""
ANY_STRIDE = st.integers(1, 4)


def sizes(least: int, most: int) -> st.SearchStrategy[int]:
    """The size of one spatial axis: small ones, where borders overlap, as often as all others together."""
    return st.one_of(st.integers(least, min(least + 4, max(least, most))), st.integers(least, max(least, most)))


@st.composite
def blur_cases(
    draw: st.DrawFn,
    spatial: int | None = None,
    *,
    dtypes: Sequence[torch.dtype] = DTYPES,
    layouts: Sequence[str] = LAYOUTS,
    values: Sequence[str] = VALUES,
    filters: st.SearchStrategy[Filter] = ANY_FILTER,
    strides: st.SearchStrategy[int] = ANY_STRIDE,
    padding_modes: Sequence[str] = PADDING_MODES,
    max_size: int | None = None,
) -> BlurCase:
    """Cases of blur_pool over `spatial` axes (1, 2 or 3; any when None), no axis above `max_size`."""
    axes = draw(st.integers(1, 3)) if spatial is None else spatial
    most = MAX_SIZE[axes] if max_size is None else max_size
    return BlurCase(
        shape=(*draw(_batch_and_channels()), *(draw(sizes(1, most)) for _ in range(axes))),
        stride=tuple(draw(strides) for _ in range(axes)),
        **draw(_common(dtypes, layouts, values, _for_axes(filters, axes), padding_modes)),
    )


@st.composite
def max_blur_cases(
    draw: st.DrawFn,
    spatial: int | None = None,
    *,
    dtypes: Sequence[torch.dtype] = DTYPES,
    layouts: Sequence[str] = LAYOUTS,
    values: Sequence[str] = VALUES,
    filters: st.SearchStrategy[Filter] = ANY_FILTER,
    strides: st.SearchStrategy[int] = ANY_STRIDE,
    padding_modes: Sequence[str] = PADDING_MODES,
    max_size: int | None = None,
) -> MaxBlurCase:
    """Cases of max_blur_pool that `torch.nn.functional.max_pool` accepts as well."""
    axes = draw(st.integers(1, 3)) if spatial is None else spatial
    most = MAX_SIZE[axes] if max_size is None else max_size
    unpadded = draw(st.booleans())  # only so does the maximum wrap around in circular mode
    shape, kernel_size, padding, dilation = [*draw(_batch_and_channels())], [], [], []
    for _ in range(axes):
        k, d = draw(st.integers(1, 4)), draw(st.integers(1, 3))
        reach = d * (k - 1)
        p = 0 if unpadded else draw(st.integers(0, k // 2))
        shape.append(draw(sizes(max(1, reach + 1 - 2 * p), most)))
        kernel_size.append(k)
        padding.append(p)
        dilation.append(d)
    return MaxBlurCase(
        shape=tuple(shape),
        kernel_size=tuple(kernel_size),
        stride=tuple(draw(strides) for _ in range(axes)),
        padding=tuple(padding),
        dilation=tuple(dilation),
        ceil_mode=draw(st.booleans()),
        **draw(_common(dtypes, layouts, values, _for_axes(filters, axes), padding_modes)),
    )


def _for_axes(filters: st.SearchStrategy[Filter], axes: int) -> st.SearchStrategy[Filter]:
    """One filter for all axes, or as often one for each."""
    each = st.tuples(*[filters] * axes).filter(lambda drawn: any(isinstance(one, (str, tuple)) for one in drawn))
    return st.one_of(filters, each.map(PerAxis))


def _batch_and_channels() -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.sampled_from([1, 2, 3, 0]), st.sampled_from([1, 2, 3, 5, 8, 17]))


def _common(
    dtypes: Sequence[torch.dtype],
    layouts: Sequence[str],
    values: Sequence[str],
    filters: st.SearchStrategy[Filter],
    padding_modes: Sequence[str],
) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(list(dtypes)),
            "layout": st.sampled_from(list(layouts)),
            "values": st.sampled_from(list(values)),
            "seed": st.integers(0, 2**31 - 1),
            "filter": filters,
            "padding_mode": st.sampled_from(list(padding_modes)),
        }
    )
