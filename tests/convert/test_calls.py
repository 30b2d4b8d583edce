"""Function calls inside a module's forward, answered by layers: the same weights, the same sampling grid."""

from __future__ import annotations

import copy
import pickle
import shutil

import pytest
import torch
import torch.nn.functional as F
from helpers.conversion import check_no_filter, placed, randomize, refused
from torch import nn

from dealias import BlurPool1d, BlurPool2d, BlurPool3d, MaxBlurPool2d, antialias, sites
from dealias.convert.calls import CALLS, SliceCall
from dealias.convert.layers import Blurring
from dealias.convert.windows import Window, window_of
from dealias.filters import scaled


class Functional(nn.Module):
    """A network whose downsampling is all in functions."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
        self.weight, self.short = nn.Parameter(torch.randn(4, 4, 3, 3)), nn.Parameter(torch.randn(4, 4, 1, 1))

    def forward(self, x):
        x = F.max_pool2d(self.first(x), 3, stride=2, padding=1)
        y = self.last(F.relu(F.conv2d(x, self.weight, None, 2, 1)))
        y = y + F.conv2d(x, self.short, stride=(2, 2))
        return F.avg_pool2d(F.avg_pool2d(y, (2, 2)), kernel_size=3, stride=2, padding=1)


def test_functions_give_what_the_layers_give():
    x, model = torch.randn(2, 3, 40, 41), Functional()
    assert all(site.placed for site in sites(model, x))
    converted = antialias(model, x)
    assert type(converted) is Functional
    assert list(converted.state_dict()) == list(model.state_dict())
    with torch.no_grad():
        y = MaxBlurPool2d(3, 2, 1)(model.first(x))
        z = model.last(BlurPool2d()(F.relu(F.conv2d(y, model.weight, padding=1))))
        z = z + F.conv2d(BlurPool2d()(y), model.short)
        z = BlurPool2d()(z[:, :, : z.shape[2] // 2 * 2, : z.shape[3] // 2 * 2])
        torch.testing.assert_close(converted(x), BlurPool2d()(F.avg_pool2d(z, 3, 1, 1)))


def test_converted_functions_travel():
    x, model = torch.randn(2, 3, 40, 40), Functional()
    converted = antialias(model, x)
    expected = converted(x)
    for other in (copy.deepcopy(converted), pickle.loads(pickle.dumps(converted))):
        nn.init.zeros_(other.last.weight)  # of the copy alone
        assert not torch.equal(other(x), expected)
        assert torch.equal(converted(x), expected)
    torch.compiler.reset()
    torch.testing.assert_close(torch.compile(converted, fullgraph=True, backend="eager")(x), expected)
    program = torch.export.export(converted, (x,), dynamic_shapes={"x": {0: torch.export.Dim("batch")}})
    torch.testing.assert_close(program.module()(x[:1].repeat(3, 1, 1, 1)), converted(x[:1].repeat(3, 1, 1, 1)))
    converted(x).sum().backward()
    assert all(parameter.grad is not None for parameter in converted.parameters())


def test_converting_again_changes_nothing():
    x = torch.randn(2, 3, 40, 40)
    once = antialias(Functional(), x)
    with pytest.warns(UserWarning, match="already anti-aliased"):
        assert repr(antialias(once, x)) == repr(once)


class Same(nn.Conv2d):
    """TensorFlow's SAME padding, (0, 1) at stride 2 on even maps and (1, 1) on odd ones."""

    def forward(self, x):
        pads = []
        for size, k, s in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            pad = max((-(-size // s) - 1) * s + k - size, 0)
            pads += [pad // 2, pad - pad // 2]
        return F.conv2d(F.pad(x, pads), self.weight, self.bias, self.stride)


@pytest.mark.parametrize("size", [15, 16, 17, 18])
def test_same_padding_keeps_the_sampling_grid(size):
    x = torch.randn(1, 3, size, size)
    model = randomize(nn.Sequential(nn.Conv2d(3, 3, 1), Same(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU()))
    check_no_filter(model, x)
    before = 0 if size % 2 == 0 else 1
    y = F.conv2d(F.pad(model[0](x), (before, 1, before, 1)), model[1].weight, model[1].bias)
    expected = BlurPool2d("tri3")(model[3](model[2](y)))
    converted = antialias(model, x, filter="tri3")
    torch.testing.assert_close(converted(x), expected)
    if size % 2 == 0:  # an impulse that the baseline samples is still the centre of what the filter makes of it
        impulse = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), Same(1, 1, 3, 2, bias=False), nn.ReLU())
        for layer in impulse[:2]:
            nn.init.dirac_(layer.weight)
        image = torch.zeros(1, 1, size, size)
        image[0, 0, 7, 9] = 1
        sampled, blurred = impulse(image), antialias(impulse, image, filter="tri3")(image)
        assert torch.equal(blurred, sampled / 4)


def test_same_padding_without_a_non_linearity_and_in_pools():
    class SamePool(nn.MaxPool2d):
        def forward(self, x):
            x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2), value=-torch.inf)
            return F.max_pool2d(x, self.kernel_size, self.stride, (0, 0), self.dilation, self.ceil_mode)

    class SameAverage(nn.AvgPool2d):
        def forward(self, x):
            return F.avg_pool2d(F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2)), self.kernel_size, self.stride)

    x = torch.randn(1, 3, 31, 30)
    check_no_filter(nn.Sequential(nn.Conv2d(3, 3, 1), Same(3, 4, 3, 2), nn.Conv2d(4, 2, 1)), x)
    short = nn.Sequential(nn.Conv2d(3, 3, 1), Same(3, 4, 1, 2))
    check_no_filter(short, x)
    torch.testing.assert_close(
        antialias(short, x)(x), F.conv2d(BlurPool2d()(short[0](x)), short[1].weight, short[1].bias)
    )
    pool = nn.Sequential(nn.Conv2d(3, 3, 1), SamePool(2))
    check_no_filter(pool, x)
    torch.testing.assert_close(antialias(pool, x)(x), MaxBlurPool2d(2, ceil_mode=True)(pool[0](x)))
    average = nn.Sequential(nn.Conv2d(3, 3, 1), SameAverage(2))
    torch.testing.assert_close(antialias(average, x)(x), BlurPool2d()(F.pad(average[0](x), (0, 0, 0, 1))))


