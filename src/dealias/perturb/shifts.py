"""Shifts by whole pixels, one for all images of a batch or one for each.

>>> image = torch.arange(6.0).view(1, 1, 2, 3)
>>> circular_shift(image, dy=0, dx=1)
tensor([[[[2., 0., 1.],
          [5., 3., 4.]]]])
>>> zero_fill_shift(image, dy=1, dx=0)
tensor([[[[0., 0., 0.],
          [0., 1., 2.]]]])

Positive shifts move the content down and to the right, as `torch.roll` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from dealias.errors import InputError, InputTypeError, as_int, check_kind, shown
from dealias.ops import fourier

Shift: TypeAlias = int | Sequence[int] | Tensor
SubpixelShift: TypeAlias = float | Sequence[float] | Tensor


def circular_shift(images: Tensor, dy: Shift, dx: Shift) -> Tensor:
    """Roll each image by `dy` rows and `dx` columns: pixels that leave at one side enter at the other.

    Args:
        images: (N, C, H, W) or one image (C, H, W), any dtype.
        dy, dx: one int, or N of them, one for each image.

    Raises:
        InputError: `images` has another shape, or the number of shifts is not N.
        InputTypeError: `images` is not a tensor, or a shift is not an integer.
    """
    rows, columns = _sources(images, dy, dx)
    return _take(images, rows.remainder(images.shape[-2]), columns.remainder(images.shape[-1]))


def zero_fill_shift(images: Tensor, dy: Shift, dx: Shift, fill: float = 0.0) -> Tensor:
    """Shift each image by `dy` rows and `dx` columns; the pixels that enter have the value `fill`.

    Arguments and errors as for `circular_shift`.
    """
    check_kind("fill", fill, (int, float), "a number")
    rows, columns = _sources(images, dy, dx)
    height, width = images.shape[-2:]
    moved = _take(images, rows.clamp(0, height - 1), columns.clamp(0, width - 1))
    inside_rows, inside_columns = (rows >= 0) & (rows < height), (columns >= 0) & (columns < width)
    inside = inside_rows[:, None, :, None] & inside_columns[:, None, None, :]
    return moved.masked_fill(~inside.view(*inside.shape[-moved.ndim :]), fill)


def fourier_shift(images: Tensor, dy: SubpixelShift, dx: SubpixelShift) -> Tensor:
    """Roll each image by `dy` rows and `dx` columns that may be fractions of a pixel.

    >>> wave = torch.cos(torch.arange(8) * torch.pi / 2).expand(1, 1, 8, 8)
    >>> fourier_shift(wave, 0, 0.5)[0, 0, 0, :4].mul(100).round().tolist()
    [71.0, 71.0, -71.0, -71.0]

    The result samples the periodic, band-limited image through the pixels (trigonometric interpolation), whose phases
    the discrete Fourier transform shifts. At the Nyquist frequency of an even size only the cosine part of the shifted
    wave can be sampled; the rest is lost. Whole shifts equal `circular_shift`; a fractional shift followed by its
    opposite does not restore the image exactly.

    Args:
        images: float (N, C, H, W) or one image (C, H, W).
        dy, dx: one number, or N of them, in pixels.

    Returns:
        Images of the same shape and dtype; values may go beyond the range of the pixels.

    Raises:
        InputError: as for `circular_shift`, or a shift is not finite.
        InputTypeError: `images` is not a float tensor, or a shift is not a real number.

    Source: Michaeli et al., Alias-Free Convnets, CVPR 2023, which measures fractional shifts in this way.
    """
    batch = _as_batch(images)
    if not batch.is_floating_point():
        raise InputTypeError(f"images have dtype {images.dtype}: sub-pixel shifts need float images")
    working = batch if batch.dtype == torch.float64 else batch.float()
    for axis, name, shift in ((2, "dy", dy), (3, "dx", dx)):
        working = fourier.shifted(working, axis, _one_or_each(name, shift, working, whole=False))
    return working.to(images.dtype).view(images.shape)


def crop(images: Tensor, top: Shift, left: Shift, size: int | tuple[int, int]) -> Tensor:
    """The window of `size` pixels whose first row is `top` and first column `left`, of each image.

    >>> crop(torch.rand(2, 3, 256, 256), top=[0, 31], left=[5, 5], size=224).shape
    torch.Size([2, 3, 224, 224])

    Args:
        images: (N, C, H, W) or one image (C, H, W), any dtype.
        top, left: one int, or N of them, one for each image.
        size: one int, or height and width.

    Raises:
        InputError: as for `circular_shift`, or a window reaches beyond its image.
    """
    batch = _as_batch(images)
    height, width = batch.shape[2:]
    sides = size if isinstance(size, Sequence) and not isinstance(size, str) else (size, size)
    window = tuple(as_int("size", side, given=size, valid="an int, or height and width") for side in sides)
    starts = _one_or_each("top", top, batch), _one_or_each("left", left, batch)
    for name, start, length, available in zip(("top", "left"), starts, window, (height, width), strict=True):
        if length < 1 or int(start.min()) < 0 or int(start.max()) + length > available:
            raise InputError(
                f"{name}={int(start.min())}..{int(start.max())} and size={size} reach beyond images of "
                f"{height}x{width}: use {name} from 0 to {available - length}"
            )
    rows, columns = (
        start + torch.arange(length, device=images.device) for start, length in zip(starts, window, strict=True)
    )
    return _take(images, rows, columns)


def resize_and_crop(images: Tensor, size: int) -> Tensor:
    """Resize float images until their short side has `size` pixels, and keep the square in the middle.

    >>> resize_and_crop(torch.rand(1, 3, 300, 400), 256).shape
    torch.Size([1, 3, 256, 256])

    The images are (N, C, H, W) or one image (C, H, W). The result, bilinear with anti-aliasing, is that of
    torchvision's `Resize` and `CenterCrop`, without the need for torchvision.

    Raises:
        InputError, InputTypeError: as for `circular_shift`, or `size` is below 1.
    """
    batch = _as_batch(images)
    height, width = batch.shape[2:]
    size = as_int("size", size, bits=31)
    short = min(height, width)
    if short != size:
        height, width = size * height // short, size * width // short
        batch = F.interpolate(batch, (height, width), mode="bilinear", antialias=True, align_corners=False)
    return crop(
        batch.view(*images.shape[:-2], height, width), round((height - size) / 2), round((width - size) / 2), size
    )


def _sources(images: Tensor, dy: Shift, dx: Shift) -> tuple[Tensor, Tensor]:
    """The rows (N or 1, H) and the columns (N or 1, W) that move to each place; some lie outside the images."""
    batch = _as_batch(images)
    rows = torch.arange(batch.shape[2], device=images.device) - _one_or_each("dy", dy, batch)
    columns = torch.arange(batch.shape[3], device=images.device) - _one_or_each("dx", dx, batch)
    return rows, columns


def _as_batch(images: Tensor) -> Tensor:
    """Check the images and return them as (N, C, H, W)."""
    if not isinstance(images, Tensor):
        raise InputTypeError(f"images must be a torch.Tensor, got {type(images).__name__}")
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise InputError(f"images of shape {tuple(images.shape)}: use (N, C, H, W) or (C, H, W), none of them 0")
    return images if images.ndim == 4 else images.unsqueeze(0)


def _one_or_each(name: str, shift: Any, images: Tensor, *, whole: bool = True) -> Tensor:
    """The shifts as (N, 1) or (1, 1): integers, or unless `whole` fractions in the dtype of the images."""
    try:
        values = torch.as_tensor(shift, device=images.device)
        if not whole and values.is_floating_point():  # again, for PyTorch rounds Python's floats to float32
            values = torch.as_tensor(shift, dtype=images.dtype, device=images.device)
    except (TypeError, ValueError, RuntimeError):  # as PyTorch raises for text, None, sets and huge numbers
        values = None
    if values is None or values.is_complex() or values.dtype == torch.bool or (whole and values.is_floating_point()):
        valid = "an int or a sequence of ints" if whole else "a real number or a sequence of them"
        raise InputTypeError(f"{name}={shown(shift)} must be {valid}")
    if not values.isfinite().all():
        raise InputError(f"{name}={shown(shift)} must be finite")
    if values.ndim > 1 or (values.ndim == 1 and len(values) != len(images)):
        raise InputError(
            f"{name} has shape {tuple(values.shape)}: use one number, or {len(images)}, one for each image"
        )
    return (values if whole else values.to(images.dtype)).reshape(-1, 1)


def _take(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The pixels at rows (N or 1, h) and columns (N or 1, w), of images (N, C, H, W) or (C, H, W)."""
    batch = _as_batch(images)
    count, channels, _, width = batch.shape
    taken = batch.gather(2, rows[:, None, :, None].expand(count, channels, -1, width))
    taken = taken.gather(3, columns[:, None, None, :].expand(count, channels, taken.shape[2], -1))
    return taken if images.ndim == 4 else taken.squeeze(0)
