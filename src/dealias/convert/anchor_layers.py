"""The layers of `method="polyphase"`: anchors, and what undoes them where a decoder brings a map back.

They have no parameters and no buffers. An anchor that is undone keeps the offsets of its last calls for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from dealias.ops import anchor

# Single calls in the graphs of torch.fx.
torch.fx.wrap("anchored")
torch.fx.wrap("rolled")


def anchored(x: Tensor, stride: Sequence[int]) -> tuple[Tensor, Tensor]:
    """`dealias.ops.anchor.anchored` for maps with or without a batch axis."""
    if x.ndim == len(stride) + 1:
        y, offsets = anchor.anchored(x.unsqueeze(0), stride)
        return y.squeeze(0), offsets
    return anchor.anchored(x, stride)


def rolled(x: Tensor, offsets: Tensor, periods: Sequence[int], *, back: bool = False) -> Tensor:
    """`dealias.ops.anchor.shifted` for maps with or without a batch axis."""
    if x.ndim == len(periods) + 1:
        return anchor.shifted(x.unsqueeze(0), offsets, periods, back=back).squeeze(0)
    return anchor.shifted(x, offsets, periods, back=back)


class _Calls:
    """The offsets of an anchor's calls in this forward pass; no container that torch.export takes for a buffer."""

    def __init__(self, offsets: tuple[Tensor, ...] = ()) -> None:
        self.offsets = offsets


class Anchor(nn.Module):
    """Rolls each sample's map so that the polyphase component of largest energy comes first.

    >>> Anchor((2, 2))(torch.tensor([[[[0.0, 0.0], [0.0, 5.0]]]])).flatten()
    tensor([5., 0., 0., 0.])

    Args:
        stride: the period on each spatial axis.
        calls: in one forward pass of the model.
        undone: whether an `Undo` will ask for the offsets.
    """

    anti_aliases = True
    is_anchor = True

    def __init__(self, stride: Sequence[int], calls: int = 1, undone: bool = False) -> None:
        super().__init__()
        self.stride, self.calls, self.undone = tuple(stride), calls, undone
        self.made = _Calls()

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, *spatial) or (C, *spatial) to the same shape, dtype and layout."""
        y, offsets = anchored(input, self.stride)
        if self.undone:
            earlier = self.made.offsets if len(self.made.offsets) < self.calls else ()
            self.made = _Calls((*earlier, offsets))  # a new one: replicas share the old one
        return y

    def extra_repr(self) -> str:
        """The period."""
        return f"stride={self.stride}"


class Step(NamedTuple):
    """What one call of an `Undo` undoes: a call of an anchor, whose pixels are `scale` pixels apart here."""

    anchor: int
    call: int
    scale: tuple[int, ...]


class Undo(nn.Module):
    """Rolls each sample's map back by what anchors have rolled it on the way down.

    Args:
        anchors: whose calls it undoes.
        turns: what each of its calls in a forward pass undoes.
    """

    anti_aliases = True

    def __init__(self, anchors: Sequence[Anchor], turns: Sequence[Sequence[Step]]) -> None:
        super().__init__()
        self.anchors, self.turns, self.turn = nn.ModuleList(anchors), tuple(map(tuple, turns)), 0

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, *spatial) or (C, *spatial) to the same shape, dtype and layout."""
        steps, self.turn = self.turns[self.turn], (self.turn + 1) % len(self.turns)
        if not steps:
            return input
        total, periods = None, [1] * len(steps[0].scale)
        for step in steps:
            layer = cast(Anchor, self.anchors[step.anchor])
            offsets = layer.made.offsets[step.call]
            moved = torch.stack([offsets[:, axis] * scale for axis, scale in enumerate(step.scale)], 1)
            total = moved if total is None else total + moved
            longest = ((stride - 1) * scale for stride, scale in zip(layer.stride, step.scale, strict=True))
            periods = [period + more for period, more in zip(periods, longest, strict=True)]
        return rolled(input, cast(Tensor, total), periods, back=True)