def test_the_same_call_in_parent_and_child():
    class Inner(nn.Module):
        def forward(self, x):
            return F.max_pool2d(x, 2)

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.inner, self.pool = nn.Conv2d(3, 3, 1), Inner(), nn.MaxPool2d(2)

        def forward(self, x):
            return F.max_pool2d(self.pool(self.inner(self.conv(x))), 2)

    x = torch.randn(1, 3, 40, 40)
    assert len([site for site in sites(Outer(), x) if site.placed]) == 3
    check_no_filter(Outer(), x)
    converted = antialias(Outer(), x)
    pool = MaxBlurPool2d(2)
    torch.testing.assert_close(converted(x), pool(pool(pool(converted.conv(x)))))


def test_a_call_that_stays_is_not_answered():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.weights = nn.ParameterList([nn.Parameter(torch.randn(3, 3, 3, 3)) for _ in range(2)])

        def forward(self, x):
            for weight in self.weights:
                x = F.relu(F.conv2d(x, weight, stride=2))
            return x

    x = torch.randn(1, 3, 33, 33)
    found = sites(Model(), x)
    assert [site.status for site in found] == ["left alone", "not placed"]
    assert "the same call at another site" in found[1].reason
    # a value between two functions belongs to no module
    assert all("returned by no module" in site.reason for site in refused(Model(), x, stem=True))


