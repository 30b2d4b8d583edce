"""Pans: the frames show the photograph where the path says, also between pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage import data
from skimage.registration import phase_cross_correlation

from dealias.errors import InputError, InputTypeError
from dealias.perturb.pans import Kernel, Pan, slide

PHOTO = torch.from_numpy(data.camera().copy())[None]


@pytest.mark.parametrize("kernel", ["lanczos", "fourier"])
@pytest.mark.parametrize("step", [(1.0, 1.0), (0.25, -0.25), (0.5, 0.0), (-0.3, 1.7)])
def test_the_displacement_is_recovered_from_the_frames(kernel: Kernel, step: tuple[float, float]) -> None:
    pan = slide(PHOTO, (256, 256), frames=5, step=step, kernel=kernel)
    window = np.outer(np.hanning(256), np.hanning(256))
    for number in range(1, 5):
        wanted = np.subtract(pan.shifts[number], pan.shifts[0])
        # Registration under a window is biased for motions of whole pixels: these are undone first.
        whole = np.round(wanted).astype(int)
        y, x = pan.path[0]
        still = Pan(PHOTO, (256, 256), [(y - whole[0], x - whole[1])], kernel)[0][0].numpy() * window
        found, _, _ = phase_cross_correlation(
            pan[number][0].numpy() * window, still, upsample_factor=100, normalization=None
        )
        assert np.abs(found + whole - wanted).max() <= 0.02 + 1e-9


def test_whole_places_show_the_photograph_s_own_pixels() -> None:
    pan = slide(PHOTO, (30, 40), frames=4, step=(2, -1))
    for (y, x), frame in zip(pan.path, pan, strict=True):
        assert torch.equal(frame, PHOTO[:, int(y) : int(y) + 30, int(x) : int(x) + 40])
    assert [tuple(np.subtract(b, a)) for a, b in zip(pan.shifts, pan.shifts[1:], strict=False)] == [(-2, 1)] * 3


def test_lanczos_is_the_sum_of_its_definition() -> None:
    row = torch.rand(1, 1, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    frame = Pan(row, (1, 5), [(0, 7.3)])[0]
    for place in range(5):
        at = 7.3 + place
        near = np.arange(np.floor(at) - 4, np.floor(at) + 6)
        taps = np.sinc(at - near) * np.sinc((at - near) / 5)
        assert float(frame[0, 0, place]) == pytest.approx(
            (taps * row[0, 0].numpy()[near.astype(int)]).sum() / taps.sum()
        )


def test_a_wave_is_sampled_between_its_pixels() -> None:
    columns = torch.arange(64, dtype=torch.float64)
    wave = torch.sin(2 * torch.pi * columns / 16).expand(1, 8, 64)
    wanted = torch.sin(2 * torch.pi * (columns[10:30] + 0.25) / 16)
    for kernel, error in (("fourier", 1e-12), ("lanczos", 0.01)):
        frame = Pan(wave, (4, 20), [(2, 10.25)], kernel)[0]
        assert float((frame[0, 1] - wanted).abs().max()) < error


@given(
    st.integers(1, 9), st.integers(1, 9), st.floats(-2, 2), st.floats(-2, 2), st.integers(1, 5), st.sampled_from([1, 3])
)
def test_any_path_that_fits_has_frames_of_its_size(
    height: int, width: int, down: float, right: float, frames: int, channels: int
) -> None:
    photo = torch.full((channels, 30, 30), 100, dtype=torch.uint8)
    pan = slide(photo, (height, width), frames=frames, step=(down, right))
    assert len(pan) == frames
    for frame in pan:
        assert torch.equal(frame, photo[:, :height, :width])  # constants stay constant


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"photo": None}, InputTypeError, "photo=None"),
        ({"photo": torch.zeros(1, 9, 9, dtype=torch.int32)}, InputTypeError, "of uint8 or float"),
        ({"photo": torch.zeros(9, 9)}, InputTypeError, "photo="),
        ({"size": (40, 4)}, InputError, r"size=\(40, 4\) need a photo of at least"),
        ({"frames": 0}, InputError, "frames=0"),
        ({"frames": 99}, InputError, "frames=99"),
        ({"step": (torch.nan, 1)}, InputError, "step="),
        ({"step": (1,)}, InputError, "step="),
        ({"kernel": "cubic"}, InputError, "kernel='cubic'"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    good: dict[str, Any] = {"photo": torch.zeros(1, 20, 20), "size": (4, 4), "frames": 3}
    with pytest.raises(error, match=message):
        slide(**(good | arguments))


def test_a_path_beyond_the_photograph_is_refused() -> None:
    with pytest.raises(InputError, match=r"path=\(0, 17\) and size=\(4, 4\) reach beyond a photo of 20x20"):
        Pan(torch.zeros(1, 20, 20), (4, 4), [(0, 0), (0, 17)])
    with pytest.raises(InputError, match="path is empty"):
        Pan(torch.zeros(1, 20, 20), (4, 4), [])
