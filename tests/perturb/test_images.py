"""Conversion between users' images and float32 planes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from dealias.errors import InputTypeError
from dealias.perturb._images import check_generator, length_scale, like, luma, tint, to_bytes, to_floats

LEVELS = np.arange(256, dtype=np.uint8).reshape(16, 16)
COLOURS = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)


@pytest.mark.parametrize("image", [LEVELS, LEVELS[:, :, None], COLOURS, COLOURS / 255, (COLOURS / 255).astype("f4")])
def test_images_come_back_as_they_were(image: np.ndarray) -> None:
    floats = to_floats(image)
    expected = (image[None] if image.ndim == 2 else np.moveaxis(image, 2, 0)) / (255 if image.dtype == np.uint8 else 1)
    assert floats.dtype == np.float32
    assert floats.flags.c_contiguous
    np.testing.assert_allclose(floats, expected, atol=1e-7)
    back = like(floats, image)
    assert back.dtype == image.dtype
    assert back.flags.c_contiguous
    np.testing.assert_allclose(back, image, atol=0 if image.dtype == np.uint8 else 1e-7)


def test_bytes_are_clipped_and_rounded_to_the_nearest() -> None:
    values = np.array([-0.5, 0.4 / 255, 0.6 / 255, 254.4 / 255, 254.6 / 255, 1.5], dtype=np.float32)
    assert to_bytes(values).tolist() == [0, 0, 1, 254, 255, 255]


def test_luma_is_pillows() -> None:
    grey = np.asarray(Image.fromarray(COLOURS).convert("L"))
    assert np.abs(luma(to_floats(COLOURS))[0] * 255 - grey).max() <= 0.51
    assert tint(0.2, 0.5, 1.0, 3).shape == (3, 1, 1)
    assert tint(0.2, 0.5, 1.0, 1).item() == pytest.approx(0.299 * 0.2 + 0.587 * 0.5 + 0.114)


def test_lengths_scale_with_the_shorter_side() -> None:
    assert [length_scale(*size) for size in ((224, 300), (448, 500), (112, 99), (20, 32))] == [1, 2, 99 / 224, 0.25]


def test_a_generator_is_asked_for() -> None:
    check_generator(np.random.default_rng(0))
    with pytest.raises(InputTypeError, match="RandomState: use numpy"):
        check_generator(np.random.RandomState(0))
