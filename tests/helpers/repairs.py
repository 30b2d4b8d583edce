"""A small network, images and a comparison for the tests of repair."""

from __future__ import annotations

import torch
from torch import nn

from dealias.models import vgg_small


def small_images(count: int = 40) -> torch.Tensor:
    return torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(3))


def small_network() -> nn.Module:
    torch.manual_seed(1)
    return vgg_small(padding_mode="circular")


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())
