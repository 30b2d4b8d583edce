"""Plans are tried on a copy: one that fails costs its own sites alone, and `sites` says what `antialias` does."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from helpers.conversion import check_no_filter, randomize
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dealias import BlurPool2d, antialias, sites
from dealias.convert.recording import record
from dealias.convert.trace import BLUR

X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Stem(nn.Sequential):
    def __init__(self, *layers):
        super().__init__(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), *layers)


def statuses(model, x=X, **arguments):
    return {site.path: site.status for site in sites(model.eval(), x, **arguments)}


def strided():
    return nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())


class Insisting(nn.Module):
    """Does not run unless its convolution halves the map."""

    def __init__(self):
        super().__init__()
        self.conv, self.act = nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU()

    def forward(self, x):
        y = self.conv(x)
        assert y.shape[-1] == (x.shape[-1] + 1) // 2
        return self.act(y)


class Measuring(nn.Module):
    """What it returns depends on the size of a map that it looks at in between."""

    def __init__(self):
        super().__init__()
        self.conv, self.act = nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU()

    def forward(self, x):
        y = self.conv(x)
        return self.act(y) * y.shape[-1]


@pytest.mark.parametrize(("block", "reason"), [(Insisting, "AssertionError"), (Measuring, "other values")])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_site_that_fails_costs_itself_alone(block, reason, position):
    blocks = [strided(), strided()]
    blocks.insert(position, block())
    model = Stem(*blocks).eval()
    found = sites(model, X)
    lost = [site for site in found if not site.placed]
    assert [site.path for site in lost] == [f"{2 + position}.conv"]
    assert reason in lost[0].reason
    with pytest.warns(UserWarning, match="not anti-aliased, 1 of 3"):
        converted = antialias(model, X)
    assert converted[2 + position].conv.stride == (2, 2)
    assert sum(node.op == BLUR for node in record(converted, X).nodes) == 2


def test_several_sites_that_fail():
    model = Stem(Insisting(), strided(), Measuring(), strided(), Insisting()).eval()
    assert statuses(model) == {
        "2.conv": "not placed",
        "3.0": "placed",
        "4.conv": "not placed",
        "5.0": "placed",
        "6.conv": "not placed",
    }


class PadsByTheStride(nn.Module):
    """As TensorFlow pads: by the stride that it reads from the convolution."""

    def __init__(self):
        super().__init__()
        self.conv, self.act = nn.Conv2d(8, 8, 3, 2), nn.ReLU()

    def forward(self, x):
        total = []
        for size, step in zip(x.shape[:1:-1], self.conv.stride[::-1], strict=True):
            missing = max((math.ceil(size / step) - 1) * step + 3 - size, 0)
            total += [missing // 2, missing - missing // 2]
        return self.act(self.conv(F.pad(x, total)))


@pytest.mark.parametrize("size", [31, 32])
def test_a_forward_that_reads_the_stride_goes_on_reading_it(size):
    x = torch.randn(2, 3, size, size)
    model = Stem(PadsByTheStride(), nn.Conv2d(8, 4, 1)).eval()
    assert statuses(model, x) == {"2.conv": "placed"}
    converted = antialias(model, x)
    assert converted[2].conv.stride == (2, 2)
    check_no_filter(model, x)
    with torch.no_grad():
        y = model[1](model[0](x))
        before = (0 if size % 2 == 0 else 1), 1
        dense = F.conv2d(F.pad(y, before * 2), model[2].conv.weight, model[2].conv.bias)
        torch.testing.assert_close(converted(x), model[3](BlurPool2d()(F.relu(dense))))


class ByType(nn.Module):
    """Runs its layers by their very class, as networks that draw or count themselves do."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 4, 1)])

    def forward(self, x):
        for layer in self.layers:
            if type(layer) is nn.MaxPool2d:
                x = layer(x) * 2
            elif type(layer) in (nn.Conv2d, nn.ReLU):
                x = layer(x)
        return x


