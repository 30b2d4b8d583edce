"""The audit by the exported graph names what subsamples as `dealias.sites` does."""

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dealias import BlurPool2d, sites

X = torch.rand(1, 3, 12, 16)


class Network(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.first, self.how = nn.Conv2d(3, 8, 3, padding=1), how

    def forward(self, x):
        return self.how(self.first(x))


@pytest.mark.parametrize(
    ("how", "samples"),
    [
        (lambda x: F.max_pool2d(x, 2), [("max_pool", (2, 2), (6, 8))]),
        (lambda x: x[..., ::2, ::4], [("slice", (2, 4), (6, 4))]),
        (lambda x: F.unfold(x, 4, stride=2), [("unfold", (2, 2), (5, 7))]),
        (lambda x: x.unfold(2, 4, 2), [("unfold", (2, 1), (5, 16))]),
        (lambda x: x.unfold(-1, 4, 3), [("unfold", (1, 3), (12, 5))]),
        (lambda x: x.unfold(2, 4, 2).unfold(3, 4, 4), [("unfold", (2, 1), (5, 16)), ("unfold", (1, 4), (5, 4))]),
        (lambda x: x.unfold(2, 3, 1), []),
        (lambda x: x.unfold(2, 12, 8).unfold(3, 16, 8), []),
        (lambda x: x.unfold(1, 4, 2), []),
    ],
)
def test_sampling_agrees_with_sites(script, how, samples):
    model = Network(how)
    assert script("conversion_audit").sampling(model, X) == (Counter(samples), 0)
    assert [(site.kind, site.stride, site.output_size) for site in sites(model, X)] == samples


def test_blurs_are_no_samples(script):
    assert script("conversion_audit").sampling(nn.Sequential(nn.Conv2d(3, 8, 3), BlurPool2d()), X) == ({}, 1)
