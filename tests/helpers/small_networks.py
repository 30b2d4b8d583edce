"""Small networks that have between them what conversion meets: for tests of the tools that people use afterwards.

They stand in a module of their own so that another process can unpickle them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

WIDTH = 8


class ConvNormAct(nn.Module):
    """Convolution, norm and activation as modules."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.act = nn.Conv2d(WIDTH, WIDTH, 3, 2, 1, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU()

    def forward(self, x):
        return self.act(self.bn(self.conv(x)))


class Forked(nn.Module):
    """An activation as a function, which two layers read."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(WIDTH, WIDTH, 3, 2, 1), nn.BatchNorm2d(WIDTH)
        self.a, self.b = nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.Conv2d(WIDTH, WIDTH, 1)

    def forward(self, x):
        y = F.relu(self.bn(self.conv(x)))
        return self.a(y) + self.b(y)


class Residual(nn.Module):
    """One activation for two places, and a 1x1 shortcut."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(WIDTH, WIDTH, 3, 2, 1, bias=False), nn.BatchNorm2d(WIDTH)
        self.conv2, self.bn2 = nn.Conv2d(WIDTH, WIDTH, 3, 1, 1, bias=False), nn.BatchNorm2d(WIDTH)
        self.shortcut = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 1, 2, bias=False), nn.BatchNorm2d(WIDTH))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class Pooled(nn.Module):
    """Poolings as functions."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)

    def forward(self, x):
        return F.avg_pool2d(F.relu(self.conv(F.max_pool2d(x, 3, 2, 1))), 2)


class SameConv(nn.Conv2d):
    """A convolution that pads by itself."""

    def forward(self, x):
        return F.conv2d(F.pad(x, (0, 1, 0, 1)), self.weight, self.bias, self.stride)


class Same(nn.Module):
    """A convolution of one's own, and its norm and activation."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.act = SameConv(WIDTH, WIDTH, 3, 2), nn.BatchNorm2d(WIDTH), nn.SiLU()

    def forward(self, x):
        return self.act(self.bn(self.conv(x)))


class Excited(nn.Module):
    """An inverted bottleneck with squeeze-and-excite."""

    def __init__(self):
        super().__init__()
        self.expand, self.bn1 = nn.Conv2d(WIDTH, 16, 1, bias=False), nn.BatchNorm2d(16)
        self.depthwise, self.bn2 = nn.Conv2d(16, 16, 3, 2, 1, groups=16, bias=False), nn.BatchNorm2d(16)
        self.reduce, self.widen, self.project = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1), nn.Conv2d(16, WIDTH, 1)
        self.act = nn.SiLU()

    def forward(self, x):
        y = self.act(self.bn2(self.depthwise(self.act(self.bn1(self.expand(x))))))
        gate = self.widen(self.act(self.reduce(F.adaptive_avg_pool2d(y, 1))))
        return self.project(torch.sigmoid(gate) * y)


class Looped(nn.Module):
    """Layers called in a loop over their attributes, as networks from a configuration file are."""

    def __init__(self):
        super().__init__()
        convolution = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, 2, 1), nn.BatchNorm2d(WIDTH))
        self.layers = nn.ModuleList([convolution, nn.ReLU(), nn.MaxPool2d(2)])
        for index, layer in enumerate(self.layers):
            layer.index, layer.source = index, -1

    def forward(self, x):
        for layer in self.layers:
            if layer.source == -1 and layer.index < len(self.layers):
                x = layer(x)
        return x


BLOCKS = (ConvNormAct, Forked, Residual, Pooled, Same, Excited, Looped)


class Network(nn.Module):
    """A stem, some blocks and a head, for images of 3 channels; batch statistics are random."""

    def __init__(self, *blocks):
        super().__init__()
        self.stem, self.stem_bn, self.stem_act = nn.Conv2d(3, WIDTH, 3, padding=1), nn.BatchNorm2d(WIDTH), nn.ReLU()
        self.blocks = nn.Sequential(*(block() for block in blocks))
        self.features, self.head = nn.Conv2d(WIDTH, 6, 3, padding=1), nn.Conv2d(6, 5, 1)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, std=0.2)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
                nn.init.uniform_(module.weight, 0.5, 1.5)

    def forward(self, x):
        x = self.blocks(self.stem_act(self.stem_bn(self.stem(x))))
        return self.head(self.features(x))
