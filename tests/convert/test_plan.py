"""Where blurs go: user-written networks against the same networks written by hand."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from helpers.conversion import check_no_filter, placed, randomize, refused
from torch import nn

from dealias import BlurPool1d, BlurPool2d, BlurPool3d, antialias, sites
from dealias.filters import scaled


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
    assert "behind the model, " in sites(Functional(lambda self, y: y), x)[0].action
    check_no_filter(Functional(lambda self, y: y), x)
    assert isinstance(antialias(Functional(lambda self, y: y), x).antialias_after, BlurPool2d)
    # where functions alone read it, it is blurred where it runs
    forked = Functional(lambda self, y: self.conv3(y) + y.mean())
    assert "behind activation 1 of the model" in sites(forked, x)[0].action
    check_no_filter(forked, x)
    assert refused(Functional(lambda self, y: self.conv3(y) + y.mean()), x) == []


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
    unpadded = nn.Sequential(network("circular"), nn.Conv2d(4, 4, 3, padding="valid"))
    assert antialias(unpadded, x)[0][2].padding_mode == "circular"
    own = nn.Sequential(nn.CircularPad2d(1), nn.Conv2d(3, 4, 3), nn.MaxPool2d(2))
    assert antialias(own, x)[2].padding_mode == "circular"
    strided = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1, padding_mode="circular"), nn.ReLU())
    check_no_filter(strided, x, stem=True)


class Splits(nn.Module):
    """As Res2Net reduces: strided convolutions of the channels' parts share one ReLU, and are concatenated."""

    def __init__(self, pool):
        super().__init__()
        self.first, self.relu, self.pool, self.last = nn.Conv2d(3, 12, 1), nn.ReLU(), pool, nn.Conv2d(12, 4, 1)
        self.convs = nn.ModuleList(nn.Conv2d(4, 4, 3, 2, 1) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(2))

    def forward(self, x):
        parts = torch.split(self.first(x), 4, 1)
        done = [self.relu(norm(conv(part))) for conv, norm, part in zip(self.convs, self.norms, parts[:2], strict=True)]
        return self.last(torch.cat([*done, self.pool(parts[2])], 1))


@pytest.mark.parametrize("pool", [nn.AvgPool2d(3, 2, 1), nn.AvgPool2d(1, 2), nn.MaxPool2d(1, 2)])
def test_a_concatenation_is_blurred_once(pool):
    x, model = torch.randn(1, 3, 21, 22), randomize(Splits(pool))
    kind = "avg_pool" if isinstance(pool, nn.AvgPool2d) else "max_pool"
    check_no_filter(model, x)
    assert placed(model, x) == {("conv", "convs.0"), ("conv", "convs.1"), (kind, "pool")}
    converted = antialias(model, x)
    assert [name for name, module in converted.named_modules() if isinstance(module, BlurPool2d)] == [
        "last.antialias_before"
    ]
    parts = torch.split(model.first(x), 4, 1)
    with torch.no_grad():
        done = [
            F.relu(norm(F.conv2d(part, conv.weight, conv.bias, padding=1)))
            for conv, norm, part in zip(model.convs, model.norms, parts[:2], strict=True)
        ]
        dense = getattr(F, f"{kind}2d")(parts[2], pool.kernel_size, 1, pool.padding)
        expected = model.last(BlurPool2d()(torch.cat([*done, dense], 1)))
        torch.testing.assert_close(converted(x), expected)


@pytest.mark.parametrize("pool", [nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(4, 4, 1, 2)])
def test_maps_of_a_concatenation_that_differ_are_blurred_where_their_activation_runs(pool):
    x = torch.randn(1, 3, 21, 22)
    model = randomize(Splits(pool))
    assert all("behind activation" in site.action for site in sites(model, x) if site.path.startswith("convs"))
    check_no_filter(model, x) if isinstance(pool, nn.Conv2d) else antialias(model, x)


def test_a_gain_behind_the_non_linearity():
    class Gained(nn.Module):
        def forward(self, x):
            return F.gelu(x).mul_(1.7)

    x = torch.randn(1, 3, 21, 22)
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 4, 3, 2), Gained())
    check_no_filter(model, x)
    y = 1.7 * F.gelu(F.conv2d(model[0](x), model[1].weight, model[1].bias))
    torch.testing.assert_close(antialias(model, x)(x), BlurPool2d()(y))


@pytest.mark.parametrize(("stride", "kept"), [(4, 2), (8, 4), (6, 3), (3, 1), (5, 1)])
def test_patch_stems_are_split(stride, kept):
    x = torch.randn(1, 3, 4 * stride, 4 * stride)
    model = nn.Sequential(nn.Conv2d(3, 4, stride, stride), nn.ReLU(), nn.Conv2d(4, 4, 1))
    (site,) = sites(model, x)
    assert site.status == "left alone"
    assert ("patches" in site.reason) == (stride > 3)
    converted = antialias(model, x, stem=True)
    assert converted[0].stride == (kept, kept)
    y = F.relu(F.conv2d(x, model[0].weight, model[0].bias, kept))
    torch.testing.assert_close(converted(x), model[2](BlurPool2d(scaled("bin4", stride // kept), stride // kept)(y)))
    check_no_filter(model, x, stem=True)
