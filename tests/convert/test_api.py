"""`antialias` and `sites` on networks as users write them: placement against hand-written networks, and refusals."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dealias import BlurPool1d, BlurPool2d, BlurPool3d, MaxBlurPool2d, antialias, functional, sites
from dealias.errors import InputError, InputTypeError


@pytest.fixture(autouse=True)
def _errors_on_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        torch.manual_seed(0)
        yield


class Chain(nn.Module):
    """Layers in attributes, one after the other."""

    def __init__(self, **modules):
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x):
        for module in list(self._modules.values()):
            x = module(x)
        return x


def randomize(model):
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()


def placed(model, x, **arguments):
    return {(site.kind, site.path) for site in sites(model, x, **arguments) if site.placed}


def refused(model, x, **arguments):
    return [site for site in sites(model, x, **arguments) if site.status == "not placed"]


def check_no_filter(model, x, **arguments):
    """Without a filter, dense layers and their sampling are the strided layers: the network must compute the same."""
    args = x if isinstance(x, tuple) else (x,)
    with torch.no_grad():
        torch.testing.assert_close(antialias(model, x, filter="none", **arguments)(*args), model(*args))


# --- placement, against the same network written by hand


def test_a_small_network_equals_the_one_written_by_hand():
    conv1, conv2, conv3, short = (
        nn.Conv2d(*c, padding=p) for c, p in (((3, 8, 3), 1), ((8, 8, 3), 1), ((8, 4, 5), 2), ((4, 6, 1), 0))
    )
    norm, pool = nn.BatchNorm2d(8), nn.AvgPool2d(2)
    conv2.stride, short.stride = (2, 2), (2, 2)
    baseline = randomize(
        nn.Sequential(conv1, nn.ReLU(), nn.MaxPool2d(2), conv2, norm, nn.ReLU(inplace=True), conv3, pool, short)
    )
    x = torch.randn(2, 3, 48, 64)
    converted = antialias(baseline, x, filter="tri3")

    dense2, dense_short = copy.deepcopy(conv2), copy.deepcopy(short)
    dense2.stride, dense_short.stride = (1, 1), (1, 1)
    by_hand = nn.Sequential(
        *(conv1, nn.ReLU(), nn.MaxPool2d(2, stride=1), BlurPool2d("tri3", 2)),
        *(dense2, norm, nn.ReLU(), BlurPool2d("tri3", 2)),
        *(conv3, BlurPool2d("tri3", 2)),
        *(BlurPool2d("tri3", 2), dense_short),
    ).eval()
    assert torch.equal(converted(x), by_hand(x))
    assert list(converted.state_dict()) == list(baseline.state_dict())


class Shared(nn.Module):
    """A residual block as ResNets write it: one ReLU module for all its activations."""

    def __init__(self, stride=2):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.conv1 = nn.Conv2d(4, 4, 3, stride, 1)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.short = nn.Conv2d(4, 4, 1, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.stem(x)
        return self.relu(self.conv2(self.relu(self.conv1(x))) + self.short(x))


def test_a_shared_activation_is_blurred_at_its_reader():
    model, x = Shared(), torch.randn(1, 3, 15, 16)
    dense = Shared(stride=1)
    dense.load_state_dict(model.state_dict())
    y, blur = dense.stem(x), BlurPool2d()
    expected = F.relu(dense.conv2(blur(F.relu(dense.conv1(y)))) + dense.short(blur(y)))
    torch.testing.assert_close(antialias(model, x)(x), expected)


@pytest.mark.parametrize(
    "middle",
    [
        [nn.ReLU6(inplace=True)],
        [nn.InstanceNorm2d(4, affine=True), nn.LeakyReLU(0.2)],
        [nn.GroupNorm(2, 4), nn.PReLU()],
        [nn.BatchNorm2d(4), nn.Hardswish()],
        [nn.BatchNorm2d(4), nn.Dropout2d(), nn.Softplus(), nn.Dropout()],
        [nn.Identity(), nn.Tanh()],
    ],
    ids=lambda middle: "-".join(type(module).__name__ for module in middle),
)
def test_the_blur_stands_behind_the_activation(middle):
    convs = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 2, 3)
    model = randomize(nn.Sequential(convs[0], convs[1], *middle, convs[2]))
    x = torch.randn(1, 3, 20, 21)
    converted = antialias(model, x)
    y = F.conv2d(convs[0](x), convs[1].weight, convs[1].bias, padding=1)
    for module in middle:
        y = module(y)
    torch.testing.assert_close(converted(x), convs[2](BlurPool2d()(y)))


class Swish(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(x)


class NormAct(nn.BatchNorm2d):
    """Normalisation and activation in one layer, as timm has it."""

    def __init__(self, channels):
        super().__init__(channels)
        self.act = nn.SiLU(inplace=True)

    def forward(self, x):
        return self.act(super().forward(x))


class ChannelsLastNorm(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    "middle",
    [[Swish()], [nn.BatchNorm2d(4), Swish()], [NormAct(4)], [ChannelsLastNorm(4), nn.GELU()]],
    ids=["swish", "norm-swish", "normact", "layernorm"],
)
def test_activations_of_one_s_own_making(middle):
    convs = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 2, 3)
    model = randomize(nn.Sequential(convs[0], convs[1], *middle, convs[2]))
    x = torch.randn(1, 3, 20, 21)
    y = nn.Sequential(*middle)(F.conv2d(convs[0](x), convs[1].weight, convs[1].bias, padding=1))
    torch.testing.assert_close(antialias(model, x)(x), convs[2](BlurPool2d()(y)))


class Functional(nn.Module):
    """Activations as functions."""

    def __init__(self, last):
        super().__init__()
        self.conv1, self.conv2, self.conv3 = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, 2), nn.Conv2d(4, 4, 3)
        self.last = last

    def forward(self, x):
        x = F.relu(self.conv1(x))
        return self.last(self, F.relu(self.conv2(x)))


def test_an_activation_as_a_function():
    x = torch.randn(1, 3, 33, 33)
    check_no_filter(Functional(lambda self, y: self.conv3(y)), x)
    converted = antialias(Functional(lambda self, y: self.conv3(y)), x)
    assert isinstance(converted.conv3.antialias_before, BlurPool2d)
    # at the end of the model's forward, the model returns it
    check_no_filter(Functional(lambda self, y: y), x)
    assert isinstance(antialias(Functional(lambda self, y: y), x).antialias_after, BlurPool2d)
    # a fork of functions has no place for it
    forked = Functional(lambda self, y: self.conv3(y) + y.mean())
    assert [site.path for site in refused(forked, x)] == ["conv2"]
    with pytest.warns(UserWarning, match=r"conv `conv2`: what is to be blurred is returned by no module"):
        unchanged = antialias(forked, x)
    assert torch.equal(unchanged(x), forked(x))


def test_a_fork_inside_one_module_is_blurred_once_in_front_of_it():
    class Fork(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, x):
            return self.left(x) + self.right(x) + x

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.conv, self.fork = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, 2), Fork()

        def forward(self, x):
            return self.fork(F.gelu(self.conv(self.first(x))))

    x = torch.randn(1, 3, 16, 16)
    check_no_filter(Model(), x)
    assert isinstance(antialias(Model(), x).fork.antialias_before, BlurPool2d)


def test_two_blurs_meet_in_front_of_one_layer():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.conv, self.short = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, 2), nn.Conv2d(4, 4, 1, 2)

        def forward(self, x):
            return self.short(F.relu(self.conv(self.first(x))))

    x, model = torch.randn(1, 3, 33, 33), Model()
    check_no_filter(model, x)
    with torch.no_grad():
        y = F.relu(F.conv2d(model.first(x), model.conv.weight, model.conv.bias))
        y = F.conv2d(BlurPool2d()(BlurPool2d()(y)), model.short.weight, model.short.bias)
        torch.testing.assert_close(antialias(model, x)(x), y)


def test_strided_convolutions_without_a_non_linearity():
    x = torch.randn(1, 3, 21, 22)
    model = randomize(
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    )
    converted = antialias(model, x)
    y = BlurPool2d()(model[2](F.conv2d(model[0](x), model[1].weight, model[1].bias, padding=1)))
    torch.testing.assert_close(converted(x), model[3](y))
    assert "no non-linearity" in sites(model, x)[0].action
    padded = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1, 2, padding=1))  # does not commute with a blur
    check_no_filter(padded, x)
    assert not hasattr(antialias(padded, x)[1], "antialias_before")


@pytest.mark.parametrize(("spatial", "blur"), [(1, BlurPool1d), (2, BlurPool2d), (3, BlurPool3d)])
def test_any_number_of_spatial_axes(spatial, blur):
    conv, pool, average, norm = (
        getattr(nn, f"{name}{spatial}d") for name in ("Conv", "MaxPool", "AvgPool", "BatchNorm")
    )
    model = randomize(
        nn.Sequential(
            conv(2, 4, 3),
            pool([3] * spatial, 2, 1),
            conv(4, 4, 3, 2),
            norm(4),
            nn.ReLU(),
            average(2),
            conv(4, 4, 1),
            conv(4, 4, 1, 2),
        )
    )
    x = torch.randn(2, 2, *([40] * spatial))
    found = sites(model, x)
    assert [(site.kind, site.path) for site in found] == [
        ("max_pool", "1"),
        ("conv", "2"),
        ("avg_pool", "5"),
        ("conv", "7"),
    ]
    assert [site.output_size for site in found] == [(size,) * spatial for size in (19, 9, 4, 2)]
    assert {site.stride for site in found} == {(2,) * spatial}
    converted = antialias(model, x)
    assert converted(x).shape == model(x).shape
    assert placed(model, x, recipe="zhang2019") == placed(model, x)
    assert sum(isinstance(module, blur) for module in converted.modules()) == 3
    with torch.no_grad():
        y = torch.nn.Sequential(*converted[:2])(x)
        z = model[4](model[3](getattr(F, f"conv{spatial}d")(y, model[2].weight, model[2].bias)))
        torch.testing.assert_close(nn.Sequential(*converted[:5])(x), blur()(z))


def test_patches_and_uneven_strides_keep_their_grid():
    x = torch.randn(1, 3, 36, 40)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, (5, 3), (3, 2), (2, 0), dilation=(1, 2)), nn.Sigmoid())
    check_no_filter(model, x)
    check_no_filter(nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.Tanh()), x, stem=True)
    assert sites(model, x)[0].stride == (3, 2)


def test_circular_networks_get_circular_blurs():
    def network(mode):
        return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode=mode), nn.ReLU(), nn.MaxPool2d(2))

    x = torch.randn(1, 3, 16, 16)
    converted = antialias(network("circular"), x)
    assert converted[2].padding_mode == "circular"
    assert torch.equal(converted(x.roll((2, 4), (2, 3))), converted(x).roll((1, 2), (2, 3)))
    assert antialias(network("zeros"), x)[2].padding_mode == "reflect"
    assert antialias(network("circular"), x, padding_mode="replicate")[2].padding_mode == "replicate"
    own = nn.Sequential(nn.CircularPad2d(1), nn.Conv2d(3, 4, 3), nn.MaxPool2d(2))
    assert antialias(own, x)[2].padding_mode == "circular"
    strided = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1, padding_mode="circular"), nn.ReLU())
    check_no_filter(strided, x, stem=True)


# --- pooling


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(2),
        nn.MaxPool2d(3, 2, 1),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.MaxPool2d((3, 2), (2, 3), (1, 0)),
        nn.MaxPool2d(3, 2, 1, dilation=2),
        nn.AvgPool2d(2),
        nn.AvgPool2d(3, ceil_mode=True),
        nn.AvgPool2d((2, 3)),
    ],
    ids=str,
)
def test_pools_keep_their_sizes(pool):
    model = nn.Sequential(nn.Conv2d(3, 2, 1), pool)
    converted = antialias(model, torch.randn(1, 3, 24, 24))
    assert type(converted[1]) is not type(pool)
    for size in range(12, 30):
        x = torch.randn(1, 3, size, size + 3)
        assert converted(x).shape == model(x).shape


def test_average_pooling_uses_the_pixels_that_the_average_uses():
    x = torch.randn(1, 2, 7, 9)
    model = nn.Sequential(nn.AvgPool2d(2))
    changed = x.clone()
    changed[:, :, 6:], changed[..., 8:] = 9, 9
    converted = antialias(model, x)
    assert torch.equal(converted(changed), converted(x))
    assert torch.equal(converted(x), BlurPool2d()(x[:, :, :6, :8]))
    released = antialias(nn.Sequential(nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1)), x, recipe="zhang2019")
    assert torch.equal(released[0](x), BlurPool2d()(x))


def test_global_and_adaptive_pooling():
    x = torch.randn(1, 3, 8, 8)
    (site,) = sites(nn.Sequential(nn.Conv2d(3, 4, 1), nn.AvgPool2d(8), nn.Flatten()), x)
    assert (site.status, site.output_size) == ("left alone", (1, 1))
    assert "global" in site.reason
    assert sites(nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool2d(2)), x) == []
    (site,) = refused(nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(3)), x)
    assert (site.kind, site.path, site.output_size) == ("adaptive_pool", "1", (3, 3))


@pytest.mark.parametrize(
    ("pool", "word"),
    [
        (nn.MaxPool2d(2, return_indices=True), "return_indices"),
        (nn.AvgPool2d(3, 2), "differ"),
        (nn.AvgPool2d(2, padding=1), "padding"),
        (nn.AvgPool2d(2, divisor_override=3), "divisor_override"),
        (nn.LPPool2d(2, 2), "function"),
        (nn.FractionalMaxPool2d(2, output_ratio=0.5), "no rule"),
        (nn.Upsample(scale_factor=0.5), "no rule"),
        (nn.PixelUnshuffle(2), "no rule"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_pools_without_an_anti_aliased_form_are_named(pool, word):
    model, x = nn.Sequential(nn.Conv2d(3, 4, 1), pool), torch.randn(1, 3, 12, 12)
    (site,) = refused(model, x)
    assert word in site.reason
    with pytest.warns(UserWarning, match="not anti-aliased, 1 of 1 downsampling sites"):
        assert type(antialias(model, x)[1]) is type(pool)


def test_functions_and_slices_are_reported_with_their_place():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.weight = nn.Conv2d(3, 4, 1), nn.Parameter(torch.randn(4, 4, 3, 3))

        def forward(self, x):
            x = F.avg_pool2d(F.max_pool2d(self.conv(x), 2), 2)
            x = F.conv2d(x, self.weight, stride=2)
            x = F.interpolate(x, scale_factor=0.5)
            x = x[:, :, ::2, ::2]
            return F.max_pool1d(x.flatten(2), 3, 2)

    found = refused(Model(), torch.randn(1, 3, 96, 96))
    assert [(site.kind, site.path, site.stride) for site in found] == [
        ("max_pool", "", (2, 2)),
        ("avg_pool", "", (2, 2)),
        ("conv", "", (2, 2)),
        ("interpolate", "", (2, 2)),
        ("slice", "", (2, 2)),
        ("max_pool", "", (2,)),
    ]
    assert all("test_api.py:" in site.reason for site in found)


def test_slices_of_channels_are_no_sites():
    class Rotary(nn.Module):
        def forward(self, x):  # (batch, heads, tokens, channels)
            return torch.cat([-x[..., 1::2], x[..., ::2]], -1)

    assert sites(Rotary(), torch.randn(1, 2, 3, 8)) == []


# --- modules in unusual places


def test_one_pool_for_many_calls():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.pool = nn.Conv2d(3, 3, 3, padding=1), nn.MaxPool2d(2)

        def forward(self, x):
            return self.pool(self.conv(self.pool(self.conv(x))))

    x = torch.randn(1, 3, 20, 20)
    assert [site.output_size for site in sites(Model(), x)] == [(10, 10), (5, 5)]
    check_no_filter(Model(), x)


class Twins(nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, left, right):
        return self.encoder(left) - self.encoder(right)


def test_a_network_called_twice():
    encoder = randomize(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU()))
    pair = torch.randn(1, 3, 16, 16), torch.randn(1, 3, 24, 24)[..., :16, :16]
    check_no_filter(Twins(encoder), pair)
    assert placed(Twins(encoder), pair) == {("conv", "encoder.1")}


def test_a_convolution_whose_calls_differ_is_refused():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.conv, self.relu = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 3, 2), nn.ReLU()

        def forward(self, x):
            return self.conv(self.relu(self.conv(self.first(x))))

    x = torch.randn(1, 3, 33, 33)
    assert {site.path for site in refused(Model(), x)} == {"conv"}


def test_a_module_under_two_names_is_changed_under_both():
    pool = nn.MaxPool2d(2)
    model = Chain(conv=nn.Conv2d(3, 4, 1), pool=pool, again=pool)
    converted = antialias(model, torch.randn(1, 3, 16, 16))
    assert converted.pool is converted.again
    assert isinstance(converted.pool, MaxBlurPool2d)
    assert len(list(converted.named_modules(remove_duplicate=False))) == 4


def test_modules_that_are_the_model():
    x = torch.randn(1, 3, 16, 16)
    assert isinstance(antialias(nn.MaxPool2d(2), x), MaxBlurPool2d)
    with pytest.raises(InputError, match="inplace=True"):
        antialias(nn.MaxPool2d(2), x, inplace=True)
    conv = nn.Conv2d(3, 4, 3, 2)
    check_no_filter(conv, x, stem=True)
    assert sites(conv, x)[0].status == "left alone"
    assert sites(nn.Conv2d(3, 4, 3), x) == []


def test_hidden_and_unused_layers():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.unused = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 3, 2)
            self.hidden = [nn.MaxPool2d(2)]
            self.bypassed = nn.Conv2d(3, 3, 3, 2)

        def forward(self, x):
            return self.bypassed.forward(self.hidden[0](self.conv(x)))

    found = refused(Model(), torch.randn(1, 3, 16, 16))
    assert sorted((site.kind, site.path) for site in found) == [
        *[("conv", ""), ("conv", "bypassed"), ("conv", "unused")],
        ("max_pool", ""),
    ]


def test_same_padding_and_weights_computed_on_the_way():
    class Same(nn.Conv2d):
        def forward(self, x):
            pads = [(-(-size // 2) - 1) * 2 + 3 - size for size in x.shape[:1:-1]] if self.stride[0] == 2 else [2, 2]
            x = F.pad(x, [part for pad in pads for part in (pad // 2, pad - pad // 2)])
            return F.conv2d(x, self.weight, self.bias, self.stride)

    class Standardized(nn.Conv2d):
        def forward(self, x):
            weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
            return F.conv2d(x, weight, self.bias, self.stride, self.padding)

    x = torch.randn(1, 3, 16, 16)
    (site,) = refused(nn.Sequential(nn.Conv2d(3, 3, 1), Same(3, 3, 3, 2), nn.ReLU()), x)
    assert "SAME" in site.reason
    check_no_filter(nn.Sequential(nn.Conv2d(3, 3, 1), Standardized(3, 3, 3, 2, 1), nn.ReLU()), x)
    parametrized = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 3, 2, 1))
    check_no_filter(nn.Sequential(nn.Conv2d(3, 3, 1), parametrized, nn.ReLU()), x)


# --- what is kept


def test_networks_that_are_anti_aliased_already():
    x = torch.randn(1, 3, 32, 32)

    class Written(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return functional.blur_pool2d(functional.max_blur_pool2d(self.conv(x), 2), "none")

    for model in (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), BlurPool2d()), Written()):
        with pytest.warns(UserWarning, match="already anti-aliased") as caught:
            antialias(model, x)
        assert len(caught) == 1
        assert {site.status for site in sites(model, x)} == {"left alone"}
    with pytest.warns(UserWarning, match="no downsampling site"):
        antialias(nn.Linear(3, 3), torch.randn(2, 3))


def test_a_later_conversion_adds_what_the_first_left_alone():
    x = torch.randn(1, 3, 32, 32)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Conv2d(4, 4, 3, 2), nn.ReLU(), nn.MaxPool2d(2))
    assert torch.equal(antialias(antialias(model, x), x, stem=True)(x), antialias(model, x, stem=True)(x))


def test_the_original_is_untouched_and_inplace_changes_it():
    x = torch.randn(1, 3, 32, 32)
    model = randomize(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU()))
    model[2].train()
    before, expected = repr(model), copy.deepcopy(model).eval()(x)
    converted = antialias(model, x)
    assert repr(model) == before
    assert torch.equal(copy.deepcopy(model).eval()(x), expected)
    assert [module.training for module in converted] == [False, False, True, False]
    weight = model[0].weight
    assert antialias(model, x, inplace=True) is model
    assert model[0].weight is weight
    assert torch.equal(model.eval()(x), converted.eval()(x))


def test_hooks_of_the_user_survive():
    seen = []
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, 2), nn.ReLU())
    for index in (1, 3):
        model[index].register_forward_hook(lambda module, args, output: seen.append(tuple(output.shape[2:])))
    x = torch.randn(1, 3, 16, 16)
    converted = antialias(model, x)
    seen.clear()
    converted(x)
    assert seen[0] == (8, 8)
    assert len(seen) == 2


def test_hooks_registered_after_loading_do_not_displace_the_blur():
    """PyTorch numbers hooks by process: a number in a pickle may be given out again where it is loaded."""
    x = torch.randn(1, 3, 16, 16)
    converted = antialias(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1, 2)), x)
    data, expected = pickle.dumps(converted), converted(x)
    handles = torch.utils.hooks.RemovableHandle
    number, handles.next_id = handles.next_id, 0
    try:
        loaded = pickle.loads(data)
        for _ in range(200):
            loaded[1].register_forward_pre_hook(lambda module, args: None)
    finally:
        handles.next_id = max(number, handles.next_id)
    assert torch.equal(loaded(x), expected)


def test_gradients_and_training():
    model = antialias(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, 2), nn.ReLU()), torch.randn(1, 3, 16, 16))
    model.train()(torch.randn(2, 3, 16, 16)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


# --- arguments


def test_examples_of_every_kind():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.pool = nn.Conv2d(3, 3, 1), nn.MaxPool2d(2)

        def forward(self, image, scale=1.0, *, mask=None):
            y = self.pool(self.conv(image * scale))
            return {"features": y, "mask": mask, "list": [y.mean()]}

    x = torch.randn(1, 3, 16, 16)
    for example in (x, (x,), (x, 2.0), {"image": x}, {"image": x, "mask": x}):
        assert placed(Model(), example) == {("max_pool", "pool")}
        assert isinstance(antialias(Model(), example).pool, MaxBlurPool2d)


def test_wrong_arguments():
    model, x = nn.Sequential(nn.Conv2d(3, 4, 1), nn.MaxPool2d(2)), torch.randn(1, 3, 16, 16)
    for wrong in ({"filter": "bin9"}, {"recipe": "zhang"}, {"padding_mode": "wrap"}):
        with pytest.raises(InputError, match=f"{next(iter(wrong))}="):
            antialias(model, x, **wrong)
    with pytest.raises(InputError, match="recipe="):
        sites(model, x, recipe="zhang")
    with pytest.raises(InputTypeError, match=r"model must be a torch\.nn\.Module, got function"):
        antialias(F.relu, x)
    with pytest.raises(InputTypeError, match="example_input is a list"):
        antialias(model, [x])
    with pytest.raises(InputError, match=r"example_input=a tensor of shape \(1, 4, 8, 8\), float32 on cpu is not what"):
        antialias(model, torch.randn(1, 4, 8, 8))
    with pytest.raises(InputError, match=r"example_input=\{'image': a tensor of shape"):
        sites(model, {"image": x})
    with pytest.raises(InputError, match="lazy"):
        sites(nn.LazyConv2d(3, 3), x)
    with pytest.raises(InputTypeError, match="compile"):
        sites(torch.compile(model, backend="eager"), x)


def test_a_model_that_cannot_keep_its_shape_is_refused_whole():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.strided, self.relu = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU()

        def forward(self, x):
            x = self.strided(self.conv(x))
            assert x.shape[2:] == (8, 8)
            return self.relu(x)

    model = Model()
    with pytest.raises(InputError, match="model does not run at the sizes of its anti-aliased form"):
        antialias(model, torch.randn(1, 3, 16, 16), inplace=True)
    assert model.strided.stride == (2, 2)
