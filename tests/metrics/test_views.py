"""The shifts that each mode makes, against plain slices, and sub-pixel shifts against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from dealias.errors import InputError
from dealias.metrics.views import MODES, ShiftedViews, make_views, network_views
from dealias.models import preprocessing_for


def corners(mode: str, images: int, **arguments: int) -> tuple[np.ndarray, ShiftedViews]:
    """The offsets (images, views, 2) of windows of 9 in images of 13 whose pixels tell their place."""
    views = make_views(mode, crop_size=9, image_size=13, **arguments)
    places = torch.arange(169.0).view(1, 1, 13, 13).expand(images, 1, 13, 13)
    first = views.of(places, range(images))[:, 0, 0, 0].view(images, views.count).numpy().astype(int)
    return np.stack([first // 13, first % 13], -1), views


def test_one_pixel_pairs_are_all_neighbours_and_nothing_else() -> None:
    found, views = corners("one_pixel", 900, pairs=4)
    first, second = found[:, 0::2].reshape(-1, 2), found[:, 1::2].reshape(-1, 2)
    assert (np.abs(first - second).sum(1) == 1).all()
    seen = {(*a, *b) for a, b in zip(first.tolist(), second.tolist(), strict=True)}
    assert len(seen) == 4 * 5 * 4  # ordered pairs of neighbours among 5 x 5 offsets
    assert views.compared == [(0, 1), (2, 3), (4, 5), (6, 7)]


def test_the_grid_has_every_step_and_compares_with_the_middle() -> None:
    found, views = corners("grid", 2)
    assert found[0].tolist() == [[top, left] for top in range(5) for left in range(5)]
    assert views.compared == [(12, view) for view in range(25) if view != 12]
    coarse, views = corners("grid", 1, step=2)
    assert coarse[0].tolist() == [[top, left] for top in (0, 2, 4) for left in (0, 2, 4)]
    with pytest.raises(InputError, match="single window"):
        corners("grid", 1, step=9)


def test_fractional_shifts_are_fourier_shifts_drawn_from_the_whole_range() -> None:
    size, generator = 15, torch.Generator().manual_seed(0)
    image = torch.rand(1, 2, size, size, generator=generator, dtype=torch.float64)
    views = make_views("fractional", pairs=60, max_shift=4, seed=3)
    shifted = views.of(image, [5])
    shifts = np.array(views.shifts(5))
    assert shifts.min() < -3.5
    assert shifts.max() > 3.5
    assert np.abs(shifts - shifts.round()).max() > 0.4
    for view, (dy, dx) in enumerate(shifts[:10]):
        for channel in range(2):
            spectrum = ndimage.fourier_shift(np.fft.fft2(image[0, channel].numpy()), (dy, dx))
            np.testing.assert_allclose(shifted[view, channel].numpy(), np.fft.ifft2(spectrum).real, atol=1e-12)


@pytest.mark.parametrize(("mode", "parts"), [("half_pixel", 2), ("third_pixel", 3)])
def test_pairs_are_apart_by_parts_of_a_pixel_and_never_by_whole_ones_alone(mode: str, parts: int) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 1, 15, 15, generator=generator, dtype=torch.float64)
    views = make_views(mode, pairs=300, max_shift=4, seed=3)
    shifts = np.array(views.shifts(5)).reshape(300, 2, 2)
    assert (shifts[:, 0] == shifts[:, 0].round()).all()
    steps = np.rint((shifts[:, 1] - shifts[:, 0]) * parts).astype(int)
    np.testing.assert_allclose(steps / parts, shifts[:, 1] - shifts[:, 0], atol=1e-12)
    fractions = {tuple(step) for step in (steps % parts).tolist()}
    assert fractions == {(a, b) for a in range(parts) for b in range(parts)} - {(0, 0)}
    assert (shifts.min(), np.floor(shifts.max())) == (-4, 3)
    shifted = views.of(image, [5])
    for view, (dy, dx) in enumerate(shifts.reshape(-1, 2)[:10]):
        spectrum = ndimage.fourier_shift(np.fft.fft2(image[0, 0].numpy()), (dy, dx))
        np.testing.assert_allclose(shifted[view, 0].numpy(), np.fft.ifft2(spectrum).real, atol=1e-12)


def test_circular_grids_have_every_shift_and_compare_with_the_image_as_it_is() -> None:
    image = torch.rand(1, 2, 7, 9, dtype=torch.float64)
    views = make_views("circular_grid", max_shift=3)
    shown = views.of(image, [0]).numpy()
    wanted = [np.roll(image[0].numpy(), (dy, dx), (1, 2)) for dy in range(-3, 4) for dx in range(-3, 4)]
    np.testing.assert_array_equal(shown, wanted)
    assert views.compared == [(24, view) for view in range(49) if view != 24]
    views = make_views("half_pixel_grid")
    assert [views.count, make_views("circular_grid").count] == [25, 25]
    halves = [(dy, dx) for dy in (-1, -0.5, 0, 0.5, 1) for dx in (-1, -0.5, 0, 0.5, 1)]
    for shift, view in zip(halves, views.of(image, [0]), strict=True):
        spectrum = ndimage.fourier_shift(np.fft.fft2(image[0, 1].numpy()), shift)
        np.testing.assert_allclose(view[1].numpy(), np.fft.ifft2(spectrum).real, atol=1e-12)


def test_reaches_of_networks_of_three_sizes() -> None:
    """224 pixels in 256 as published; half of 48 pixels; 32 pixels that are seen whole."""
    for preprocessing, circular, room in [
        (preprocessing_for("torchvision:resnet50"), 32, 32),
        (preprocessing_for("torchvision:resnet50", crop_size=64), 32, 9),
        (preprocessing_for("torchvision:resnet50", crop_size=48), 24, 7),
        (preprocessing_for("dealias:vgg_small"), 16, None),
    ]:
        found = network_views(preprocessing, MODES, pairs=300, seed=4)
        windowed = {"crop", "diagonal", "one_pixel", "grid"}
        assert set(found) == set(MODES) - (set() if room else windowed)
        for mode, low, high in [
            ("circular", -circular, circular - 1),
            ("fractional", -circular, circular),
            ("half_pixel", -circular, circular),
            ("zero_fill", -3, 3),
            ("circular_grid", -2, 2),
            ("half_pixel_grid", -1, 1),
            *([("crop", 0, room - 1), ("diagonal", 0, room), ("grid", 0, room - room % (room // 4))] if room else []),
        ]:
            drawn = np.array(found[mode].shifts(0)).round()
            assert (drawn.min(), drawn.max()) == (low, high), (mode, preprocessing)
            told = {"circular": circular, "zero_fill": 3, "circular_grid": 2, "half_pixel_grid": 1}
            assert str(told.get(mode, "")) in found[mode].reach


def test_arguments_of_other_modes_are_left_out_and_unknown_ones_refused() -> None:
    assert make_views("circular", max_shift=None, step=3, crop_size=5) == make_views("circular")
    with pytest.raises(InputError, match="no argument reach"):
        make_views("circular", reach=5)
    with pytest.raises(InputError, match="mode='spiral'"):
        make_views("spiral")
    for arguments, message in [({"pairs": 0}, "pairs=0"), ({"crop_size": 9, "image_size": 9}, "image_size=9")]:
        with pytest.raises(InputError, match=message):
            make_views("crop", **arguments)


@pytest.mark.parametrize("mode", MODES)
def test_displacements_say_where_things_stand_in_the_second_view(mode: str) -> None:
    rows, columns = torch.meshgrid(torch.arange(13.0), torch.arange(13.0), indexing="ij")
    places = torch.stack([rows, columns])[None] + 1
    views = make_views(mode, crop_size=9, image_size=13, max_shift=2)
    if mode in ("fractional", "half_pixel", "third_pixel", "half_pixel_grid"):
        steps = views.displacements(4, (13, 13))
        shifts = views.shifts(4)
        np.testing.assert_allclose(steps, [np.subtract(shifts[b], shifts[a]) for a, b in views.compared])
        return
    shown = views.of(places, [4])
    height, width = shown.shape[2:]
    for (first, second), (dy, dx) in zip(views.compared, views.displacements(4, (height, width)), strict=True):
        dy, dx = int(dy), int(dx)
        a = shown[first][:, max(0, -dy) : height - max(0, dy), max(0, -dx) : width - max(0, dx)]
        b = shown[second][:, max(0, dy) : height - max(0, -dy), max(0, dx) : width - max(0, -dx)]
        assert torch.equal(a, b)


def test_circular_displacements_take_the_shorter_way() -> None:
    views = make_views("circular", max_shift=32, pairs=50)
    steps = np.array(views.displacements(0, (40, 30)))
    assert np.abs(steps).max(0).tolist() <= [20, 15]
    shifts = np.array(views.shifts(0)).reshape(50, 2, 2)
    assert (((shifts[:, 1] - shifts[:, 0]) - steps) % [40, 30] == 0).all()
