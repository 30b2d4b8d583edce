"""Networks by name, local checkpoints, and dealias's own networks."""

from dealias.models.checkpoints import load_weights, load_zhang_checkpoint
from dealias.models.imagenet import IMAGENET_MEAN, IMAGENET_STD, efficientnet_lite0, imagenet_labels
from dealias.models.inputs import Preprocessing, default_input_size, default_normalization, preprocessing_for
from dealias.models.names import is_listed, list_models
from dealias.models.spec import ModelSpec, parse_model
from dealias.models.vgg import VGG, vgg13_bn_cifar, vgg_small
from dealias.models.zoo import create_model

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "VGG",
    "ModelSpec",
    "Preprocessing",
    "create_model",
    "default_input_size",
    "default_normalization",
    "efficientnet_lite0",
    "imagenet_labels",
    "is_listed",
    "list_models",
    "load_weights",
    "load_zhang_checkpoint",
    "parse_model",
    "preprocessing_for",
    "vgg13_bn_cifar",
    "vgg_small",
]
