"""The shift primitives against NumPy and torchvision, image by image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dealias.errors import InputError, InputTypeError
from dealias.optional import import_torchvision
from dealias.perturb import circular_shift, crop, fourier_shift, resize_and_crop, zero_fill_shift

IMAGES = torch.randn(4, 2, 6, 7, generator=torch.Generator().manual_seed(0))
DY, DX = [0, 3, -2, 13], [1, -7, 4, -20]


@pytest.mark.parametrize(
    "images", [IMAGES, (IMAGES * 50).to(torch.uint8), IMAGES.to(memory_format=torch.channels_last)]
)
def test_circular_shift_is_numpy_roll(images: torch.Tensor) -> None:
    shifted_images = circular_shift(images, DY, torch.tensor(DX))
    for image, shifted, dy, dx in zip(images, shifted_images, DY, DX, strict=True):
        assert np.array_equal(shifted.numpy(), np.roll(image.numpy(), (dy, dx), (1, 2)))
    assert torch.equal(circular_shift(images, 2, -1), images.roll((2, -1), (2, 3)))


@pytest.mark.parametrize("fill", [0.0, -1.5])
def test_zero_fill_shift_is_a_window_of_the_padded_image(fill: float) -> None:
    shifted_images = zero_fill_shift(IMAGES, DY, DX, fill)
    pad = 25
    padded = np.pad(IMAGES.numpy(), [(0, 0), (0, 0), (pad, pad), (pad, pad)], constant_values=fill)
    for index, (dy, dx) in enumerate(zip(DY, DX, strict=True)):
        expected = padded[index, :, pad - dy : pad - dy + 6, pad - dx : pad - dx + 7]
        assert np.array_equal(shifted_images[index].numpy(), expected)


def test_crop_is_a_slice() -> None:
    tops, lefts = [0, 1, 2, 2], [3, 0, 1, 2]
    windows = crop(IMAGES, tops, lefts, (4, 3))
    for image, window, top, left in zip(IMAGES, windows, tops, lefts, strict=True):
        assert torch.equal(window, image[:, top : top + 4, left : left + 3])
    assert torch.equal(crop(IMAGES, 1, 2, 5), IMAGES[:, :, 1:6, 2:7])


@pytest.mark.parametrize("size", [(40, 64), (64, 40), (33, 47), (24, 24), (24, 31), (11, 17)])
def test_resize_and_crop_is_torchvisions(size: tuple[int, int]) -> None:
    import_torchvision()
    from torchvision.transforms import CenterCrop, Compose, Resize

    images = torch.rand(2, 3, *size)
    expected = Compose([Resize(24, antialias=True), CenterCrop(24)])(images)
    assert torch.allclose(resize_and_crop(images, 24), expected, atol=1e-6)


def test_one_image_without_a_batch_axis() -> None:
    image = IMAGES[0]
    for function, arguments in [
        (circular_shift, (2, -3)),
        (zero_fill_shift, (-1, 2)),
        (crop, (1, 2, 4)),
        (resize_and_crop, (5,)),
    ]:
        assert torch.equal(function(image, *arguments), function(image[None], *arguments)[0])


def test_bad_input() -> None:
    with pytest.raises(InputError, match="N, C, H, W"):
        circular_shift(IMAGES[0, 0], 0, 0)
    with pytest.raises(InputTypeError, match="Tensor"):
        circular_shift(IMAGES.numpy(), 0, 0)
    with pytest.raises(InputError, match="4, one for each"):
        zero_fill_shift(IMAGES, [1, 2], 0)
    with pytest.raises(InputTypeError, match=r"dx=1\.5"):
        zero_fill_shift(IMAGES, 0, 1.5)
    for top, left, size in [(3, 0, 4), (-1, 0, 4), (0, 4, 4)]:
        with pytest.raises(InputError, match="reach beyond"):
            crop(IMAGES, top, left, size)
    with pytest.raises(InputError, match="size=0"):
        crop(IMAGES, 0, 0, 0)
    with pytest.raises(InputError, match="size=0"):
        resize_and_crop(IMAGES, 0)


@pytest.mark.parametrize(("height", "width"), [(7, 9), (8, 6), (1, 4)])
def test_fourier_shifts_of_whole_pixels_are_circular_and_others_band_limited(height: int, width: int) -> None:
    images = torch.rand(3, 2, height, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = fourier_shift(images, [0, 2, -3], [1, -5, 0])
    assert torch.allclose(whole, circular_shift(images, [0, 2, -3], [1, -5, 0]), atol=1e-12)
    half = fourier_shift(images, 0.5, -0.25)
    rows, columns = (np.fft.fftfreq(size) * size for size in (height, width))
    for axis, shift, frequencies in ((2, 0.5, rows), (3, -0.25, columns)):
        # each sample is the sum of its frequencies, evaluated elsewhere; Nyquist's cosine is seen as a real number
        samples = np.arange(images.shape[axis])[:, None] - shift
        waves = np.exp(2j * np.pi * samples * frequencies / images.shape[axis])
        spectrum = np.fft.fft(images.numpy(), axis=axis)
        images = torch.from_numpy(np.moveaxis(np.moveaxis(spectrum, axis, -1) @ waves.T, -1, axis).real)
        images = images / images.shape[axis]
    np.testing.assert_allclose(half.numpy(), images.numpy(), atol=1e-12)
    assert fourier_shift(images[0].float(), 0.5, 0).dtype == torch.float32
    with pytest.raises(InputTypeError, match="float images"):
        fourier_shift(torch.zeros(1, 4, 4, dtype=torch.uint8), 0.5, 0)
    with pytest.raises(InputError, match="finite"):
        fourier_shift(images, float("nan"), 0)


def test_fourier_shift_is_as_exact_as_the_images() -> None:
    places = torch.arange(15, dtype=torch.float64) * 2 * torch.pi / 15
    moved = fourier_shift(places.cos().expand(1, 1, 15, 15), 0, 0.1)
    expected = (places - 0.1 * 2 * torch.pi / 15).cos().expand(1, 1, 15, 15)
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-14)
