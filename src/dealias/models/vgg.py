"""Small VGG networks with five max-pools: the paper's network for CIFAR, and the demo's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from dealias.errors import InputError, as_int, check_kind, shown


class VGG(nn.Module):
    """Stages of 3x3 convolutions with batch norm and ReLU, a 2x2 max-pool after each; a global average; one Linear.

    >>> VGG([[8], [16, 16]], in_chans=3, num_classes=5)(torch.rand(1, 3, 9, 11)).shape
    torch.Size([1, 5])

    The pools have `ceil_mode=True`, so that every input size from 1 pixel works; each pool halves exactly the sizes
    that are multiples of 2 ** stages.

    Args:
        stages: the widths of the convolutions, stage by stage.
        in_chans: channels of the input.
        num_classes: logits of the output.
        padding_mode: of the convolutions, "zeros" or "circular" (they then commute with circular shifts).

    Raises:
        InputError: an argument is out of range.
    """

    def __init__(
        self,
        stages: Sequence[Sequence[int]],
        *,
        in_chans: int = 3,
        num_classes: int = 10,
        padding_mode: Literal["zeros", "circular"] = "zeros",
    ) -> None:
        super().__init__()
        if padding_mode not in ("zeros", "circular"):
            raise InputError(f"padding_mode={padding_mode!r} is unknown: use zeros or circular")
        num_classes = as_int("num_classes", num_classes, bits=31)
        check_kind("stages", stages, Sequence, "the widths of the convolutions, stage by stage")
        if not stages or not all(stages):
            raise InputError(f"stages={shown(stages)} has an empty stage, or none: give widths such as [[8], [16, 16]]")
        layers: list[nn.Module] = []
        channels = as_int("in_chans", in_chans, bits=31)
        for stage in stages:
            for width in (as_int("stages", each, given=stages, bits=31) for each in stage):
                # batch norm has the bias
                conv = nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=False, padding_mode=padding_mode)
                nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
                layers += [conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
                channels = width
            layers.append(nn.MaxPool2d(kernel_size=2, ceil_mode=True))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, num_classes) of images (N, in_chans, H, W)."""
        logits: Tensor = self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))
        return logits


def vgg13_bn_cifar(
    *, in_chans: int = 3, num_classes: int = 10, padding_mode: Literal["zeros", "circular"] = "zeros"
) -> VGG:
    """VGG13 with batch norm for 32x32 images (Zhang 2019, section 4.1 on CIFAR10): 512 features at 1x1, one Linear."""
    stages = [[64, 64], [128, 128], [256, 256], [512, 512], [512, 512]]
    return VGG(stages, in_chans=in_chans, num_classes=num_classes, padding_mode=padding_mode)


def vgg_small(*, in_chans: int = 1, num_classes: int = 10, padding_mode: Literal["zeros", "circular"] = "zeros") -> VGG:
    """The demo's network: five stages of one convolution, 16-32-64-64-64 wide, for 32x32 images."""
    stages = [[16], [32], [64], [64], [64]]
    return VGG(stages, in_chans=in_chans, num_classes=num_classes, padding_mode=padding_mode)
