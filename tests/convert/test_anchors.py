"""Anchors in whole networks: no circular shift of one period changes the answer, to 1e-12 in float64."""

from __future__ import annotations

import copy
import itertools
import pickle

import pytest
import torch
from helpers import sweep
from helpers.circular_networks import IMAGES, DeepLab, Plain, Pyramid, Residual, UNet, Uneven, image
from helpers.conversion import randomize
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dealias import antialias, certify, sites, to_circular
from dealias.convert import antialias_with_report
from dealias.convert.anchor_layers import Anchor
from dealias.data import digits_split
from dealias.errors import InputError
from dealias.models import vgg_small
from dealias.optional import require
from dealias.training import fit

SOME = [(1, 0), (0, 1), (3, 2), (17, 30), (32, 16)]
TORCHVISION = ("resnet18", "resnet50", "densenet121", "mobilenet_v2", "regnet_y_400mf", "efficientnet_b0", "googlenet")
FAMILIES = ("vgg_small", *TORCHVISION)
QUICK = ("vgg_small", "resnet18", "mobilenet_v2")


def family(name):
    """A network that pads circularly, with random weights and the batch statistics of an image; and an image."""
    torch.manual_seed(0)
    if name == "vgg_small":
        model, x = vgg_small(padding_mode="circular"), torch.rand(1, 1, 32, 32)
    else:
        more = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
        model = to_circular(require("torchvision").models.get_model(name, weights=None, **more))
        x = torch.rand(1, 3, 64, 64)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.rand(4, *x.shape[1:]))
    return model.eval(), x


def under_all_shifts(model, x, period):
    """What `model` returns for the image `x`, a row for each shift of a period, none the first."""
    shifts = itertools.product(range(period), repeat=2)
    with torch.no_grad():
        return model(torch.cat([x.roll(shift, (2, 3)) for shift in shifts]))


def worst_change(model, x, period):
    """The largest difference of outputs that do not move, over all shifts of a period: an oracle beside `certify`."""
    found = under_all_shifts(model, x, period)
    return float((found - found[0]).abs().max())


@pytest.mark.parametrize("filter", ["none", "bin4"])
@pytest.mark.parametrize("name", sweep.only(QUICK, FAMILIES))
def test_no_shift_changes_the_answer(name, filter):
    model, x = family(name)
    anchored = antialias(model, x, method="polyphase", filter=filter)
    certificate = certify(anchored, x, shifts=SOME)
    assert certificate.exact, certificate
    assert certificate.worst <= 1e-12
    assert certify(model, x, shifts=SOME).worst > 1e-3
    assert list(anchored.state_dict()) == list(model.state_dict())
    with torch.no_grad():
        top = anchored(x).argmax(1)
        assert all(torch.equal(anchored(x.roll(shift, (2, 3))).argmax(1), top) for shift in SOME)


@pytest.mark.sweep
@pytest.mark.parametrize("name", FAMILIES)
def test_no_shift_of_a_whole_period_changes_the_answer(name):
    model, x = family(name)
    certificate = certify(antialias(model, x, method="polyphase", filter="none"), x)
    assert certificate.exact, certificate
    assert (certificate.shifts, certificate.period) == (1024, (32, 32))


@settings(max_examples=25)
@given(
    build=st.sampled_from([Plain, Residual, Uneven]),
    kind=st.sampled_from(IMAGES),
    stride=st.integers(2, 4),
    filter=st.sampled_from(["none", "rect2", "bin4"]),
    blocks=st.integers(1, 2),
    seed=st.integers(0, 999),
)
def test_images_with_ties(build, kind, stride, filter, blocks, seed):
    torch.manual_seed(seed)
    period = stride**2
    x = image(kind, (2, blocks * period, period), seed)
    model = build(stride).double().eval()
    anchored = antialias(model, x, method="polyphase", filter=filter)
    assert worst_change(anchored, x, period) <= 1e-12
    with torch.no_grad():
        first, second = anchored(x)[0].topk(2).values
    if first - second > 1e-3 * float(first.abs()):  # more than rounding in float32
        tops = under_all_shifts(anchored.float(), x.float(), period).argmax(1)
        assert tops.unique().numel() == 1


