"""How stable a segmentation network of torchvision is under shifts, beside its anti-aliased copy; random weights.

python examples/stability_segmentation.py
"""

import torch

import dealias
from dealias.metrics import make_views
from dealias.optional import import_torchvision


def main() -> None:
    """Compare windows of each image that are one pixel apart."""
    torch.manual_seed(0)
    # weights="DEFAULT" downloads a trained one
    segmentation = import_torchvision().models.segmentation
    network = segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None)
    images = torch.nn.functional.interpolate(torch.rand(4, 3, 32, 32), (256, 256), mode="bicubic")
    with torch.no_grad():  # random weights would give one class everywhere
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d) and module.bias is not None:
                module.bias.zero_()
        for _ in range(20):
            network.train()(images)
    network.eval()
    views = make_views("one_pixel", crop_size=224, image_size=256)
    print(dealias.measure_stability(network, images, views=views))
    converted = dealias.antialias(network, images[:1, :, :224, :224])
    print(dealias.measure_stability(converted, images, views=views))


if __name__ == "__main__":
    main()
