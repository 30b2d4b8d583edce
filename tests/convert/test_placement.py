"""Following a value to its non-linearity, one operation at a time."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dealias.convert.placement import follow
from dealias.convert.trace import record


class Tail(nn.Module):
    def __init__(self, tail):
        super().__init__()
        self.conv, self.other, self.tail = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), tail
        self.scale = nn.Parameter(torch.rand(4, 1, 1))

    def forward(self, x):
        return self.tail(self, self.conv(x))


@pytest.mark.parametrize(
    ("tail", "ops", "nonlinear"),
    [
        (lambda m, y: m.other(F.relu(y)), ["relu"], True),
        (lambda m, y: m.other(F.relu_(y)), ["relu"], True),
        (lambda m, y: m.other((y * m.scale + 1).tanh()), ["mul", "add", "tanh"], True),
        (lambda m, y: m.other(y * y), ["mul"], True),
        (lambda m, y: m.other(y * torch.sigmoid(y)), ["mul"], True),
        (lambda m, y: m.other(y * F.relu6(y + 3) / 6), ["mul"], True),
        (lambda m, y: m.other(F.relu(y + torch.ones(4, 4))), [], False),
        (lambda m, y: m.other(F.group_norm(y, 2)), ["native_group_norm"], False),
        (lambda m, y: m.other(y), [], False),
        (lambda m, y: m.other(y) + y, [], False),
        (lambda m, y: m.other(F.relu(y)) + y, [], False),
        (lambda m, y: F.relu(m.other(y.mean((2, 3), keepdim=True)) + y), [], False),
        (lambda m, y: (y, F.relu(y)), [], False),
        (lambda m, y: torch.cat([F.relu(y), F.relu(-y)]), [], False),
    ],
)
def test_chains(tail, ops, nonlinear):
    trace = record(Tail(tail), torch.randn(1, 3, 6, 6))
    chain = follow(trace, trace.nodes[0].outputs[0])
    assert [value.producer.op for value in chain.values[1:]] == ops
    assert chain.nonlinear is nonlinear