def test_a_forward_that_the_user_replaced_still_runs():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            raise AssertionError("replaced")

    model = Model()
    model.forward = lambda x: F.max_pool2d(model.conv(x), 2)
    x = torch.randn(1, 3, 16, 16)
    expected = MaxBlurPool2d(2)(model.conv(x))
    torch.testing.assert_close(antialias(model, x, inplace=True)(x), expected)


@pytest.mark.parametrize(("spatial", "blur"), [(1, BlurPool1d), (2, BlurPool2d), (3, BlurPool3d)])
def test_functions_of_any_number_of_axes(spatial, blur):
    conv, pool, average = (getattr(F, f"{name}{spatial}d") for name in ("conv", "max_pool", "avg_pool"))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 3, *([3] * spatial)))
            self.last = getattr(nn, f"Conv{spatial}d")(3, 3, 1)

        def forward(self, x):
            return self.last(F.relu(conv(average(pool(x, 3, 2, 1), 2), self.weight, None, 2)))

    x, model = torch.randn(1, 3, *([40] * spatial)), Model()
    found = sites(model, x, stem=True)
    assert [(site.kind, site.placed, site.stride) for site in found] == [
        (kind, True, (2,) * spatial) for kind in ("max_pool", "avg_pool", "conv")
    ]
    converted = antialias(model, x, stem=True)
    assert converted(x).shape == model(x).shape
    y = blur()(blur()(pool(x, 3, 1, 1)))
    torch.testing.assert_close(converted(x), model.last(blur()(F.relu(conv(y, model.weight)))))


@pytest.mark.parametrize(
    ("pool", "name"),
    [
        (lambda x: torch.ops.aten.avg_pool2d(x, [3, 3], [2, 2]), "avg_pool2d"),
        (
            lambda x: torch.convolution(x, x[:, :, :3, :3], None, [2, 2], [0, 0], [1, 1], False, [0, 0], 1),
            "convolution",
        ),
    ],
    ids=["aten", "convolution"],
)
def test_calls_that_other_functions_make_are_out_of_reach(pool, name):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.pool = nn.Conv2d(3, 3, 1), pool

        def forward(self, x):
            return self.pool(self.conv(x))

    x = torch.randn(3, 3, 17, 17)
    (site,) = refused(Model(), x)
    assert f"made by {name}" in site.reason
    assert site.stride == (2, 2)
    with pytest.warns(UserWarning, match="not anti-aliased"):
        check_no_filter(Model(), x)


@pytest.mark.parametrize("function", [lambda x, w: F.max_pool2d(x, (1, 2)), lambda x, w: F.conv2d(x, w, stride=(1, 2))])
def test_maps_of_one_row_are_maps(function):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.weight = nn.Conv2d(3, 3, 1), nn.Parameter(torch.randn(3, 3, 1, 3))

        def forward(self, x):
            return function(self.conv(x).flatten(2).unsqueeze(2), self.weight)

    x = torch.randn(1, 3, 8, 8)
    (site,) = sites(Model(), x)
    assert (site.stride, site.input_size) == ((1, 2), (1, 64))
    check_no_filter(Model(), x)


def test_indices_are_refused():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            y, index = F.max_pool2d(self.conv(x), 2, return_indices=True)
            return F.max_unpool2d(y, index, 2)

    assert "index" in refused(Model(), torch.randn(1, 3, 8, 8))[0].reason


def test_windows_of_calls_and_of_operations_are_the_same():
    call = Window.of("max_pool", 2, {"kernel_size": 3, "padding": 1})
    operation = Window.of(
        "max_pool", 2, {"kernel_size": [3, 3], "stride": [], "padding": [1, 1], "dilation": [1, 1], "ceil_mode": False}
    )
    assert call == operation
    assert call.stride == (3, 3)
    weight = torch.zeros(8, 4, 3, 5)
    assert Window.of("conv", 2, {"weight": weight, "stride": 2}) == Window.of(
        "conv", 2, {"weight": weight.shape, "stride": [2, 2]}
    )
    for other in ({"ceil_mode": True}, {"dilation": 2}, {"stride": 2}, {"kernel_size": 2}, {"padding": 0}):
        assert Window.of("max_pool", 2, {"kernel_size": 3, "padding": 1} | other) != call


