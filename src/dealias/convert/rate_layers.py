"""The layers of `method="alias-free"`: what brings a map to twice its rate in front of a non-linearity, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from dealias.convert.layers import Floating
from dealias.convert.trace import DOUBLE, HALVE
from dealias.ops.rates import doubled, halved

# Single calls in the graphs of torch.fx.
torch.fx.wrap("doubled")
torch.fx.wrap("halved")


class _Rate(Floating):
    """Args:
    axes: the spatial axes, counted from the last one, below 0.
    plain: without a filter, to compare the converted network with the original: pixels are repeated and left out.
    """

    anti_aliases = True
    rate_operation: ClassVar[str]
    """Of the node that stands for it in a trace."""

    def __init__(self, axes: Sequence[int], plain: bool = False) -> None:
        super().__init__()
        self.axes, self.plain = tuple(axes), plain

    def extra_repr(self) -> str:
        """The axes."""
        return f"axes={self.axes}"


class Doubling(_Rate):
    """A map at twice its rate.

    >>> Doubling((-2, -1))(torch.rand(1, 3, 8, 6)).shape
    torch.Size([1, 3, 16, 12])
    """

    rate_operation = DOUBLE

    def forward(self, input: Tensor) -> Tensor:
        """`dealias.ops.rates.doubled`."""
        return doubled(input, self.axes, plain=self.plain)


class Halving(_Rate):
    """A map at half its rate, without the waves that it cannot hold.

    >>> Halving((-2, -1))(torch.rand(1, 3, 8, 6)).shape
    torch.Size([1, 3, 4, 3])
    """

    rate_operation = HALVE

    def forward(self, input: Tensor) -> Tensor:
        """`dealias.ops.rates.halved`."""
        return halved(input, self.axes, plain=self.plain)
