"""Small networks that pad circularly, for the tests of exact shift-invariance, and images with ties."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGES = ("noise", "two values", "plus or minus one", "constant", "stripes", "two dots", "zeros")


def image(kind: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """A float64 image (1, C, *spatial) of one of `IMAGES`."""
    random = torch.Generator().manual_seed(seed)
    x = torch.rand(1, *shape, generator=random, dtype=torch.float64)
    if kind == "two values":
        return (x < 0.2).double()
    if kind == "plus or minus one":
        return (x < 0.5).double() * 2 - 1
    if kind == "constant":
        return torch.full_like(x, 0.7)
    if kind == "stripes":
        return (torch.arange(shape[-1]) % 2).double().expand(x.shape).clone()
    if kind == "two dots":
        dots = torch.zeros_like(x).flatten(2)
        places = torch.randint(dots.shape[2], (2,), generator=random)
        dots[0, 0, places[0]] = dots[0, -1, places[1]] = 1.0
        return dots.reshape(x.shape)
    return torch.zeros_like(x) if kind == "zeros" else x


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution that wraps around and returns size / stride pixels."""
    padding = (kernel - 1) // 2
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, padding_mode="circular")


class Plain(nn.Module):
    """Poolings and strided convolutions, one behind the other."""

    def __init__(self, stride: int, channels: int = 2) -> None:
        super().__init__()
        self.features = nn.Sequential(
            conv(channels, 5), nn.ReLU(), nn.MaxPool2d(stride), conv(5, 6), nn.ReLU(), conv(6, 6, 3, stride), nn.ELU()
        )
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.features(x).mean((2, 3)))
        return y


class Residual(nn.Module):
    """Two convolutions beside a shortcut, a gate by pooled statistics, then a pool beside a convolution."""

    def __init__(self, stride: int, channels: int = 2) -> None:
        super().__init__()
        self.stem = conv(channels, 4)
        self.conv1, self.conv2, self.shortcut = conv(4, 6), conv(6, 6, 3, stride), conv(4, 6, 1, stride)
        self.gate = nn.Conv2d(6, 6, 1)
        self.pool, self.reduce = nn.MaxPool2d(stride), conv(6, 3, 3, stride)
        self.head = nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = self.conv2(F.relu(self.conv1(x)))
        y = y * torch.sigmoid(self.gate(y.mean((2, 3), keepdim=True)))
        x = F.relu(y + self.shortcut(x))
        x = F.relu(torch.cat([self.pool(x), self.reduce(x)], 1))
        y = self.head(x.mean((2, 3)))
        return y


class Uneven(nn.Module):
    """Two steps of a stride beside one of its square."""

    def __init__(self, stride: int, channels: int = 2) -> None:
        super().__init__()
        self.stem = conv(channels, 4)
        self.one, self.two = conv(4, 5, 3, stride), conv(5, 5, 3, stride)
        self.pool, self.mix = nn.AvgPool2d(stride * stride), nn.Conv2d(4, 5, 1)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = self.two(F.relu(self.one(x))) + self.mix(self.pool(x))
        logits: Tensor = self.head(F.relu(y).mean((2, 3)))
        return logits


