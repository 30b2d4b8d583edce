"""Following a value to its non-linearity, one operation at a time."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dealias.convert.grids import Grids
from dealias.convert.placement import explore
from dealias.convert.recording import record


class Tail(nn.Module):
    def __init__(self, tail):
        super().__init__()
        self.conv, self.other, self.tail = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), tail
        self.scale = nn.Parameter(torch.rand(4, 1, 1))

    def forward(self, x):
        return self.tail(self, self.conv(x))


@pytest.mark.parametrize(
    ("tail", "cuts"),
    [
        (lambda m, y: m.other(F.relu(y)), [("relu", 1)]),
        (lambda m, y: m.other(F.relu_(y)), [("relu", 1)]),
        (lambda m, y: m.other((y * m.scale + 1).tanh()), [("mul", 0), ("add", 0), ("tanh", 1)]),
        (lambda m, y: m.other(y * y), [("mul", 1)]),
        (lambda m, y: m.other(y * torch.sigmoid(y)), [("mul", 1)]),
        (lambda m, y: m.other(y * F.relu6(y + 3) / 6), [("mul", 1), ("div", 1)]),
        (lambda m, y: m.other(F.relu(F.relu(y) - 1)), [("relu", 1), ("sub", 1)]),
        (lambda m, y: m.other(F.relu(y + torch.ones(4, 4))), []),
        (lambda m, y: m.other(F.group_norm(y, 2)), [("native_group_norm", 0)]),
        (lambda m, y: m.other(y), []),
        (lambda m, y: m.other(y) + y, []),
        (lambda m, y: m.other(F.relu(y)) + y, []),
        (lambda m, y: F.relu(m.other(y.mean((2, 3), keepdim=True)) + y), [("add", 0), ("relu", 1)]),
        (lambda m, y: F.relu(y * torch.sigmoid(m.other(F.adaptive_avg_pool2d(y, 1)))), [("mul", 0), ("relu", 1)]),
        (lambda m, y: F.relu(y.mean((2, 3))), []),
        (lambda m, y: (y, F.relu(y)), []),
        (lambda m, y: torch.cat([F.relu(y), F.relu(-y)], 1), [("cat", 1)]),
        (lambda m, y: F.glu(y, 1), [("glu", 1)]),
        (lambda m, y: torch.maximum(*y.chunk(2, 1)), [("maximum", 1)]),
        (lambda m, y: y.view(1, 2, 2, 4, 4).amax(1), [("amax", 1)]),
        (lambda m, y: F.relu(y.view(1, 2, 2, 4, 4).transpose(1, 2).reshape(1, 4, 4, 4)), [("view", 0), ("relu", 1)]),
        (lambda m, y: F.relu(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), [("permute", 1)]),
        (lambda m, y: F.relu(y.flatten(2)).view(1, 4, 4, 4), []),
        (lambda m, y: F.relu(y.softmax(3)), []),
    ],
)
def test_cuts(tail, cuts):
    trace = record(Tail(tail), torch.randn(1, 3, 6, 6))
    start = trace.nodes[0].outputs[0]
    region = explore(Grids(trace), [start])
    assert region.cuts[0].value is start
    found = [(cut.value.producer.op.replace("_unsafe_view", "view"), cut.level) for cut in region.cuts[1:]]
    assert found == cuts


def test_a_sum_with_a_map_from_elsewhere_stops_there():
    trace = record(Tail(lambda m, y: F.relu(y + m.other(y.flip(1)))), torch.randn(1, 3, 6, 6))
    grids, start = Grids(trace), trace.nodes[0].outputs[0]
    assert explore(grids, [start]).behind == []
    other = next(node.outputs[0] for node in trace.nodes[1:] if node.op == "convolution")
    assert explore(grids, [start]).foreign == ()  # the flip moves pixels of a kind that is not known to stay
    assert [cut.value.producer.op for cut in explore(grids, [other]).cuts] == ["convolution"]
    assert explore(grids, [other]).foreign == (start,)


def test_gates_and_group_norms_are_known_to_measure_the_map():
    for tail, gated in (
        (lambda m, y: F.relu(y * y.mean((2, 3), keepdim=True)), True),
        (lambda m, y: F.relu(F.group_norm(y, 2)), True),
        (lambda m, y: F.relu(F.instance_norm(y)), True),
        (lambda m, y: F.relu(y * 2), False),
    ):
        trace = record(Tail(tail), torch.randn(1, 3, 6, 6))
        region = explore(Grids(trace), [trace.nodes[0].outputs[0]])
        assert region.behind[0].gated is gated
