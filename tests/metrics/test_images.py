"""PSNR against torchmetrics and plain NumPy; a network with noise of known strength."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio

from dealias.errors import InputError, InputTypeError
from dealias.metrics import EquivariancePSNR, equivariance_psnr


def test_the_value_is_pooled_over_samples_like_torchmetrics() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 4, 3, 10, 12, generator=generator)
    found = equivariance_psnr(a, b, (2, -3), data_range=1.0)
    expected = peak_signal_noise_ratio(b[:, :, 2:, :9], a[:, :, :8, 3:], data_range=1.0)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    metric = EquivariancePSNR(1.0)
    metric.update(a[:1], b[:1], (2, -3))
    metric.update(a[1:], b[1:], torch.tensor([[2, -3]] * 3))
    assert metric.compute().item() == pytest.approx(found.item(), rel=1e-6)


def test_shifts_of_their_own_are_plain_loops() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.uniform(-1, 1, (2, 3, 1, 6, 7))
    shifts = [(0, 1), (-2, 0), (3, -4)]
    errors = [
        (a[n, 0, y, x] - b[n, 0, y + dy, x + dx]) ** 2
        for n, (dy, dx) in enumerate(shifts)
        for y in range(6)
        for x in range(7)
        if 0 <= y + dy < 6 and 0 <= x + dx < 7
    ]
    expected = 20 * math.log10(2) - 10 * math.log10(np.mean(errors))
    assert equivariance_psnr(torch.tensor(a), torch.tensor(b), torch.tensor(shifts)).item() == pytest.approx(expected)


def test_an_equivariant_network_has_no_noise_and_known_noise_its_closed_form() -> None:
    generator = torch.Generator().manual_seed(1)
    scene = torch.rand(40, 1, 20, 20, generator=generator)
    assert equivariance_psnr(scene[:, :, 2:], scene[:, :, :-2], (2, 0)) == math.inf
    metric, sigma = EquivariancePSNR(), 0.1
    metric.update(*(scene + sigma * torch.randn(scene.shape, generator=generator) for _ in range(2)), shift=(0, 0))
    low, high = metric.interval(0.99)
    assert low < 20 * math.log10(2) - 10 * math.log10(2 * sigma**2) < high
    assert high - low < 0.6


def test_fractions_of_a_pixel_are_undone_in_smooth_images() -> None:
    """Waves of at least four pixels, whose values between the pixels are known."""

    def waves(dy: float, dx: float) -> torch.Tensor:
        y, x = torch.meshgrid(torch.arange(40.0) - dy, torch.arange(48.0) - dx, indexing="ij")
        return torch.stack([torch.sin(0.9 * x + 0.3 * y), torch.cos(1.5 * y - 0.2 * x)])[None].double()

    for shift in ((0.25, 0), (-1.5, 2.75), (0.1, -0.9), (3, 0.5)):
        assert equivariance_psnr(waves(0, 0), waves(*shift), shift).item() > 50
        rounded = round(shift[0]), round(shift[1])
        assert equivariance_psnr(waves(0, 0), waves(*rounded), shift).item() < 30


def test_bad_input() -> None:
    good = torch.rand(1, 1, 4, 4)
    for value in (0, -1.0, math.inf):
        with pytest.raises(InputError, match="data_range"):
            EquivariancePSNR(value)
    with pytest.raises(InputTypeError, match="data_range"):
        EquivariancePSNR("2")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="b has NaN"):
        equivariance_psnr(good, good * math.nan, (0, 0))
    with pytest.raises(InputTypeError, match="uint8"):
        equivariance_psnr(good.byte(), good.byte(), (0, 0))
    with pytest.raises(InputError, match="nothing in common of maps of 4x4, without the 5 pixels beside the border"):
        equivariance_psnr(good, good, (0.5, 0))
