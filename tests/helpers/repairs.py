"""A small network, images, their domain and a comparison for the tests of repair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from dealias.models import vgg_small
from dealias.repair.domain import Domain


def small_images(count: int = 40) -> torch.Tensor:
    return torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(3))


def small_network() -> nn.Module:
    torch.manual_seed(1)
    return vgg_small(padding_mode="circular")


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())


def small_domain(
    crop_size: int | None = None, circular: bool = False, images: torch.Tensor | None = None, **changes: Any
) -> Domain:
    """Small images of twice their values, in batches of 16, unless changed."""
    arguments: dict[str, Any] = {"prepare": lambda images: 2 * images, "batch_size": 16, "seed": 7, **changes}
    return Domain(
        small_images() if images is None else images,
        crop_size=crop_size,
        circular=circular,
        device=torch.device("cpu"),
        **arguments,
    )


def write_images(folder: Path, count: int, side: int = 32) -> np.ndarray:
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (count, side, side), dtype=np.uint8)
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{index}.png")
    return pixels
