"""Filters of images (C, H, W) in float32: blurs, zoom, sampling at given places, fractal noise.

SciPy's `zoom`, 2-D `correlate` and widest Gaussians take 10 to 100 times as long as those here.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from dealias.optional import require
from dealias.perturb._images import Floats

fft, ndimage = require("scipy.fft"), require("scipy.ndimage")

Indices: TypeAlias = npt.NDArray[np.int32]


@lru_cache(maxsize=256)
def gaussian_taps(sigma: float, truncate: float = 4.0) -> Floats:
    """A normalised Gaussian of odd length, cut at `truncate` standard deviations."""
    reach = int(truncate * sigma + 0.5)
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return np.asarray(taps / taps.sum(), dtype=np.float32)


@lru_cache(maxsize=256)
def scaled_sigma(sigma: float, scale: float, truncate: float = 4.0, least: float = 0.0) -> float:
    """The sigma for an image that is `scale` times as large as the published one, which has `sigma`.

    Sampled taps of a Gaussian spread less than the Gaussian if its sigma is below a pixel, and hardly at all below a
    third. The result there is the sigma whose taps have the variance (`scale` * `sigma`) squared. The blur is at least
    `least` pixels, unless `sigma` itself is smaller.
    """
    wanted = max(sigma * scale, min(sigma, least))
    if scale >= 1 or wanted >= 1:
        return wanted
    low, high = 0.25, 1.25
    for _ in range(40):
        middle = (low + high) / 2
        taps = gaussian_taps.__wrapped__(middle, truncate).astype(np.float64)
        spread = float((taps * (np.arange(len(taps)) - len(taps) // 2) ** 2).sum())
        low, high = (middle, high) if spread < wanted**2 else (low, middle)
    return high


def noise_gain(sigma: float, truncate: float = 4.0) -> float:
    """The factor by which a Gaussian blur along both axes reduces the standard deviation of white noise."""
    return float((gaussian_taps(sigma, truncate) ** 2).sum())


def gaussian_blur(image: Floats, sigma: float, truncate: float = 4.0) -> Floats:
    """Gaussian blur; the border's pixels are repeated beyond it."""
    blurred: Floats = ndimage.gaussian_filter(image, sigma, mode="nearest", truncate=truncate, axes=(1, 2))
    return blurred


def motion_blur(image: Floats, radius: float, sigma: float, angle: float) -> Floats:
    """A one-sided Gaussian along a line at `angle` degrees, clockwise from the right: ImageMagick's motion blur.

    The line has 2 * `radius` + 1 taps, the first at the pixel itself. The border's pixels are repeated beyond it.
    """
    steps = np.arange(2 * max(round(radius), 1) + 1)
    taps = np.exp(-0.5 * (steps / sigma) ** 2)
    taps /= taps.sum()
    rows = np.ceil(steps * math.sin(math.radians(angle)) - 0.5).astype(int)
    columns = np.ceil(steps * math.cos(math.radians(angle)) - 0.5).astype(int)
    top, left = -int(rows.min()), -int(columns.min())
    padded = np.pad(image, ((0, 0), (top, int(rows.max())), (left, int(columns.max()))), mode="edge")
    height, width = image.shape[1:]
    result, moved = np.zeros_like(image), np.empty_like(image)
    for tap, row, column in zip(taps.astype(np.float32), rows + top, columns + left, strict=True):
        np.multiply(padded[:, row : row + height, column : column + width], tap, out=moved)
        result += moved
    return result


@lru_cache(maxsize=64)
def disk_kernel(radius: int, alias_sigma: float, scale: float) -> Floats:
    """A disk of `radius` pixels with a softened rim, on a pixel grid `scale` times as fine.

    At other scales than 1 each cell integrates the kernel of scale 1, which is constant within each of its pixels.
    """
    reach = max(radius, 8) + 2
    offsets = np.arange(-reach, reach + 1)
    disk = (offsets[:, None] ** 2 + offsets**2 <= radius**2).astype(np.float64)
    rim = 1 if radius <= 8 else 2
    taps = np.exp(-0.5 * (np.arange(-rim, rim + 1) / alias_sigma) ** 2)
    soften = _band(taps / taps.sum(), len(offsets))
    kernel = soften @ disk @ soften.T
    cells = math.ceil((reach + 0.5) * scale - 0.5)
    edges = (np.arange(-cells, cells + 2) - 0.5) / scale
    low, high = np.maximum(edges[:-1, None], offsets - 0.5), np.minimum(edges[1:, None], offsets + 0.5)
    overlap = np.maximum(high - low, 0)
    kernel = overlap @ kernel @ overlap.T
    return np.asarray(kernel / kernel.sum(), dtype=np.float32)


def _band(taps: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.float64]:
    reach = len(taps) // 2
    return sum((np.eye(size, k=k) * taps[reach + k] for k in range(-reach, reach + 1)), np.zeros((size, size)))


def defocus(image: Floats, radius: int, alias_sigma: float, scale: float) -> Floats:
    """Correlate with `disk_kernel`; beyond its border the image is mirrored about its outermost pixels."""
    reach = len(disk_kernel(radius, alias_sigma, scale)) // 2
    padded = np.pad(image, ((0, 0), (reach, reach), (reach, reach)), mode="reflect")
    shape = tuple(fft.next_fast_len(length, real=True) for length in padded.shape[1:])
    spectrum = fft.rfft2(padded, shape)
    spectrum *= _disk_spectrum(radius, alias_sigma, scale, shape)
    blurred: Floats = fft.irfft2(spectrum, shape)[:, 2 * reach : padded.shape[1], 2 * reach : padded.shape[2]]
    return blurred


