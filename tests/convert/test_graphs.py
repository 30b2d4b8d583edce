"""Graphs of torch.export and torch.fx are converted as the models that they come from."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from helpers.conversion import check_no_filter, randomize
from torch import nn

from dealias import antialias, sites
from dealias.convert.graphs import with_modules
from dealias.errors import InputError


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.strided, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, 2, 1), nn.BatchNorm2d(6)
        self.short, self.last = nn.Conv2d(6, 6, 1, 2), nn.Conv2d(6, 5, 1)

    def forward(self, x):
        y = F.relu(self.norm(self.strided(F.max_pool2d(F.relu(self.first(x)), 2))))
        return self.last(F.avg_pool2d(self.short(y), 3, 2, 1)).mean((2, 3))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return randomize(Small())


X = torch.rand(2, 3, 32, 32)


@pytest.mark.parametrize("graph_of", [lambda m: torch.export.export(m, (X,)).module(), torch.fx.symbolic_trace])
def test_a_graph_converts_as_its_model(model, graph_of):
    graph = graph_of(model)
    found = [(site.kind, site.stride, site.output_size, site.status) for site in sites(graph, X)]
    assert found == [(site.kind, site.stride, site.output_size, site.status) for site in sites(model, X)]
    assert all(status == "placed" for *_, status in found)
    check_no_filter(graph, X)
    converted = antialias(graph, X)
    assert list(converted.state_dict()) == list(graph.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(converted(X), antialias(model, X)(X))
        assert torch.equal(copy.deepcopy(converted)(X), converted(X))


def test_modules_in_place_of_operations_compute_the_same(model):
    graph = torch.export.export(model, (X,)).module()
    with torch.no_grad():
        assert torch.equal(with_modules(graph)(X), graph(X))


def test_inplace_is_refused(model):
    with pytest.raises(InputError, match="inplace=True"):
        antialias(torch.fx.symbolic_trace(model), X, inplace=True)
