"""The audit by `filter="none"`: it knows that an average becomes a single sample, and finds any other change."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dealias.convert import antialias_with_report


class Network(nn.Module):
    def __init__(self, pool):
        super().__init__()
        self.conv, self.pool, self.head = nn.Conv2d(3, 4, 3, padding=1), pool, nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return self.head(F.relu(self.pool(F.relu(self.conv(x)))))


def audit(script, model, x):
    family_audit = script("family_audit")
    with warnings.catch_warnings(action="ignore"):
        _, report = antialias_with_report(model, x)
    return family_audit.same_without_filter(model, x, family_audit.call(model, x), report)


@pytest.mark.parametrize(
    "pool",
    [
        nn.AvgPool2d(2),
        nn.AvgPool2d(3, ceil_mode=True),
        nn.AvgPool2d(3, 2),
        nn.AdaptiveAvgPool2d((3, 4)),
        nn.AdaptiveMaxPool2d((3, 4)),
        nn.Upsample(scale_factor=0.5, mode="bilinear"),
        nn.Upsample(scale_factor=0.5),
        nn.MaxPool2d(2),
    ],
    ids=str,
)
def test_averages_may_become_single_samples(script, pool):
    assert audit(script, Network(pool).eval(), torch.rand(1, 3, 15, 20)) is None


def test_functions_that_average_are_noted(script):
    model = Network(nn.Identity())
    model.pool.forward = lambda x: F.avg_pool2d(x, 2)
    assert audit(script, model, torch.rand(1, 3, 16, 20)).startswith("note: functions that average")


def test_another_change_is_found(script, monkeypatch):
    family_audit = script("family_audit")
    convert = family_audit.antialias
    monkeypatch.setattr(family_audit, "antialias", lambda model, x, filter: convert(model, x, filter="bin4"))
    assert audit(script, Network(nn.AvgPool2d(2)).eval(), torch.rand(1, 3, 16, 20)).startswith("the output differs")


def test_single_samples_are_those_of_whole_windows(script):
    x = torch.arange(7.0).expand(1, 1, 5, 7)
    family_audit = script("family_audit")
    assert torch.equal(family_audit.Subsampling((2, 3), True)(x), x[..., :4:2, :6:3])
    assert torch.equal(family_audit.Subsampling((2, 3), False)(x), x[..., ::2, ::3])
