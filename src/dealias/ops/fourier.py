"""Resampling of maps that wrap around, by trigonometric interpolation: along one axis, exact but for rounding.

A periodic map of N pixels is the sum of the waves k = 0 ... N / 2 of its discrete Fourier transform, and has a value
between its pixels too. Behind a stride s the waves with 2 s k < N are kept; between the pixels, those with 2 k < N.
Short axes take a matrix product, which exports and which small maps are faster by; long ones the fast Fourier
transform.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LONGEST = 1024
"""Pixels of an axis up to which it is multiplied by a matrix."""


def subsampled(x: Tensor, axis: int, stride: int) -> Tensor:
    """Low-pass filter `x` along `axis`, and keep every `stride`-th sample from index 0; in at least float32."""
    size = x.shape[axis]
    if isinstance(size, int) and size > LONGEST:
        spectrum = torch.fft.rfft(x, dim=axis).narrow(axis, 0, (size - 1) // (2 * stride) + 1)
        dense: Tensor = torch.fft.irfft(spectrum, n=size, dim=axis)
        return dense[(slice(None),) * axis + (slice(None, None, stride),)]
    return _multiplied(x, axis, _matrix(x, size, stride))


def interpolated(x: Tensor, axis: int, factor: int) -> Tensor:
    """`factor` samples of `x` for each pixel along `axis`, the first at the pixel; in at least float32.

    The Nyquist frequency of an even axis is left out: where its wave stands between the pixels, they do not say.
    """
    size = x.shape[axis]
    if isinstance(size, int) and size * factor > LONGEST:
        spectrum = torch.fft.rfft(x, dim=axis).narrow(axis, 0, (size - 1) // 2 + 1)
        dense: Tensor = torch.fft.irfft(spectrum, n=size * factor, dim=axis) * factor
        return dense
    # `subsampled` from the finer map to this one, transposed
    return _multiplied(x, axis, _matrix(x, size * factor, factor).T * factor)


def shifted(x: Tensor, axis: int, amounts: Tensor) -> Tensor:
    """`x` moved along `axis` by `amounts` pixels, one for all samples or one for each, by the phases of its waves.

    At the Nyquist frequency of an even axis only the cosine part of the moved wave can be sampled; the rest is lost.
    """
    size = x.shape[axis]
    turns = amounts.reshape(-1, 1) * torch.fft.rfftfreq(size, dtype=x.dtype, device=x.device)
    phases = torch.polar(torch.ones_like(turns), -2 * torch.pi * turns)
    if size % 2 == 0:  # samples of the Nyquist frequency are a cosine
        phases = torch.cat([phases[:, :-1], torch.complex(phases[:, -1:].real, torch.zeros_like(turns[:, :1]))], 1)
    shape = [1] * x.ndim
    shape[0], shape[axis] = phases.shape
    moved: Tensor = torch.fft.irfft(torch.fft.rfft(x, dim=axis) * phases.view(shape), n=size, dim=axis)
    return moved


def _matrix(like: Tensor, size: int, stride: int) -> Tensor:
    """The matrix of `subsampled`, in the dtype and on the device of `like`."""
    plain = type(like) in (Tensor, nn.Parameter) and isinstance(size, int) and not isinstance(size, Tensor)
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None or not plain:
        return _build_matrix(size, stride, like.dtype, like.device)  # a fake tensor must not outlive its mode
    with torch.inference_mode(False):  # or training could not use what inference has kept
        return _kept_matrix(size, stride, like.dtype, like.device)


def _build_matrix(size: int, stride: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Row i holds what each pixel adds to the wave sum at i * stride: the Dirichlet kernel of the waves that are kept.

    Distances are whole, and taken modulo the period, so that no large angle is rounded.
    """
    columns = torch.arange(size, device="cpu")  # explicit: not every device has float64
    pixels = columns[:1] * 0 + size  # a tensor: symbolic numbers would not export to ONNX
    waves = (pixels - 1).div(2 * stride, rounding_mode="floor") * 2 + 1  # of both signs
    half = pixels.div(2, rounding_mode="floor")
    apart = (columns[::stride].unsqueeze(1) - columns + half).remainder(pixels) - half
    turns = (apart * waves).remainder(2 * pixels).to(torch.float64)
    same = apart == 0
    below = (torch.where(same, 1, apart).to(torch.float64) * math.pi / pixels).sin() * pixels
    kernel = torch.where(same, waves.to(torch.float64) / pixels, (turns * math.pi / pixels).sin() / below)
    return kernel.to(device=device, dtype=dtype)


_kept_matrix = lru_cache(maxsize=64)(_build_matrix)


def _multiplied(x: Tensor, axis: int, matrix: Tensor) -> Tensor:
    """`x` with `matrix` (M, N) applied along `axis`."""
    if axis == x.ndim - 1:
        return F.linear(x, matrix)
    y: Tensor = torch.matmul(matrix, x.flatten(axis + 1)).unflatten(-1, x.shape[axis + 1 :])
    return y
