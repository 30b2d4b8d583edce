"""How an image file becomes what a network sees: the paper's way by default, a network's own where it has one.

>>> preprocessing = preprocessing_for("torchvision:resnet50")
>>> preprocessing.image_size, preprocessing.crop_size, preprocessing.shift_size
(256, 224, 256)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dealias.errors import InputError, require
from dealias.models import default_input_size, default_normalization
from dealias.models._torchvision import import_beside_torchvision, import_torchvision

Pixels = npt.NDArray[np.uint8]
INTERPOLATIONS = ("bilinear", "bicubic", "nearest")


@dataclass(frozen=True)
class Preprocessing:
    """Resize the short side to `image_size`, keep the `crop_size` square in the middle, normalise.

    Attributes:
        image_size: pixels of the short side, 256 in the paper.
        crop_size: pixels of the side of what the network sees, 224 in the paper.
        shift_size: pixels of the short side where windows slide: `image_size`, but with at least a seventh of the
            window's side to slide by, as in the paper; where it equals `crop_size`, images are taken whole and shifts
            are circular.
        channels: 3 for RGB, 1 for grayscale.
        interpolation: of the resizing, by Pillow, which smooths when it makes smaller.
        mean, std: of the normalisation (pixels in [0, 1] - mean) / std.

    Raises:
        InputError: a value is out of range.
    """

    image_size: int
    crop_size: int
    shift_size: int
    channels: int
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.crop_size < 1 or min(self.image_size, self.shift_size) < self.crop_size:
            raise InputError(f"crop_size={self.crop_size} must be at least 1 and at most image_size={self.image_size}")
        if self.channels not in (1, 3):
            raise InputError(f"the network takes {self.channels} channels: images have 3 (RGB) or 1 (grayscale)")
        if self.interpolation not in INTERPOLATIONS:
            raise InputError(f"interpolation={self.interpolation!r} is unknown: use {', '.join(INTERPOLATIONS)}")

    def with_channels(self, channels: int | None) -> Preprocessing:
        """The same for a network of other channels, normalised by the mean over its own; None changes nothing."""
        if channels in (None, self.channels):
            return self
        mean, std = (sum(values) / len(values) for values in (self.mean, self.std))
        return replace(self, channels=channels, mean=(mean,) * channels, std=(std,) * channels)

    @property
    def slides(self) -> bool:
        """Whether a window has room to slide."""
        return self.shift_size > self.crop_size

    def square(self, picture: Any, size: int) -> Pixels:
        """A Pillow picture as uint8 (channels, size, size): the short side resized to `size`, the middle kept."""
        width, height = picture.size
        short = min(width, height)
        picture = picture.convert("RGB" if self.channels == 3 else "L")
        if short != size:
            resampling = getattr(require("PIL.Image", "robustness").Resampling, self.interpolation.upper())
            picture = picture.resize((size * width // short, size * height // short), resampling)
        left, top = round((picture.width - size) / 2), round((picture.height - size) / 2)
        pixels = np.array(picture.crop((left, top, left + size, top + size)))
        return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))

    def centre(self, pixels: Pixels) -> Pixels:
        """The middle `crop_size` square of (channels, H, W)."""
        top, left = (round((side - self.crop_size) / 2) for side in pixels.shape[1:])
        return pixels[:, top : top + self.crop_size, left : left + self.crop_size]

    def normalise(self, pixels: Tensor) -> Tensor:
        """Bytes (N, channels, H, W) as the network expects them, float32."""
        mean, std = (torch.tensor(values, device=pixels.device).view(-1, 1, 1) for values in (self.mean, self.std))
        return (pixels.float() / 255 - mean) / std


def preprocessing_for(
    model: str | torch.nn.Module, *, image_size: int | None = None, crop_size: int | None = None
) -> Preprocessing:
    """What a network was made for.

    timm's networks have their own; torchvision's that of their first published weights (256 and 224 for most, as in
    the paper); dealias's take 32 x 32 images whole; every other network the paper's.

    Args:
        model: a name as in `dealias.models.create_model`, or a network.
        image_size, crop_size: other sizes than those.

    Raises:
        InputError: the name is unknown, or a size is out of range.
    """
    channels, crop, _ = default_input_size(model)
    mean, std = default_normalization(model)
    interpolation, resized = "bilinear", round(crop * 8 / 7)
    source, _, name = model.partition(":") if isinstance(model, str) else ("", "", "")
    if source == "torchvision":
        own: Any = import_torchvision().models.get_model_weights(name)
        transforms = next(iter(own)).transforms()
        crop, resized = transforms.crop_size[0], transforms.resize_size[0]
        interpolation = transforms.interpolation.value
    elif source == "timm":
        config = import_beside_torchvision("timm", "zoo").get_pretrained_cfg(name).to_dict()
        resized = math.floor(crop / config.get("crop_pct", 0.875))
        interpolation = config.get("interpolation", "bilinear")
    elif source == "dealias":
        resized = crop
    if crop_size is not None:
        resized, crop = round(resized * crop_size / crop), crop_size
    resized = resized if image_size is None else image_size
    whole = source == "dealias" and resized == crop
    return Preprocessing(
        image_size=resized,
        crop_size=crop,
        shift_size=crop if whole else max(resized, round(crop * 8 / 7)),
        channels=channels,
        interpolation=interpolation,
        mean=tuple(mean),
        std=tuple(std),
    )
