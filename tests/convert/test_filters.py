"""`filter=` in all its forms: by site, by path, by axis, and as wide as the stride asks for."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.conversion import three_sites
from torch import nn

from dealias import BlurPool1d, BlurPool2d, BlurPool3d, MaxBlurPool2d, antialias, filters, sites
from dealias.errors import InputError

BLURS = {1: BlurPool1d, 2: BlurPool2d, 3: BlurPool3d}
STRIDES = (3, 4, 8)
X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def boxes(stride, times):
    """The box of `stride` samples convolved with itself: what a named filter is at that stride."""
    taps = np.ones(1)
    for _ in range(times):
        taps = np.convolve(taps, np.ones(stride) / stride)
    return tuple(taps)


def network(layer, spatial=2):
    """A convolution, an activation, and `layer` behind them."""
    conv = getattr(nn, f"Conv{spatial}d")
    return nn.Sequential(conv(3, 8, 3, padding=1), nn.ReLU(), layer).eval()


def image(spatial, stride):
    size = {1: 8, 2: 4, 3: 2}[spatial] * stride
    return torch.randn(1, 3, *[size] * spatial)


def check(model, x, by_hand, **arguments):
    """`by_hand` is what stands behind the activation in the converted network."""
    converted = antialias(model, x, strict=True, **arguments)
    with torch.no_grad():
        expected = by_hand(model[1](model[0](x)))
        torch.testing.assert_close(converted(x), expected, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(model(x), expected, atol=1e-3)


CASES = [(spatial, stride) for spatial, stride in itertools.product((1, 2, 3), STRIDES) if spatial * stride < 24]


def taps_of(name, stride):
    return boxes(stride, ("none", "rect2", "tri3", "bin4", "bin5").index(name))


@pytest.mark.parametrize(("spatial", "stride"), CASES)
@pytest.mark.parametrize("name", ["tri3", "bin4"])
def test_convolutions(spatial, stride, name):
    model, x = network(getattr(nn, f"Conv{spatial}d")(8, 4, 3, stride, 1), spatial), image(spatial, stride)
    convolve, layer = getattr(F, f"conv{spatial}d"), model[2]
    blur = BLURS[spatial](taps_of(name, stride), stride)
    check(model, x, lambda y: blur(convolve(y, layer.weight, layer.bias, padding=1)), filter=name)
    acting = nn.Sequential(*model, nn.Tanh())
    check(acting, x, lambda y: blur(convolve(y, layer.weight, layer.bias, padding=1).tanh()), filter=name)


@pytest.mark.parametrize(("spatial", "stride"), CASES)
@pytest.mark.parametrize("name", ["rect2", "bin4"])
def test_maxima(spatial, stride, name):
    x, pool = image(spatial, stride), getattr(F, f"max_pool{spatial}d")
    blur = BLURS[spatial](taps_of(name, stride), stride)
    layer = getattr(nn, f"MaxPool{spatial}d")(3, stride, 1)
    check(network(layer, spatial), x, lambda y: blur(pool(y, 3, 1, 1)), filter=name)


@pytest.mark.parametrize(("spatial", "stride"), CASES)
@pytest.mark.parametrize("name", ["tri3", "bin4"])
def test_averages(spatial, stride, name):
    x, average = image(spatial, stride), getattr(F, f"avg_pool{spatial}d")
    blur = BLURS[spatial](taps_of(name, stride), stride)
    kind = getattr(nn, f"AvgPool{spatial}d")
    check(network(kind(stride), spatial), x, blur, filter=name)
    check(network(kind(3, stride, 1), spatial), x, lambda y: blur(average(y, 3, 1, 1)), filter=name)


@pytest.mark.parametrize(("spatial", "stride"), CASES)
@pytest.mark.parametrize("name", ["tri3", "bin4"])
def test_adaptive_poolings(spatial, stride, name):
    x = image(spatial, stride)
    size = x.shape[-1] // stride
    blur = BLURS[spatial](taps_of(name, stride), stride)
    check(network(getattr(nn, f"AdaptiveAvgPool{spatial}d")(size), spatial), x, blur, filter=name)
    pool = getattr(F, f"max_pool{spatial}d")
    layer = getattr(nn, f"AdaptiveMaxPool{spatial}d")(size)
    check(network(layer, spatial), x, lambda y: blur(pool(y, stride, 1)), filter=name)


@pytest.mark.parametrize(("spatial", "stride"), CASES)
def test_power_averages(spatial, stride):
    x, pool = image(spatial, stride), getattr(F, f"lp_pool{spatial}d")
    blur = BLURS[spatial](taps_of("bin4", stride), stride)
    layer = getattr(nn, f"LPPool{spatial}d")(2, stride)
    check(network(layer, spatial), x, lambda y: blur(pool(y, 2.0, stride, 1)))


def test_functions_and_slices_are_filtered_as_layers_are():
    class Function(nn.Module):
        def __init__(self, function):
            super().__init__()
            self.function = function

        def forward(self, x):
            return self.function(x)

    x = torch.randn(1, 3, 32, 32)
    blur, dense = BlurPool2d(boxes(4, 3), 4), BlurPool2d(boxes(4, 3), 1)
    check(network(Function(lambda y: F.max_pool2d(y, 3, 4, 1))), x, lambda y: blur(F.max_pool2d(y, 3, 1, 1)))
    check(network(Function(lambda y: F.avg_pool2d(y, 4))), x, blur)
    check(network(Function(lambda y: F.interpolate(y, scale_factor=0.25))), x, blur)
    check(network(Function(lambda y: y[..., ::4, ::4])), x, blur)
    check(network(Function(lambda y: y[..., 1::4, 2::4])), x, lambda y: dense(y)[..., 1::4, 2::4])


def test_each_axis_has_the_width_of_its_stride():
    x, layer = torch.randn(1, 3, 32, 32), nn.Conv2d(8, 4, 3, (4, 2), 1)

    def by_hand(blur):
        return lambda y: blur(F.conv2d(y, layer.weight, layer.bias, padding=1))

    check(network(layer), x, by_hand(BlurPool2d((boxes(4, 3), boxes(2, 3)), (4, 2))))
    # along an axis of stride 1 nothing is filtered
    layer.stride = (4, 1)
    check(network(layer), x, by_hand(BlurPool2d((boxes(4, 3), "none"), (4, 1))))


def test_numbers_and_taps_are_taken_literally():
    for given in (5, (1, 2, 1), [1.0, 1.0, 1.0, 1.0, 1.0], torch.tensor([1.0, 3.0, 1.0]), np.int64(4)):
        blur = BlurPool2d(given, 4)
        check(network(nn.MaxPool2d(3, 4, 1)), X, lambda y, blur=blur: blur(F.max_pool2d(y, 3, 1, 1)), filter=given)


def test_a_tuple_is_a_filter_for_each_axis():
    for given, literal in (
        (("tri3", "none"), ((0.25, 0.5, 0.25), (1.0,))),
        ((3, [1, 1]), ((0.25, 0.5, 0.25), (0.5, 0.5))),
    ):
        blur = BlurPool2d(literal, 2)
        check(network(nn.AvgPool2d(2)), X, blur, filter=given)
    with pytest.raises(InputError, match="has 2 filters: give one, or 3") as caught:
        antialias(network(nn.MaxPool3d(2), 3), torch.randn(1, 3, 8, 8, 8), filter=("tri3", "bin4"))
    assert "max_pool `2`" in str(caught.value)


def test_the_paper_s_recipe_takes_names_literally():
    layer = nn.Conv2d(8, 4, 3, 4, 1)
    blur = BlurPool2d((1, 3, 3, 1), 4)
    model = network(layer)
    check(model, X, lambda y: blur(F.conv2d(y, layer.weight, layer.bias, padding=1)), recipe="zhang2019")
    pooled = MaxBlurPool2d(3, 4, 1, filter=(1, 3, 3, 1))
    check(network(nn.MaxPool2d(3, 4, 1)), X, pooled, recipe="zhang2019")


# By site and by path --------------------------------------------------------------------------------------------------


def by_hand(model, first, second, third):
    """`three_sites` with a blur of its own filter at each."""
    conv = model[3]
    with torch.no_grad():
        y = BlurPool2d(first)(F.max_pool2d(F.relu(model[0](X)), 2, 1))
        y = BlurPool2d(second)(F.relu(F.conv2d(y, conv.weight, conv.bias, padding=1)))
        return BlurPool2d(third)(y)


def test_a_function_of_the_site():
    model, asked = three_sites(), []
    chosen = {"max_pool": "rect2", "conv": 5, "avg_pool": [1, 2, 1]}

    def choose(site):
        asked.append(site)
        return chosen[site.kind]

    converted = antialias(model, X, filter=choose)
    assert asked == sites(model, X)
    torch.testing.assert_close(converted(X), by_hand(model, "rect2", 5, [1, 2, 1]))


def test_a_mapping_from_path_to_filter():
    model = three_sites()
    converted = antialias(model, X, filter={"3": "tri3", "5": (1, 1)})
    torch.testing.assert_close(converted(X), by_hand(model, "bin4", "tri3", (1, 1)))
    torch.testing.assert_close(antialias(model, X, filter={})(X), antialias(model, X)(X))


class Meeting(nn.Module):
    """Two strided branches that meet in front of their activation: they share one blur."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(8, 8, 3, 2, 1), nn.Conv2d(8, 8, 5, 2, 2)

    def forward(self, x):
        return F.relu(self.a(x) + self.b(x))


