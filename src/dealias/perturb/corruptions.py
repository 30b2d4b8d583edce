"""The corruptions of ImageNet-C, computed for images of any size.

>>> import numpy as np
>>> image = np.full((28, 28), 128, dtype=np.uint8)
>>> first, again = (corrupt(image, "snow", 3, generator=np.random.default_rng((0, 7))) for _ in range(2))
>>> first.shape, first.dtype, np.array_equal(first, again)
((28, 28), dtype('uint8'), True)

Source: Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and Perturbations, ICLR
2019. The parameters of the severities are theirs, for images of 224 pixels. At other sizes lengths in pixels are
multiplied by min(height, width) / 224, at least by 1/4; only the affine map of elastic transform has no such limit, and
noise and the blocks of JPEG do not scale. Gaussians of less than a pixel keep their variance. Images of 32 pixels
therefore differ from CIFAR-10-C's, which has parameters of its own.

Differences from the released images: frost is computed, theirs is one of five photographs; defocus_blur at other sizes
than 224 integrates its disk over the pixels; pixelate takes the exact mean of each block, Pillow's box filter that of
whole pixels; results are rounded to 256 levels, theirs are cut down and stored as JPEG.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

from dealias.optional import require
from dealias.perturb._filters import (
    defocus,
    gaussian_blur,
    motion_blur,
    noise_gain,
    pixelate,
    plasma,
    sample,
    scaled_sigma,
    smooth_noise,
    zoom,
)
from dealias.perturb._images import (
    PUBLISHED_SIZE,
    Floats,
    Image,
    check_generator,
    length_scale,
    like,
    luma,
    to_bytes,
    to_floats,
)
from dealias.perturb._weather import frost_crystals, liquid_field, snow_fall, snow_flakes, splash_mud, splash_water
from dealias.perturb.names import CORRUPTIONS, SEVERITIES, VALIDATION_CORRUPTIONS, check_corruption

pillow = require("PIL.Image")

__all__ = ["CORRUPTIONS", "SEVERITIES", "VALIDATION_CORRUPTIONS", "corrupt"]


def corrupt(image: Image, name: str, severity: int, *, generator: np.random.Generator) -> Image:
    """`image` under one of ImageNet-C's corruptions.

    Args:
        image: (H, W), (H, W, 1) or (H, W, 3), uint8 or float in [0, 1], at least 8x8. An image of one channel is grey:
            the result is the luminance of the corrupted colour picture.
        name: one of `CORRUPTIONS`, the fifteen of the benchmark, or of `VALIDATION_CORRUPTIONS`, the four for tuning.
        severity: 1 to 5.
        generator: source of the random draws, such as `numpy.random.default_rng((seed, index))`. Corruptions without
            chance draw nothing.

    Returns:
        A new array of the shape and dtype of `image`. jpeg_compression rounds floats to 256 levels, too.

    Raises:
        InputError: the name or the severity is unknown, the image has another shape, or a value is NaN or not in [0,
            1].
        InputTypeError: `image` is not an array or has another dtype, or `generator` is not a NumPy Generator.
    """
    check_corruption(name, severity)
    check_generator(generator)
    function, parameters = _CORRUPTIONS[name]
    return like(function(to_floats(image), generator, *parameters[severity - 1]), image)


def gaussian_noise(image: Floats, generator: np.random.Generator, sigma: float) -> Floats:
    """Add normal noise of standard deviation `sigma`."""
    noise = generator.standard_normal(image.shape, dtype=np.float32)
    noise *= sigma
    noise += image
    return noise


def shot_noise(image: Floats, generator: np.random.Generator, photons: float) -> Floats:
    """Poisson noise: a white pixel has `photons` on average."""
    return generator.poisson(image * photons).astype(np.float32) / np.float32(photons)


def speckle_noise(image: Floats, generator: np.random.Generator, sigma: float) -> Floats:
    """Add normal noise of standard deviation `sigma` times the pixel's value."""
    noise = generator.standard_normal(image.shape, dtype=np.float32)
    noise *= sigma
    noise += 1
    noise *= image
    return noise


def brightness(image: Floats, amount: float) -> Floats:
    """Add `amount` to the V of HSV: the channels keep their proportions, hue and saturation."""
    value = image.max(0)
    brighter = (value + np.float32(amount)).clip(0, 1)
    gain = np.divide(brighter, value, out=np.zeros_like(value), where=value > 0)
    brightened: Floats = np.where(value > 0, image * gain, brighter)
    return brightened


def _impulse_noise(image: Floats, generator: np.random.Generator, share: float) -> Floats:
    chance = generator.random(image.shape, dtype=np.float32)
    image[chance < share / 2] = 0
    image[chance >= 1 - share / 2] = 1
    return image


def _defocus_blur(image: Floats, _: np.random.Generator, radius: int, alias_sigma: float) -> Floats:
    return defocus(image, radius, alias_sigma, length_scale(*_size(image)))