def test_trained_weights():
    """After some steps of training: all 1,024 shifts of images it has not seen, in float32, and some in float64."""
    torch.manual_seed(0)
    train, held_out = digits_split(0)
    model = antialias(vgg_small(padding_mode="circular"), torch.zeros(1, 1, 32, 32), method="polyphase", filter="none")
    fit(model, train.images[:2048], train.labels[:2048], epochs=2, learning_rate=0.1)
    images = held_out.images[:64]
    with torch.no_grad():
        assert (model(images).argmax(1) == held_out.labels[:64]).float().mean() > 0.5
    for one in images[:3].split(1):
        assert under_all_shifts(model, one, 32).argmax(1).unique().numel() == 1
    certificate = certify(model, images[:8], shifts=SOME)
    assert certificate.exact, certificate
    assert certificate.worst <= 1e-12


@pytest.mark.sweep
@pytest.mark.parametrize("name", TORCHVISION)
def test_trained_weights_of_families(name):
    """As above for other families: the same class in float32 under all 1,024 shifts, 1e-12 in float64 under some."""
    torch.manual_seed(0)
    train, held_out = digits_split(0)
    more = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    model = to_circular(require("torchvision").models.get_model(name, weights=None, num_classes=10, **more))
    size = 2 if name == "efficientnet_b0" else 1  # whose kernels are wider than its last map of 32 pixels
    learned, images = (
        nn.functional.interpolate(part.expand(-1, 3, -1, -1), scale_factor=size)
        for part in (train.images[:1024], held_out.images[:64])
    )
    model = antialias(model, learned[:1], method="polyphase", filter="none")
    fit(model, learned, train.labels[:1024], epochs=3, learning_rate=0.02)
    with torch.no_grad():
        logits = torch.cat([model.eval()(one) for one in images.split(16)])
        assert (logits.argmax(1) == held_out.labels[:64]).float().mean() > 0.15  # it has learned something
        for one in images[:2].split(1):
            shifted = torch.cat([one.roll(shift, (2, 3)) for shift in itertools.product(range(32), repeat=2)])
            tops = torch.cat([model(part).argmax(1) for part in shifted.split(64)])
            assert tops.unique().numel() == 1
    certificate = certify(model, images[:4], shifts=SOME)
    assert certificate.exact, certificate
    assert certificate.worst <= 1e-12


@pytest.mark.parametrize(
    ("pooling", "growing"),
    [("layers", "layer"), ("shared", "layer"), ("shared", "function"), ("function", "layer"), ("function", "function")],
)
@pytest.mark.parametrize("filter", ["none", "bin4"])
def test_decoders_undo_the_roll(pooling, growing, filter):
    torch.manual_seed(0)
    model, x = randomize(UNet(2, 2, pooling, growing)), image("noise", (2, 16, 24), 0).float()
    anchored = antialias(model, x, method="polyphase", filter=filter)
    certificate = certify(anchored, x)
    assert certificate.exact, certificate
    assert certificate.worst <= 1e-12
    wide = anchored.double()
    with torch.no_grad():  # and it moves along
        still = wide(x.double())
        for shift in [(1, 0), (2, 3), (5, 7)]:
            moved = wide(x.double().roll(shift, (2, 3)))
            torch.testing.assert_close(moved, still.roll(shift, (2, 3)), rtol=0, atol=1e-12)


def anchored_and_certified(model, x, filter):
    """The anchored network: exact, which the network itself is not."""
    anchored = antialias(model, x, method="polyphase", filter=filter)
    certificate = certify(anchored, x)
    assert certificate.exact, certificate
    assert certificate.worst <= 1e-12
    assert certify(model, x).worst > 1e-3
    return anchored