def test_a_network_that_asks_for_the_very_class_of_a_layer():
    model = ByType().eval()
    assert statuses(model) == {"layers.2": "placed"}
    converted = antialias(model, X)
    assert type(converted.layers[2]) is nn.MaxPool2d
    with torch.no_grad():
        y = F.max_pool2d(F.relu(model.layers[0](X)), 2, 1)
        torch.testing.assert_close(converted(X), model.layers[3](2 * BlurPool2d()(y)[..., :16, :16]))


# What is no difference ------------------------------------------------------------------------------------------------


class Detector(nn.Module):
    """Returns as many boxes as the data decide."""

    def __init__(self):
        super().__init__()
        self.features, self.head = Stem(strided(), nn.MaxPool2d(2)), nn.Conv2d(8, 5, 1)

    def forward(self, x):
        y = self.head(self.features(x)).permute(0, 2, 3, 1)
        keep = y[..., 4] > y[..., 4].median()
        return [{"boxes": one[mask][:, :4], "scores": one[mask][:, 4]} for one, mask in zip(y, keep, strict=True)]


class PerProposal(nn.Module):
    """Calls its second stage as often as the data decide."""

    def __init__(self):
        super().__init__()
        self.features = Stem(strided())
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 1, 1))

    def forward(self, x):
        y = self.features(x)
        rows = (y.mean((0, 1, 3)) > y.mean()).nonzero()[:, 0][:5].tolist()
        starts = [min(row, y.shape[2] - 8) for row in rows]
        return [self.second(y[:, :, start : start + 8, :8]) for start in starts] or [y.new_zeros(2, 1, 4, 4)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("build", [Detector, PerProposal])
def test_what_the_data_decide_is_no_difference(build, seed):
    torch.manual_seed(seed)
    model, x = randomize(build()), torch.randn(2, 3, 32, 32)
    found = sites(model, x)
    assert [site.path for site in found if site.placed][:1] == ["features.2.0"]
    assert {site.status for site in found} == {"placed"}
    assert len(antialias(model, x, strict=True)(x)) > 0


class Gate(nn.Module):
    """Squeeze-and-excite in front of the activation: its gate sees the mean of the dense map."""

    def __init__(self):
        super().__init__()
        self.conv, self.gate = nn.Conv2d(8, 8, 3, 2, 1), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1))

    def forward(self, x):
        y = self.conv(x)
        return F.hardswish(y * torch.sigmoid(self.gate(y)))


@pytest.mark.parametrize(
    "block",
    [
        Gate,
        lambda: nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1), nn.InstanceNorm2d(8), nn.ReLU()),
        lambda: nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1), nn.GroupNorm(2, 8), nn.ReLU()),
        lambda: nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1), nn.BatchNorm2d(8, track_running_stats=False), nn.ReLU()),
    ],
    ids=["gate", "instance norm", "group norm", "batch norm"],
)
def test_statistics_of_the_dense_map_are_no_difference(block):
    """An input of which every other row and column differs, so that the dense map has other statistics."""
    x = X * torch.tensor([1.0, 5.0]).repeat(16)
    model = Stem(block(), nn.Conv2d(8, 4, 3)).eval()
    (site,) = sites(model, x)
    assert site.placed, site.reason
    assert "behind the non-linearity" in site.action


def test_weights_that_are_nan_and_models_without_values_convert():
    def build():
        return Stem(strided(), nn.MaxPool2d(2), PadsByTheStride(), Insisting())

    expected = statuses(build())
    assert set(expected.values()) == {"placed", "not placed"}
    broken = build()
    for parameter in broken.parameters():
        nn.init.constant_(parameter, math.nan)
    assert statuses(broken) == expected
    with torch.device("meta"):
        assert statuses(build(), torch.empty(2, 3, 32, 32)) == expected


# Random networks ------------------------------------------------------------------------------------------------------


class Shortcut(nn.Module):
    def __init__(self, inplace):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(8, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1)
        self.norm, self.short, self.relu = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1, 2), nn.ReLU(inplace)

    def forward(self, x):
        return self.relu(self.norm(self.conv2(self.relu(self.conv1(x)))) + self.short(x))


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.conv, self.function = nn.Conv2d(8, 8, 3, padding=1), function

    def forward(self, x):
        return self.function(self.conv(x))


