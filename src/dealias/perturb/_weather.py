"""Snow, frost and spatter: weather between the scene and the camera."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dealias.optional import require
from dealias.perturb._filters import gaussian_blur, motion_blur, noise_gain, plasma, scaled_sigma, zoom
from dealias.perturb._images import Floats, length_scale, luma, tint

ndimage = require("scipy.ndimage")
# sigmas in pixels: splashes of mud smaller than pixels would cover twice as much of the image
_LEAST_FIELD, _LEAST_MUD = 0.5, 0.75


def snow_flakes(
    height: int,
    width: int,
    mean: float,
    deviation: float,
    size: float,
    threshold: float,
    generator: np.random.Generator,
) -> Floats:
    """Flakes (1, H, W): normal noise, magnified `size` times, with values below `threshold` set to 0."""
    noise = mean + deviation * generator.standard_normal((1, height, width), dtype=np.float32)
    # flakes have at least 1.5 pixels: noise that is not interpolated passes the threshold far more often
    flakes = zoom(noise, max(size * length_scale(height, width), min(size, 1.5)))
    return np.where(flakes < threshold, np.float32(0), flakes.clip(0, 1))


def snow_fall(image: Floats, flakes: Floats, radius: float, sigma: float, angle: float, keep: float) -> Floats:
    """Whiten `image` and lay two layers of moving flakes over it; `keep` is the share of the image that stays."""
    scale = length_scale(image.shape[1], image.shape[2])
    streaks = motion_blur(flakes, radius * scale, sigma * scale, angle)
    whitened = keep * image + (1 - keep) * np.maximum(image, luma(image) * 1.5 + 0.5)
    snowy: Floats = whitened + streaks + streaks[:, ::-1, ::-1]
    return snowy


def frost_crystals(channels: int, height: int, width: int, generator: np.random.Generator) -> Floats:
    """A computed picture of frost on glass: bright needles in six directions on bluish ice of uneven thickness."""
    scale = length_scale(height, width)
    angle = generator.uniform(0, 60)
    needles = np.zeros((1, height, width), dtype=np.float32)
    for k in range(6):
        seeds = generator.random((1, height, width), dtype=np.float32)
        # one pixel in 25 starts a needle, some much brighter than others; none at the border, which blurs repeat
        seeds = ((seeds - (1 - 1 / 25)) * 25).clip(0) ** 2
        seeds[:, [0, -1]] = seeds[:, :, [0, -1]] = 0
        direction = angle + 60 * k + generator.uniform(-12, 12)
        np.maximum(needles, motion_blur(seeds, 14 * scale, 9 * scale, direction), out=needles)
    needles *= 1.6 / needles.max()
    thickness = plasma(height, width, 1.6, generator)
    opacity = generator.uniform(0, 0.3) + 0.2 * thickness + (0.3 + thickness) * needles
    glass, ice = tint(0.15, 0.25, 0.31, channels), tint(0.93, 0.97, 1.0, channels)
    crystals: Floats = glass + opacity.clip(0, 1).astype(np.float32) * (ice - glass)
    return crystals


def liquid_field(
    height: int, width: int, mean: float, deviation: float, sigma: float, generator: np.random.Generator
) -> Floats:
    """Normal noise (H, W), smoothed by `sigma` pixels at 224, with the standard deviation that it has at 224."""
    scaled = scaled_sigma(sigma, length_scale(height, width), least=_LEAST_FIELD)
    smooth = gaussian_blur(generator.standard_normal((1, height, width), dtype=np.float32), scaled)[0]
    liquid: Floats = mean + deviation * noise_gain(sigma) / noise_gain(scaled) * smooth
    return liquid


def splash_water(image: Floats, liquid: Floats, strength: float) -> Floats:
    """Draw drops of pale water, lit from one side, where `liquid` (H, W) is not 0."""
    channels, height, width = image.shape
    levels = (liquid.clip(0, 1) * 255).astype(np.uint8)
    wet = levels > 0
    rim = wet & ~ndimage.binary_erosion(wet, border_value=1)
    if not rim.any():
        return image
    reach = 20 * length_scale(height, width)
    distance = np.minimum(ndimage.distance_transform_edt(~rim), reach) * (20 / reach)
    depth = _equalise(ndimage.uniform_filter(distance, 3, mode="mirror").astype(np.uint8))
    relief = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    light = ndimage.correlate(depth.astype(np.float32), relief, mode="mirror").clip(0, 255)
    light = ndimage.uniform_filter(light, 3, mode="mirror") * levels
    shine = (light * (strength / max(float(light.max()), 1.0))).astype(np.float32)
    lit: Floats = image + shine * tint(175 / 255, 238 / 255, 238 / 255, channels)
    return lit


def splash_mud(image: Floats, liquid: Floats, threshold: float, sigma: float) -> Floats:
    """Draw opaque mud where `liquid` (H, W) is over `threshold`."""
    scale = length_scale(image.shape[1], image.shape[2])
    mud = gaussian_blur((liquid > threshold).astype(np.float32)[None], scaled_sigma(sigma, scale, least=_LEAST_MUD))
    mud[mud < 0.8] = 0
    return image * (1 - mud) + mud * tint(63 / 255, 42 / 255, 20 / 255, len(image))


def drip(liquid: Floats) -> Floats:
    """The `liquid` (H, W) of the next frame, which has run down a little."""
    taps = (0.05, 0.1, 0.15, 0.7)
    # origin -1: as numpy.convolve(mode="same"), which made the released sequences
    run_down: Floats = ndimage.convolve1d(liquid, taps, axis=0, mode="constant", origin=-1)
    return run_down


def _equalise(levels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Equalise the histogram as OpenCV does: the lowest level becomes 0, the highest 255."""
    cumulative = np.bincount(levels.ravel(), minlength=256).cumsum()
    lowest = cumulative[levels.min()]
    spread = max(int(cumulative[-1] - lowest), 1)
    table = ((cumulative - lowest).clip(0) * (255 / spread)).round().astype(np.uint8)
    return np.asarray(table[levels])