@pytest.mark.parametrize("filter", ["none", "bin4"])
@pytest.mark.parametrize("growing", ["nearest", "layer"])
def test_deeplab_undoes_the_roll_and_is_equivariant(growing, filter):
    torch.manual_seed(0)
    model, x = randomize(to_circular(DeepLab(growing))), torch.rand(2, 2, 16, 24)
    listed = [site.action for site in sites(model, x, method="polyphase") if site.kind == "upsample"]
    assert listed == ["undoes the anchor before `high.2`", "undoes the anchor before `low.0`"]
    wide, x = anchored_and_certified(model, x, filter).double(), x.double()
    with torch.no_grad():
        still = wide(x)["out"]
        for shift in [(1, 0), (2, 3), (5, 7)]:
            torch.testing.assert_close(
                wide(x.roll(shift, (2, 3)))["out"], still.roll(shift, (2, 3)), rtol=0, atol=1e-12
            )


def test_a_resampling_that_repeats_the_border_is_named():
    model, x = randomize(DeepLab("bilinear")), torch.rand(1, 2, 16, 24)
    certificate = certify(antialias(model, x, method="polyphase", filter="none"), x)
    assert not certificate.exact
    assert certificate.worst > 1e-3
    assert any("repeats the border" in reason for reason in certificate.reasons)


@pytest.mark.parametrize("filter", ["none", "bin4"])
def test_a_feature_pyramid_undoes_the_roll_and_each_map_moves_along(filter):
    torch.manual_seed(0)
    model, x = randomize(Pyramid()), torch.rand(3, 2, 16, 24)
    wide, x = anchored_and_certified(model, x, filter).double(), x.double()
    with torch.no_grad():
        still = wide(x)
        for shift in [(1, 0), (2, 5)]:
            for map, moved in zip(still, wide(x.roll(shift, (2, 3))), strict=True):
                assert all(is_roll(one, other) for one, other in zip(map, moved, strict=True))


def is_roll(one, other):
    """Whether a circular shift of the map `one` (C, H, W) is `other`, to 1e-12."""
    rolls = itertools.product(*map(range, one.shape[1:]))
    return any(float((one.roll(roll, (1, 2)) - other).abs().max()) <= 1e-12 for roll in rolls)


def test_an_upsampling_undoes_several_anchors_at_once():
    torch.manual_seed(0)
    down = [nn.Conv2d(1, 4, 3, 2, 1, padding_mode="circular"), nn.ReLU(), nn.MaxPool2d(3), nn.Conv2d(4, 4, 1)]
    model = nn.Sequential(*down, nn.Upsample(scale_factor=6.0))
    x = torch.rand(2, 1, 24, 36)
    certificate = certify(antialias(model, x, method="polyphase", filter="none"), x)
    assert certificate.exact, certificate
    assert certificate.period == (6, 6)
    assert "undoes the anchor before `2`, then before `0`" in sites(model, x, method="polyphase")[-1].action


@pytest.mark.parametrize("axes", [1, 3])
def test_other_numbers_of_axes(axes):
    torch.manual_seed(0)
    conv, pool = getattr(nn, f"Conv{axes}d"), getattr(nn, f"MaxPool{axes}d")
    layers = [
        conv(1, 3, 3, 1, 1, padding_mode="circular"),
        nn.ReLU(),
        pool(2),
        conv(3, 3, 3, 2, 1, padding_mode="circular"),
    ]
    model = nn.Sequential(*layers, nn.ELU(), getattr(nn, f"AdaptiveAvgPool{axes}d")(1))
    x = torch.rand(2, 1, *(8, 4, 4)[:axes])
    for filter in ("none", "bin4"):
        certificate = certify(antialias(model, x, method="polyphase", filter=filter), x)
        assert certificate.exact, certificate


def test_one_anchor_serves_branches_that_meet_again():
    listed = sites(Residual(2), torch.rand(1, 2, 8, 8), method="polyphase")
    assert [(site.path, site.status) for site in listed] == [
        *(("conv2", "placed"), ("shortcut", "placed"), ("pool", "placed"), ("reduce", "placed")),
    ]
    assert all("2 sites whose maps meet" in site.action for site in listed)


def test_a_stride_beside_two_takes_an_anchor_of_its_period():
    listed = sites(Uneven(2), torch.rand(1, 2, 8, 8), method="polyphase")
    assert all("anchor of period 4" in site.action for site in listed)


