"""Anchors: which polyphase component of a map comes first, and the circular shift that moves it there.

A circular shift of the map permutes its components. The one of largest energy is picked: a sum of integers, which no
order changes. Energies that are equal but for rounding are told apart by the whole map as seen from their pixels. The
anchored map therefore moves by whole strides alone, and what is subsampled behind it by whole pixels.

Source: Chaman and Dokmanic, *Truly shift-invariant convolutional neural networks*, CVPR 2021, section 3.2.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from dealias import ops
from dealias.ops import anchor_cpu
from dealias.ops.reference import is_recorded, match_layout

_BITS = 40  # of a pixel's energy, relative to the largest one: sums over 4 million pixels fit into 63 bits
_MOST_ROUNDS = 12  # of looking twice as far, where the size of the map is not known


def anchored(x: Tensor, stride: Sequence[int]) -> tuple[Tensor, Tensor]:
    """`x` rolled so that the polyphase component of largest energy comes first, and the offsets that it had.

    Args:
        x: (N, C, *spatial).
        stride: the period on each spatial axis; component (i, j) holds the pixels i + stride * n, j + stride * m.

    Returns:
        The rolled map, differentiable, and the offsets: (N, spatial) int64, below the stride.
    """
    if len(stride) == 2 and anchor_cpu.covers_anchor(x) and ops.runs_native(x):
        return anchor_cpu.anchored(x, stride, _slack(x), offsets_of)
    offsets = offsets_of(x, stride)
    return shifted(x, offsets, stride), offsets


def offsets_of(x: Tensor, stride: Sequence[int]) -> Tensor:
    """The offsets of the component that is to come first, see `anchored`."""
    with torch.no_grad():
        energies = component_energies(x, stride)
        best = energies.amax(1, keepdim=True)
        close = energies >= best - (best.to(_wide(x)) * _slack(x)).to(torch.int64)
        chosen = _break_ties(x, stride, energies, close)
        offsets = []
        for step in reversed(stride):
            offsets.append(chosen % step)
            chosen = chosen // step
        return torch.stack(offsets[::-1], 1)


def _slack(x: Tensor) -> float:
    """The share by which energies may differ and still count as equal: more than rounding makes of them."""
    return 1e-10 if x.dtype == torch.float64 else 1e-6


def _break_ties(x: Tensor, stride: Sequence[int], energies: Tensor, close: Tensor) -> Tensor:
    """The number of the component to choose from those that are `close` to the largest energy, for each sample."""
    if is_recorded():
        return torch.where(close, _outlooks(x, stride), -4.0).argmax(1)
    chosen = energies.argmax(1)
    tied = (close.sum(1) > 1).nonzero().squeeze(1)
    if len(tied):
        chosen[tied] = torch.where(close[tied], _outlooks(x[tied], stride), -4.0).argmax(1)
    return chosen


def _wide(x: Tensor) -> torch.dtype:
    return torch.float32 if x.device.type == "mps" else torch.float64  # which has no float64


def component_energies(x: Tensor, stride: Sequence[int]) -> Tensor:
    """The energy of each polyphase component of `x`: (N, components) int64, in units of 2**-40 of the largest pixel.

    The energy of a pixel is the sum of squares over its channels.
    """
    pixels = x.to(_wide(x)).square().sum(1)
    largest = pixels.flatten(1).amax(1).clamp_min(torch.finfo(pixels.dtype).tiny)
    scaled = pixels / largest.reshape(-1, *(1,) * len(stride)) * 2.0**_BITS
    return torch.stack([part.flatten(1).sum(1) for part in _components(scaled.round().to(torch.int64), stride)], 1)


def _components(pixels: Tensor, stride: Sequence[int]) -> list[Tensor]:
    """The polyphase components of maps (N, *spatial), the last axis fastest."""
    places = (
        (slice(None), *(slice(start, None, step) for start, step in zip(starts, stride, strict=True)))
        for starts in itertools.product(*map(range, stride))
    )
    return [pixels[place] for place in places]


def _outlooks(x: Tensor, stride: Sequence[int]) -> Tensor:
    """For each component a number in [-1, 1] that depends on all of the map as seen from one of its pixels.

    Every pixel starts with a number made of its channels, and takes in the number of the pixel 1, 2, 4 ... further on
    along each axis, so that after log2(size) rounds it has seen the whole map from where it stands. The largest number
    of a component stands for it. No shift changes that, and two components have the same one only where the map looks
    the same from both, and either may come first.
    """
    spatial, wide = len(stride), _wide(x)
    largest = x.abs().flatten(1).amax(1).to(wide).clamp_min(torch.finfo(wide).tiny)
    weights = torch.arange(1, x.shape[1] + 1, device=x.device).to(wide).cos()
    values = x.to(wide) / largest.reshape(-1, *(1,) * (spatial + 1)) * weights.reshape(-1, *(1,) * spatial)
    seen = (values.sum(1) + 1.0).sin()
    for axis in range(1, spatial + 1):
        size: int | torch.SymInt = seen.shape[axis]
        rounds = (size - 1).bit_length() if isinstance(size, int) else _MOST_ROUNDS
        for distance in (2**one for one in range(rounds)):
            seen = (1.2 * seen + 1.7 * seen.roll(-distance, axis) + 0.4).sin()
    parts = _components(seen, stride)  # some without a pixel where the map is smaller than the stride
    return torch.stack(
        [part.flatten(1).amax(1) if 0 not in part.shape else seen.flatten(1)[:, 0] - 2 for part in parts], 1
    )


def shifted(x: Tensor, offsets: Tensor, periods: Sequence[int], *, back: bool = False) -> Tensor:
    """`x` rolled so that the pixel at `offsets` comes first, in its layout; with `back` the inverse. Differentiable.

    Args:
        x: (N, C, *spatial).
        offsets: (N, spatial) int64, at least 0 and below `periods`.
    """
    if len(periods) == 2 and anchor_cpu.covers(x) and ops.runs_native(x):
        return anchor_cpu.roll(x, -offsets if back else offsets)
    y = x
    for axis, period in enumerate(periods):
        for bit in range((period - 1).bit_length()):
            moves = (offsets[:, axis] >> bit) % 2 == 1
            distance = 1 << bit if back else -(1 << bit)
            y = torch.where(moves.reshape(-1, *(1,) * (y.ndim - 1)), y.roll(distance, axis + 2), y)
    return match_layout(y, x)
