"""Maps at twice their rate and back, against SciPy's and NumPy's Fourier transforms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal
from torch import Tensor

from dealias.functional import blur_pool2d
from dealias.ops import fourier
from dealias.ops.rates import doubled, halved


def without_nyquist(x: Tensor) -> Tensor:
    """`x` without the Nyquist frequencies of its last two axes, by NumPy."""
    for axis in (-2, -1):
        spectrum = np.fft.fft(x.numpy(), axis=axis)
        if x.shape[axis] % 2 == 0:
            spectrum[(..., x.shape[axis] // 2, *[slice(None)] * (-1 - axis))] = 0
        x = torch.from_numpy(np.fft.ifft(spectrum, axis=axis).real)
    return x


@given(height=st.integers(1, 14), width=st.integers(1, 14), seed=st.integers(0, 99))
def test_doubled_is_what_scipy_resamples(height: int, width: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 3, height, width, dtype=torch.float64, generator=draw)
    expected = without_nyquist(x).numpy()
    for axis in (2, 3):
        expected = signal.resample(expected, 2 * expected.shape[axis], axis=axis)
    np.testing.assert_allclose(doubled(x, (-2, -1)), expected, rtol=0, atol=1e-13)


@given(height=st.integers(1, 9), width=st.integers(1, 9), seed=st.integers(0, 99))
def test_halved_is_the_ideal_filter_and_undoes_doubled(height: int, width: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 3, 2 * height, 2 * width, dtype=torch.float64, generator=draw)
    expected = blur_pool2d(x, "ideal", 2, "circular")
    torch.testing.assert_close(halved(x, (-2, -1)), expected, rtol=0, atol=1e-13)
    torch.testing.assert_close(halved(doubled(expected, (-2, -1)), (-2, -1)), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("axes", [(-1,), (-3,), (-3, -2), (-2, -1), (-4, -2)])
@pytest.mark.parametrize("operation", [doubled, halved])
def test_any_axes(operation, axes) -> None:
    x = torch.randn(4, 6, 8, 10, dtype=torch.float64)
    last = tuple(range(-len(axes), 0))
    expected = operation(x.movedim(axes, last).contiguous(), last).movedim(last, axes)
    torch.testing.assert_close(operation(x, axes), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("operation", [doubled, halved])
def test_dtypes_and_layouts_stay(operation, dtype, memory_format) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, 12, 10).to(dtype).contiguous(memory_format=memory_format)
    y = operation(x, (-2, -1))
    assert y.dtype == dtype
    assert y.is_contiguous(memory_format=memory_format)
    expected = operation(x.double(), (-2, -1))
    # Sums of some twenty products of numbers below 4, which each machine adds in an order of its own.
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=16 * torch.finfo(dtype).eps)


def test_long_axes_by_the_fast_transform_as_short_ones_by_a_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(2, 3, 30, 15, dtype=torch.float64)
    by_matrix = doubled(x, (-2, -1))
    monkeypatch.setattr(fourier, "LONGEST", 8)
    torch.testing.assert_close(doubled(x, (-2, -1)), by_matrix, rtol=0, atol=1e-13)


def test_gradients_twice() -> None:
    x = torch.randn(1, 2, 4, 6, dtype=torch.float64, requires_grad=True)
    for operation in (doubled, halved):
        assert torch.autograd.gradcheck(lambda x, run=operation: run(x, (-2, -1)), x)
        assert torch.autograd.gradgradcheck(lambda x, run=operation: run(x, (-2, -1)), x)


def test_plain_repeats_pixels_and_leaves_them_out() -> None:
    x = torch.arange(6.0).reshape(1, 2, 3)
    assert doubled(x, (-1,), plain=True).tolist() == [[[0, 0, 1, 1, 2, 2], [3, 3, 4, 4, 5, 5]]]
    assert torch.equal(halved(doubled(x, (-2, -1), plain=True), (-2, -1), plain=True), x)
