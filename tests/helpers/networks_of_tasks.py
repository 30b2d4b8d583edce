"""Small networks with strides, one for each task; their weights are drawn from one seed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Strided(nn.Module):
    """Maps (N, outputs, h, w) at a quarter of the resolution."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, outputs, 3, 1, 1)
        )


class Detector(_Strided):
    """Boxes of 16 pixels around the three strongest places, in torchvision's format."""

    def __init__(self) -> None:
        super().__init__(1)

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        found = []
        for map_ in self.layers(x)[:, 0]:
            values, places = map_.flatten().topk(3)
            corner = torch.stack([places % map_.shape[1], places // map_.shape[1]], 1) * 4.0
            labels = torch.ones(3, dtype=torch.long)
            found.append({"boxes": torch.cat([corner, corner + 16], 1), "scores": values.sigmoid(), "labels": labels})
        return found


class Segmenter(_Strided):
    """Scores of five classes, in torchvision's format."""

    def __init__(self) -> None:
        super().__init__(5)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": F.interpolate(self.layers(x), x.shape[2:], mode="bilinear")}


class Points(_Strided):
    """The places of the maxima of three maps."""

    def __init__(self) -> None:
        super().__init__(3)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.layers(x)
        places = maps.flatten(2).argmax(2)
        return torch.stack([places % maps.shape[3], places // maps.shape[3]], -1) * 4.0


class Embedder(_Strided):
    """Unit vectors."""

    def __init__(self) -> None:
        super().__init__(6)

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.layers(x).mean((2, 3)) - 0.1)


class Painter(_Strided):
    """Images of the input's size."""

    def __init__(self) -> None:
        super().__init__(3)

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(self.layers(x), x.shape[2:])