class Double(nn.Sequential):
    """A convolution, a norm and an activation."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(conv(inputs, outputs), nn.BatchNorm2d(outputs), nn.ReLU())


class UNet(nn.Module):
    """Three levels with skips; `ways` says how it pools ("layers", "shared", "function") and grows ("layer", ...)."""

    def __init__(self, stride: int = 2, channels: int = 2, pooling: str = "layers", growing: str = "layer") -> None:
        super().__init__()
        self.stride, self.pooling, self.growing = stride, pooling, growing
        self.encoders = nn.ModuleList([Double(channels, 4), Double(4, 6), Double(6, 8)])
        self.pools = nn.ModuleList(
            [nn.MaxPool2d(stride)] * 2 if pooling == "shared" else [nn.MaxPool2d(stride), nn.MaxPool2d(stride)]
        )
        self.ups = nn.ModuleList([nn.ConvTranspose2d(8, 6, stride, stride), nn.ConvTranspose2d(6, 4, stride, stride)])
        self.narrow = nn.ModuleList([nn.Conv2d(8, 6, 1), nn.Conv2d(6, 4, 1)])
        self.decoders = nn.ModuleList([Double(12, 6), Double(8, 6)])
        self.head = nn.Conv2d(6, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for encoder, pool in zip(self.encoders, self.pools, strict=False):
            skips.append(encoder(x))
            x = F.max_pool2d(skips[-1], self.stride) if self.pooling == "function" else pool(skips[-1])
        x = self.encoders[2](x)
        for up, narrow, decoder in zip(self.ups, self.narrow, self.decoders, strict=True):
            if self.growing == "layer":
                x = up(x)
            else:
                x = F.interpolate(narrow(x), scale_factor=float(self.stride), mode="nearest")
            x = decoder(torch.cat([x, skips.pop()], 1))
        y: Tensor = self.head(x)
        return y


class Pyramid(nn.Module):
    """Three levels, joined from the coarse to the fine as in a feature pyramid network; a map for each."""

    def __init__(self, channels: int = 2) -> None:
        super().__init__()
        self.stages = nn.ModuleList([conv(channels, 4, 3, 2), conv(4, 6, 3, 2), conv(6, 8, 3, 2)])
        self.sides = nn.ModuleList([nn.Conv2d(width, 5, 1) for width in (4, 6, 8)])
        self.heads = nn.ModuleList([conv(5, 3) for _ in range(3)])

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for stage in self.stages:
            x = F.relu(stage(x))
            maps.append(x)
        found: list[Tensor] = []
        for side, map in zip(reversed(self.sides), reversed(maps), strict=True):
            y = side(map)
            found.append(y + F.interpolate(found[-1], size=y.shape[2:], mode="nearest") if found else y)
        return [head(y) for head, y in zip(self.heads, found, strict=True)]


class SpatialPyramid(nn.Module):
    """Branches of several dilations and one of the pooled map, joined."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        dilated = nn.Conv2d(inputs, width, 3, 1, 2, dilation=2, padding_mode="circular")
        self.branches = nn.ModuleList([nn.Conv2d(inputs, width, 1), dilated])
        self.pooled, self.project = nn.Conv2d(inputs, width, 1), nn.Conv2d(3 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.relu(self.pooled(x.mean((2, 3), keepdim=True)))
        parts = [F.interpolate(pooled, size=x.shape[2:], mode="nearest"), *(F.relu(part(x)) for part in self.branches)]
        return F.relu(self.project(torch.cat(parts, 1)))


class DeepLab(nn.Module):
    """A spatial pyramid on a coarse map, which grows to join a finer one, and then to the size of the input.

    `growing`: the mode of the function calls that let maps grow, or "layer".
    """

    def __init__(self, growing: str = "nearest", channels: int = 2) -> None:
        super().__init__()
        self.low = nn.Sequential(conv(channels, 4, 3, 2), nn.ReLU())
        self.high = nn.Sequential(conv(4, 6), nn.ReLU(), nn.MaxPool2d(2), conv(6, 8), nn.ReLU())
        self.pyramid, self.side, self.decoder = SpatialPyramid(8, 5), nn.Conv2d(4, 3, 1), Double(8, 6)
        self.head, self.growing = nn.Conv2d(6, 3, 1), growing
        self.up = nn.Upsample(scale_factor=2.0, mode="bilinear")

    def grown(self, x: Tensor) -> Tensor:
        y: Tensor = self.up(x) if self.growing == "layer" else F.interpolate(x, scale_factor=2.0, mode=self.growing)
        return y

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        low = self.low(x)
        y = self.decoder(torch.cat([self.grown(self.pyramid(self.high(low))), self.side(low)], 1))
        return {"out": self.grown(self.head(y))}
