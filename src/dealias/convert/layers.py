"""The layers that conversion alone needs: a blur in place of average pooling, on the samples that the pooling uses.

>>> AvgBlurPool2d("bin4", stride=2)(torch.rand(1, 3, 7, 8)).shape == torch.nn.AvgPool2d(2)(torch.rand(1, 3, 7, 8)).shape
True
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from dealias.nn import BlurPool1d, BlurPool2d, BlurPool3d

if TYPE_CHECKING:
    from dealias.nn import _BlurPool as _Base
else:
    _Base = object


class _WholeWindows(_Base):
    """Leaves out the trailing samples that fill no window, as `torch.nn.AvgPool2d(k, k)` does: floor(N / stride)."""

    def forward(self, x: Tensor) -> Tensor:
        for axis, step in enumerate(self.stride, start=-self.spatial):
            x = x.narrow(axis, 0, x.shape[axis] // step * step)
        return super().forward(x)


class AvgBlurPool1d(_WholeWindows, BlurPool1d):
    """`AvgBlurPool2d` over one spatial axis."""


class AvgBlurPool2d(_WholeWindows, BlurPool2d):
    """`BlurPool2d` in place of `torch.nn.AvgPool2d(stride, stride)`: the same output size, floor(N / stride)."""


class AvgBlurPool3d(_WholeWindows, BlurPool3d):
    """`AvgBlurPool2d` over three spatial axes."""
