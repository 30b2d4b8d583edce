"""Maps at twice their rate, and back: what works pixel by pixel sees there what lies between the pixels.

Source: Karras et al., *Alias-Free Generative Adversarial Networks*, NeurIPS 2021, section 3.2; Michaeli et al.,
*Alias-Free Convnets*, CVPR 2023, section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dealias.ops import fourier
from dealias.ops.reference import is_channels_last, without_autocast


def doubled(x: Tensor, axes: Sequence[int], *, plain: bool = False) -> Tensor:
    """Two samples of a map for each pixel along `axes`, of its waves below the Nyquist frequency.

    >>> doubled(torch.tensor([0.0, 1.0, 0.0, -1.0]), [-1]).mul(100).round().tolist()
    [0.0, 71.0, 100.0, 71.0, 0.0, -71.0, -100.0, -71.0]

    Args:
        axes: counted from the last one, below 0.
        x: of any floating dtype, which the result has too, as it has the memory layout.
        plain: repeat the pixels in place of that, to compare networks.
    """
    if plain:
        for axis in axes:
            x = x.repeat_interleave(2, axis)
        return x
    return _along(x, axes, lambda y, axis: fourier.interpolated(y, axis, 2))


def halved(x: Tensor, axes: Sequence[int], *, plain: bool = False) -> Tensor:
    """Every second sample along `axes` of a map, behind a filter that leaves the waves that these hold; see `doubled`.

    With `plain` without the filter.
    """
    if plain:
        for axis in axes:
            x = x.unflatten(axis, (-1, 2)).select(axis, 0)
        return x
    return _along(x, axes, lambda y, axis: fourier.subsampled(y, axis, 2))


def _along(x: Tensor, axes: Sequence[int], run: Callable[[Tensor, int], Tensor]) -> Tensor:
    """`run` along each axis, in at least float32; rounded once, at the end."""
    y = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    positions = [axis % x.ndim for axis in axes]
    last = min(positions) > 1 and is_channels_last(x)  # then in the order in which the elements lie
    with without_autocast(x.device.type):
        y = y.movedim(1, -1) if last else y
        for position in positions:
            y = run(y, position - last)
        y = y.movedim(-1, 1) if last else y
    return y.to(x.dtype)
