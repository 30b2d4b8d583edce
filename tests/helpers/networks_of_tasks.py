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


class SquareDetector(nn.Module):
    """The bright square of an image, found exactly.

    Args:
        step: the box's corner is rounded down to a multiple of it, as a network that subsamples would.
        drop: the number of columns at which the square is not found.
    """

    def __init__(self, step: int = 1, drop: int = 0) -> None:
        super().__init__()
        self.step, self.drop = step, drop

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        return [self._find(image.mean(0) > 0.5) for image in x]

    def _find(self, bright: Tensor) -> dict[str, Tensor]:
        rows, columns = (bright.any(1).nonzero(), bright.any(0).nonzero())
        if not len(rows) or (self.drop and int(columns[0]) % self.drop == 0):
            return {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.long)}
        top, left = (int(found[0]) // self.step * self.step for found in (rows, columns))
        height, width = len(rows), len(columns)
        box = torch.tensor([[left, top, left + width, top + height]]).float()
        return {"boxes": box, "scores": torch.tensor([0.9]), "labels": torch.tensor([3])}