def _glass_blur(image: Floats, generator: np.random.Generator, sigma: float, reach: int, rounds: int) -> Floats:
    scale = length_scale(*_size(image))
    blur = scaled_sigma(sigma, scale)
    shuffled = gaussian_blur(image, blur)
    pixels = shuffled.reshape(len(image), -1)
    for _ in range(rounds):
        pixels = pixels.take(_neighbours_taken(*_size(image), reach * scale, generator), 1)
    return gaussian_blur(pixels.reshape(image.shape), blur)


def _neighbours_taken(height: int, width: int, reach: float, generator: np.random.Generator) -> npt.NDArray[np.int32]:
    """The source of each pixel after every pixel, last to first, has taken the value of a random neighbour.

    The released images were made in this way: their code swaps pixels, but a swap of two pixels of a colour image in
    NumPy copies one of them. If the reach is not an integer, each pixel draws the integer above or below, with
    probabilities that keep the mean squared displacement.
    """
    low, whole = math.floor(reach), math.ceil(reach)
    own = np.arange(height * width, dtype=np.int32)
    taking = own.reshape(height, width)[whole + 1 : height - whole + 1, whole + 1 : width - whole + 1]
    share = (reach**2 - low**2) / (2 * low + 1)
    reaches = np.where(generator.random(taking.shape, dtype=np.float32) < share, low + 1, low) if share else low
    offsets = np.floor((generator.random((2, *taking.shape), dtype=np.float32) * 2 - 1) * reaches).astype(np.int32)
    source = own.copy()
    source[taking] = taking + offsets[0] * width + offsets[1]
    # a later pixel has already taken its own neighbour's value: follow such links to their end
    link = np.where(source > own, source, own)
    while True:
        further = link[link]
        if np.array_equal(further, link):
            return source[link]
        link = further


def _motion_blur(image: Floats, generator: np.random.Generator, radius: int, sigma: float) -> Floats:
    scale = length_scale(*_size(image))
    return motion_blur(image, radius * scale, sigma * scale, generator.uniform(-45, 45))


def _zoom_blur(image: Floats, _: np.random.Generator, step: float, count: int) -> Floats:
    total = image.copy()
    for k in range(count):
        total += zoom(image, 1 + k * step)
    return total / np.float32(count + 1)


def _gaussian_blur(image: Floats, _: np.random.Generator, sigma: float) -> Floats:
    return gaussian_blur(image, scaled_sigma(sigma, length_scale(*_size(image)), least=0.4))


def _snow(
    image: Floats,
    generator: np.random.Generator,
    mean: float,
    size: float,
    threshold: float,
    radius: int,
    sigma: float,
    keep: float,
) -> Floats:
    flakes = snow_flakes(*_size(image), mean, 0.3, size, threshold, generator)
    return snow_fall(image, flakes, radius, sigma, generator.uniform(-135, -45), keep)


def _frost(image: Floats, generator: np.random.Generator, image_share: float, frost_share: float) -> Floats:
    return np.float32(image_share) * image + np.float32(frost_share) * frost_crystals(
        len(image), *_size(image), generator
    )


def _fog(image: Floats, generator: np.random.Generator, amount: float, decay: float) -> Floats:
    highest = float(image.max())
    fog = plasma(*_size(image), decay, generator)
    return (image + np.float32(amount) * fog) * np.float32(highest / (highest + amount))


def _spatter(
    image: Floats,
    generator: np.random.Generator,
    mean: float,
    deviation: float,
    sigma: float,
    threshold: float,
    strength: float,
    mud: bool,
) -> Floats:
    liquid = liquid_field(*_size(image), mean, deviation, sigma, generator)
    if mud:
        return splash_mud(image, liquid, threshold, strength)
    return splash_water(image, np.where(liquid < threshold, np.float32(0), liquid), strength)


def _brightness(image: Floats, _: np.random.Generator, amount: float) -> Floats:
    return brightness(image, amount)


def _saturate(image: Floats, _: np.random.Generator, factor: float, offset: float) -> Floats:
    colour = np.repeat(image, 3, 0) if len(image) == 1 else image
    value = colour.max(0)
    chroma = value - colour
    spread = chroma.max(0)
    # a grey pixel has hue 0, which is red and shows when its saturation rises
    red = np.broadcast_to(np.array([0, 1, 1], dtype=np.float32).reshape(3, 1, 1), chroma.shape).copy()
    share = np.divide(chroma, spread, out=red, where=spread > 0)
    saturation = np.divide(spread, value, out=np.zeros_like(value), where=value > 0)
    saturated = value - share * value * (saturation * factor + offset).clip(0, 1)
    return saturated if len(image) == 3 else luma(saturated)


def _contrast(image: Floats, _: np.random.Generator, factor: float) -> Floats:
    mean = image.mean((1, 2), keepdims=True)
    faded: Floats = (image - mean) * np.float32(factor) + mean
    return faded


