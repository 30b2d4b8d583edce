"""Snow, frost and spatter against their formulas."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from dealias.perturb import _weather as weather

RNG = np.random.default_rng
IMAGE = RNG(0).random((3, 24, 28), dtype=np.float32)


def test_liquid_at_the_published_size_is_smoothed_noise() -> None:
    noise = RNG(1).standard_normal((224, 230), dtype=np.float32)
    expected = 0.65 + 0.3 * ndimage.gaussian_filter(noise, 3.0, mode="nearest")
    np.testing.assert_allclose(weather.liquid_field(224, 230, 0.65, 0.3, 3.0, RNG(1)), expected, atol=1e-5)
    small = weather.liquid_field(64, 64, 0.65, 0.3, 3.0, RNG(1))  # as uneven as at 224
    assert small.std() == pytest.approx(expected.std(), rel=0.2)


def test_drops_run_down_by_a_convolution_of_each_column() -> None:
    liquid = RNG(2).random((30, 5)).astype(np.float32)
    expected = np.column_stack([np.convolve(column, (0.05, 0.1, 0.15, 0.7), mode="same") for column in liquid.T])
    np.testing.assert_allclose(weather.drip(liquid), expected, atol=1e-6)


def test_snow_whitens_and_its_flakes_fall_from_both_ends() -> None:
    clear = weather.snow_fall(IMAGE, np.zeros((1, 24, 28), np.float32), 10, 4, 45, 0.8)
    grey = 0.299 * IMAGE[0] + 0.587 * IMAGE[1] + 0.114 * IMAGE[2]
    np.testing.assert_allclose(clear, 0.8 * IMAGE + 0.2 * np.maximum(IMAGE, 1.5 * grey + 0.5), atol=1e-6)
    flakes = weather.snow_flakes(24, 28, 0.55, 0.3, 3, 0.5, RNG(3))
    assert ((flakes == 0) | ((flakes >= 0.5) & (flakes <= 1))).all()
    assert 0.1 < (flakes > 0).mean() < 0.9
    fallen = weather.snow_fall(IMAGE, flakes, 10, 4, 45, 0.8) - clear
    np.testing.assert_allclose(fallen, fallen[:, ::-1, ::-1], atol=1e-6)
    assert fallen.mean() == pytest.approx(2 * flakes.mean(), rel=0.3)


def test_frost_lies_between_glass_and_ice() -> None:
    crystals = weather.frost_crystals(3, 32, 40, RNG(4))
    for plane, glass, ice in zip(crystals, (0.15, 0.25, 0.31), (0.93, 0.97, 1.0), strict=True):
        assert glass <= plane.min() < plane.max() <= ice + 1e-6
        np.testing.assert_allclose((plane - glass) / (ice - glass), (crystals[0] - 0.15) / 0.78, atol=1e-5)


def test_dry_places_stay_and_mud_is_opaque() -> None:
    dry, wet = np.zeros((24, 28), np.float32), np.ones((24, 28), np.float32)
    np.testing.assert_array_equal(weather.splash_water(IMAGE, dry, 0.6), IMAGE)
    np.testing.assert_array_equal(weather.splash_mud(IMAGE, dry, 0.65, 1), IMAGE)
    mud = weather.splash_mud(IMAGE, wet, 0.65, 1)
    np.testing.assert_allclose(mud, np.broadcast_to(np.array([[[63]], [[42]], [[20]]]) / 255, mud.shape), atol=1e-6)
    wet[:, :14] = 0
    lit = weather.splash_water(IMAGE, wet, 0.6) - IMAGE
    assert not lit[:, :, :13].any()
    assert 0 < lit.max() <= 0.6 * 238 / 255 + 1e-6


def test_equalised_levels_fill_the_range_by_their_ranks() -> None:
    levels = np.array([[3, 3, 5], [5, 5, 9]], np.uint8)
    assert weather._equalise(levels).tolist() == [[0, 0, round(3 / 4 * 255)], [round(3 / 4 * 255)] * 2 + [255]]
