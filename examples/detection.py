"""A feature pyramid for detection on an anti-aliased ResNet: what torchvision's Faster R-CNN takes as its backbone.

python examples/detection.py
"""

import torch

from dealias.models import create_model
from dealias.optional import import_torchvision


def main() -> None:
    """Build both pyramids and compare the sizes of their maps."""
    import_torchvision()
    from torchvision.models.detection.backbone_utils import BackboneWithFPN

    stages = {f"layer{i}": str(i - 1) for i in (1, 2, 3, 4)}
    channels = [64, 128, 256, 512]
    image = torch.rand(1, 3, 200, 320)
    for antialias in (False, True):
        resnet = create_model("torchvision:resnet18", antialias=antialias)  # weights="resnet18.pth" loads a checkpoint
        backbone = BackboneWithFPN(resnet, stages, channels, out_channels=256).eval()
        with torch.no_grad():
            sizes = {name: tuple(map_.shape[2:]) for name, map_ in backbone(image).items()}
        print(f"antialias={antialias}: {sizes}")
    # torchvision.models.detection.FasterRCNN(backbone, num_classes=91) is the detector


if __name__ == "__main__":
    main()