def _elastic_transform(
    image: Floats, generator: np.random.Generator, amount: float, sigma: float, jitter: float
) -> Floats:
    height, width = _size(image)
    scale = length_scale(height, width)
    # three corners of a square in the middle move; the affine map takes them back
    middle, side = np.array([height // 2, width // 2]), min(height, width) // 3
    corners = middle + side * np.array([[1, 1], [-1, 1], [-1, -1]])
    reach = jitter * min(height, width) / PUBLISHED_SIZE
    moved = corners + generator.uniform(-reach, reach, corners.shape)
    back = np.linalg.solve(np.column_stack([moved, np.ones(3)]), corners).astype(np.float32)
    rows, columns = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)
    mapped = (rows * back[0, axis] + columns * back[1, axis] + back[2, axis] for axis in (0, 1))
    image = sample(image, *mapped, about_pixels=True)
    # wider smoothing leaves less of white noise; the gain makes the displacement scale with the image
    blur = scaled_sigma(sigma, scale, 3)
    amount *= scale * noise_gain(sigma, 3) / noise_gain(blur, 3)
    noise = generator.random((2, height, width), dtype=np.float32) * 2 - 1
    down, right = (smooth_noise(field, blur) * np.float32(amount) for field in noise)
    return sample(image, rows + down, columns + right, about_pixels=False)


def _pixelate(image: Floats, _: np.random.Generator, share: float) -> Floats:
    height, width = _size(image)
    block = 1 + (1 / share - 1) * length_scale(height, width)
    # a whole number of blocks, rounded down as published: 134.4 becomes 134; 3 / 0.3 must not become 9
    return pixelate(image, int(height / block + 1e-6), int(width / block + 1e-6))


def _jpeg_compression(image: Floats, _: np.random.Generator, quality: int) -> Floats:
    file = BytesIO()
    levels = to_bytes(image)
    picture = pillow.fromarray(levels[0] if len(levels) == 1 else np.ascontiguousarray(levels.transpose(1, 2, 0)))
    picture.save(file, "JPEG", quality=quality)
    with pillow.open(file) as compressed:
        return to_floats(np.asarray(compressed))


def _size(image: Floats) -> tuple[int, int]:
    return image.shape[1], image.shape[2]


_Corruption = Callable[..., Floats]
# the parameters of severities 1 to 5
_CORRUPTIONS: dict[str, tuple[_Corruption, Sequence[tuple[Any, ...]]]] = {
    "gaussian_noise": (gaussian_noise, [(0.08,), (0.12,), (0.18,), (0.26,), (0.38,)]),
    "shot_noise": (shot_noise, [(60,), (25,), (12,), (5,), (3,)]),
    "impulse_noise": (_impulse_noise, [(0.03,), (0.06,), (0.09,), (0.17,), (0.27,)]),
    "defocus_blur": (_defocus_blur, [(3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)]),
    "glass_blur": (_glass_blur, [(0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)]),
    "motion_blur": (_motion_blur, [(10, 3), (15, 5), (15, 8), (15, 12), (20, 15)]),
    "zoom_blur": (_zoom_blur, [(0.01, 12), (0.01, 16), (0.02, 11), (0.02, 13), (0.03, 11)]),
    "snow": (
        _snow,
        [
            (0.1, 3, 0.5, 10, 4, 0.8),
            (0.2, 2, 0.5, 12, 4, 0.7),
            (0.55, 4, 0.9, 12, 8, 0.7),
            (0.55, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 2.5, 0.85, 12, 12, 0.55),
        ],
    ),
    "frost": (_frost, [(1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)]),
    "fog": (_fog, [(1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)]),
    "brightness": (_brightness, [(0.1,), (0.2,), (0.3,), (0.4,), (0.5,)]),
    "contrast": (_contrast, [(0.4,), (0.3,), (0.2,), (0.1,), (0.05,)]),
    "elastic_transform": (
        _elastic_transform,
        # multiples of 244, not 224, as published
        [(488, 170.8, 24.4), (488, 19.52, 48.8), (12.2, 2.44, 4.88), (17.08, 2.44, 4.88), (29.28, 2.44, 4.88)],
    ),
    "pixelate": (_pixelate, [(0.6,), (0.5,), (0.4,), (0.3,), (0.25,)]),
    "jpeg_compression": (_jpeg_compression, [(25,), (18,), (15,), (10,), (7,)]),
    "speckle_noise": (speckle_noise, [(0.15,), (0.2,), (0.35,), (0.45,), (0.6,)]),
    "gaussian_blur": (_gaussian_blur, [(1,), (2,), (3,), (4,), (6,)]),
    "spatter": (
        _spatter,
        [
            (0.65, 0.3, 4, 0.69, 0.6, False),
            (0.65, 0.3, 3, 0.68, 0.6, False),
            (0.65, 0.3, 2, 0.68, 0.5, False),
            (0.65, 0.3, 1, 0.65, 1.5, True),
            (0.67, 0.4, 1, 0.65, 1.5, True),
        ],
    ),
    "saturate": (_saturate, [(0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)]),
}
