"""The ideal low-pass filter, against SciPy's and NumPy's Fourier transforms."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal
from torch import Tensor, nn

from dealias import antialias
from dealias.errors import InputError
from dealias.functional import blur_pool1d, blur_pool2d, blur_pool3d, max_blur_pool2d, relu_blur_pool2d
from dealias.nn import BlurPool2d, MaxBlurPool2d
from dealias.ops import fourier
from dealias.perturb import fourier_shift

IDEAL: dict[str, Any] = {"filter": "ideal", "padding_mode": "circular"}


def band_limited(size: int, waves: int, seed: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A periodic signal of `size` samples that has the frequencies 0 ... waves - 1."""
    draw = np.random.default_rng(seed)
    spectrum = np.zeros(size // 2 + 1, complex)
    spectrum[:waves] = draw.normal(size=waves) + 1j * draw.normal(size=waves) * (np.arange(waves) > 0)
    return np.fft.irfft(spectrum, n=size) * size


def low_pass(x: Tensor, stride: int, axis: int) -> Tensor:
    """What NumPy leaves below the Nyquist frequency of every `stride`-th sample, at those samples."""
    size = x.shape[axis]
    spectrum = np.fft.fft(x.numpy(), axis=axis)
    kept = np.abs(np.fft.fftfreq(size, 1 / size)) * 2 * stride < size
    dense = np.fft.ifft(np.moveaxis(np.moveaxis(spectrum, axis, -1) * kept, -1, axis), axis=axis).real
    return torch.from_numpy(np.take(dense, range(0, size, stride), axis=axis))


@given(size=st.integers(1, 24), stride=st.integers(2, 5), seed=st.integers(0, 99))
def test_equals_scipy_for_signals_of_limited_band(size: int, stride: int, seed: int) -> None:
    x = band_limited(size * stride, (size + 1) // 2, seed)
    y = blur_pool1d(torch.from_numpy(x)[None, None], stride=stride, **IDEAL)[0, 0]
    np.testing.assert_allclose(y, signal.resample(x, size), rtol=0, atol=1e-12 * max(1, np.abs(x).max()))


@given(height=st.integers(1, 20), width=st.integers(1, 20), strides=st.tuples(st.integers(1, 4), st.integers(1, 4)))
def test_keeps_what_is_below_the_new_nyquist_frequency(height: int, width: int, strides: tuple[int, int]) -> None:
    x = torch.randn(2, 3, height, width, dtype=torch.float64)
    expected = x
    for axis, stride in ((2, strides[0]), (3, strides[1])):
        if stride > 1 or strides == (1, 1):
            expected = low_pass(expected, stride, axis)
    torch.testing.assert_close(blur_pool2d(x, stride=strides, **IDEAL), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("stride", [2, 3])
def test_a_shift_by_a_fraction_shifts_the_result(stride: int) -> None:
    x = torch.randn(1, 2, 24, 36, dtype=torch.float64)
    moved = blur_pool2d(fourier_shift(x, 0.5, -0.3), stride=stride, **IDEAL)
    expected = fourier_shift(blur_pool2d(x, stride=stride, **IDEAL), 0.5 / stride, -0.3 / stride)
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-12)


def test_long_axes_by_the_fast_transform_as_short_ones_by_a_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(2, 3, 30, 45, dtype=torch.float64)
    by_matrix = blur_pool2d(x, stride=3, **IDEAL)
    monkeypatch.setattr(fourier, "LONGEST", 8)
    torch.testing.assert_close(blur_pool2d(x, stride=3, **IDEAL), by_matrix, rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_dtypes_and_layouts_stay(dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    x = torch.randn(2, 5, 12, 10).to(dtype).contiguous(memory_format=memory_format)
    y = blur_pool2d(x, **IDEAL)
    assert y.dtype == dtype
    assert y.is_contiguous(memory_format=memory_format)
    expected = low_pass(low_pass(x.double(), 2, 2), 2, 3)
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=4 * torch.finfo(dtype).eps)


def test_gradients_twice() -> None:
    x = torch.randn(1, 2, 6, 9, dtype=torch.float64, requires_grad=True)
    operations = (
        lambda x: blur_pool2d(x, stride=(2, 3), **IDEAL),
        lambda x: relu_blur_pool2d(x, **IDEAL),
        lambda x: max_blur_pool2d(x, 2, **IDEAL),
    )
    for operation in operations:
        assert torch.autograd.gradcheck(operation, x)
        assert torch.autograd.gradgradcheck(operation, x)


def test_one_filter_for_each_axis() -> None:
    x = torch.randn(1, 1, 8, 12, 6, dtype=torch.float64)
    y = blur_pool3d(x, ("none", "ideal", "tri3"), padding_mode="circular")
    expected = blur_pool3d(low_pass(x[:, :, ::2], 2, 3), ("none", "none", "tri3"), (1, 1, 2), "circular")
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-13)


@pytest.mark.sweep
def test_compiles_and_exports() -> None:
    layer = nn.Sequential(nn.Conv2d(2, 3, 3), MaxBlurPool2d(2, **IDEAL), BlurPool2d(**IDEAL)).eval()
    x = torch.randn(2, 2, 18, 14)
    expected = layer(x)
    torch.testing.assert_close(torch.compile(layer, fullgraph=True)(x), expected, rtol=1e-5, atol=1e-5)
    exported = torch.export.export(layer, (x,), dynamic_shapes=({0: torch.export.Dim("n")},)).module()
    torch.testing.assert_close(exported(x), expected)


@pytest.mark.sweep
def test_runs_in_onnxruntime() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    layer, x = BlurPool2d(**IDEAL).eval(), torch.randn(2, 2, 18, 14)
    any_size = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    program = torch.onnx.export(layer, (x,), dynamo=True, dynamic_shapes=(any_size,), verbose=False)
    assert program is not None
    file = io.BytesIO()
    program.save(file)
    session = onnxruntime.InferenceSession(file.getvalue())
    for shown in (x[:1], torch.randn(3, 2, 9, 20)):
        (found,) = session.run(None, {session.get_inputs()[0].name: shown.numpy()})
        np.testing.assert_allclose(found, layer(shown), rtol=0, atol=1e-5)


def test_layers_name_it() -> None:
    layer = BlurPool2d(**IDEAL)
    assert layer.filter == "ideal"
    assert "filter='ideal'" in repr(layer)


@pytest.mark.parametrize("padding_mode", ["reflect", "replicate", "zeros"])
def test_it_needs_maps_that_wrap_around(padding_mode: str) -> None:
    for call in (
        lambda: blur_pool2d(torch.ones(1, 1, 4, 4), "ideal", 2, padding_mode),
        lambda: BlurPool2d("ideal", padding_mode=padding_mode),
    ):
        with pytest.raises(InputError, match=f"padding_mode='{padding_mode}'.*use padding_mode='circular'"):
            call()


def network() -> nn.Sequential:
    torch.manual_seed(0)
    convs = [nn.Conv2d(i, o, k, s, 1, padding_mode="circular") for i, o, k, s in ((3, 4, 3, 1), (4, 6, 3, 4))]
    return nn.Sequential(convs[0], nn.ReLU(), nn.MaxPool2d(2), convs[1], nn.ReLU()).double().eval()


def test_antialias_takes_it_at_every_stride() -> None:
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    plain = network()
    converted = antialias(plain, x, filter="ideal")
    assert converted.state_dict().keys() == plain.state_dict().keys()
    dense = plain[2].__class__(2, 1)(nn.functional.pad(plain[:2](x), (0, 1, 0, 1), "circular"))
    pooled = low_pass(low_pass(dense.detach(), 2, 2), 2, 3)
    padded = nn.functional.pad(pooled, (1, 1, 1, 1), "circular")
    dense = nn.functional.conv2d(padded, plain[3].weight, plain[3].bias).relu().detach()
    torch.testing.assert_close(converted(x), low_pass(low_pass(dense, 4, 2), 4, 3), rtol=0, atol=1e-12)


class Sliced(nn.Module):
    """Takes every second pixel from an offset on, up to a stop."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular")

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)[:, :, 1::2, 2:-1:2].relu()


def test_slices_with_an_offset_are_filtered_too() -> None:
    plain, x = Sliced().double(), torch.randn(2, 1, 12, 16, dtype=torch.float64)
    dense = plain.conv(x).detach()
    rolled = low_pass(low_pass(dense.roll((-1, -2), (2, 3)), 2, 2), 2, 3)
    converted = antialias(plain, x, filter="ideal")
    torch.testing.assert_close(converted(x), rolled[..., :7].relu(), rtol=0, atol=1e-12)


def test_antialias_refuses_it_where_it_has_no_meaning() -> None:
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    with pytest.raises(InputError, match="use padding_mode='circular'"):
        antialias(network(), x, filter="ideal", padding_mode="reflect")
    with pytest.raises(InputError, match="placement='before'"):
        antialias(network(), x, filter="ideal", placement="before")


@pytest.mark.parametrize("size", [1, 8, 9])
@pytest.mark.parametrize("axis", [1, 2, 3])
def test_shifted_is_a_roll_for_whole_pixels_and_adds_up(size: int, axis: int) -> None:
    x = torch.randn(2, size, size, size, dtype=torch.float64)
    amounts = torch.tensor([2.0, -1.0], dtype=torch.float64)
    expected = torch.stack([x[0].roll(2, axis - 1), x[1].roll(-1, axis - 1)])
    torch.testing.assert_close(fourier.shifted(x, axis, amounts), expected, rtol=0, atol=1e-13)
    smooth = fourier.subsampled(x, axis, 1)
    twice = fourier.shifted(fourier.shifted(smooth, axis, amounts * 0.3), axis, amounts * 0.7)
    torch.testing.assert_close(twice, fourier.shifted(smooth, axis, amounts), rtol=0, atol=1e-13)
