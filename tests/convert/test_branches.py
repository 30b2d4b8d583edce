"""Strided branches that meet in front of their non-linearity share one blur; others have their own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers.conversion import groups_of
from torch import nn

from dealias.convert.branches import Branches


class Joined(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how, self.stem = how, nn.Conv2d(2, 4, 1)
        self.a, self.b, self.c = (nn.Conv2d(4, 4, 3, 2, 1) for _ in range(3))
        self.wide, self.pool, self.mix = nn.Conv2d(4, 4, 3, 2, 2), nn.MaxPool2d(3, 2, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return self.how(self, F.relu(self.stem(x)))


@pytest.mark.parametrize(
    ("how", "met"),
    [
        (lambda m, x: F.relu(m.a(x)), [("a",)]),
        (lambda m, x: F.relu(m.a(x)) + F.relu(m.b(x)), [("a",), ("a", "b")]),  # by itself first
        (lambda m, x: F.relu(m.a(x) + m.b(x)), [("a", "b")]),
        (lambda m, x: F.relu(torch.cat([m.a(x), m.b(x)], 1)), [("a", "b")]),
        (lambda m, x: F.relu(m.a(x) + m.b(x) - m.c(x)), [("a", "b", "c")]),
        (lambda m, x: F.relu(m.a(x) + m.mix(m.b(x))), [("a", "b")]),
        (lambda m, x: F.relu(m.a(x) + m.pool(x)), [("a", "pool")]),
        (lambda m, x: F.relu(m.a(x) + m.wide(x)[:, :, 1:, 1:]), []),  # their dense maps are of other sizes
        (lambda m, x: F.relu(m.a(x)) * m.a(x), []),
        (lambda m, x: (m.a(x), F.relu(m.b(x))), []),
    ],
)
def test_branches_that_meet(how, met):
    model = Joined(how)
    _, grids, groups = groups_of(model, torch.rand(1, 2, 8, 8))
    branches = Branches(grids, list(groups.values()))
    found = [tuple(sorted(group.path for group in members)) for members, _ in branches.meetings(groups["a"])]
    assert found == met


def test_a_region_is_given_for_each_call():
    model = Joined(lambda m, x: F.relu(m.a(x)) + m.mix(torch.tanh(m.a(x))))
    _, grids, groups = groups_of(model, torch.rand(1, 2, 8, 8))
    ((members, regions),) = Branches(grids, list(groups.values())).meetings(groups["a"])
    assert [len(group.spots) for group in members] == [2]
    assert [region.behind[0].value.producer.op for region in regions] == ["relu", "tanh"]