def test_without_a_shift_of_the_map_the_network_computes_what_it_did():
    """An anchor that has nothing to do changes nothing: the energies decide alone."""
    model, x = Plain(2).eval(), torch.rand(1, 2, 8, 8)
    anchored = antialias(model, x, method="polyphase", filter="none")
    for module in anchored.modules():
        if isinstance(module, Anchor):
            module.forward = lambda input: input
    with torch.no_grad():
        torch.testing.assert_close(anchored(x), model(x))


def test_gradients_reach_the_weights():
    model, x = UNet(2, 2), torch.rand(2, 2, 8, 8)
    anchored = antialias(model, x, method="polyphase").train()
    anchored(x).square().mean().backward()
    assert all(one.grad is not None for name, one in anchored.named_parameters() if "narrow" not in name)


def test_copies_and_pickles_compute_the_same():
    model, x = randomize(UNet(2, 2, "shared")), torch.rand(2, 2, 8, 8)
    anchored = antialias(model, x, method="polyphase", filter="none")
    with torch.no_grad():
        wanted = anchored(x)
        for other in (copy.deepcopy(anchored), pickle.loads(pickle.dumps(anchored))):
            assert torch.equal(other(x), wanted)
            assert certify(other, x, shifts=[1, (2, 3)]).exact


def test_training_and_evaluation_take_turns():
    model, x = randomize(UNet(2, 2, "shared")), torch.rand(2, 2, 8, 8)
    anchored = antialias(model, x, method="polyphase", filter="none")
    with torch.no_grad():
        wanted = anchored(x)
        anchored(torch.rand(5, 2, 16, 8))
        assert torch.equal(anchored(x), wanted)


def test_channels_last_and_bfloat16():
    model, x = family("vgg_small")
    anchored = antialias(model, x, method="polyphase", filter="none")
    with torch.no_grad():
        torch.testing.assert_close(anchored(x.contiguous(memory_format=torch.channels_last)), anchored(x))
        narrow = copy.deepcopy(anchored).bfloat16()
        assert narrow(x.bfloat16()).dtype == torch.bfloat16


def test_a_second_conversion_changes_nothing():
    model, x = family("vgg_small")
    anchored = antialias(model, x, method="polyphase", filter="none")
    with pytest.warns(UserWarning, match="no anchor can be placed"):
        again = antialias(anchored, x, method="polyphase", filter="none")
    assert str(again) == str(anchored)


def test_a_lost_anchor_is_an_error():
    model, x = family("vgg_small")
    anchored = antialias(model, x, method="polyphase", filter="none")
    anchored.features[3] = nn.MaxPool2d(2)
    with pytest.raises(InputError, match=r"`features\.3`, which had an anchor, was replaced"):
        anchored(x)


def test_what_cannot_be_placed_is_named():
    class Branches(nn.Module):
        """A map that is returned rolled would not move along."""

        def __init__(self):
            super().__init__()
            self.conv, self.a, self.b = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 1, 2), nn.Conv2d(2, 2, 1, 2)

        def forward(self, x):
            x = self.conv(x)
            y = torch.relu(x)
            return self.a(y) + self.b(x), y

    x = torch.rand(1, 1, 8, 8)
    with pytest.warns(UserWarning, match="where these branches part"):
        antialias(Branches(), x, method="polyphase", filter="none")
    with pytest.raises(InputError, match="strict=True"):
        antialias(Branches(), x, method="polyphase", filter="none", strict=True)


def test_a_report_lists_the_anchors():
    model, x = family("resnet18")
    _, report = antialias_with_report(model, x, method="polyphase", filter="none")
    assert report.flops == report.converted_flops
    assert sum(site.placed for site in report.sites) == 8


def test_exported_and_traced_networks_compute_the_same():
    model, x = randomize(UNet(2, 2, "shared")), torch.rand(2, 2, 8, 8)
    anchored = antialias(model, x, method="polyphase", filter="none").eval()
    with torch.no_grad():
        wanted = anchored(x)
        exported = torch.export.export(anchored, (x,)).module()
        torch.testing.assert_close(exported(x), wanted)
        torch.testing.assert_close(exported(x.roll((1, 3), (2, 3))), wanted.roll((1, 3), (2, 3)))
        traced = torch.fx.symbolic_trace(antialias(model, x, method="polyphase", filter="none"))
        torch.testing.assert_close(traced(x), wanted)
