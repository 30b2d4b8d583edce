"""What hinders exactness under shifts by fractions of a pixel is named, and nothing that does not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers.circular_networks import UNet, conv
from torch import nn

from dealias import antialias, certify, to_circular
from dealias.convert.fractions import Aliasing, filters_ideally
from dealias.convert.frames import Coverage, Maps
from dealias.convert.recording import record
from dealias.functional import blur_pool2d
from dealias.nn import BlurPool2d, MapNorm, MaxBlurPool2d, Quadratic
from dealias.perturb import fourier_shift

X = torch.randn(2, 2, 32, 32, generator=torch.Generator().manual_seed(0))
SHIFTS = [0.5, (1 / 3, 0.25), 1]
IDEAL = {"filter": "ideal", "padding_mode": "circular"}


def network(act, *last):
    torch.manual_seed(0)
    return nn.Sequential(conv(2, 4, 3, 2), act(4), conv(4, 6), MapNorm(6), act(6), nn.AvgPool2d(2), conv(6, 3), *last)


def relu(width):
    return nn.ReLU()


def reasons(model, shifts=SHIFTS):
    certificate = certify(model, X, shifts=shifts)
    assert certificate.exact == (not certificate.reasons)
    return " / ".join(certificate.reasons)


def test_quadratic_activations_are_certified_with_and_without_fractions():
    free = antialias(network(Quadratic), X, method="alias-free")
    for shifts in (SHIFTS, None):
        certificate = certify(free, X, shifts=shifts)
        assert certificate.exact, certificate
        assert certificate.worst <= 1e-12
    for shifts in (SHIFTS, [(0, 1)]):
        assert not certify(network(Quadratic), X, shifts=shifts).exact


def test_the_change_is_that_of_the_fourier_transform():
    model = network(relu).eval()
    certificate = certify(model, X, shifts=[(0.5, 0.25)])
    model, x = model.double(), blur_pool2d(X.double(), "ideal", 1, "circular")
    with torch.no_grad():
        still = model(x)
        expected = fourier_shift(still, 0.5 / 4, 0.25 / 4)
        change = float((model(fourier_shift(x, 0.5, 0.25)) - expected).abs().max() / still.abs().max())
    assert certificate.worst == pytest.approx(change, rel=1e-9)
    assert certificate.worst_shift == (0.5, 0.25)
    assert "at shift (0.5, 0.25)" in str(certificate)


def test_what_aliases_in_a_network_as_it_is():
    found = reasons(network(relu, nn.AdaptiveMaxPool2d(1)))
    assert "for want of an ideal filter, at `0`, `5`: use dealias.antialias" in found
    assert "a non-linearity at the rate of its map, which cannot hold the waves that it makes, in `1`, `4`" in found
    assert "a maximum, which makes waves that no map can hold, in `7`" in found
    assert "no anchor" not in found
    assert "no anchor in front of `0`, `5`" in reasons(network(relu), [1])


def test_what_is_left_of_it_in_an_alias_free_network():
    found = reasons(antialias(network(relu), X, method="alias-free"))
    assert found.startswith("a non-linearity of a degree above 3 in `1`, `4`: train with dealias.nn.Quadratic")
    assert " / " not in found


def test_maxima_at_twice_the_rate_are_named_once():
    model = to_circular(nn.Sequential(conv(2, 4), nn.MaxPool2d(3, 1, 1)))
    (reason,) = certify(antialias(model, X, method="alias-free"), X, shifts=SHIFTS).reasons
    assert reason == "a maximum, which makes waves that no map can hold, in `1`: pool by averages, which are linear"


def test_whole_shifts_are_exact_as_long_as_they_are_whole_at_the_rate_of_an_activation():
    """Behind one site of stride 2 a map moves by half a pixel: one sample at twice the rate."""
    model = nn.Sequential(conv(2, 4), nn.ReLU(), nn.MaxPool2d(2), conv(4, 4), nn.ReLU(), nn.MaxPool2d(3, 1, 1))
    model = to_circular(model)
    free = antialias(model, X, method="alias-free", strict=True)
    assert certify(free, X).exact
    assert not certify(free, X, shifts=[0.25]).exact
    assert "in `4`" in reasons(antialias(model, X, filter="ideal"), None)
    deeper = antialias(nn.Sequential(*model, nn.AvgPool2d(2), conv(4, 4), nn.ReLU()), X, method="alias-free")
    assert reasons(deeper, None).startswith("a non-linearity of a degree above 3 in `8`")


def test_anchors_make_ideal_filters_exact_for_whole_shifts_alone():
    both = antialias(network(relu), X, method="polyphase", filter="ideal", stem=True)
    assert certify(both, X).exact
    assert "a non-linearity at the rate of its map" in reasons(both)


def test_upsampling_is_named():
    found = reasons(antialias(UNet(), X, method="alias-free"))
    assert "a map that grows by other than an ideal filter, at `ups.0`, `ups.1`: end at the coarse map" in found


class Polynomial(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    ("function", "exact"),
    [
        (lambda x: x**2 - x, True),
        (lambda x: (x + 1) * x * 0.5 + torch.cat([x, x], 1)[:, :4], True),
        (lambda x: x * x * x, True),
        (lambda x: x**3 + 1, True),
        (lambda x: x**4, False),
        (lambda x: x * x.tanh(), False),
        (lambda x: (x * x) ** 2, False),
    ],
)
def test_the_degree_of_a_polynomial(function, exact):
    free = antialias(nn.Sequential(conv(2, 4), Polynomial(function)), X, method="alias-free")
    assert certify(free, X, shifts=SHIFTS).exact == exact
    assert (certify(free, X, shifts=SHIFTS).worst <= 1e-12) == exact


def test_which_sites_filter_ideally():
    class Function(nn.Module):
        def forward(self, x):
            return F.avg_pool2d(x, 2)[..., ::2, ::2]

    layers = [BlurPool2d(**IDEAL), MaxBlurPool2d(2, **IDEAL), BlurPool2d("bin4", 2, "circular"), nn.AvgPool2d(2)]
    maps = Maps(record(nn.Sequential(conv(2, 2), *layers), X))
    assert [filters_ideally(spot) for spot in maps.spots.values()] == [True, True, False, False]
    model = antialias(nn.Sequential(conv(2, 2), Function(), nn.AdaptiveAvgPool2d(4)), X, filter="ideal")
    maps = Maps(record(model, X))
    assert [filters_ideally(spot) for spot in maps.spots.values()] == [True] * 3
    assert list(Aliasing(maps, Coverage(maps).uncovered, True).found()) == []
