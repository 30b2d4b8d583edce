"""The paper's table: what becomes of each kind of layer."""

from __future__ import annotations

import pytest
import torch
from helpers.conversion import groups_of
from torch import nn

from dealias.convert.edits import Blur, ReplacePool, SetStride
from dealias.convert.rules import Rules

X = torch.rand(1, 2, 12, 12)
CONV = nn.Conv2d(2, 4, 3, 2, 1)


def decided(*layers):
    """What is decided for the last layer that subsamples in a chain behind a stem."""
    trace, grids, groups = groups_of(nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU(), *layers), X)
    members, decisions = Rules(trace, grids, list(groups.values())).decide(list(groups.values())[-1])
    assert len(members) == 1
    return decisions


def dense(path):
    return SetStride(path, (1, 1))


def blur(path, *, before=False):
    return Blur(path, before, (2, 2))


@pytest.mark.parametrize(
    ("layers", "edits"),
    [
        ([nn.MaxPool2d(2)], (ReplacePool("2"),)),
        ([nn.AvgPool2d(2)], (ReplacePool("2"),)),
        ([nn.AvgPool2d(3, 2, 1)], (dense("2"), blur("2"))),
        ([nn.LPPool2d(2, 2)], (ReplacePool("2"),)),
        ([nn.AdaptiveAvgPool2d(6)], (ReplacePool("2"),)),
        ([nn.AdaptiveMaxPool2d(6)], (ReplacePool("2"),)),
        ([nn.Upsample(scale_factor=0.5)], (ReplacePool("2"),)),
        ([CONV, nn.BatchNorm2d(4), nn.ReLU()], (dense("2"), blur("4"))),
        ([CONV, nn.ReLU(), nn.Conv2d(4, 4, 1)], (dense("2"), blur("3"))),
        ([CONV, nn.MaxPool2d(1), nn.ReLU()], (dense("2"), blur("2"))),
        ([CONV, nn.BatchNorm2d(4)], (dense("2"), blur(""))),
        ([nn.Conv2d(2, 4, 1, 2)], (dense("2"), blur("2", before=True))),
        ([nn.Conv2d(2, 4, 1), nn.MaxPool2d(2), nn.ReLU()], (dense("3"), blur("4"))),
    ],
)
def test_the_table_of_the_paper(layers, edits):
    first = decided(*layers)[0]
    assert (first.status, first.edits) == ("placed", edits)
    assert "BlurPool2d(stride=2)" in first.text


@pytest.mark.parametrize(
    ("layers", "status", "words"),
    [
        ([nn.AvgPool2d(12)], "left alone", "global"),
        ([nn.Upsample(scale_factor=2.0)], "left alone", "the map grows"),
        ([nn.PixelUnshuffle(2)], "not placed", "keeps all pixels"),
        ([nn.MaxPool2d(2, return_indices=True)], "not placed", "a blurred maximum has no index"),
        ([nn.AdaptiveAvgPool2d(5)], "not placed", "12x12 to 5x5 pixels is no subsampling by a whole stride"),
        ([nn.Upsample(scale_factor=0.5, mode="bilinear", align_corners=True)], "not placed", "align_corners"),
        ([nn.AvgPool2d(3, 2, ceil_mode=True)], "not placed", "ceil_mode=True"),
        ([nn.LPPool2d(2, 2, ceil_mode=True)], "not placed", "ceil_mode=True"),
    ],
)
def test_what_stays(layers, status, words):
    first = decided(*layers)[0]
    assert first.status == status
    assert words in first.text


def test_the_stem_stays_unless_it_is_asked_for():
    def stem(**arguments):
        model = nn.Sequential(nn.Conv2d(2, 4, 3, 2, 1), nn.ReLU())
        trace, grids, groups = groups_of(model, X, **arguments)
        return Rules(trace, grids, list(groups.values())).decide(groups["0"])[1][0]

    assert stem().status == "left alone"
    assert stem(stem=True).edits == (dense("0"), blur("1"))


def test_the_released_resnets_pool_over_two_pixels():
    class Stem(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.pool, self.block = nn.Conv2d(2, 4, 3), nn.MaxPool2d(3, 2, 1), nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x):
            x = self.pool(torch.relu(self.conv(x)))
            return x + self.block(x)

    trace, grids, groups = groups_of(Stem(), X, recipe="zhang2019")
    (first,) = Rules(trace, grids, list(groups.values())).decide(groups["pool"])[1]
    assert first.edits == (ReplacePool("pool", changes={"kernel_size": 2, "padding": 0}),)
