"""The layers that conversion alone needs: PyTorch's own layers, anti-aliased, and still instances of their class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dealias import nn as layers
from dealias.convert.windows import layer_classes, per_axis
from dealias.errors import InputError
from dealias.filters import Filter, Taps, resolve_filters, scaled
from dealias.functional import apply_blur, apply_max_blur, pool_arguments
from dealias.ops.rates import doubled

# Single calls in the graphs of torch.fx.
torch.fx.wrap("apply_blur")
torch.fx.wrap("apply_max_blur")
torch.fx.wrap("doubled")


class Floating(nn.Module):
    """Refuses to let PyTorch quantise its parent: a layer with a child gets no observer, and would lose its scale."""

    @property
    def qconfig(self) -> NoReturn:
        """Set in eager mode on a layer that will be replaced, and on its children."""
        raise AttributeError("qconfig")

    @qconfig.setter
    def qconfig(self, value: object) -> None:
        if value is not None:
            raise InputError(
                "a layer with a blur cannot be quantised in eager mode: set the qconfig of layers that have a child "
                "antialias_before or antialias_after to None, or use FX graph mode, or quantise the exported ONNX file"
            )


def subclass(namespace: dict[str, Any], prefix: str, original: type[nn.Module], spatial: int, *bases: type) -> Any:
    """A subclass of a layer; `namespace`, of a module, holds it under its name, by which it can be pickled."""
    name = f"{prefix}{original.__name__}"
    members = {"original": original, "spatial": spatial, "__module__": namespace["__name__"]}
    namespace[name] = type(name, (*bases, original), members)
    return namespace[name]


_BLUR_POOL = {1: layers.BlurPool1d, 2: layers.BlurPool2d, 3: layers.BlurPool3d}
_FLOATING_BLUR_POOL = {axes: subclass(globals(), "Floating", one, axes, Floating) for axes, one in _BLUR_POOL.items()}
_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_LP_POOL = {1: F.lp_pool1d, 2: F.lp_pool2d, 3: F.lp_pool3d}
_LINEAR_MODES = ("linear", "bilinear", "trilinear", "bicubic", "area")


@dataclass(frozen=True)
class Blurring:
    """How to blur at a site; see `dealias.nn.BlurPool2d`."""

    filter: Filter
    padding_mode: Any
    scale: bool = True  # whether a named filter is as wide as the stride asks for, see `dealias.filters.scaled`
    plain: bool = False  # whether an average stays one: to compare the converted network with the original
    rate: int = 1  # samples of a map for each pixel where maxima are taken

    def filter_at(self, stride: Sequence[int]) -> Filter:
        """The filter for a blur that subsamples by `stride`."""
        if not self.scale or max(stride) <= 2:
            return self.filter
        filters = self.filter if isinstance(self.filter, tuple) else (self.filter,) * len(stride)
        if not all(isinstance(one, str) for one in filters) or len(filters) != len(stride):
            return self.filter
        axes = zip(filters, stride, strict=True)
        widths = tuple(one if one == "ideal" else scaled(one, step) for one, step in axes)
        return widths[0] if len(set(widths)) == 1 else widths

    def taps(self, stride: Sequence[int]) -> tuple[Taps, ...]:
        """The taps of that filter, for each axis; those of an axis that stays dense are none."""
        taps = resolve_filters(self.filter_at(stride), len(stride))
        return tuple((1.0,) if step == 1 else one for one, step in zip(taps, stride, strict=True))

    def pool(self, stride: tuple[int, ...], *, quantises: bool = True, dense: bool = False) -> nn.Module:
        """A blur that subsamples by `stride`, or leaves that to what follows if `dense`.

        Without `quantises` it refuses to let its parent be quantised.
        """
        classes: dict[int, Any] = _BLUR_POOL if quantises else _FLOATING_BLUR_POOL
        make = classes[len(stride)]
        if dense:
            return cast(nn.Module, make(self.taps(stride), (1,) * len(stride), self.padding_mode))
        return cast(nn.Module, make(self.filter_at(stride), stride, self.padding_mode))

    def at_rate(self, x: Tensor, spatial: int) -> Tensor:
        """`x` at the rate at which maxima are taken."""
        if self.rate == 1:
            return x
        return doubled(x, tuple(range(-spatial, 0)), plain=self.plain)

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


class Changed(nn.Module):
    """A layer of PyTorch in another form, with the attributes of its class there."""

    original: ClassVar[type[nn.Module]]
    spatial: ClassVar[int]

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def as_before(self, input: Tensor, *more: Any) -> Any:
        """What the layer returns in its own form."""
        return self.original.forward(self, input, *more)


class Converted(Changed):
    """A layer of PyTorch in an anti-aliased form."""

    anti_aliases: ClassVar[bool] = True
    blurring: Blurring

    def extra_repr(self) -> str:
        """The arguments of the layer, then those of the blur."""
        own = self.original.extra_repr(self)
        return f"{own}; {self.blurring}" if own else str(self.blurring)

    def prepare(self, blurring: Blurring, **options: Any) -> None:
        """Take up what the blur needs, beside the attributes that the layer has."""
        self.blurring = blurring

    def take_filter(self, stride: Sequence[int]) -> None:
        """Have what the constructor of a blurring layer would give."""
        self._filters = resolve_filters(self.blurring.filter, len(stride))
        self.taps, self.padding_mode = self.blurring.taps(stride), self.blurring.padding_mode


class _MaxPool(Converted):
    """The maximum at stride 1, then a blur, in place of `torch.nn.MaxPool`."""

    def prepare(self, blurring: Blurring, **options: Any) -> None:
        super().prepare(blurring)
        names = ("kernel_size", "stride", "padding", "dilation")
        for attribute, value in options.get("changes", {}).items():
            setattr(self, attribute, value)
        kernel, *steps = pool_arguments(self.spatial, *(getattr(self, one) for one in names))
        stride, padding, dilation = (tuple(step * blurring.rate for step in axis) for axis in steps)
        self.geometry = (kernel, stride, padding, dilation)
        self.take_filter(stride)

    def forward(self, input: Tensor) -> Any:
        x = self.blurring.at_rate(input, self.spatial)
        y = apply_max_blur(x, *self.geometry, self.ceil_mode, self.taps, self.padding_mode)
        return (y, None) if self.return_indices else y


class _AvgPool(Converted):
    """A blur in place of `torch.nn.AvgPool`, on the samples that the pooling uses where `whole` is set."""

    def prepare(self, blurring: Blurring, **options: Any) -> None:
        super().prepare(blurring)
        self.steps = per_axis(self.stride, self.spatial)
        self.whole = options.get("whole", True) and not self.ceil_mode
        self.take_filter(self.steps)

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
        steps = self.steps_of(input.shape[-self.spatial :] if self.spatial else input.shape[2:])
        if steps is None or max(steps) == 1:
            return self.as_before(input)
        return self.subsampled(input, steps)

    def steps_of(self, sizes: Sequence[int]) -> tuple[int, ...] | None:
        return _whole_steps(sizes, self.output_size)


def _whole_steps(sizes: Sequence[int], given: int | Sequence[int | None] | None) -> tuple[int, ...] | None:
    """From `sizes` to the sizes that are asked for; None where they do not divide."""
    listed = per_axis(given, len(sizes))
    wanted = [size if one is None else one for one, size in zip(listed, sizes, strict=True)]
    if any(old % new or old < new for old, new in zip(sizes, wanted, strict=True)):
        return None
    return tuple(int(old // new) for old, new in zip(sizes, wanted, strict=True))


class _AdaptiveAvgPool(_Resampled):
    def subsampled(self, input: Tensor, steps: tuple[int, ...]) -> Tensor:
        return self.as_before(input) if self.blurring.plain else self.blurring.blur(input, steps)


class _AdaptiveMaxPool(_Resampled):
    def subsampled(self, input: Tensor, steps: tuple[int, ...]) -> Any:
        rate, none = self.blurring.rate, (0,) * len(steps)
        strides, x = tuple(step * rate for step in steps), self.blurring.at_rate(input, len(steps))
        taps, gaps = self.blurring.taps(strides), (rate,) * len(steps)
        y = apply_max_blur(x, steps, strides, none, gaps, False, taps, self.blurring.padding_mode)
        return (y, None) if self.return_indices else y


class _Upsample(_Resampled):
    """`torch.nn.Upsample` where it makes a map smaller."""

    def steps_of(self, sizes: Sequence[int]) -> tuple[int, ...] | None:
        if self.size is not None:
            return _whole_steps(sizes, self.size)
        factors = per_axis(self.scale_factor, len(sizes))
        steps = tuple(round(1 / factor) for factor in factors)
        return steps if all(step * factor == 1 for step, factor in zip(steps, factors, strict=True)) else None

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
        self.more: tuple[int, ...] = options.get("more", ())  # samples from the opposite side behind each axis

    def extra_repr(self) -> str:
        return f"{self.original.extra_repr(self)}; convolves at stride {self.kept}"

    def forward(self, input: Tensor) -> Tensor:
        x, padding = input, self.padding
        if self.more:
            own, pairs = self._reversed_padding_repeated_twice, enumerate(reversed(self.more))
            x = F.pad(x, [one for axis, more in pairs for one in (own[2 * axis], own[2 * axis + 1] + more)], "circular")
            padding = 0
        elif self.padding_mode != "zeros":
            x, padding = F.pad(x, self._reversed_padding_repeated_twice, mode=self.padding_mode), 0
        convolve: Any = _CONV[self.spatial]
        y: Tensor = convolve(x, self.weight, self.bias, self.kept, padding, self.dilation, self.groups)
        return y


CONVERTED: dict[type[nn.Module], type[Converted]] = {
    original: subclass(globals(), "AntiAliased", original, spatial, base, *ours[spatial - 1 : spatial])
    for name, base, ours in (
        ("MaxPool", _MaxPool, (layers.MaxBlurPool1d, layers.MaxBlurPool2d, layers.MaxBlurPool3d)),
        ("AvgPool", _AvgPool, tuple(_BLUR_POOL.values())),
        ("LPPool", _LPPool, ()),
        ("AdaptiveAvgPool", _AdaptiveAvgPool, ()),
        ("AdaptiveMaxPool", _AdaptiveMaxPool, ()),
        ("Conv", _DenseConv, ()),
    )
    for spatial, original in enumerate(layer_classes(name), start=1)
}
CONVERTED[nn.Upsample] = subclass(globals(), "AntiAliased", nn.Upsample, 0, _Upsample)
"""By class of PyTorch: the subclass that a layer of it becomes."""


def convert_layer(layer: nn.Module, blurring: Blurring, **options: Any) -> nn.Module:
    """Make `layer` an anti-aliased layer of the same class, with all its attributes, hooks and names; return it.

    >>> convert_layer(nn.AvgPool2d(2), Blurring("bin4", "reflect"))
    AntiAliasedAvgPool2d(kernel_size=2, stride=2, padding=0; filter='bin4', padding_mode='reflect')
    """
    layer.__class__ = CONVERTED[type(layer)]
    cast(Converted, layer).prepare(blurring, **options)
    return layer
