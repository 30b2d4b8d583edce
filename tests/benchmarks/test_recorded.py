"""The audit by what ran: blurs on the CPU, with any padding, and where they stand."""

import pytest
import torch
from torch import nn

from dealias import BlurPool2d, antialias

X = torch.rand(1, 3, 16, 16)


def network(padding_mode, *behind):
    convolutions = [nn.Conv2d(a, 4, 3, s, padding=1, padding_mode=padding_mode) for a, s in ((3, 1), (4, 2))]
    return nn.Sequential(convolutions[0], nn.ReLU(), convolutions[1], nn.BatchNorm2d(4), *behind).eval()


def record(recorded, model):
    return recorded.record(model, lambda network: network(X))


@pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "replicate", "circular"])
def test_sampling_tells_blurs_from_other_strides(script, padding_mode):
    recorded, model = script("recorded"), network(padding_mode, nn.ReLU(), nn.MaxPool2d(2))
    samples = {("conv", (2, 2), (8, 8)): 1, ("max_pool", (2, 2), (4, 4)): 1}
    assert recorded.sampling(record(recorded, model)) == (samples, 0)
    converted = antialias(model, X, padding_mode=padding_mode)
    assert recorded.sampling(record(recorded, converted)) == ({}, 2)


@pytest.mark.parametrize("padding_mode", ["zeros", "circular"])
def test_a_blur_in_front_of_a_non_linearity_is_found(script, padding_mode):
    recorded, model = script("recorded"), network(padding_mode, nn.ReLU())
    strided = recorded.strided_weights(record(recorded, model))
    assert strided == {"2.weight"}
    model[2].stride = (1, 1)
    wrong = nn.Sequential(*model[:4], BlurPool2d(padding_mode=padding_mode), nn.ReLU())
    right = nn.Sequential(*model[:5], BlurPool2d(padding_mode=padding_mode))
    found = recorded.early_blurs(record(recorded, wrong), strided)
    assert len(found) == 1
    assert found[0].endswith("(1, 4, 8, 8) -> relu")
    assert recorded.early_blurs(record(recorded, right), strided) == []


def test_what_is_written_into_empty_memory_is_followed(script):
    recorded = script("recorded")
    operations = record(recorded, network("circular"))
    second = [one for one in operations if one.name == "convolution"][1]
    assert {one.name for one in recorded._sources(second.arguments["input"])} == {"relu"}
