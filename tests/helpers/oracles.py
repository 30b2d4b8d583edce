"""The layers once more, in NumPy and SciPy and float64, from the definitions and not from the code under test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from helpers.cases import BlurCase, MaxBlurCase

Array = NDArray[np.float64]

_SCIPY_MODE = {"reflect": "mirror", "replicate": "nearest", "circular": "wrap", "zeros": "constant"}
_MAX_POOL: dict[int, Any] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}

# The kernel's coefficients, and in the worst case each product and partial sum, are rounded to the low-precision type.
TOLERANCE = {
    torch.float64: 1e-10,
    torch.float32: 1e-5,
    torch.float16: 8 * torch.finfo(torch.float16).eps,
    torch.bfloat16: 8 * torch.finfo(torch.bfloat16).eps,
}


def blur_pool(x: Array, taps: Sequence[Sequence[float]], stride: Sequence[int], padding_mode: str) -> Array:
    """floor((k-1)/2) samples before and ceil((k-1)/2) after, correlate, keep every stride-th from index 0."""
    for axis, (line, step) in enumerate(zip(taps, stride, strict=True), start=2):
        weights = np.asarray(line, dtype=np.float64) / np.sum(np.asarray(line, dtype=np.float64))
        centred = -1 if len(weights) % 2 == 0 else 0  # SciPy centres an even filter one sample further right
        x = ndimage.correlate1d(x, weights, axis=axis, mode=_SCIPY_MODE[padding_mode], cval=0.0, origin=centred)
        x = np.take(x, np.arange(0, x.shape[axis], step), axis=axis)
    return x


def max_pool_size(case: MaxBlurCase) -> tuple[int, ...]:
    """The output size of PyTorch's own max pooling, by running it."""
    return tuple(_MAX_POOL[case.spatial](torch.zeros(1, 1, *case.shape[2:]), **case.pool_arguments).shape[2:])


def max_blur_pool(x: Array, case: MaxBlurCase) -> Array:
    """The maximum at stride 1, around the map or padded by -inf, then `blur_pool`, cut to max pooling's size."""
    sizes = max_pool_size(case)
    around = case.padding_mode == "circular" and not any(case.padding)
    for axis in range(2, x.ndim):
        k, s, p, d = (each[axis - 2] for each in (case.kernel_size, case.stride, case.padding, case.dilation))
        size, out = x.shape[axis], sizes[axis - 2]
        if around:
            windows = [np.take(x, (np.arange(size) + j * d) % size, axis=axis) for j in range(k)]
        else:
            dense = max(size + 2 * p - d * (k - 1), (out - 1) * s + 1)  # ceil_mode's last window may need more
            margin = [(0, 0)] * x.ndim
            margin[axis] = (p, dense + d * (k - 1) - size - p)
            padded = np.pad(x, margin, constant_values=-np.inf)
            windows = [np.take(padded, np.arange(dense) + j * d, axis=axis) for j in range(k)]
        x = np.maximum.reduce(windows)
    y = blur_pool(x, case.taps, case.stride, case.padding_mode)
    return y[(slice(None), slice(None), *(slice(size) for size in sizes))]


def expected(case: BlurCase, x: Tensor, *, relu: bool = False) -> Array:
    """What the operation of `case` should return for `x`, in float64."""
    values = np.asarray(x.detach().to("cpu", torch.float64).numpy())
    if isinstance(case, MaxBlurCase):
        return max_blur_pool(values, case)
    return blur_pool(np.maximum(values, 0.0) if relu else values, case.taps, case.stride, case.padding_mode)


def assert_agrees(actual: Tensor, wanted: Array, case: BlurCase, tolerance: float | None = None) -> None:
    """Equal shape, dtype and values: to `TOLERANCE` times what the filter amplifies (1 for non-negative taps)."""
    assert tuple(actual.shape) == wanted.shape
    assert actual.dtype == case.dtype
    allowed = (TOLERANCE[case.dtype] if tolerance is None else tolerance) * case.gain
    np.testing.assert_allclose(actual.detach().cpu().double().numpy(), wanted, rtol=allowed, atol=allowed)
