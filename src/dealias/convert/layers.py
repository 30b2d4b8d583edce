"""The layers that conversion alone needs: PyTorch's own layers, anti-aliased, and still instances of their class.

>>> layer = nn.AvgPool2d(2)
>>> blurring = Blurring("bin4", "reflect")
>>> convert_layer(layer, blurring)
AntiAliasedAvgPool2d(kernel_size=2, stride=2, padding=0; filter='bin4', padding_mode='reflect')
>>> isinstance(layer, nn.AvgPool2d), layer(torch.rand(1, 3, 7, 8)).shape
(True, torch.Size([1, 3, 3, 4]))
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dealias import nn as layers
from dealias.convert.windows import per_axis
from dealias.errors import InputError
from dealias.filters import Filter, Taps, resolve_filters, scaled
from dealias.functional import apply_blur, apply_max_blur, pool_arguments

# Single calls in the graphs of torch.fx.
torch.fx.wrap("apply_blur")
torch.fx.wrap("apply_max_blur")


class _Floating(nn.Module):
    """Refuses to let PyTorch quantise its parent: a layer with a child gets no observer, and would lose its scale.

    Quantisation in eager mode sets `qconfig` on a layer that it will replace, and on all its children.
    """

    @property
    def qconfig(self) -> NoReturn:
        raise AttributeError("qconfig")

    @qconfig.setter
    def qconfig(self, value: object) -> None:
        if value is not None:
            raise InputError(
                "a layer with a blur cannot be quantised in eager mode: set the qconfig of layers that have a child "
                "antialias_before or antialias_after to None, or use FX graph mode, or quantise the exported ONNX file"
            )


class FloatingBlurPool1d(_Floating, layers.BlurPool1d):
    """`BlurPool1d` as a child of a layer that must stay in floating point."""


class FloatingBlurPool2d(_Floating, layers.BlurPool2d):
    """`BlurPool2d` as a child of a layer that must stay in floating point."""


class FloatingBlurPool3d(_Floating, layers.BlurPool3d):
    """`BlurPool3d` as a child of a layer that must stay in floating point."""


_BLUR_POOL = {1: layers.BlurPool1d, 2: layers.BlurPool2d, 3: layers.BlurPool3d}
_FLOATING_BLUR_POOL = {1: FloatingBlurPool1d, 2: FloatingBlurPool2d, 3: FloatingBlurPool3d}
_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_LP_POOL = {1: F.lp_pool1d, 2: F.lp_pool2d, 3: F.lp_pool3d}
_LINEAR_MODES = ("linear", "bilinear", "trilinear", "bicubic", "area")


@dataclass(frozen=True)
class Blurring:
    """How to blur at a site.

    Args:
        filter: see `dealias.filters.resolve_filters`.
        padding_mode: see `dealias.nn.BlurPool2d`.
        scale: whether a named filter is as wide as the stride asks for, see `dealias.filters.scaled`.
        plain: compute what the layer computed before, where a blur takes the place of an average: to compare the
            converted network with the original.
    """

    filter: Filter
    padding_mode: Any
    scale: bool = True
    plain: bool = False

    def filter_at(self, stride: Sequence[int]) -> Filter:
        """The filter for a blur that subsamples by `stride`."""
        if not self.scale or max(stride) <= 2:
            return self.filter
        filters = self.filter if isinstance(self.filter, tuple) else (self.filter,) * len(stride)
        if not all(isinstance(one, str) for one in filters) or len(filters) != len(stride):
            return self.filter
        widths = tuple(scaled(one, step) for one, step in zip(filters, stride, strict=True))
        return widths[0] if len(set(widths)) == 1 else widths

    def taps(self, stride: Sequence[int]) -> tuple[Taps, ...]:
        """The taps of that filter, for each axis; those of an axis that stays dense are none."""
        taps = resolve_filters(self.filter_at(stride), len(stride))
        return tuple((1.0,) if step == 1 else one for one, step in zip(taps, stride, strict=True))

    def pool(self, stride: tuple[int, ...], *, quantises: bool = True) -> nn.Module:
        """A blur that subsamples by `stride`; without `quantises` it refuses to let its parent be quantised."""
        classes = _BLUR_POOL if quantises else _FLOATING_BLUR_POOL
        return classes[len(stride)](self.filter_at(stride), stride, self.padding_mode)

    def blur(self, x: Tensor, stride: tuple[int, ...]) -> Tensor:
        """Blur `x` and subsample it by `stride`."""
        return apply_blur(x, self.taps(stride), stride, self.padding_mode)

    def __str__(self) -> str:
        return f"filter={self.filter!r}, padding_mode={self.padding_mode!r}"


def whole_windows(x: Tensor, stride: Sequence[int]) -> Tensor:
    """`x` without the trailing samples that fill no window, as `torch.nn.AvgPool2d(k, k)` leaves them out."""
    for axis, step in enumerate(stride, start=-len(stride)):
        if step > 1:
            x = x.narrow(axis, 0, x.shape[axis] // step * step)
    return x


class Converted(nn.Module):
    """A layer of PyTorch, of which it has the attributes, in an anti-aliased form."""

    original: ClassVar[type[nn.Module]]
    spatial: ClassVar[int]
    anti_aliases: ClassVar[bool] = True
    blurring: Blurring

    if TYPE_CHECKING:  # the attributes of the layer are those of its class in PyTorch

        def __getattr__(self, name: str) -> Any: ...

    def extra_repr(self) -> str:
        """The arguments of the layer, then those of the blur."""
        own = self.original.extra_repr(self)
        return f"{own}; {self.blurring}" if own else str(self.blurring)

    def as_before(self, input: Tensor) -> Any:
        """What the layer returned before its conversion."""
        return self.original.forward(self, input)

    def prepare(self, blurring: Blurring, **options: Any) -> None:
        """Take up what the blur needs, beside the attributes that the layer has."""
        self.blurring = blurring


def _take_filter(layer: Any, blurring: Blurring, stride: Sequence[int]) -> None:
    """Give a blurring layer what its constructor would."""
    layer._filters = resolve_filters(blurring.filter, len(stride))
    layer.taps, layer.padding_mode = blurring.taps(stride), blurring.padding_mode


class _MaxPool(Converted):
    """The maximum at stride 1, then a blur, in place of `torch.nn.MaxPool`."""

    def prepare(self, blurring: Blurring, **options: Any) -> None:
        super().prepare(blurring)
        names = ("kernel_size", "stride", "padding", "dilation")
        for attribute, value in options.get("changes", {}).items():
            setattr(self, attribute, value)
        kernel, stride, padding, dilation = pool_arguments(self.spatial, *(getattr(self, one) for one in names))
        self.geometry = (kernel, stride, padding, dilation)
        _take_filter(self, blurring, stride)

    def forward(self, input: Tensor) -> Any:
        y = apply_max_blur(input, *self.geometry, self.ceil_mode, self.taps, self.padding_mode)
        return (y, None) if self.return_indices else y


class _AvgPool(Converted):
    """A blur in place of `torch.nn.AvgPool`, on the samples that the pooling uses where `whole` is set."""

    def prepare(self, blurring: Blurring, **options: Any) -> None:
        super().prepare(blurring)
        self.steps = per_axis(self.stride, self.spatial)
        self.whole = options.get("whole", True) and not self.ceil_mode
        _take_filter(self, blurring, self.steps)

    def forward(self, input: Tensor) -> Tensor:
        if self.blurring.plain:
            return cast(Tensor, self.as_before(input))
        x = whole_windows(input, self.steps) if self.whole else input
        return apply_blur(x, self.taps, self.steps, self.padding_mode)


class _LPPool(Converted):
    """The power average at stride 1, then a blur, in place of `torch.nn.LPPool`."""

    def prepare(self, blurring: Blurring, **options: Any) -> None:
        super().prepare(blurring)
        self.steps = per_axis(self.kernel_size if self.stride is None else self.stride, self.spatial)

    def forward(self, input: Tensor) -> Tensor:
        dense = _LP_POOL[self.spatial](input, float(self.norm_type), self.kernel_size, 1)
        return self.blurring.blur(dense, self.steps)


class _Resampled(Converted):
    """A resampling to a given size: anti-aliased where every input size is a whole multiple of it."""

    def prepare(self, blurring: Blurring, **options: Any) -> None:
        super().prepare(blurring)
        self.__module__ = nn.__name__  # torch.fx must not trace into it: what it does depends on the size

    def forward(self, input: Tensor) -> Any:
        steps = self.steps_of(input)
        if steps is None or max(steps) == 1:
            return self.as_before(input)
        return self.subsampled(input, steps)

    def steps_of(self, input: Tensor) -> tuple[int, ...] | None:
        sizes = input.shape[-self.axes_of(input) :]
        wanted = self.output_sizes(sizes)
        if any(old % new or old < new for old, new in zip(sizes, wanted, strict=True)):
            return None
        return tuple(int(old // new) for old, new in zip(sizes, wanted, strict=True))

    def axes_of(self, input: Tensor) -> int:
        return self.spatial

    def output_sizes(self, sizes: Sequence[int]) -> list[int]:
        given = self.output_size
        listed = [given] * len(sizes) if isinstance(given, int) or given is None else list(given)
        return [size if one is None else one for one, size in zip(listed, sizes, strict=True)]

    @abstractmethod
    def subsampled(self, input: Tensor, steps: tuple[int, ...]) -> Any:
        """What the layer returns where it takes whole steps."""


class _AdaptiveAvgPool(_Resampled):
    def subsampled(self, input: Tensor, steps: tuple[int, ...]) -> Tensor:
        return self.as_before(input) if self.blurring.plain else self.blurring.blur(input, steps)


class _AdaptiveMaxPool(_Resampled):
    def subsampled(self, input: Tensor, steps: tuple[int, ...]) -> Any:
        none, ones = (0,) * len(steps), (1,) * len(steps)
        taps = self.blurring.taps(steps)
        y = apply_max_blur(input, steps, steps, none, ones, False, taps, self.blurring.padding_mode)
        return (y, None) if self.return_indices else y


class _Upsample(_Resampled):
    """`torch.nn.Upsample` where it makes a map smaller."""

    def axes_of(self, input: Tensor) -> int:
        return input.ndim - 2

    def steps_of(self, input: Tensor) -> tuple[int, ...] | None:
        if self.size is not None:
            return super().steps_of(input)
        factors = self.scale_factor
        factors = [factors] * self.axes_of(input) if isinstance(factors, int | float) else list(factors)
        steps = tuple(round(1 / factor) for factor in factors)
        return steps if all(step * factor == 1 for step, factor in zip(steps, factors, strict=True)) else None

    def output_sizes(self, sizes: Sequence[int]) -> list[int]:
        return [self.size] * len(sizes) if isinstance(self.size, int) else list(self.size)

    def subsampled(self, input: Tensor, steps: tuple[int, ...]) -> Tensor:
        if self.blurring.plain or self.align_corners or self.mode not in ("nearest", *_LINEAR_MODES):
            return cast(Tensor, self.as_before(input))
        return self.blurring.blur(whole_windows(input, steps), steps)


class _DenseConv(Converted):
    """A convolution at another stride than its attribute, which a forward around it reads."""

    anti_aliases = False

    def prepare(self, blurring: Blurring, **options: Any) -> None:
        super().prepare(blurring)
        self.kept: tuple[int, ...] = options["kept"]

    def extra_repr(self) -> str:
        return f"{self.original.extra_repr(self)}; convolves at stride {self.kept}"

    def forward(self, input: Tensor) -> Tensor:
        x, padding = input, self.padding
        if self.padding_mode != "zeros":
            x, padding = F.pad(x, self._reversed_padding_repeated_twice, mode=self.padding_mode), 0
        convolve: Any = _CONV[self.spatial]
        y: Tensor = convolve(x, self.weight, self.bias, self.kept, padding, self.dilation, self.groups)
        return y


def _convert_classes() -> dict[type[nn.Module], type[Converted]]:
    """A subclass of each of PyTorch's layers that can be anti-aliased, with a name by which it can be pickled."""
    classes: dict[type[nn.Module], type[Converted]] = {}
    kinds: list[tuple[str, type[Converted], tuple[Any, ...]]] = [
        ("MaxPool", _MaxPool, (layers.MaxBlurPool1d, layers.MaxBlurPool2d, layers.MaxBlurPool3d)),
        ("AvgPool", _AvgPool, (layers.BlurPool1d, layers.BlurPool2d, layers.BlurPool3d)),
        ("LPPool", _LPPool, ()),
        ("AdaptiveAvgPool", _AdaptiveAvgPool, ()),
        ("AdaptiveMaxPool", _AdaptiveMaxPool, ()),
        ("Conv", _DenseConv, ()),
    ]
    for prefix, base, ours in kinds:
        for spatial in (1, 2, 3):
            original = getattr(nn, f"{prefix}{spatial}d")
            bases = (base, *ours[spatial - 1 : spatial], original)
            classes[original] = _subclass(original, bases, spatial)
    classes[nn.Upsample] = _subclass(nn.Upsample, (_Upsample, nn.Upsample), 0)
    return classes


def _subclass(original: type[nn.Module], bases: tuple[type, ...], spatial: int) -> type[Converted]:
    name = f"AntiAliased{original.__name__}"
    doc = f"`torch.nn.{original.__name__}`, anti-aliased."
    made = type(name, bases, {"original": original, "spatial": spatial, "__module__": __name__, "__doc__": doc})
    globals()[name] = made
    return cast(type[Converted], made)


CONVERTED = _convert_classes()
"""By class of PyTorch: the subclass that a layer of it becomes."""


def convert_layer(layer: nn.Module, blurring: Blurring, **options: Any) -> nn.Module:
    """Make `layer` an anti-aliased layer of the same class, with all its attributes, hooks and names; return it."""
    converted = CONVERTED[type(layer)]
    layer.__class__ = converted
    cast(Converted, layer).prepare(blurring, **options)
    return layer
