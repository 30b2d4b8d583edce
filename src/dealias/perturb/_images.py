"""Convert images between the form of users, (H, W) or (H, W, C), and the form of computation, float32 (C, H, W)."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from dealias.errors import InputError, InputTypeError

Image: TypeAlias = npt.NDArray[Any]
Floats: TypeAlias = npt.NDArray[np.float32]

MINIMUM_SIZE = 8
PUBLISHED_SIZE = 224


def to_floats(image: Image) -> Floats:
    """Check `image` and copy it to a float32 array (C, H, W) in [0, 1]."""
    if not isinstance(image, np.ndarray):
        raise InputTypeError(
            f"image must be a numpy.ndarray, got {type(image).__name__}: use numpy.asarray(picture.convert('RGB')) for"
            " a Pillow image, tensor.permute(1, 2, 0).numpy() for a tensor (C, H, W)"
        )
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3)):
        raise InputError(f"image has shape {image.shape}: use (H, W), (H, W, 1) or (H, W, 3)")
    if min(image.shape[:2]) < MINIMUM_SIZE:
        raise InputError(
            f"image of {image.shape[0]}x{image.shape[1]} is too small: use {MINIMUM_SIZE}x{MINIMUM_SIZE} or more"
        )
    # channels first: NumPy is several times as fast along a long last axis as along one of 3
    planes = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
    if image.dtype == np.uint8:
        return np.divide(planes, np.float32(255), order="C")
    if not np.issubdtype(image.dtype, np.floating):
        raise InputTypeError(f"image is {image.dtype}: use uint8, or float in [0, 1]")
    if not (image.min() >= 0 and image.max() <= 1):
        raise InputError(f"image has values from {image.min()} to {image.max()}: floats must be in [0, 1]")
    return planes.astype(np.float32, order="C")


def like(floats: Floats, image: Image) -> Image:
    """Convert `floats` (C, H', W'), clipped to [0, 1], to the dtype and the order of axes of `image`."""
    planes = to_bytes(floats) if image.dtype == np.uint8 else floats.clip(0, 1).astype(image.dtype)
    return planes[0] if image.ndim == 2 else np.ascontiguousarray(planes.transpose(1, 2, 0))


def to_bytes(floats: Floats) -> npt.NDArray[np.uint8]:
    """Round to the nearest of 256 levels."""
    levels = floats.clip(0, 1)
    levels *= 255
    levels += 0.5
    return levels.astype(np.uint8)


def luma(floats: Floats) -> Floats:
    """The luminance (1, H, W) of Rec. 601; a single channel is returned as it is."""
    if len(floats) == 1:
        return floats
    red, green, blue = floats
    return np.asarray(0.299 * red + 0.587 * green + 0.114 * blue, dtype=np.float32)[None]


def tint(red: float, green: float, blue: float, channels: int) -> Floats:
    """A colour (3, 1, 1), or its luminance (1, 1, 1) for one channel."""
    colour = np.array([red, green, blue], dtype=np.float32).reshape(3, 1, 1)
    return colour if channels == 3 else luma(colour)


def length_scale(height: int, width: int) -> float:
    """The factor of the published lengths in pixels: the shorter side divided by 224, at least a quarter.

    Below a quarter most lengths would be under a pixel, and severities could not differ. At a quarter they are near
    those of CIFAR-10-C.
    """
    return max(min(height, width) / PUBLISHED_SIZE, 0.25)


def check_generator(generator: object) -> None:
    """Raise InputTypeError unless `generator` is a NumPy Generator."""
    if not isinstance(generator, np.random.Generator):
        raise InputTypeError(
            f"generator must be a numpy.random.Generator, got {type(generator).__name__}: "
            "use numpy.random.default_rng((seed, index))"
        )
