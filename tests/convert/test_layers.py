"""PyTorch's layers in their anti-aliased form."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dealias import BlurPool2d, MaxBlurPool2d
from dealias.convert.layers import CONVERTED, Blurring, convert_layer
from dealias.filters import scaled

BIN4 = Blurring("bin4", "reflect")


@pytest.mark.parametrize("spatial", [1, 2, 3])
@pytest.mark.parametrize("stride", [2, 3])
def test_output_sizes_are_those_of_average_pooling(spatial, stride):
    average = getattr(nn, f"AvgPool{spatial}d")(stride)
    converted = convert_layer(getattr(nn, f"AvgPool{spatial}d")(stride), Blurring("bin5", "reflect"))
    for size in range(stride, 14):
        x = torch.rand(2, 3, *range(size, size + spatial))
        assert converted(x).shape == average(x).shape


def test_the_values_are_those_of_numpy():
    x = torch.rand(1, 1, 9, dtype=torch.float64)
    padded = np.pad(x[0, 0, :8].numpy(), (1, 2), mode="reflect")
    expected = np.convolve(padded, np.array([1, 3, 3, 1]) / 8, mode="valid")[::2]
    np.testing.assert_allclose(convert_layer(nn.AvgPool1d(2), BIN4)(x)[0, 0], expected, atol=1e-12)


LAYERS = [
    nn.MaxPool1d(3, 2, 1),
    nn.MaxPool2d(3, (2, 3), 1, ceil_mode=True),
    nn.MaxPool2d(2, return_indices=True),
    nn.MaxPool3d(2),
    nn.AvgPool2d(2, ceil_mode=True),
    nn.LPPool1d(2, 3),
    nn.LPPool2d(2, 3, 2),
    nn.LPPool3d(2, 2),
    nn.AdaptiveAvgPool1d(4),
    nn.AdaptiveAvgPool2d((4, None)),
    nn.AdaptiveAvgPool3d(4),
    nn.AdaptiveMaxPool2d(4),
    nn.Upsample(scale_factor=0.5),
    nn.Upsample(size=(6, 6), mode="bilinear"),
    nn.Conv2d(3, 4, 3, 2, 1, padding_mode="circular"),
]


def axes_of(layer):
    return next((int(digit) for digit in type(layer).__name__ if digit in "123"), 2)


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_class_attributes_and_sizes_stay(layer):
    plain = copy.deepcopy(layer)
    layer.label = "of the user"
    layer.register_forward_hook(lambda module, args, output: seen.append(module))
    seen, axes = [], axes_of(layer)
    before = {name: value for name, value in vars(layer).items() if not name.startswith("_")}
    converted = convert_layer(layer, BIN4, kept=(1,) * axes)
    assert converted is layer
    assert isinstance(layer, type(plain))
    assert {name: getattr(layer, name) for name in before} == before
    assert list(layer.state_dict()) == list(plain.state_dict())
    for size in (12, 13) if not isinstance(layer, nn.Upsample) else (12,):
        x = torch.rand(2, 3, *[size] * axes)
        got, expected = layer(x), plain(x)
        got, expected = (one[0] if isinstance(one, tuple) else one for one in (got, expected))
        if isinstance(layer, nn.Conv2d):
            expected = F.conv2d(F.pad(x, [1] * 4, mode="circular"), plain.weight, plain.bias)
            torch.testing.assert_close(got, expected)
        assert got.shape == expected.shape
        for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(_without_hooks(layer)))):
            again = other(x)
            assert torch.equal(again[0] if isinstance(again, tuple) else again, got)
    assert layer in seen


def _without_hooks(layer):
    bare = copy.deepcopy(layer)
    bare._forward_hooks.clear()  # a lambda of the test cannot be pickled
    return bare


def test_plain_blurring_computes_what_the_layer_did():
    x = torch.rand(2, 3, 12, 12)
    plain = Blurring("none", "zeros", plain=True)
    for layer in (
        nn.AvgPool2d(3),
        nn.AdaptiveAvgPool2d(4),
        nn.AdaptiveMaxPool2d(4),
        nn.Upsample(scale_factor=0.5, mode="area"),
    ):
        expected = layer(x)
        torch.testing.assert_close(convert_layer(copy.deepcopy(layer), plain)(x), expected)


def test_adaptive_pools_are_poolings_where_the_sizes_divide():
    x = torch.rand(2, 3, 12, 8)
    average = convert_layer(nn.AdaptiveAvgPool2d(4), BIN4)
    filters = scaled("bin4", 3), scaled("bin4", 2)
    torch.testing.assert_close(average(x), BlurPool2d(filters, (3, 2))(x))
    maximum = convert_layer(nn.AdaptiveMaxPool2d(4), BIN4)
    torch.testing.assert_close(maximum(x), MaxBlurPool2d((3, 2), filter=filters)(x))
    odd = torch.rand(2, 3, 11, 8)
    torch.testing.assert_close(average(odd), F.adaptive_avg_pool2d(odd, 4))
    torch.testing.assert_close(average(odd[..., :4, :4]), odd[..., :4, :4])


def test_power_pools_are_dense_power_pools_and_a_blur():
    x = torch.rand(2, 3, 13, 12)
    converted = convert_layer(nn.LPPool2d(3, 2), BIN4)
    torch.testing.assert_close(converted(x), BlurPool2d()(F.lp_pool2d(x, 3.0, 2, 1)))


def test_resampling_by_a_half():
    x = torch.rand(2, 3, 12, 12)
    for mode in ("nearest", "bilinear", "area"):
        converted = convert_layer(nn.Upsample(scale_factor=0.5, mode=mode), BIN4)
        torch.testing.assert_close(converted(x), BlurPool2d()(x))
        torch.testing.assert_close(converted(x[..., :11, :]), BlurPool2d()(x[..., :10, :]))  # in whole windows
        sized = convert_layer(nn.Upsample(size=(5, 6), mode=mode), BIN4)  # a pixel and a fifth: no subsampling
        torch.testing.assert_close(sized(x[..., :11, :]), F.interpolate(x[..., :11, :], (5, 6), mode=mode))


def test_filters_are_as_wide_as_the_stride_unless_they_are_taken_literally():
    assert BIN4.taps((2, 2)) == ((0.125, 0.375, 0.375, 0.125),) * 2
    assert BIN4.taps((4, 1)) == (scaled("bin4", 4), (1.0,))
    assert Blurring("bin4", "reflect", scale=False).taps((8, 8))[0] == BIN4.taps((2, 2))[0]
    assert Blurring(3, "reflect").taps((8,)) == ((0.25, 0.5, 0.25),)
    assert len(CONVERTED) == 19