class Joined(nn.Module):
    """Two strided branches that meet in front of an activation."""

    def __init__(self, join):
        super().__init__()
        self.a, self.b, self.join = nn.Conv2d(8, 8, 3, 2, 1), nn.Conv2d(8, 8, 5, 2, 2), join
        self.last = nn.Conv2d(16 if join is torch.cat else 8, 8, 1)

    def forward(self, x):
        branches = [self.a(x), self.b(x)]
        return self.last(F.relu(torch.cat(branches, 1) if self.join is torch.cat else self.join(*branches)))


def relu_of_max(x):
    return F.relu(F.max_pool2d(x, 2))


def max_of_relu(x):
    return F.max_pool2d(F.relu(x), 3, 2, 1)


def sliced(x):
    return torch.tanh(x)[:, :, ::2, ::2]


def padded_average(x):
    return F.avg_pool2d(F.relu(x), 3, 2, 1)


PIECES = {
    "conv": lambda: nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.SiLU()),
    "wide": lambda: nn.Sequential(nn.Conv2d(8, 8, 7, (2, 1), 3), nn.GELU()),
    "linear": lambda: nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1)),
    "pointwise": lambda: nn.Conv2d(8, 8, 1, 2),
    "pool": lambda: nn.MaxPool2d(2),
    "ceil pool": lambda: nn.MaxPool2d(3, 2, ceil_mode=True),
    "conv-pool-act": lambda: nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(inplace=True)),
    "residual": lambda: Shortcut(False),
    "residual in place": lambda: Shortcut(True),
    "functions": lambda: Function(relu_of_max),
    "max": lambda: Function(max_of_relu),
    "slice": lambda: Function(sliced),
    "padded average": lambda: Function(padded_average),
    "sum": lambda: Joined(torch.add),
    "product": lambda: Joined(torch.mul),
    "cat": lambda: Joined(torch.cat),
    "gate": Gate,
    "same": PadsByTheStride,
    "dense": lambda: nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.LeakyReLU()),
    "depthwise": lambda: nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1, groups=8), nn.GroupNorm(2, 8), nn.ReLU6()),
}
EXACT = [name for name in PIECES if name not in ("gate", "depthwise")]
"""Without statistics of the map: without a filter the dense network computes what the strided one did."""


def build(names):
    torch.manual_seed(0)
    return randomize(Stem(*(PIECES[name]() for name in names), nn.Conv2d(8, 4, 3, padding=1)))


@given(st.lists(st.sampled_from(list(PIECES)), min_size=1, max_size=4))
def test_every_site_that_is_called_placed_has_a_blur_that_runs(names):
    model, x = build(names), torch.randn(1, 3, 64, 64)
    found = sites(model, x)
    assert {site.status for site in found} <= {"placed"}, [site.reason for site in found]
    if not found:
        return
    converted = antialias(model, x, strict=True)
    baseline, state = model.state_dict(), converted.state_dict()
    assert list(state) == list(baseline)
    assert all(torch.equal(state[key], baseline[key]) for key in baseline)
    converted.load_state_dict(baseline)
    for size in ((64, 64), (47, 58), (33, 70)):
        other = torch.randn(1, 3, *size)
        with torch.no_grad():
            assert converted(other).shape == model(other).shape
    blurs = [node for node in record(converted, x).nodes if node.op == BLUR]
    shared = sum("2 branches that subsample meet" in site.action for site in found)
    assert len(blurs) == len(found) - shared / 2
    assert not any(site.placed for site in sites(converted, x))


@given(st.lists(st.sampled_from(EXACT), min_size=1, max_size=4))
def test_without_a_filter_random_networks_compute_what_they_did(names):
    model, x = build(names), torch.randn(1, 3, 64, 64)
    if not sites(model, x):
        return
    converted = antialias(model, x, filter="none", strict=True)
    for size in ((64, 64), (47, 58), (33, 70)):
        other = torch.randn(1, 3, *size)
        with torch.no_grad():
            torch.testing.assert_close(converted(other), model(other))
        check_no_filter(model, other)