def test_a_pool_that_hides_in_a_list():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.hidden = nn.Conv2d(3, 3, 1), [nn.MaxPool2d(2)]

        def forward(self, x):
            return self.hidden[0](self.conv(x))

    x = torch.randn(1, 3, 16, 16)
    assert placed(Model(), x) == {("max_pool", "")}
    converted = antialias(Model(), x)
    assert CALLS in converted._modules
    torch.testing.assert_close(converted(x), MaxBlurPool2d(2)(converted.conv(x)))


class Sliced(nn.Module):
    """A map of which `index` takes a part, channels first or last."""

    def __init__(self, index, channels_last=False):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 1)
        self.index, self.channels_last = index, channels_last

    def forward(self, x):
        y = F.relu(self.first(x))
        if self.channels_last:
            return self.last(y.permute(0, 2, 3, 1)[self.index].permute(0, 3, 1, 2))
        return self.last(y[self.index])


ALL, HALF = slice(None), slice(None, None, 2)


@pytest.mark.parametrize(
    "model",
    [
        Sliced((..., HALF, HALF)),
        Sliced((..., HALF)),
        Sliced((ALL, ALL, slice(1, None, 3))),
        Sliced((ALL, ALL, slice(None, 12, 2), HALF)),
        Sliced((ALL, HALF, HALF), channels_last=True),
        Sliced((ALL, ALL, HALF), channels_last=True),
    ],
    ids=lambda model: f"{model.index}{model.channels_last}",
)
def test_answered_slices_compile_for_any_size(model):
    model = model.eval()
    converted = antialias(model, torch.rand(2, 3, 16, 18))
    torch.compiler.reset()
    compiled = torch.compile(converted, fullgraph=True, backend="eager", dynamic=True)
    for height in (16, 17, 24):
        x = torch.rand(2, 3, height, height + 2)
        assert converted(x).shape == model(x).shape
        torch.testing.assert_close(compiled(x), converted(x))
    torch.compiler.reset()


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_answered_slices_are_lowered_with_symbolic_sizes():
    """Inductor fails on a convolution of a map that was moved and merged at sizes that it does not know."""
    converted = antialias(Sliced((..., HALF, HALF)).eval(), torch.rand(2, 3, 16, 18))
    torch.compiler.reset()
    with torch.no_grad():
        compiled = torch.compile(converted, fullgraph=True, dynamic=True)
        for x in (torch.rand(2, 3, 16, 18), torch.rand(2, 3, 25, 21)):
            torch.testing.assert_close(compiled(x), converted(x))
    torch.compiler.reset()


@pytest.mark.parametrize("shape", [(2, 3, 9), (2, 3, 9, 10), (2, 3, 4, 9, 10), (2, 3, 2, 2, 9, 10)])
@pytest.mark.parametrize("steps", [{-1: 2}, {-1: 3, -2: 2}, {1: 2}, {1: 2, -1: 2}])
def test_slices_are_blurred_along_their_steps_alone(shape, steps):
    """Against a correlation along each axis by itself, by `BlurPool1d`."""
    x, index = torch.rand(shape), [slice(None)] * len(shape)
    expected, by_axis = x, {axis % len(shape): step for axis, step in steps.items()}
    for axis, step in by_axis.items():
        index[axis] = slice(None, None, step)
        lined = expected.movedim(axis, -1)
        blurred = BlurPool1d(scaled("bin4", step), step)(lined.reshape(1, -1, lined.shape[-1]))
        expected = blurred.reshape(*lined.shape[:-1], -1).movedim(-1, axis)
    call = SliceCall(window_of(torch.Tensor.__getitem__, (x, tuple(index)), {}), Blurring("bin4", "reflect"))
    result = call(torch.Tensor.__getitem__, {"input": x, "index": tuple(index)})
    torch.testing.assert_close(result, expected)
