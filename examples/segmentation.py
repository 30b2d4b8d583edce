"""Anti-alias a whole torchvision segmentation network: DeepLabV3, whose last stages are dilated and have no stride.

python examples/segmentation.py
"""

import torch

from dealias import antialias, sites
from dealias.optional import import_torchvision


def main() -> None:
    """Convert, list what was done, and compare the sizes of the outputs."""
    segmentation = import_torchvision().models.segmentation
    network = segmentation.deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=21).eval()
    image = torch.rand(1, 3, 129, 129)
    for site in sites(network, image):
        print(f"{site.path}: {site.action or site.reason}")
    converted = antialias(network, image)
    converted.load_state_dict(network.state_dict())  # a checkpoint of the network fits
    with torch.no_grad():
        print(f"output before {tuple(network(image)['out'].shape)}, after {tuple(converted(image)['out'].shape)}")


if __name__ == "__main__":
    main()