@lru_cache(maxsize=16)
def _disk_spectrum(radius: int, alias_sigma: float, scale: float, shape: tuple[int, int]) -> npt.NDArray[np.complex64]:
    spectrum: npt.NDArray[np.complex64] = fft.rfft2(disk_kernel(radius, alias_sigma, scale), shape)
    return spectrum


def smooth_noise(noise: Floats, sigma: float, truncate: float = 3.0) -> Floats:
    """Gaussian blur of (H, W), mirrored at the border, at a cost that does not grow with `sigma`.

    The DCT-II diagonalises a symmetric filter of an image that is mirrored about the outer edges of its pixels.
    """
    height, width = noise.shape
    response = _dct_response(height, sigma, truncate)[:, None] * _dct_response(width, sigma, truncate)
    smooth: Floats = fft.idctn(fft.dctn(noise) * response)
    return smooth


@lru_cache(maxsize=64)
def _dct_response(length: int, sigma: float, truncate: float) -> Floats:
    taps = gaussian_taps(sigma, truncate)
    offsets = np.arange(len(taps)) - len(taps) // 2
    waves = np.cos(np.pi / length * np.arange(length)[:, None] * offsets)
    # not a matrix product: BLAS may round differently with another number of threads
    return np.asarray((waves * taps).sum(1), dtype=np.float32)


def zoom(image: Floats, factor: float) -> Floats:
    """Magnify the middle of `image` `factor` >= 1 times, bilinearly, to the size of `image`."""
    _, height, width = image.shape
    first, share = _zoom_grid(height, factor)
    rows = _between(image.take(first, 1), image.take(np.minimum(first + 1, height - 1), 1), share[:, None])
    first, share = _zoom_grid(width, factor)
    return _between(rows.take(first, 2), rows.take(np.minimum(first + 1, width - 1), 2), share)


def _between(low: Floats, high: Floats, share: Floats) -> Floats:
    """`low` + `share` * (`high` - `low`); both are overwritten."""
    high -= low
    high *= share
    high += low
    return high


@lru_cache(maxsize=1024)
def _zoom_grid(length: int, factor: float) -> tuple[Indices, Floats]:
    # as published: crop ceil(length / factor) pixels, stretch corner to corner, trim the excess
    cropped = math.ceil(length / factor)
    stretched = round(cropped * factor)
    start, trim = (length - cropped) // 2, (stretched - length) // 2
    places = start + (trim + np.arange(length)) * ((cropped - 1) / (stretched - 1))
    first = np.floor(places).astype(np.int32)
    return first, (places - first).astype(np.float32)


def pixelate(image: Floats, rows: int, columns: int) -> Floats:
    """Replace each pixel by the mean of the block, of `rows` x `columns`, in which its centre lies."""
    for axis, count in ((1, rows), (2, columns)):
        length = image.shape[axis]
        first, share, block = _block_grid(length, count)
        edge = [(0, 0)] * 3
        edge[axis] = (1, 0)
        # sums up to each block's edge, in float64: a block's sum is the difference of two far larger ones
        sums = np.pad(image, edge).cumsum(axis, dtype=np.float64)
        share = share if axis == 2 else share[:, None]
        low, high = sums.take(first, axis), sums.take(np.minimum(first + 1, length), axis)
        means = np.diff(low + share * (high - low), axis=axis) * (count / length)
        image = means.astype(np.float32).take(block, axis)
    return image


@lru_cache(maxsize=256)
def _block_grid(length: int, count: int) -> tuple[Indices, npt.NDArray[np.float64], Indices]:
    edges = np.arange(count + 1) * (length / count)
    first = edges.astype(np.int32)
    block = ((np.arange(length) + 0.5) * (count / length)).astype(np.int32)
    return first, np.asarray(edges - first, dtype=np.float64), block


def sample(image: Floats, rows: Floats, columns: Floats, *, about_pixels: bool) -> Floats:
    """Bilinear values at `rows` and `columns` (H, W); beyond its border the image is mirrored.

    The mirrors are the outermost pixels' centres if `about_pixels`, else their outer edges.
    """
    mode = "mirror" if about_pixels else "reflect"
    return np.stack([ndimage.map_coordinates(plane, (rows, columns), order=1, mode=mode) for plane in image])


def plasma(height: int, width: int, decay: float, generator: np.random.Generator) -> Floats:
    """Fractal noise (height, width) in [0, 1]: the diamond-square algorithm on a torus.

    At each halving of the step the random displacements shrink by `decay` squared.
    """
    heights = np.zeros((1, 1), dtype=np.float32)
    amplitude = 1.0
    while len(heights) < max(height, width):
        size = len(heights)
        after, before = np.arange(1, size + 1) % size, np.arange(-1, size - 1) % size
        wobble = generator.random((3, size, size), dtype=np.float32)
        wobble -= 0.5
        wobble *= 2 * amplitude
        pairs = heights + heights[:, after]
        middles = (pairs + pairs[after]) / 4 + wobble[0]
        finer = np.empty((2 * size, 2 * size), dtype=np.float32)
        finer[::2, ::2], finer[1::2, 1::2] = heights, middles
        finer[::2, 1::2] = (pairs + middles + middles[before]) / 4 + wobble[1]
        finer[1::2, ::2] = (heights + heights[after] + middles + middles[:, before]) / 4 + wobble[2]
        heights = finer
        amplitude /= decay**2
    heights -= heights.min()
    heights /= heights.max()
    return heights[:height, :width]
