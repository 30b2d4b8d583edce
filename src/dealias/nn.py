"""Anti-aliased layers as modules: thin shells over `dealias.functional` without parameters, buffers or channel counts.

And two layers with parameters for networks that are trained to be exact under shifts by a fraction of a pixel.

>>> pool = MaxBlurPool2d(kernel_size=3, stride=2, padding=1)
>>> pool(torch.rand(1, 64, 112, 112)).shape
torch.Size([1, 64, 56, 56])
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dealias.errors import InputError, InputTypeError, as_int, check_flag, shown
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


class Quadratic(nn.Module):
    """An activation that learns a polynomial of degree 2 for each channel: a + b x + c x^2.

    At twice the rate (`dealias.antialias` with `method="alias-free"`) nothing that it makes aliases, so that a network
    of it is exactly equivariant to shifts by fractions of a pixel. At first it is the polynomial nearest to GELU for
    inputs of a standard normal distribution: x / 2 + (1 + 3 x^2) / (8 sqrt(pi)).

    >>> Quadratic(8)(torch.zeros(2, 8, 5, 5)).mean().mul(1000).round()
    tensor(71., grad_fn=<RoundBackward0>)

    Args:
        channels: of the map, (N, channels, *spatial); the result has its shape and dtype.

    Raises:
        InputError: `channels` is out of range.

    Source: Michaeli et al., *Alias-Free Convnets: Fractional Shift Invariance via Polynomial Activations*, CVPR 2023.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = as_int("channels", channels)
        self.coefficients = nn.Parameter(torch.empty(3, self.channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The polynomial that it has at first."""
        small = 1 / (8 * math.sqrt(math.pi))
        with torch.no_grad():
            self.coefficients.copy_(torch.tensor([small, 0.5, 3 * small]).unsqueeze(1).expand(3, self.channels))

    def forward(self, input: Tensor) -> Tensor:
        """The polynomial of each value."""
        constant, linear, square = self.coefficients.view(3, self.channels, *[1] * (input.ndim - 2)).unbind()
        return constant + input * (linear + square * input)

    def extra_repr(self) -> str:
        """The channels."""
        return str(self.channels)


class MapNorm(nn.Module):
    """`torch.nn.LayerNorm` over the channels, with one standard deviation for each map in place of one for each pixel.

    The mean over the channels is taken off each pixel; what is left is divided by its standard deviation over all
    channels and pixels of a sample, which no shift changes, so that no non-linearity is left. Weight and bias are those
    of a `torch.nn.LayerNorm(channels)`.

    >>> MapNorm(8)(torch.rand(2, 8, 5, 5)).square().mean().mul(100).round()
    tensor(100., grad_fn=<RoundBackward0>)

    Args:
        channels: of the map, (N, channels, *spatial); the result has its shape and dtype.
        eps: added to the variance.

    Raises:
        InputError: an argument is out of range.

    Source: Michaeli et al., *Alias-Free Convnets: Fractional Shift Invariance via Polynomial Activations*, CVPR 2023.
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.channels = as_int("channels", channels)
        if isinstance(eps, bool) or not isinstance(eps, int | float):
            raise InputTypeError(f"eps={shown(eps)} must be a number")
        if not 0 <= eps < math.inf:
            raise InputError(f"eps={shown(eps)} is out of range: it must be at least 0")
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(self.channels))
        self.bias = nn.Parameter(torch.zeros(self.channels))

    def forward(self, input: Tensor) -> Tensor:
        """The normalised map."""
        centred = input - input.mean(1, keepdim=True)
        return F.group_norm(centred, 1, self.weight, self.bias, self.eps)  # whose mean is 0 already

    def extra_repr(self) -> str:
        """The arguments."""
        return f"{self.channels}, eps={self.eps}"
