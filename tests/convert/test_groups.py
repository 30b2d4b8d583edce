"""What can be done to the layers that subsample."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers.conversion import groups_of
from torch import nn

from dealias.convert.edits import AnswerConv, SetStride

X = torch.rand(1, 2, 12, 12)


def group_of(layer, **arguments):
    """The group of a layer behind a convolution and a non-linearity."""
    return groups_of(nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU(), layer), X, **arguments)[2]["2"]


@pytest.mark.parametrize(
    ("stride", "recipe", "steps", "stays"),
    [
        (2, "same-size", ((1, 1), (2, 2)), True),
        (3, "same-size", ((1, 1), (3, 3)), True),
        (4, "same-size", ((2, 2), (2, 2)), True),
        (4, "zhang2019", ((2, 2), (2, 2)), False),
        (6, "zhang2019", ((3, 3), (2, 2)), True),
    ],
)
def test_the_stem_keeps_half_of_a_long_stride(stride, recipe, steps, stays):
    stem = groups_of(nn.Sequential(nn.Conv2d(2, 2, stride, stride), nn.ReLU()), X, recipe=recipe)[2]["0"]
    assert (stem.is_stem, stem.steps, stem.stays) == (True, steps, stays)
    assert not groups_of(nn.Sequential(nn.Conv2d(2, 2, stride, stride)), X, stem=True, recipe=recipe)[2]["0"].stays
    later = group_of(nn.Conv2d(2, 2, stride, stride))
    assert (later.is_stem, later.steps, later.stays) == (False, ((1, 1), (stride, stride)), False)


@pytest.mark.parametrize(
    ("layer", "dense"),
    [
        (nn.Conv2d(2, 2, 3, 2), SetStride("2", (1, 1))),
        (nn.MaxPool2d(3, (1, 2)), SetStride("2", (1, 1))),
        (nn.MaxPool2d(2, ceil_mode=True), None),
        (nn.LPPool2d(2, 2), None),
    ],
)
def test_layers_are_made_dense(layer, dense):
    group = group_of(layer)
    assert (group.problem, group.densify()) == (None, dense)


class Padded(nn.Conv2d):
    """Pads by itself, from its stride."""

    def forward(self, x):
        return F.conv2d(F.pad(x, (0, self.stride[0] - 1) * 2), self.weight, self.bias, self.stride)


def test_a_forward_that_reads_the_stride_is_answered():
    group = group_of(Padded(2, 2, 3, 2))
    assert group.answered
    assert group.densify() == AnswerConv("2", "forward", group.window, (1, 1))


@pytest.mark.parametrize(
    ("layer", "commutes"),
    [
        (nn.Conv2d(2, 2, 1, 2), True),
        (nn.Conv2d(2, 2, 1, 2, padding=1), False),
        (nn.Conv2d(2, 2, 3, 2, padding=1), False),
    ],
)
def test_unpadded_pixelwise_convolutions_commute_with_a_blur(layer, commutes):
    """Seen in numbers too: where they commute, and only there, a blur in front is one behind the layer at stride 1."""
    group, layer = group_of(layer), layer.double()
    assert group.commutes_with_blur == commutes

    def blur(x):
        return F.conv2d(x, torch.ones(2, 1, 2, 2, dtype=x.dtype) / 4, groups=2)

    x = torch.rand(1, 2, 12, 12, dtype=torch.float64)
    with torch.no_grad():
        front = layer(blur(x))
        layer.stride = (1, 1)
        behind = blur(layer(x))[:, :, ::2, ::2]
    size = [min(sizes) for sizes in zip(front.shape[2:], behind.shape[2:], strict=True)]
    front, behind = (one[:, :, : size[0], : size[1]] for one in (front, behind))
    assert torch.allclose(front, behind) == commutes


def test_indices_and_global_windows():
    assert not group_of(nn.MaxPool2d(2)).uses_indices
    assert group_of(nn.MaxPool2d(2, return_indices=True)).uses_indices
    assert group_of(nn.AvgPool2d(12)).is_global
    assert not group_of(nn.AvgPool2d(6)).is_global
