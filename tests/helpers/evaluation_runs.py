"""Small evaluations: two networks, images of 40 pixels and windows of 32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from dealias.data import open_source
from dealias.evaluation.network import Network, build_network
from dealias.models import ModelSpec, preprocessing_for

MODEL = "dealias:vgg_small,in_chans=3,label=plain"
BLURRED = "dealias:vgg_small,in_chans=3,antialias=bin4,label=blurred"
WINDOWS = {"image_size": 40, "crop_size": 32}
METRICS = ("accuracy", "consistency", "diagonal", "one-pixel", "grid", "fractional")
QUICK: dict[str, Any] = {"metrics": METRICS, "workers": 0, **WINDOWS}

_PATCHES_NETWORK = """
import torch

class Patches(torch.nn.Module):
    def forward(self, x):
        return torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)[:, :10]

def network():
    return Patches()
"""


def write_patches_network(folder: Path) -> str:
    """A network that says which of an image's patches is brightest in a channel: what it sees changes its answers."""
    (folder / "patches_network_of_a_test.py").write_text(_PATCHES_NETWORK)
    return "patches_network_of_a_test:network"


def network_of(text: str = MODEL, **sizes: int) -> Network:
    """A network on the CPU, which knows ten classes by their numbers."""
    network = build_network(ModelSpec.parse(text), torch.device("cpu"), 32, **(sizes or WINDOWS))
    network.labels = list(range(10))
    return network


def network_and_images(pictures: Path) -> tuple[nn.Module, Tensor, Tensor]:
    """The network of `MODEL`, and what it is given of the pictures, made by Pillow alone."""
    torch.manual_seed(0)
    network = ModelSpec.parse(MODEL).build()
    source, preprocessing = open_source(pictures), preprocessing_for("dealias:vgg_small", **WINDOWS)
    big = [np.asarray(source.read(number).resize((46, 40), Image.Resampling.BILINEAR)) for number in range(20)]
    images = torch.tensor(np.stack(big)[:, :, 3:43]).permute(0, 3, 1, 2).float() / 255
    assert preprocessing.shift_size == 40
    return network, images, torch.tensor(source.labels)
