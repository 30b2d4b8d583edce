"""The networks of experiments/methods.py, each treated by each method."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import nn

from dealias import antialias, to_circular
from dealias.models import create_model
from dealias.optional import import_torchvision

METHODS = {
    "none": "plain",
    "bin4": "blur, bin4",
    "ideal": "blur, ideal",
    "polyphase-none": "anchors",
    "polyphase-bin4": "anchors and bin4",
    "alias-free": "alias-free",
}
INPUT = (1, 1, 32, 32)


def resnet_small() -> nn.Module:
    """A convolution of 8 channels and three of torchvision's basic blocks, each of stride 2; total stride 8."""
    block = import_torchvision().models.resnet.BasicBlock
    widths = (8, 16, 32, 64)
    layers: list[nn.Module] = [nn.Conv2d(1, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()]
    for narrow, wide in pairwise(widths):
        shortcut = nn.Sequential(nn.Conv2d(narrow, wide, 1, 2, bias=False), nn.BatchNorm2d(wide))
        layers.append(block(narrow, wide, 2, shortcut))
    return to_circular(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10)))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "vgg_small": lambda: create_model("dealias:vgg_small", padding_mode="circular"),
    "resnet_small": resnet_small,
}


def build(network: str, method: str, seed: int) -> nn.Module:
    """The network with the weights of `seed`, treated by `method`."""
    torch.manual_seed(seed)
    plain = NETWORKS[network]()
    if method == "none":
        return plain
    if method == "alias-free":
        return antialias(plain, torch.zeros(INPUT), method=method)
    kind, _, filter = method.rpartition("-")
    return antialias(plain, torch.zeros(INPUT), method=kind or "blur", filter=filter)
