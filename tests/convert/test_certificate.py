"""`certify` finds what hinders exactness, and names it."""

from __future__ import annotations

import pytest
import torch
from helpers.circular_networks import Plain, Residual, UNet
from torch import nn

from dealias import antialias, certify, to_circular
from dealias.convert.edits import BEFORE
from dealias.errors import InputError
from dealias.models import vgg_small

X = torch.rand(1, 2, 16, 16)


def reasons(model, x=X, **more):
    certificate = certify(model, x, **more)
    assert not certificate.exact
    return " / ".join(certificate.reasons)


def anchored(model, x=X):
    return antialias(model, x, method="polyphase", filter="none")


def padded(**more):
    return nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, **more), nn.ReLU(), nn.AdaptiveAvgPool2d(1))


class WithPositions(nn.Module):
    """A value is added to each place."""

    def __init__(self):
        super().__init__()
        self.conv, self.positions = nn.Conv2d(2, 3, 1), nn.Parameter(torch.rand(1, 3, 16, 16))

    def forward(self, x):
        return torch.relu(self.conv(x) + self.positions).mean((2, 3))


def test_a_network_without_subsampling_is_exact():
    certificate = certify(padded(padding_mode="circular"), X)
    assert certificate.exact
    assert (certificate.period, certificate.shifts, certificate.reasons) == ((1, 1), 1, ())
    assert str(certificate).startswith("exact: 1 shifts")


def test_every_shift_of_a_period_is_tried_and_the_worst_is_named():
    model = Plain(2).eval()
    certificate = certify(model, X)
    assert (certificate.period, certificate.shifts) == ((4, 4), 16)
    with torch.no_grad():
        wide = model.double()
        still = wide(X.double())
        changes = {
            (dy, dx): float((wide(X.double().roll((dy, dx), (2, 3))) - still).abs().max() / still.abs().max())
            for dy in range(1, 5)
            for dx in range(1, 5)
        }
    worst = max(changes, key=changes.__getitem__)
    assert certificate.worst == pytest.approx(changes[worst], rel=1e-9)
    assert certificate.worst_shift == worst


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (padded(), "padding with zeros in `0`"),
        (padded(padding_mode="reflect"), "padding by reflection in `0`"),
        (padded(padding_mode="replicate"), "padding by replication in `0`"),
        (nn.Sequential(nn.Conv2d(2, 2, 1), nn.MaxPool2d(3, 1, 1), nn.AdaptiveMaxPool2d(1)), "padding with -inf in `1`"),
        (nn.Sequential(nn.Conv2d(2, 2, 1), nn.Flatten(), nn.Linear(512, 2)), "16x16 pixels, flattened in front of `2`"),
        (WithPositions(), "a value for each place"),
        (nn.Sequential(nn.Conv2d(2, 2, 3), nn.Softplus(), nn.AdaptiveAvgPool2d(1)), "a border that is cut off"),
        (Plain(2), "no anchor in front of `features.2`, `features.5`"),
        (nn.Sequential(nn.Conv2d(2, 2, 1), nn.Upsample(scale_factor=2.0, mode="bilinear")), "repeats the border"),
        (nn.Sequential(nn.ConvTranspose2d(2, 2, 4, 2, 1), nn.ReLU()), "reaches over the border is cut off in `0`"),
    ],
)
def test_the_cause_is_named(model, named):
    assert named in reasons(model)


def test_a_size_that_the_stride_does_not_divide():
    model = anchored(Plain(2))
    assert certify(model, X).exact
    named = reasons(model, torch.rand(1, 2, 18, 16))
    assert "a map of 9x8 pixels, which the stride 2 does not divide, at `features.5`" in named


def test_an_anchor_that_is_missing():
    model = anchored(Residual(2))
    layer = model.conv1 if BEFORE in model.conv1._modules else model
    hooked = [module for module in model.modules() if BEFORE in module._modules]
    layer = hooked[0]
    layer._forward_pre_hooks.clear()
    model._forward_pre_hooks.clear()
    assert "no anchor in front of" in reasons(model)


def test_branches_that_part():
    model = anchored(UNet(2, 2))
    model._forward_pre_hooks.clear()
    model.ups[1]._forward_hooks.clear()  # which undoes the first anchor
    assert "branches that part" in reasons(model)


def test_black_images_certify_nothing():
    certificate = certify(Plain(2), torch.zeros(1, 2, 16, 16))
    assert certificate.worst == 0
    assert not certificate.exact


def test_chance_is_no_reason_that_a_layer_gives():
    class Noisy(nn.Module):
        def forward(self, x):
            return x.mean((2, 3)) + torch.rand(1)

    assert "no layer stands out" in reasons(Noisy(), shifts=[1, 2])


def test_coarse_outputs_move_by_their_own_pixels():
    model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), nn.ReLU(), nn.MaxPool2d(4))
    assert certify(anchored(model), X).exact
    assert not certify(model, X).exact


def test_samples_of_coarse_outputs_move_to_their_own_sides():
    model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), nn.ReLU(), nn.MaxPool2d(4))
    x = torch.rand(8, 2, 16, 16)
    assert certify(anchored(model, x), x).exact
    without = anchored(model, x)
    without[2]._forward_pre_hooks.clear()
    without._forward_pre_hooks.clear()
    assert certify(without, x).worst > 1e-3


@pytest.mark.parametrize("shifts", [[1, -3], [(1, 2), (0, 16)]])
def test_shifts_can_be_chosen(shifts):
    assert (
        certify(
            anchored(vgg_small(padding_mode="circular"), torch.rand(1, 1, 32, 32)),
            torch.rand(1, 1, 32, 32),
            shifts=shifts,
        ).shifts
        == 2
    )


@pytest.mark.parametrize("shifts", [[], [(1, 2, 3)], [float("nan")], "12", 3])
def test_bad_shifts(shifts):
    with pytest.raises(InputError, match="shifts="):
        certify(Plain(2), X, shifts=shifts)


def test_a_circular_network_needs_the_anchors_alone():
    model = nn.Sequential(nn.Conv2d(2, 4, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.AdaptiveAvgPool2d(1))
    assert "padding with zeros" in reasons(anchored(model))
    assert certify(anchored(to_circular(model)), X).exact