def test_branches_that_share_a_blur_have_one_filter():
    model = network(Meeting())
    dense = F.conv2d, model[2].a, model[2].b
    for given in ({"2.a": "rect2"}, {"2.b": "rect2"}, {"2.a": "rect2", "2.b": "rect2"}):

        def by_hand(y):
            convolve, a, b = dense
            both = convolve(y, a.weight, a.bias, padding=1) + convolve(y, b.weight, b.bias, padding=2)
            return BlurPool2d("rect2")(F.relu(both))

        check(model, X, by_hand, filter=given)
    with pytest.raises(InputError, match=r"2\.a and 2\.b, which share one blur"):
        antialias(model, X, filter={"2.a": "rect2", "2.b": "bin5"})


def test_names_in_functions_and_mappings_are_scaled_too():
    for given in ({"2": "tri3"}, lambda site: "tri3"):
        blur = BlurPool2d(boxes(4, 2), 4)
        check(network(nn.MaxPool2d(3, 4, 1)), X, lambda y, blur=blur: blur(F.max_pool2d(y, 3, 1, 1)), filter=given)


def test_scaled_is_what_is_written_by_hand():
    for name, times in (("rect2", 1), ("tri3", 2), ("bin4", 3), ("bin5", 4)):
        for stride in (1, 2, *STRIDES):
            np.testing.assert_allclose(filters.scaled(name, stride), boxes(stride, times), rtol=1e-12)
