"""Which subsamplings must start from the same pixels, what brings their grid back, and what anchors do for them."""

from __future__ import annotations

import pytest
import torch
from helpers.circular_networks import Plain, Residual, UNet, Uneven
from torch import nn

from dealias import antialias
from dealias.convert.frames import Coverage, Frames, Maps, subsamples
from dealias.convert.recording import record

X = torch.rand(1, 2, 16, 16)


def frames_of(model):
    maps = Maps(record(model.eval(), X))
    return maps, Frames(maps, subsamples)


def names(spots):
    return {spot.call.path for spot in spots}


@pytest.mark.parametrize(
    ("model", "families"),
    [
        (Plain(2), [{"features.2"}, {"features.5"}]),
        (Residual(2), [{"conv2", "shortcut"}, {"pool", "reduce"}]),
        (Uneven(2), [{"one", "two", "pool"}]),
        (UNet(2), [{"pools.0"}, {"pools.1"}]),
    ],
)
def test_maps_that_meet_start_from_the_same_pixels(model, families):
    _, frames = frames_of(model)
    assert [names(family.spots) for family in dict.fromkeys(frames.family.values())] == families


def test_the_stride_of_a_family_is_that_of_the_whole_way():
    _, frames = frames_of(Uneven(2))
    assert {family.stride for family in frames.family.values()} == {(4, 4)}


def test_upsamplings_undo_the_innermost_family():
    _, frames = frames_of(UNet(2))
    undone = {rise.spot.call.path: [names(family.spots) for family in rise.families] for rise in frames.rises}
    assert undone == {"ups.0": [{"pools.1"}], "ups.1": [{"pools.0"}]}
    assert {rise.scales for rise in frames.rises} == {((1, 1),)}


def test_one_upsampling_undoes_several_at_their_scales():
    model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.MaxPool2d(2), nn.MaxPool2d(2), nn.Upsample(scale_factor=4))
    (rise,) = frames_of(model)[1].rises
    assert [names(family.spots) for family in rise.families] == [{"1"}, {"2"}]
    assert rise.scales == ((1, 1), (2, 2))


def test_a_map_of_one_pixel_is_no_map():
    maps, _ = frames_of(nn.Sequential(nn.Conv2d(2, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Conv2d(2, 2, 1)))
    shapes = {value.shape[2:] for _, sources, results in maps.steps() for value in (*sources, *results)}
    assert shapes == {(16, 16), (14, 14)}


@pytest.mark.parametrize("model", [Plain(2), Residual(2), Uneven(2), UNet(2)])
def test_anchors_cover_what_was_uncovered(model):
    before = Coverage(Maps(record(model.eval(), X)))
    layers = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
    strided = {name for name, one in model.named_modules() if isinstance(one, layers) and one.stride not in (1, (1, 1))}
    assert names(before.uncovered) == strided
    after = Coverage(Maps(record(antialias(model, X, method="polyphase", filter="none"), X)))
    assert (after.uncovered, after.parted) == (set(), {})


def test_branches_with_anchors_of_their_own_part():
    class Parted(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = (nn.Sequential(nn.Conv2d(2, 2, 1), nn.MaxPool2d(2)) for _ in range(2))

        def forward(self, x):
            return self.left(x) + self.right(x)

    model = Parted()
    model.left, model.right = (
        antialias(one, X, method="polyphase", filter="none") for one in (model.left, model.right)
    )
    coverage = Coverage(Maps(record(model.eval(), X)))
    assert [node.op for node in coverage.parted] == ["add"]
    assert coverage.uncovered == set()
