"""The filters of images against SciPy and formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from dealias.perturb import _filters as filters

NOISE = np.random.default_rng(0).standard_normal((2, 24, 30), dtype=np.float32)


@pytest.mark.parametrize("sigma", [0.7, 3.0, 11.0])
def test_smooth_noise_is_scipys_mirrored_gaussian(sigma: float) -> None:
    expected = ndimage.gaussian_filter(NOISE[0].astype(np.float64), sigma, mode="reflect", truncate=3)
    np.testing.assert_allclose(filters.smooth_noise(NOISE[0], sigma), expected, atol=1e-5)


@pytest.mark.parametrize("factor", [1.0, 1.11, 1.5, 2.3])
def test_zoom_is_scipys_stretched_crop(factor: float) -> None:
    expected = NOISE
    for axis, length in ((1, 24), (2, 30)):
        cropped = math.ceil(length / factor)
        part = expected.take(range((length - cropped) // 2, (length - cropped) // 2 + cropped), axis)
        stretched = ndimage.zoom(part, [factor if each == axis else 1 for each in range(3)], order=1)
        trim = (stretched.shape[axis] - length) // 2
        expected = stretched.take(range(trim, trim + length), axis)
    np.testing.assert_allclose(filters.zoom(NOISE, factor), expected, atol=2e-5)


@pytest.mark.parametrize(("angle", "step"), [(0, (0, 1)), (90, (1, 0)), (180, (0, -1)), (45, None)])
def test_motion_blur_is_a_sum_along_its_line(angle: float, step: tuple[int, int] | None) -> None:
    taps = np.exp(-0.5 * (np.arange(7) / 2.0) ** 2)
    expected = np.zeros_like(NOISE, dtype=np.float64)
    for k, tap in enumerate(taps / taps.sum()):
        diagonal = math.ceil(k * math.sqrt(0.5) - 0.5)
        down, right = (k * step[0], k * step[1]) if step else (diagonal, diagonal)
        rows, columns = (np.arange(24) + down).clip(0, 23), (np.arange(30) + right).clip(0, 29)
        expected += tap * NOISE[:, rows][:, :, columns]
    np.testing.assert_allclose(filters.motion_blur(NOISE, 3, 2.0, angle), expected, atol=1e-5)


def test_defocus_is_a_correlation_with_its_disk() -> None:
    kernel = filters.disk_kernel(4, 0.5, 0.5).astype(np.float64)
    expected = [ndimage.correlate(plane.astype(np.float64), kernel, mode="mirror") for plane in NOISE]
    np.testing.assert_allclose(filters.defocus(NOISE, 4, 0.5, 0.5), expected, atol=1e-5)
    assert kernel.sum() == pytest.approx(1)
    whole = filters.disk_kernel(6, 0.1, 1.0)  # hardly softened: the pixels within the radius, all alike
    offsets = np.arange(len(whole)) - len(whole) // 2
    disk = (offsets[:, None] ** 2 + offsets**2 <= 36).astype(np.float64)
    np.testing.assert_allclose(whole, disk / disk.sum(), atol=1e-6)


def test_pixelate_gives_each_pixel_the_mean_of_its_block() -> None:
    fine = NOISE.astype(np.float64).repeat(2, 1).repeat(2, 2)  # 16 blocks of 1.5 pixels are 3 halves each
    means = fine.reshape(2, 16, 3, 20, 3).mean((2, 4))
    rows, columns = ((np.arange(length) + 0.5) // 1.5 for length in (24, 30))
    expected = means[:, rows.astype(int)][:, :, columns.astype(int)]
    np.testing.assert_allclose(filters.pixelate(NOISE, 16, 20), expected, atol=1e-5)


@pytest.mark.parametrize(("about_pixels", "beyond"), [(True, 1), (False, 0)])
def test_sample_mirrors_beyond_the_border(about_pixels: bool, beyond: int) -> None:
    rows, columns = np.mgrid[:24, :30].astype(np.float32)
    moved = filters.sample(NOISE, rows - 1, columns + 0.25, about_pixels=about_pixels)
    between = 0.75 * NOISE[:, :, :-1] + 0.25 * NOISE[:, :, 1:]
    np.testing.assert_allclose(moved[:, 1:, :-1], between[:, :-1], atol=1e-5)
    np.testing.assert_allclose(moved[:, 0, :-1], between[:, beyond], atol=1e-5)


def test_sigmas_keep_their_variance_and_gain() -> None:
    taps = filters.gaussian_taps(filters.scaled_sigma(3.0, 0.15)).astype(np.float64)
    offsets = np.arange(len(taps)) - len(taps) // 2
    assert (taps * offsets**2).sum() == pytest.approx(0.45**2, rel=1e-3)
    assert filters.scaled_sigma(3.0, 2.0) == 6.0
    noise = np.random.default_rng(1).standard_normal((1, 256, 256), dtype=np.float32)
    assert filters.gaussian_blur(noise, 1.5).std() == pytest.approx(filters.noise_gain(1.5), rel=0.03)


def test_plasma_fills_its_range_and_is_smoother_where_it_decays_faster() -> None:
    rough, smooth = (filters.plasma(32, 32, decay, np.random.default_rng(0)) for decay in (1.2, 2.0))
    for heights in (rough, smooth):
        assert (heights.min(), heights.max()) == (0, 1)
    assert np.abs(np.diff(smooth)).mean() < 0.7 * np.abs(np.diff(rough)).mean()
    part = filters.plasma(20, 31, 2.0, np.random.default_rng(0))
    np.testing.assert_array_equal(part, smooth[:20, :31])
