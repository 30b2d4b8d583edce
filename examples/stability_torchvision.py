"""How stable a detector of torchvision is under shifts, beside its anti-aliased copy; random weights, random images.

The detector needs torchvision's compiled operators: a wheel that fits your PyTorch.

python examples/stability_torchvision.py
"""

import torch

import dealias
from dealias.optional import import_torchvision


def main() -> None:
    """Build the detector, anti-alias its backbone, and print what shifts do to the boxes of both."""
    torch.manual_seed(0)
    # weights="DEFAULT" downloads a trained one
    build = import_torchvision().models.detection.ssdlite320_mobilenet_v3_large
    detector = build(weights=None, weights_backbone=None, detections_per_img=10).eval()
    images = torch.nn.functional.interpolate(torch.rand(4, 3, 40, 40), (320, 320), mode="bicubic").clamp(0, 1)
    print(dealias.measure_stability(detector, images))
    detector.backbone = dealias.antialias(detector.backbone, images[:1])
    print(dealias.measure_stability(detector, images))


if __name__ == "__main__":
    main()
