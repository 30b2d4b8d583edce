"""A U-Net on an anti-aliased timm encoder: skip connections fit, as every feature map keeps its size.

python examples/unet.py
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dealias import antialias
from dealias.models import create_model


class UNet(nn.Module):
    """Upsample, concatenate with the skip connection, convolve; from the deepest map to the first."""

    def __init__(self, encoder: nn.Module, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        channels = encoder.feature_info.channels()
        pairs = zip(channels[:0:-1], channels[-2::-1], strict=True)
        self.decoder = nn.ModuleList(nn.Conv2d(deep + skip, skip, 3, padding=1) for deep, skip in pairs)
        self.head = nn.Conv2d(channels[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes, H, W)."""
        *skips, y = self.encoder(x)
        for conv, skip in zip(self.decoder, skips[::-1], strict=True):
            y = F.interpolate(y, skip.shape[2:], mode="bilinear")
            y = F.relu(conv(torch.cat([y, skip], dim=1)))
        return F.interpolate(self.head(y), x.shape[2:], mode="bilinear")


def main() -> None:
    """Convert the encoder, then take one training step."""
    torch.manual_seed(0)
    image, target = torch.rand(2, 3, 96, 128), torch.randint(0, 4, (2, 96, 128))
    encoder = create_model("timm:resnet18", features_only=True)
    network = UNet(antialias(encoder, image), classes=4)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for step in range(3):
        loss = F.cross_entropy(network(image), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step}: loss {loss.item():.3f}")


if __name__ == "__main__":
    main()
