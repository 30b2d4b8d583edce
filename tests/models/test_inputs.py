"""Preprocessing against torchvision's transforms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dealias.errors import InputError
from dealias.models import (
    Preprocessing,
    create_model,
    default_input_size,
    default_normalization,
    preprocessing_for,
)
from dealias.optional import import_torchvision


@pytest.mark.parametrize("size", [(300, 400), (256, 256), (500, 257), (40, 90)])
def test_the_papers_preprocessing_is_torchvisions(size: tuple[int, int]) -> None:
    transforms = import_torchvision().models.get_model_weights("resnet18")["IMAGENET1K_V1"].transforms()
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    preprocessing = preprocessing_for("torchvision:resnet18")
    square = preprocessing.square(picture, preprocessing.image_size)
    seen = preprocessing.normalise(torch.from_numpy(preprocessing.centre(square).copy())[None])[0]
    assert torch.allclose(seen, transforms(picture), atol=1e-6)


def test_networks_have_their_own() -> None:
    lite = preprocessing_for("timm:tf_efficientnet_lite0")
    assert (lite.crop_size, lite.image_size, lite.interpolation) == (224, 256, "bicubic")
    tight = preprocessing_for("timm:resnet50.a1_in1k")
    assert (tight.image_size, tight.shift_size) == (235, 256)
    own = preprocessing_for("dealias:vgg_small")
    assert (own.channels, own.image_size, own.slides) == (1, 32, False)
    assert preprocessing_for("torchvision:inception_v3").crop_size == 299
    assert preprocessing_for("torchvision:resnet18", crop_size=112).image_size == 128
    gray = own.square(Image.new("RGB", (40, 50), "white"), 32)
    assert gray.shape == (1, 32, 32)

    assert preprocessing_for("timm:tf_efficientnet_lite0", in_chans=3) == lite
    alone = preprocessing_for("timm:tf_efficientnet_lite0", in_chans=1)
    assert (alone.channels, alone.crop_size) == (1, 224)
    assert alone.mean == pytest.approx([np.mean(lite.mean)])
    assert alone.std == pytest.approx([np.mean(lite.std)])
    with pytest.raises(InputError, match="crop_size=64"):
        preprocessing_for("torchvision:resnet18", crop_size=64, image_size=32)
    with pytest.raises(InputError, match="in_chans=4: images have 3"):
        Preprocessing(32, 32, 32, 4, "bilinear", (0.0,) * 4, (1.0,) * 4)


class GeneralizedRCNNTransform(nn.Module):
    """As torchvision's."""


def test_networks_that_normalise_their_input_themselves() -> None:
    detector = nn.Conv2d(3, 1, 1)
    detector.transform = GeneralizedRCNNTransform()
    assert default_normalization(detector) == ((0.0,) * 3, (1.0,) * 3)

    class DetectionModel(nn.Module):
        pass

    DetectionModel.__module__ = "ultralytics.nn.tasks"
    assert preprocessing_for("a:b", DetectionModel()).std == (1.0,) * 3


def test_input_sizes_and_normalisations() -> None:
    assert default_input_size("dealias:vgg13_bn_cifar") == (3, 32, 32)
    assert default_input_size("torchvision:resnet50") == (3, 224, 224)
    assert default_input_size("torchvision:inception_v3") == (3, 299, 299)
    assert default_input_size("timm:inception_v3") == (3, 299, 299)
    assert default_input_size(nn.Linear(2, 2)) == (3, 224, 224)
    model = create_model("timm:resnet10t")
    assert default_input_size(model) == default_input_size("timm:resnet10t") == (3, 176, 176)
    assert default_normalization("timm:tf_efficientnet_lite0") == ((0.5,) * 3, (0.5,) * 3)
    assert default_normalization("torchvision:resnet50") == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert default_normalization("dealias:vgg_small") == ((0.0,), (1.0,))
