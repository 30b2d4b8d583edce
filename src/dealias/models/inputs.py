"""The input of a network: size, crop and normalisation of its images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dealias.errors import InputError, as_int, check_kind
from dealias.models.imagenet import IMAGENET_MEAN, IMAGENET_STD
from dealias.models.names import is_listed, split_name, timm_config
from dealias.optional import require

Pixels = npt.NDArray[np.uint8]
INTERPOLATIONS = ("bilinear", "bicubic", "nearest")


@dataclass(frozen=True)
class Preprocessing:
    """Resize the short side to `image_size`, keep the `crop_size` square in the middle, normalise.

    Attributes:
        image_size: short side of the resized image in pixels, 256 in the paper.
        crop_size: side of the network's input in pixels, 224 in the paper.
        shift_size: short side, in pixels, of the image in which windows slide: `image_size`, or more, so that a window
            slides by at least a seventh of its side, as in the paper. Where it equals `crop_size`, the network sees the
            whole image and shifts are circular.
        channels: 3 for RGB, 1 for grayscale.
        interpolation: of the resizing by Pillow, which low-pass filters where it reduces.
        mean, std: the network's input is (pixels in [0, 1] - mean) / std.

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
            raise InputError(f"in_chans={self.channels}: images have 3 (RGB) or 1 (grayscale)")
        if self.interpolation not in INTERPOLATIONS:
            raise InputError(f"interpolation={self.interpolation!r} is unknown: use {', '.join(INTERPOLATIONS)}")

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
            resampling = getattr(require("PIL.Image").Resampling, self.interpolation.upper())
            picture = picture.resize((size * width // short, size * height // short), resampling)
        left, top = round((picture.width - size) / 2), round((picture.height - size) / 2)
        pixels = np.array(picture.crop((left, top, left + size, top + size)))
        return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))

    def centre(self, pixels: Pixels) -> Pixels:
        """The middle `crop_size` square of (channels, H, W)."""
        top, left = (round((side - self.crop_size) / 2) for side in pixels.shape[1:])
        return pixels[:, top : top + self.crop_size, left : left + self.crop_size]

    def normalise(self, pixels: Tensor) -> Tensor:
        """The network's input, float32, from bytes (N, channels, H, W)."""
        mean, std = (torch.tensor(values, device=pixels.device).view(-1, 1, 1) for values in (self.mean, self.std))
        # in place: fresh memory costs more than the arithmetic
        return pixels.to(torch.float32, copy=True).div_(255).sub_(mean).div_(std)


def preprocessing_for(
    model: str | nn.Module,
    network: nn.Module | None = None,
    *,
    in_chans: int | None = None,
    image_size: int | None = None,
    crop_size: int | None = None,
) -> Preprocessing:
    """The preprocessing for which a network was made.

    timm's networks give their own. torchvision's have that of their first published weights: 256 and 224 for most, as
    in the paper. dealias's take whole images of 32 x 32. Every other network has the paper's.

    Args:
        model: a name as in `dealias.models.create_model`, or a network.
        network: the network that a factory returned, if `model` is the factory's name.
        in_chans: a number of channels in place of the network's own; each is normalised by the mean over its own.
        image_size, crop_size: sizes in place of the network's own.

    Raises:
        InputError: the name is unknown, or a size is out of range.
    """
    model = _described(model, network)
    for argument, size in (("image_size", image_size), ("crop_size", crop_size), ("in_chans", in_chans)):
        if size is not None:
            as_int(argument, size, bits=31)
    channels, crop, _ = default_input_size(model)
    mean, std = default_normalization(model)
    interpolation, resized = "bilinear", round(crop * 8 / 7)
    source, name = split_name(model) if isinstance(model, str) else ("", "")
    if source == "torchvision":
        own: Any = require("torchvision").models.get_model_weights(name)
        transforms = next(iter(own)).transforms()
        crop, resized = transforms.crop_size[0], transforms.resize_size[0]
        interpolation = transforms.interpolation.value
    elif source == "timm":
        config = timm_config(name)
        resized = math.floor(crop / config.get("crop_pct", 0.875))
        interpolation = config.get("interpolation", "bilinear")
    elif source == "dealias":
        resized = crop
    if crop_size is not None:
        resized, crop = round(resized * crop_size / crop), crop_size
    resized = resized if image_size is None else image_size
    whole = source == "dealias" and resized == crop
    if in_chans not in (None, channels):
        mean, std = ((sum(values) / len(values),) * in_chans for values in (mean, std))
    return Preprocessing(
        image_size=resized,
        crop_size=crop,
        shift_size=crop if whole else max(resized, round(crop * 8 / 7)),
        channels=in_chans or channels,
        interpolation=interpolation,
        mean=mean,
        std=std,
    )


def default_input_size(model: str | nn.Module, network: nn.Module | None = None) -> tuple[int, int, int]:
    """Channels, height and width of the images for which a network is made.

    >>> default_input_size("dealias:vgg_small")
    (1, 32, 32)

    Args:
        model: a name as in `create_model`, or a network. timm's give their own size; any other has (3, 224, 224).
        network: the network that a factory returned, if `model` is the factory's name.

    Raises:
        InputError: the name is unknown.
    """
    model = _described(model, network)
    if isinstance(model, str):
        source, arch = split_name(model)
        if source == "dealias":
            return (1 if arch == "vgg_small" else 3), 32, 32
        if source == "torchvision":
            return (3, 299, 299) if arch == "inception_v3" else (3, 224, 224)
    channels, height, width = _timm_config(model).get("input_size", (3, 224, 224))
    return channels, height, width


def default_normalization(model: str | nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, by which images in [0, 1] are normalised for a network.

    >>> default_normalization("dealias:vgg_small")
    ((0.0,), (1.0,))

    They are ImageNet's, except for timm's networks, which give their own, and for dealias's, ultralytics' and
    torchvision's detectors, which take [0, 1] as it is.

    Raises:
        InputError: the name is unknown.
    """
    model = _described(model, None)
    if isinstance(model, str) and split_name(model)[0] == "dealias":
        channels = default_input_size(model)[0]
        return (0.0,) * channels, (1.0,) * channels
    if _normalises_itself(model):
        return (0.0,) * 3, (1.0,) * 3
    config = _timm_config(model)
    return tuple(config.get("mean", IMAGENET_MEAN)), tuple(config.get("std", IMAGENET_STD))


def _described(model: str | nn.Module, network: nn.Module | None) -> str | nn.Module:
    """The name of a listed network, else the network that the factory returned."""
    check_kind("model", model, (str, nn.Module), "a name or a torch.nn.Module")
    return network if network is not None and isinstance(model, str) and not is_listed(model) else model


def _normalises_itself(model: str | nn.Module) -> bool:
    """Whether this is a detector of torchvision, whose first step normalises, or a network of ultralytics."""
    is_detector = type(getattr(model, "transform", None)).__name__ == "GeneralizedRCNNTransform"
    return is_detector or any(kind.__module__.startswith("ultralytics.nn") for kind in type(model).__mro__)


def _timm_config(model: str | nn.Module) -> dict[str, Any]:
    """timm's description of a network's input; empty for the others."""
    if isinstance(model, str):
        source, arch = split_name(model)
        return timm_config(arch) if source == "timm" else {}
    config = getattr(model, "pretrained_cfg", None)
    return config if isinstance(config, dict) else {}
