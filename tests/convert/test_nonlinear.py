"""What is found to be non-linear in a trace, and at which module it is evaluated at twice the rate."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers.circular_networks import conv
from torch import nn

from dealias.convert.edits import AnswerPool, DoubleRate, DoubleRateOfActivation
from dealias.convert.nonlinear import Nonlinearities, at_twice_the_rate, spatial_axes
from dealias.convert.rate_layers import Doubling, Halving
from dealias.convert.recording import record

X = torch.randn(2, 2, 12, 16)


def found(model, x=X):
    """By path: the edit of a non-linearity, or why there is none."""
    all = Nonlinearities(record(model.eval(), x), ()).found()
    return [(one.site.path, one.edit or one.site.reason) for one in all]


class Swish(nn.Module):
    """An activation of several operations, one of them a module."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Sigmoid()

    def forward(self, x):
        return x * self.gate(1.5 * x)


def test_a_module_that_works_pixel_by_pixel_is_one_as_a_whole():
    model = nn.Sequential(conv(2, 4), Swish(), nn.BatchNorm2d(4), nn.GELU(), nn.Dropout(), nn.Conv2d(4, 4, 1))
    assert found(model) == [("1", DoubleRate("1", (-2, -1))), ("3", DoubleRate("3", (-2, -1)))]


def test_linear_layers_gates_and_what_is_no_map_are_none():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.act = nn.Conv2d(4, 4, 1), nn.SiLU()

        def forward(self, x):
            return x * self.act(self.inner(x.mean((2, 3), keepdim=True))) / 2 + x

    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4), nn.ReLU()
    assert (
        found(nn.Sequential(conv(2, 4), nn.BatchNorm2d(4), nn.GroupNorm(2, 4), Gated(), nn.AvgPool2d(2), *head)) == []
    )


@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_any_number_of_axes(spatial):
    kind, x = getattr(nn, f"Conv{spatial}d"), torch.randn(1, 2, *[6] * spatial)
    pool = getattr(nn, f"MaxPool{spatial}d")(3, 1, 1)
    axes = tuple(range(-spatial, 0))
    assert found(nn.Sequential(kind(2, 3, 1), nn.ELU(), pool), x) == [
        ("1", DoubleRate("1", axes)),
        ("2", DoubleRate("2", axes)),
    ]


def test_norms_over_channels_and_maps_with_the_channels_last():
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.act, self.first = nn.LayerNorm(4), nn.GELU(), conv(2, 4)

        def forward(self, x):
            return self.act(self.norm(self.first(x).permute(0, 2, 3, 1)))

    class First(nn.LayerNorm):
        def forward(self, x):
            return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    class Map(nn.LayerNorm):
        """One mean and one standard deviation a map, which no shift changes."""

    assert found(Last()) == [("norm", DoubleRate("norm", (-3, -2))), ("act", DoubleRate("act", (-3, -2)))]
    assert found(nn.Sequential(conv(2, 4), First(4))) == [("1", DoubleRate("1", (-2, -1)))]
    assert found(nn.Sequential(conv(2, 4), Map((4, 12, 16), elementwise_affine=False))) == []


class Calls(nn.Module):
    """Its forward calls two activations; `again` runs it as often."""

    def __init__(self, again=1):
        super().__init__()
        self.conv, self.again = conv(2, 2), again

    def forward(self, x):
        for _ in range(self.again):
            x = F.relu(self.conv(x)).tanh()
        return x


def test_function_calls_take_their_turn():
    edits = [DoubleRateOfActivation("0", turn, 2, (-2, -1)) for turn in (0, 1)]
    assert found(nn.Sequential(Calls())) == [("0", edit) for edit in edits]
    model = Calls()
    assert found(nn.Sequential(model, nn.AvgPool2d(2), model)) == [("0", edit) for edit in edits]


def test_function_calls_that_come_and_go_are_named():
    class Longer(Calls):
        def forward(self, x):
            x = F.relu(self.conv(x))
            return F.relu(self.conv(x)) if x.shape[-1] > 8 else x

    model = Longer()
    reasons = dict(found(nn.Sequential(model, nn.AvgPool2d(2), model)))
    assert "does not run the same each time: give it a module of its own" in reasons["0"]


def test_a_module_for_maps_and_vectors_is_named():
    act = nn.ReLU()
    model = nn.Sequential(conv(2, 4), act, nn.AdaptiveAvgPool2d(1), act, nn.Flatten())
    assert found(model) == [("1", DoubleRate("1", (-2, -1)))]  # a single pixel is the same at any rate
    model = nn.Sequential(*model, act)
    assert "other calls of it take in something else" in found(model)[0][1]


def test_maxima():
    class Functions(nn.Module):
        def forward(self, x):
            return F.max_pool2d(F.max_pool2d(x, 3, 1, 1), 2)

    ((path, edit),) = found(nn.Sequential(conv(2, 4), Functions()))  # the strided one is a site, with a plan of its own
    assert path == "1"
    assert isinstance(edit, AnswerPool)
    assert (edit.window.kernel, edit.window.stride, edit.dense) == ((3, 3), (1, 1), True)


def test_operations_in_a_forward_are_named():
    class Square(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = conv(2, 4)

        def forward(self, x):
            return self.conv(x) ** 2

    ((path, reason),) = found(Square())
    assert path == ""
    assert reason.startswith("pow, test_nonlinear.py:")
    assert reason.endswith("is computed inside a forward: give it a module of its own")


def test_what_is_at_twice_the_rate_already_is_left_out():
    model = nn.Sequential(conv(2, 4), Doubling((-2, -1)), nn.ReLU(), Halving((-2, -1)), nn.Tanh())
    assert found(model) == [("4", DoubleRate("4", (-2, -1)))]
    trace = record(model, X)
    sizes = {value.shape for value in at_twice_the_rate(trace)}
    assert sizes == {(2, 4, 24, 32)}
    assert spatial_axes(Nonlinearities(trace, ()).maps, trace.nodes[-1].outputs[0]) == (-2, -1)
