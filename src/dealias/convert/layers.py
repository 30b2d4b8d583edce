"""The layers that conversion alone needs.

A blur in place of average pooling, on the samples that the pooling uses, and one that a hook applies.

>>> AvgBlurPool2d("bin4", stride=2)(torch.rand(1, 3, 7, 8)).shape == torch.nn.AvgPool2d(2)(torch.rand(1, 3, 7, 8)).shape
True
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from torch import Tensor

from dealias.errors import InputError
from dealias.nn import BlurPool1d, BlurPool2d, BlurPool3d

if TYPE_CHECKING:
    from dealias.nn import _BlurPool as _Base
else:
    _Base = object


class _WholeWindows(_Base):
    """Leaves out the trailing samples that fill no window, as `torch.nn.AvgPool2d(k, k)` does: floor(N / stride)."""

    def forward(self, input: Tensor) -> Tensor:
        for axis, step in enumerate(self.stride, start=-self.spatial):
            input = input.narrow(axis, 0, input.shape[axis] // step * step)
        return super().forward(input)


class AvgBlurPool1d(_WholeWindows, BlurPool1d):
    """`AvgBlurPool2d` over one spatial axis."""


class AvgBlurPool2d(_WholeWindows, BlurPool2d):
    """`BlurPool2d` in place of `torch.nn.AvgPool2d(stride, stride)`: the same output size, floor(N / stride)."""


class AvgBlurPool3d(_WholeWindows, BlurPool3d):
    """`AvgBlurPool2d` over three spatial axes."""


class _Hooked(_Base):
    """A child of the layer that it blurs, refusing to let PyTorch quantise that: what replaces it has no hooks.

    PyTorch's quantisation in eager and in FX graph mode sets `qconfig` on a layer that it will replace, and on all its
    children.
    """

    @property
    def qconfig(self) -> NoReturn:
        raise AttributeError("qconfig")

    @qconfig.setter
    def qconfig(self, value: object) -> None:
        if value is not None:
            raise InputError(
                "an anti-aliased layer would lose its blur by quantisation in eager or FX graph mode: give the layers "
                "that have a child `antialias_before` or `antialias_after` the qconfig None, e.g. with "
                "qconfig_mapping.set_module_name(name, None), or quantise the exported ONNX file"
            )


class HookedBlurPool1d(_Hooked, BlurPool1d):
    """`HookedBlurPool2d` over one spatial axis."""


class HookedBlurPool2d(_Hooked, BlurPool2d):
    """`BlurPool2d` as a child of a layer that a hook on that layer applies."""


class HookedBlurPool3d(_Hooked, BlurPool3d):
    """`HookedBlurPool2d` over three spatial axes."""
