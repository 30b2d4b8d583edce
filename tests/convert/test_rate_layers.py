"""The layers that bring a map to twice its rate and back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dealias.convert.rate_layers import Doubling, Halving
from dealias.convert.recording import record
from dealias.convert.trace import DOUBLE, HALVE
from dealias.errors import InputError
from dealias.ops.rates import doubled, halved


def test_they_do_what_the_functions_do() -> None:
    x = torch.randn(2, 4, 6, 3)
    assert torch.equal(Doubling((-3, -2))(x), doubled(x, (-3, -2)))
    assert torch.equal(Halving((-3, -2))(x), halved(x, (-3, -2)))
    for plain in (True, False):
        assert torch.allclose(Halving((-3,), plain)(Doubling((-3,), plain)(torch.ones(2, 4, 6, 3))), torch.ones(1))


def test_a_trace_has_one_operation_for_each() -> None:
    trace = record(nn.Sequential(Doubling((-1,)), nn.ReLU(), Halving((-1,))), torch.rand(1, 2, 8))
    assert [node.op for node in trace.nodes] == [DOUBLE, "relu", HALVE]


def test_they_are_not_quantised() -> None:
    with pytest.raises(InputError, match="cannot be quantised"):
        Doubling((-1,)).qconfig = object()
