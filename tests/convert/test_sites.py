"""Every kind of downsampling site: pools, functions, slices."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from conversion import refused
from torch import nn

from dealias import BlurPool2d, antialias, sites


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
    assert all("test_sites.py:" in site.reason for site in found)


def test_slices_of_channels_are_no_sites():
    class Rotary(nn.Module):
        def forward(self, x):  # (batch, heads, tokens, channels)
            return torch.cat([-x[..., 1::2], x[..., ::2]], -1)

    assert sites(Rotary(), torch.randn(1, 2, 3, 8)) == []
