"""Anti-aliased layers as modules: thin shells over `dealias.functional` without parameters, buffers or channel counts.

>>> pool = MaxBlurPool2d(kernel_size=3, stride=2, padding=1)
>>> pool(torch.rand(1, 64, 112, 112)).shape
torch.Size([1, 64, 56, 56])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn

from dealias.errors import InputError, check_flag
from dealias.filters import FILTERS, IDEAL, Filter, Taps, resolve_filters
from dealias.functional import (
    PaddingMode,
    apply_blur,
    apply_max_blur,
    axis_taps,
    check_padding_mode,
    per_axis,
    pool_arguments,
)

# Single calls in the graphs of torch.fx, also where they are called from here.
torch.fx.wrap("apply_blur")
torch.fx.wrap("apply_max_blur")

T = TypeVar("T")


def _brief(values: tuple[T, ...]) -> T | tuple[T, ...]:
    """One value for all axes where they agree."""
    return values[0] if len(set(values)) == 1 else values


def _named(taps: Taps) -> str | Taps:
    return next((name for name, named in (*FILTERS.items(), ("ideal", IDEAL)) if named == taps), taps)


class _Blur(nn.Module):
    """What all layers share: the taps along each axis (see `axis_taps`), the stride and the border of the blur.

    Their forward calls its argument `input`, as PyTorch's poolings and activations do, whose place they take.
    """

    spatial: ClassVar[int]

    def __init__(self, filter: Filter, stride: tuple[int, ...], padding_mode: str) -> None:
        super().__init__()
        self._filters = resolve_filters(filter, self.spatial)
        self.taps = axis_taps(self._filters, stride)
        self.stride = stride
        self.padding_mode = check_padding_mode(padding_mode, self.taps)

    @property
    def filter(self) -> str | Taps | tuple[str | Taps, ...]:
        """The name of the filter, or its taps where it has none; a tuple of these where the axes differ."""
        names = _brief(tuple(map(_named, self._filters)))
        return names

    def __prepare_scriptable__(self) -> nn.Module:
        """Called by `torch.jit.script`, which cannot compile the checks of the input."""
        raise InputError(f"{type(self).__name__} cannot be scripted: use torch.jit.trace or torch.export.export")

    def extra_repr(self) -> str:
        return f"filter={self.filter!r}, stride={_brief(self.stride)}, padding_mode={self.padding_mode!r}"


class _BlurPool(_Blur):
    def __init__(
        self, filter: Filter = "bin4", stride: int | Sequence[int] = 2, padding_mode: PaddingMode = "reflect"
    ) -> None:
        super().__init__(filter, per_axis("stride", stride, self.spatial, 1), padding_mode)

    def forward(self, input: Tensor) -> Tensor:
        return apply_blur(input, self.taps, self.stride, self.padding_mode)


class BlurPool1d(_BlurPool):
    """`BlurPool2d` over one spatial axis: (N, C, L) or (C, L) to ceil(L / stride)."""

    spatial = 1


class BlurPool2d(_BlurPool):
    """Low-pass filter each channel, then subsample: `dealias.functional.blur_pool2d` as a module.

    >>> BlurPool2d("bin5", stride=2)(torch.rand(8, 64, 7, 7)).shape
    torch.Size([8, 64, 4, 4])

    Args:
        filter: see `dealias.filters.resolve_filter`; a tuple of such filters has one for each axis.
        stride: one int, or one for each axis.
        padding_mode: "reflect", "replicate", "circular" or "zeros"; "circular" with the filter "ideal".

    Raises:
        InputError: an argument is out of range.
    """

    spatial = 2


class BlurPool3d(_BlurPool):
    """`BlurPool2d` over three spatial axes: (N, C, D, H, W) or (C, D, H, W)."""

    spatial = 3


class ReLUBlurPool2d(BlurPool2d):
    """ReLU then `BlurPool2d`, as one operation: `dealias.functional.relu_blur_pool2d` as a module."""

    def forward(self, input: Tensor) -> Tensor:
        """ReLU, then blur and subsample."""
        return apply_blur(input, self.taps, self.stride, self.padding_mode, relu=True)


class _MaxBlurPool(_Blur):
    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        ceil_mode: bool = False,
        *,
        filter: Filter = "bin4",
        padding_mode: PaddingMode = "reflect",
    ) -> None:
        kernel, steps, pads, dilations = pool_arguments(self.spatial, kernel_size, stride, padding, dilation)
        super().__init__(filter, steps, padding_mode)
        self.kernel_size, self.padding, self.dilation = kernel, pads, dilations
        self.ceil_mode = check_flag("ceil_mode", ceil_mode)

    def forward(self, input: Tensor) -> Tensor:
        arguments = (self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)
        return apply_max_blur(input, *arguments, self.taps, self.padding_mode)

    def extra_repr(self) -> str:
        pool = f"kernel_size={_brief(self.kernel_size)}, padding={_brief(self.padding)}"
        return f"{pool}, dilation={_brief(self.dilation)}, ceil_mode={self.ceil_mode}, {super().extra_repr()}"


class MaxBlurPool1d(_MaxBlurPool):
    """`MaxBlurPool2d` over one spatial axis: (N, C, L) or (C, L), in place of `torch.nn.MaxPool1d`."""

    spatial = 1


class MaxBlurPool2d(_MaxBlurPool):
    """Anti-aliased `torch.nn.MaxPool2d`: `dealias.functional.max_blur_pool2d` as a module.

    >>> x = torch.rand(2, 3, 9, 9)
    >>> MaxBlurPool2d(2)(x).shape == nn.MaxPool2d(2)(x).shape
    True

    Args:
        kernel_size, stride, padding, dilation, ceil_mode: as in `torch.nn.MaxPool2d`; so is the output size.
        filter, padding_mode: of the blur, as in `BlurPool2d`.

    Raises:
        InputError: an argument is out of range.
    """

    spatial = 2


class MaxBlurPool3d(_MaxBlurPool):
    """`MaxBlurPool2d` over three spatial axes, in place of `torch.nn.MaxPool3d`."""

    spatial = 3
