"""Activations that are functions, or one module for many places, whose maps functions read: blurred where they run."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from helpers.conversion import check_no_filter
from torch import nn
from torch.utils.checkpoint import checkpoint

from dealias import BlurPool2d, antialias, sites


class Read(nn.Module):
    """Its strided convolution's activation, the second of three, is read by functions alone."""

    def __init__(self, activation):
        super().__init__()
        self.first, self.strided, self.activation = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, 2, 1), activation
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        y = self.activation(self.strided(self.activation(self.first(x))))
        return self.last(self.activation(y + y.flip(1)))


def by_hand(model, x):
    y = model.activation(F.conv2d(model.activation(model.first(x)), model.strided.weight, model.strided.bias, 1, 1))
    y = BlurPool2d()(y)
    return model.last(model.activation(y + y.flip(1)))


X = torch.rand(2, 3, 17, 18)


@pytest.mark.parametrize(
    "activation",
    [F.relu, F.gelu, torch.tanh, lambda x: x.sigmoid(), lambda x: F.relu(x, inplace=True), nn.SiLU(), nn.ReLU6()],
)
def test_an_activation_that_functions_read(activation):
    model = Read(activation).eval()
    (site,) = sites(model, X)
    assert "behind activation 1 of the model, behind the non-linearity" in site.action
    check_no_filter(model, X)
    with torch.no_grad():
        torch.testing.assert_close(antialias(model, X)(X), by_hand(model, X))


def test_it_travels():
    model = antialias(Read(nn.SiLU()).eval(), X)
    with torch.no_grad():
        expected = model(X)
        assert torch.equal(copy.deepcopy(model)(X), expected)
        assert torch.equal(pickle.loads(pickle.dumps(model))(X), expected)
        assert torch.equal(model(X), expected)  # turns are counted anew on each call
        torch.compiler.reset()
        torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="eager")(X), expected)
        torch.testing.assert_close(torch.export.export(model, (X,)).module()(X), expected)
        torch.testing.assert_close(torch.fx.symbolic_trace(model)(X), expected)


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradients_of_checkpoints(reentrant):
    model = antialias(Read(nn.SiLU()).eval(), X)
    x = X.clone().requires_grad_()
    (expected,) = torch.autograd.grad(model(x).square().sum(), x)
    checkpoint(model, x, use_reentrant=reentrant).square().sum().backward()
    torch.testing.assert_close(x.grad, expected)


def test_a_forward_within_a_forward_counts_its_own():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.strided, self.last = Read(F.relu), nn.Conv2d(2, 4, 3, 2, 1), nn.Conv2d(4, 4, 1)

        def forward(self, x):
            y = F.gelu(self.strided(self.inner(x)))
            return self.last(y + y.flip(1))

    model = Outer().eval()
    assert [site.status for site in sites(model, X)] == ["placed", "placed"]
    check_no_filter(model, X)
    with torch.no_grad():
        y = BlurPool2d()(F.gelu(F.conv2d(by_hand(model.inner, X), model.strided.weight, model.strided.bias, 1, 1)))
        torch.testing.assert_close(antialias(model, X)(X), model.last(y + y.flip(1)))
