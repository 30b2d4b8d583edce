"""Anti-alias a network of your own: functions, two inputs and a dict of outputs.

python examples/convert_own.py
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dealias


class Stereo(nn.Module):
    """Features of two images and how far apart they are."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(32, 32, 3, padding=1)

    def features(self, x: Tensor) -> Tensor:
        """Maps of a quarter of the image's height and width."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        return self.conv3(F.relu(self.conv2(x)))

    def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
        """Compare the two images."""
        left, right = self.features(left), self.features(right)
        return {"left": left, "right": right, "distance": (left - right).abs().mean((1, 2, 3))}


model = Stereo()
pair = {"left": torch.rand(2, 3, 64, 64), "right": torch.rand(2, 3, 64, 64)}
converted = dealias.antialias(model, pair, strict=True)
print(converted)
print({name: tuple(value.shape) for name, value in converted(**pair).items()})
