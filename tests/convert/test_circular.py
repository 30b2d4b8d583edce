"""`to_circular`: layers that wrap around commute with circular shifts, and keep their sizes and weights."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dealias import to_circular
from dealias.errors import InputTypeError

LAYERS = [
    nn.Conv2d(2, 3, 3, padding=1),
    nn.Conv2d(2, 3, 5, padding="same", padding_mode="reflect"),
    nn.Conv2d(2, 3, 7, 2, 3),
    nn.MaxPool2d(3, 2, 1),
    nn.MaxPool2d(3, 2, ceil_mode=True),
    nn.MaxPool2d(3, 1, 1, ceil_mode=True),
    nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    nn.ZeroPad2d(2),
    nn.ReflectionPad2d((1, 0, 2, 1)),
    nn.Upsample(scale_factor=2, mode="bilinear"),
    nn.Upsample(size=24, mode="bicubic"),
    nn.ConvTranspose2d(2, 3, 4, 2, 1),
    nn.ConvTranspose2d(2, 3, 3, 2, 1, output_padding=1),
    nn.ConvTranspose2d(2, 4, 5, 1, 2, groups=2),
]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_layers_move_along(layer):
    x = torch.randn(2, 2, 12, 12, dtype=torch.float64)
    layer = layer.double()
    circular = to_circular(layer)
    with torch.no_grad():
        y = circular(x)
        assert y.shape == layer(x).shape
        if y.shape[2] % 12 == 0 or 12 % y.shape[2] == 0:  # a padding layer returns more than a period
            moved = circular(x.roll((4, 6), (2, 3)))
            scale = y.shape[2] / 12
            torch.testing.assert_close(moved, y.roll((round(4 * scale), round(6 * scale)), (2, 3)))
        inner = slice(4, -4) if y.shape[2] >= 12 else slice(2, -2)
        torch.testing.assert_close(y[..., inner, inner], layer(x)[..., inner, inner])
    assert list(circular.state_dict()) == list(layer.state_dict())
    assert isinstance(circular, type(layer) | nn.CircularPad2d)


def test_padding_layers_wrap():
    x = torch.randn(1, 1, 5, 5)
    assert torch.equal(to_circular(nn.ZeroPad2d(2))(x), F.pad(x, (2, 2, 2, 2), mode="circular"))


def test_what_has_no_border_stays():
    for layer in (nn.Conv2d(2, 2, 1), nn.MaxPool2d(2), nn.MaxPool2d(2, ceil_mode=True), nn.Linear(2, 2)):
        assert str(to_circular(layer)) == str(layer)
        assert type(to_circular(layer)) is type(layer)


def test_the_model_itself_stays_and_the_copy_can_be_copied():
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.MaxPool2d(3, 2, 1))
    circular = to_circular(model)
    assert model[0].padding_mode == "zeros"
    x = torch.rand(1, 1, 8, 8)
    for other in (copy.deepcopy(circular), pickle.loads(pickle.dumps(circular))):
        assert torch.equal(other(x), circular(x))


def test_other_sizes_run_too():
    for size in (5, 7, 8):
        x = torch.rand(1, 2, size, size)
        for layer in (nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(3, 2, ceil_mode=True), nn.AvgPool2d(3, 2, 1)):
            assert to_circular(layer)(x).shape == layer(x).shape


def test_no_model_is_refused():
    with pytest.raises(InputTypeError, match="model='resnet18'"):
        to_circular("resnet18")
