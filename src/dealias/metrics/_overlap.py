"""Two views of known displacement: what they have in common.

A shift (dy, dx) is in pixels: what stands at (y, x) in view a stands at (y + dy, x + dx) in view b.

>>> overlap((2, -3), (10, 20))
(0.0, 3.0, 8.0, 20.0)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from dealias.errors import InputError, InputTypeError, as_int, shown
from dealias.perturb.pans import LOBES, resample

Shift: TypeAlias = Sequence[float] | Sequence[Sequence[float]] | Tensor


def as_shifts(shift: Any, count: int, name: str = "shift") -> list[tuple[float, float]]:
    """The shift (dy, dx) of each of `count` pairs, from one for all, (2,), or one for each, (count, 2).

    Raises:
        InputError, InputTypeError: another shape, a number is not finite, or it is none.
    """
    try:
        values = torch.as_tensor(shift, dtype=torch.float64).cpu()
    except (TypeError, ValueError, RuntimeError):  # as PyTorch raises for text, None and ragged lists
        raise InputTypeError(f"{name}={shown(shift)} must be (dy, dx) in pixels, or one such pair for each") from None
    if values.shape not in ((2,), (count, 2)):
        raise InputError(f"{name} has shape {tuple(values.shape)}: use (dy, dx), or ({count}, 2), one for each pair")
    if not values.isfinite().all():
        raise InputError(f"{name}={shown(shift)} must be finite")
    return [(dy, dx) for dy, dx in values.expand(count, 2).tolist()]


def as_size(size: Any) -> tuple[int, int]:
    """The height and the width of the network's input; `InputError` if they are not two positive ints."""
    if not isinstance(size, Sequence) or isinstance(size, str) or len(size) != 2:
        raise InputTypeError(f"size={shown(size)} must be (height, width) of the input, in pixels")
    height, width = (as_int("size", side, given=size, valid="(height, width)") for side in size)
    return height, width


def overlap(shift: tuple[float, float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Top, left, bottom and right of what view a shares with b, in a's pixels; `InputError` if they share nothing."""
    (dy, dx), (height, width) = shift, size
    top, left = float(max(0, -dy)), float(max(0, -dx))
    bottom, right = float(min(height, height - dy)), float(min(width, width - dx))
    if top >= bottom or left >= right:
        raise InputError(f"shift=({dy:g}, {dx:g}) leaves nothing in common of views of {height}x{width} pixels")
    return top, left, bottom, right


def shared_parts(a: Tensor, b: Tensor, shift: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """The parts of two maps (..., H, W) that show the same, pixel on pixel.

    A fraction of a pixel is undone in `b`, by Lanczos' kernel of five lobes, where all of the kernel lies in the map.
    This is exact for maps that have no detail finer than about two pixels, and approximate at sharper edges.

    Raises:
        InputError: the maps share nothing; or they are not float, and the shift is not whole.
    """
    whole, fractions = zip(*(divmod(part, 1) for part in shift), strict=True)
    if any(fractions) and not (a.is_floating_point() and b.is_floating_point()):
        raise InputError(
            f"shift=({shift[0]:g}, {shift[1]:g}) must be whole pixels for classes and masks, which cannot be "
            "interpolated: give class scores, or move by whole pixels"
        )
    starts, lengths = [], []
    for side, step, fraction in zip(a.shape[-2:], map(int, whole), fractions, strict=True):
        before, after = (LOBES - 1, LOBES) if fraction else (0, 0)
        first, last = max(0, before - step), min(side, side - after - step)
        if first >= last:
            raise InputError(
                f"shift=({shift[0]:g}, {shift[1]:g}) leaves nothing in common of maps of {a.shape[-2]}x{a.shape[-1]}"
                f"{f', without the {LOBES} pixels beside the border' if fraction else ''}"
            )
        starts.append((first, first + step))
        lengths.append(last - first)
    for axis, (mine, theirs), fraction, length in zip((-2, -1), starts, fractions, lengths, strict=True):
        a, b = a.narrow(axis, mine, length), resample(b, theirs, fraction, length, axis)
    return a, b


def check_same_shape(a: Any, b: Any, valid: str, dimensions: tuple[int, ...]) -> None:
    """Check that `a` and `b` are tensors (else `InputTypeError`) of one shape without 0 and of so many dimensions."""
    for name, value in (("a", a), ("b", b)):
        if not isinstance(value, Tensor):
            raise InputTypeError(f"{name} must be a torch.Tensor {valid}, got {type(value).__name__}")
        if value.ndim not in dimensions or 0 in value.shape:
            raise InputError(f"{name} of shape {tuple(value.shape)}: use {valid}, none of them 0")
    if a.shape != b.shape:
        raise InputError(f"a has shape {tuple(a.shape)} and b {tuple(b.shape)}: they must be of the same pairs")


def check_finite(a: Tensor, b: Tensor, valid: str) -> None:
    """Check that `a` and `b` are float (else `InputTypeError`) and finite (else `InputError`)."""
    for name, value in (("a", a), ("b", b)):
        if not value.is_floating_point():
            raise InputTypeError(f"{name} is {value.dtype}: use {valid}")
        if not (finite := value.isfinite().flatten(1).all(1)).all():
            raise InputError(f"{name} has NaN or infinite values in row {int((~finite).nonzero()[0])}")
