"""Calls are told apart by what shapes their output, however their arguments are given."""

from __future__ import annotations

import inspect
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from dealias.convert.windows import ANY_RESAMPLING, FUNCTIONS, Window, layer_classes, per_axis, window_of

X = torch.rand(1, 2, 8, 8)
SIZES = st.integers(1, 3) | st.tuples(st.integers(1, 3), st.integers(1, 3))


@given(SIZES, SIZES, st.booleans(), st.booleans())
def test_a_window_has_what_the_layer_of_these_arguments_has(kernel, stride, ceil, include):
    layer = nn.AvgPool2d(kernel, stride, 0, ceil, include)
    window = window_of(F.avg_pool2d, (X, kernel), {"stride": stride, "ceil_mode": ceil, "count_include_pad": include})
    assert window == window_of(F.avg_pool2d, (X, kernel, stride, 0, ceil, include), {})
    assert (window.kernel, window.stride) == (per_axis(layer.kernel_size, 2), per_axis(layer.stride, 2))
    assert (window.padding, window.ceil_mode, window.count_include_pad) == ((0, 0), ceil, include)
    x = torch.ones(1, 1, 6, 6, requires_grad=True)
    layer(x).sum().backward()  # blocks: each pixel counts once, with the weight of one in a window
    assert window.averages_blocks == torch.allclose(x.grad, torch.ones(6, 6) / math.prod(window.kernel))


@pytest.mark.parametrize(
    "function",
    [
        F.max_pool1d_with_indices,
        F.max_pool3d_with_indices,
        F.lp_pool2d,
        F.adaptive_max_pool2d_with_indices,
        F.interpolate,
    ],
)
def test_positional_arguments_have_the_names_that_pytorch_gives_them(function):
    names = list(inspect.signature(function).parameters)
    assert FUNCTIONS[function].arguments(range(len(names)), {}) == {name: at for at, name in enumerate(names)}


def test_every_name_of_a_function_is_known():
    for function in (F.relu, torch.relu, Tensor.relu, F.conv2d, torch.conv2d, F.max_pool1d, torch.max_pool1d):
        assert function in FUNCTIONS
    assert FUNCTIONS[F.max_pool2d_with_indices].pair
    assert not FUNCTIONS[F.max_pool2d].pair
    assert window_of(F.pad, (X, (1, 1)), {}) is None


def test_a_slice_is_known_by_its_steps():
    index = (slice(None), slice(None), slice(1, None, 2))
    assert window_of(Tensor.__getitem__, (X, index), {}) == Window("slice", rest=((None, None), (None, None), (1, 2)))
    assert window_of(Tensor.__getitem__, (X, (slice(2), 0)), {}) is None
    assert window_of(Tensor.__getitem__, (X, slice(2)), {}) is None


def test_windows_that_match():
    half = window_of(F.interpolate, (X,), {"scale_factor": [0.5, 0.5]})
    assert half == window_of(F.interpolate, (X, None, (0.5, 0.5)), {})
    assert ANY_RESAMPLING.matches(half)
    assert not half.matches(ANY_RESAMPLING)
    conv = window_of(F.conv2d, (X, torch.rand(3, 2, 5, 5), None, 2), {})
    assert conv == Window("conv", (5, 5), (2, 2))
    assert conv.matches(Window("conv", (), (2, 2)))  # torch.fx does not know the size of a weight
    assert not conv.matches(Window("conv", (3, 3), (2, 2)))
    assert not conv.matches(Window("conv", (), (3, 3)))


def test_layers_by_name():
    assert layer_classes("Conv", "FractionalMaxPool") == (
        *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
        *(nn.FractionalMaxPool2d, nn.FractionalMaxPool3d),
    )
