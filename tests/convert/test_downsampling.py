"""Every kind of downsampling site: pools, functions, slices."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers.conversion import check_no_filter, refused
from torch import nn

from dealias import BlurPool2d, antialias, sites
from dealias.filters import scaled


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
    (site,) = refused(nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(3)), x)  # 8 is no multiple of 3
    assert (site.kind, site.path, site.output_size) == ("adaptive_pool", "1", (3, 3))


@pytest.mark.parametrize(
    ("pool", "output"),
    [
        (nn.AvgPool2d(8), None),  # left alone: it has a stride, but returns a single pixel
        (nn.AvgPool2d((8, 9), padding=(0, 1)), None),
        (nn.AvgPool2d((8, 4)), (1, 2)),
        (nn.AvgPool2d((4, 8)), (2, 1)),
        (nn.AvgPool2d(8, padding=(0, 4)), (1, 2)),
        (nn.AvgPool2d(7, 8), (1, 1)),  # a pixel is left out, so that a shift changes what it sees
        (nn.AvgPool2d((8, 7), 8), (1, 1)),
        (nn.AdaptiveAvgPool2d(1), ()),
        (nn.AdaptiveMaxPool2d(1), ()),
        (nn.AdaptiveAvgPool2d((1, 4)), (1, 4)),
        (nn.AdaptiveMaxPool2d((4, 1)), (4, 1)),
        (nn.AdaptiveAvgPool2d((None, 1)), (8, 1)),
        (nn.AdaptiveAvgPool2d(8), ()),
        (nn.Upsample(size=1), ()),
        (nn.Upsample(size=(1, 2)), (1, 2)),
        (nn.Unfold(8, stride=8), ()),
        (nn.Unfold((8, 4), stride=4), (1, 2)),
    ],
    ids=str,
)
def test_only_what_sees_the_whole_map_subsamples_nothing(pool, output):
    """`output` is the size that the site returns: none where there is no site, None where one is left alone."""
    found = sites(nn.Sequential(nn.Conv2d(3, 4, 1), pool), torch.randn(1, 3, 8, 8))
    if output == ():
        assert found == []
    elif output is None:
        assert [(site.status, site.output_size) for site in found] == [("left alone", (1, 1))]
        assert "global" in found[0].reason
    else:
        assert [(site.status == "left alone", site.output_size) for site in found] == [(False, output)]


@pytest.mark.parametrize(
    ("pool", "word"),
    [
        (nn.MaxPool2d(2, return_indices=True), "return_indices"),
        (nn.AvgPool2d(3, 2, ceil_mode=True), "ceil_mode"),
        (nn.FractionalMaxPool2d(2, output_ratio=0.5), "no rule"),
        (nn.Upsample(size=(5, 5)), "antialias=True"),
        (nn.AdaptiveAvgPool2d(5), "12x12 to 5x5 pixels is no subsampling by a whole stride"),
        (nn.Upsample(scale_factor=0.5, mode="nearest-exact"), "nearest-exact"),
        (nn.PixelUnshuffle(2), "keeps all pixels"),
        (nn.Unfold(3, stride=2), "no rule"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_pools_without_an_anti_aliased_form_are_named(pool, word):
    model, x = nn.Sequential(nn.Conv2d(3, 4, 1), pool), torch.randn(1, 3, 12, 12)
    (site,) = refused(model, x)
    assert word in site.reason
    with pytest.warns(UserWarning, match="not anti-aliased, 1 of 1 downsampling sites"):
        assert type(antialias(model, x)[1]) is type(pool)


@pytest.mark.parametrize(
    "pool",
    [
        nn.AvgPool2d(3, 2),
        nn.AvgPool2d(3, 2, 1),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        nn.AvgPool2d(2, padding=1),
        nn.AvgPool2d(1, 2),
        nn.AvgPool2d((3, 5), (2, 3), (1, 2), divisor_override=3),
    ],
    ids=str,
)
def test_other_averages_are_taken_at_every_pixel(pool):
    x, model = torch.randn(1, 3, 23, 24), nn.Sequential(nn.Conv2d(3, 4, 1), pool)
    check_no_filter(model, x)
    dense = nn.AvgPool2d(pool.kernel_size, 1, pool.padding, False, pool.count_include_pad, pool.divisor_override)
    stride = pool.stride if isinstance(pool.stride, tuple) else (pool.stride,) * 2
    filters = tuple(scaled("bin4", step) for step in stride)
    torch.testing.assert_close(antialias(model, x)(x), BlurPool2d(filters, stride)(dense(model[0](x))))


class Functions(nn.Module):
    """Every function that subsamples, some with an anti-aliased form, some without."""

    def __init__(self):
        super().__init__()
        self.conv, self.weight = nn.Conv2d(3, 4, 1), nn.Parameter(torch.randn(4, 4, 3, 3))

    def forward(self, x):
        x = F.avg_pool2d(F.max_pool2d(self.conv(x), 2), 2)
        x = F.conv2d(x, self.weight, stride=2)
        x = F.interpolate(x, scale_factor=0.5)
        x = x[:, :, ::2, ::2]
        return F.max_pool1d(x.flatten(2), 3, 2)


def test_functions_are_reported_with_their_place():
    found = sites(Functions(), torch.randn(1, 3, 96, 96))
    assert [(site.kind, site.path, site.stride, site.placed) for site in found] == [
        ("max_pool", "", (2, 2), True),
        ("avg_pool", "", (2, 2), True),
        ("conv", "", (2, 2), True),
        ("interpolate", "", (2, 2), True),
        ("slice", "", (2, 2), True),
        ("max_pool", "", (2,), True),
    ]
    assert all("test_downsampling.py:" in (site.action or site.reason) for site in found)


def test_maps_that_grow_are_reported_and_left_alone():
    x = torch.randn(1, 4, 6, 6)
    layers = [nn.ConvTranspose2d(4, 4, 2, 2), nn.Upsample(scale_factor=3), nn.PixelShuffle(2)]
    found = sites(nn.Sequential(*layers), x)
    assert [(site.kind, site.path, site.stride, site.status) for site in found] == [
        ("conv_transpose", "0", (2, 2), "left alone"),
        ("upsample", "1", (3, 3), "left alone"),
        ("pixel_shuffle", "2", (2, 2), "left alone"),
    ]
    assert [site.output_size for site in found] == [(12, 12), (36, 36), (72, 72)]
    assert sites(nn.Upsample(size=(7, 7)), torch.randn(1, 4, 1, 1)) == []


@pytest.mark.parametrize(
    ("scale", "kind"), [((0.5, 2), "interpolate"), ((2, 0.5), "interpolate"), ((2, 1), "upsample")]
)
def test_resampling_by_axis(scale, kind):
    (site,) = sites(nn.Upsample(scale_factor=scale), torch.randn(1, 4, 8, 8))
    assert (site.kind, site.status) == (kind, "left alone" if kind == "upsample" else "not placed")
    assert site.output_size == (int(8 * scale[0]), int(8 * scale[1]))


def test_interpolation_that_filters_is_left_alone():
    class Model(nn.Module):
        def forward(self, x):
            return F.interpolate(x, size=(5, 5), mode="bilinear", antialias=True)

    (site,) = sites(Model(), torch.randn(1, 3, 12, 12))
    assert (site.kind, site.status) == ("interpolate", "left alone")


class Merging(nn.Module):
    """Blocks of pixels made channels by views, as in Swin; `windows` keeps the blocks apart, as its attention does."""

    def __init__(self, windows):
        super().__init__()
        self.windows = windows

    def forward(self, x):  # channels last
        n, h, w, c = x.shape
        x = x.reshape(n, h // 2, 2, w // 4, 4, c)
        if self.windows:
            return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, 2, 4, c)
        return x.permute(0, 1, 3, 4, 2, 5).flatten(3)


def test_patch_merging_by_views():
    x = torch.randn(2, 8, 8, 5)
    (site,) = sites(Merging(windows=False), x)
    assert (site.kind, site.stride, site.input_size, site.output_size) == ("pixel_unshuffle", (2, 4), (8, 8), (4, 2))
    assert sites(Merging(windows=True), x) == []


def test_space_to_depth_by_views_with_channels_first():
    class SpaceToDepth(nn.Module):
        def forward(self, x):
            n, c, h, w = x.shape
            x = x.view(n, c, h // 4, 4, w // 2, 2).permute(0, 3, 5, 1, 2, 4).contiguous()
            return x.view(n, 8 * c, h // 4, w // 2)

    (site,) = sites(SpaceToDepth(), torch.randn(2, 3, 8, 12))
    assert (site.kind, site.stride, site.input_size, site.output_size) == ("pixel_unshuffle", (4, 2), (8, 12), (2, 6))


def test_unfolding_counts_windows():
    (site,) = refused(nn.Unfold((3, 5), dilation=(2, 1), padding=(1, 2), stride=(2, 3)), torch.randn(1, 2, 10, 13))
    assert (site.kind, site.stride, site.input_size, site.output_size) == ("unfold", (2, 3), (10, 13), (4, 5))
    assert sites(nn.Unfold(3), torch.randn(1, 2, 9, 9)) == []
    assert sites(nn.Unfold(9, stride=9), torch.randn(1, 2, 9, 9)) == []


def test_slices_of_channels_are_no_sites():
    class Rotary(nn.Module):
        def forward(self, x):  # (batch, heads, tokens, channels)
            return torch.cat([-x[..., 1::2], x[..., ::2]], -1)

    assert sites(Rotary(), torch.randn(1, 2, 3, 8)) == []
