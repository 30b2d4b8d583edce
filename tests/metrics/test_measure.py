"""measure_consistency against networks whose answers are known, and against a loop over images."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dealias.errors import InputError, InputTypeError
from dealias.metrics import clustered_wilson_interval, measure_consistencies, measure_consistency
from dealias.metrics.measure import ViewCounts
from dealias.metrics.views import make_views
from dealias.models import vgg_small


class Argmax(nn.Module):
    """Logits that are the pixels in a grid: top-1 tells where the brightest of them is."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)[:, ::4, ::4].flatten(1)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(11, 2, 40, 40, generator=torch.Generator().manual_seed(0))


def views_of(mode: str, image: Tensor, index: int, seed: int, pairs: int) -> list[Tensor]:
    """A loop over plain slices and rolls, with the shifts drawn as documented: from the seed and the image's number."""
    draw = Random(f"{seed}/{index}")
    views = []
    for _ in range(2 * pairs):
        if mode == "circular":
            views.append(image.roll((draw.randrange(-8, 8), draw.randrange(-8, 8)), (1, 2)))
        elif mode == "zero_fill":
            dy, dx = draw.randrange(-3, 4), draw.randrange(-3, 4)
            views.append(F.pad(image, (3, 3, 3, 3), value=0.25)[:, 3 - dy : 43 - dy, 3 - dx : 43 - dx])
        else:
            top, left = draw.randrange(0, 8), draw.randrange(0, 8)
            views.append(image[:, top : top + 32, left : left + 32])
    return views


ARGUMENTS = {
    "circular": {"max_shift": 8},
    "zero_fill": {"max_shift": 3, "fill": 0.25},
    "crop": {"crop_size": 32, "image_size": 40},
}


@pytest.mark.parametrize("mode", ARGUMENTS)
def test_equals_a_loop_over_images(images: Tensor, mode: str) -> None:
    model = Argmax()
    counts = []
    for index, image in enumerate(images):
        tops = [int(model(view[None]).argmax()) for view in views_of(mode, image, index, seed=7, pairs=4)]
        counts.append(sum(a == b for a, b in zip(tops[::2], tops[1::2], strict=True)))
    result = measure_consistency(model, images, mode=mode, pairs=4, seed=7, **ARGUMENTS[mode])
    assert 0 < sum(counts) < 44
    assert (result.agreements, result.total, result.images) == (sum(counts), 44, 11)
    assert result.consistency == sum(counts) / 44
    assert result.interval == clustered_wilson_interval(counts, 4)
    other = measure_consistency(model, images, mode=mode, pairs=4, seed=8, **ARGUMENTS[mode])
    assert other.agreements != result.agreements


@pytest.mark.parametrize("mode", ARGUMENTS)
def test_batches_of_any_size_give_the_same(images: Tensor, mode: str) -> None:
    torch.manual_seed(0)
    model = vgg_small(in_chans=2).double()
    reference = measure_consistency(model, images, mode=mode, **ARGUMENTS[mode])
    loader = [(part, torch.zeros(len(part), dtype=torch.int64)) for part in images.split(4)]
    for batches, size in [(images, 1), (images, 25), (images.split(3), 64), (loader, 31), (iter(loader), 7)]:
        result = measure_consistency(model, batches, mode=mode, batch_size=size, **ARGUMENTS[mode])
        assert (result.agreements, result.interval) == (reference.agreements, reference.interval)


def test_forward_passes_are_no_larger_than_asked(images: Tensor) -> None:
    sizes: list[int] = []
    model = Argmax()
    model.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    told: list[int] = []
    measure_consistency(model, images, mode="circular", pairs=3, batch_size=20, progress=told.append)
    assert max(sizes) == 18
    assert sum(sizes) == 66
    assert told == [3, 6, 9, 11]
    sizes.clear()
    measure_consistency(model, images, mode="circular", pairs=3, batch_size=4)
    assert max(sizes) <= 4


def test_shifts_cover_their_ranges() -> None:
    """A network whose class is the place of a single bright pixel shows every shift that is drawn."""

    class Place(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.flatten(1).argmax(1))
            return x.flatten(1)

    seen: list[Tensor] = []
    picture = torch.zeros(400, 1, 13, 13)
    picture[:, :, 6, 6] = 1
    for mode, arguments, low, high in [
        ("circular", {"max_shift": 3}, -3, 2),
        ("zero_fill", {}, -3, 3),
        ("crop", {"crop_size": 9, "image_size": 13}, -3, 0),
    ]:
        seen.clear()
        measure_consistency(Place(), picture, mode=mode, pairs=2, **arguments)
        places = torch.cat(seen)
        size = 9 if mode == "crop" else 13
        shifts = torch.stack([places // size - 6, places % size - 6])
        assert [sorted(set(axis.tolist())) for axis in shifts] == [list(range(low, high + 1))] * 2
        assert abs(float(np.corrcoef(shifts.numpy())[0, 1])) < 0.1


def test_default_crops_are_zhangs() -> None:
    """256-pixel images, 224-pixel windows, offsets 0..31; larger images are resized to 256 first."""

    class Corner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            assert x.shape[2:] == (224, 224)
            corners.append(x[:, 0, 0, 0])
            return x[:, :2, 0, 0]

    corners: list[Tensor] = []
    ramp = torch.arange(256.0).view(1, 1, 256, 1).expand(60, 2, 256, 256)
    measure_consistency(Corner(), ramp, mode="crop")
    assert sorted(set(torch.cat(corners).tolist())) == list(range(32))
    result = measure_consistency(Corner(), torch.rand(1, 2, 300, 512), mode="crop", pairs=1)
    assert result.total == 1
    with pytest.raises(InputError, match="images of 255x300 are smaller than image_size=256"):
        measure_consistency(Corner(), torch.rand(1, 2, 255, 300), mode="crop")


def test_diagonal(images: Tensor) -> None:
    torch.manual_seed(1)
    model = vgg_small(in_chans=2).double()
    targets = torch.arange(11) % 10
    windows = [images[:, :, i : i + 32, i : i + 32] for i in range(9)]
    model.eval()
    with torch.no_grad():
        logits = np.stack([model(window.double()).numpy() for window in windows], 1)
    model.train()
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    expected = (exponentials / exponentials.sum(-1, keepdims=True))[np.arange(11), :, targets.numpy()]
    tops = logits.argmax(-1)
    agreements = (tops[:, 1:] == tops[:, :-1]).sum(1)
    arguments = {"mode": "diagonal", "crop_size": 32, "image_size": 40}
    result = measure_consistency(model, images, targets=targets, **arguments)
    assert model.training
    assert result.probabilities is not None
    assert np.allclose(result.probabilities.numpy(), expected, atol=1e-6)
    assert result.variation == pytest.approx(np.abs(np.diff(expected, axis=1)).mean(), abs=1e-6)
    assert (result.agreements, result.total) == (agreements.sum(), 88)
    assert result.interval == clustered_wilson_interval(agreements.tolist(), 8)
    batches = [(images[:6], targets[:6]), (images[6:], targets[6:])]
    again = measure_consistency(model, batches, batch_size=5, **arguments)
    assert torch.allclose(again.probabilities, result.probabilities, atol=1e-6)
    with pytest.raises(InputError, match="targets"):
        measure_consistency(model, images, **arguments)
    with pytest.raises(InputError, match=r"targets from \d to 10"):
        measure_consistency(model, images, targets=torch.arange(11), **arguments)


def test_the_zoo_of_modes_is_left_as_it_was(images: Tensor) -> None:
    model = vgg_small(in_chans=2)
    model.features[1].eval()
    before = [module.training for module in model.modules()]
    statistics = model.features[5].running_mean.clone()
    measure_consistency(model, images, mode="circular", pairs=1)
    assert [module.training for module in model.modules()] == before
    assert torch.equal(model.features[5].running_mean, statistics)
    with pytest.raises(InputError):
        measure_consistency(model.features, images, mode="circular")
    assert [module.training for module in model.modules()] == before


def test_bad_input(images: Tensor) -> None:
    for arguments, message in [
        ({"mode": "spiral"}, "mode='spiral'"),
        ({"pairs": 0}, "pairs=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"max_shift": 0}, "max_shift=0"),
        ({"mode": "crop", "crop_size": 40, "image_size": 40}, "image_size=40 must be larger"),
        ({"level": 1.5}, r"level=1\.5"),
        ({"targets": torch.zeros(3)}, "3 classes for 11 images"),
        ({"images": []}, "empty"),
        ({"images": images[:0]}, "empty"),
        ({"images": images[0]}, "N, C, H, W"),
        ({"images": images[:2] * float("nan")}, "NaN"),
        ({"images": [images], "targets": torch.zeros(11)}, "batches of"),
        ({"model": nn.Identity()}, "N, classes"),
    ]:
        with pytest.raises(InputError, match=message):
            measure_consistency(**{"model": Argmax(), "images": images, "mode": "circular", **arguments})
    with pytest.raises(InputTypeError, match="uint8"):
        measure_consistency(Argmax(), images.byte(), mode="circular")
    with pytest.raises(InputTypeError, match="ndarray"):
        measure_consistency(Argmax(), [[images.numpy()] * 2], mode="circular")


def test_all_forms_equal_numpy_and_come_in_one_pass(images: Tensor) -> None:
    """k-way agreement, agreement where right, worst case: from a table of top-1 classes, in NumPy."""
    torch.manual_seed(0)
    model = vgg_small(in_chans=2).double().eval()
    targets = torch.arange(11) % 3
    modes = {"crop": {"crop_size": 32, "image_size": 40}, "grid": {"crop_size": 32, "image_size": 40, "step": 4}}
    modes |= {"one_pixel": {"crop_size": 32, "image_size": 40}, "fractional": {"max_shift": 4}}
    modes |= {"half_pixel": {"max_shift": 4}, "third_pixel": {"max_shift": 4}, "half_pixel_grid": {"max_shift": 1}}
    passes = []
    batches = (passes.append(1) or (images[at : at + 4], targets[at : at + 4]) for at in range(0, 11, 4))
    together = measure_consistencies(model, batches, modes)
    assert len(passes) == 3
    for mode, arguments in modes.items():
        views = make_views(mode, **arguments)
        with torch.no_grad():
            tops = model(views.of(images.double(), range(11))).argmax(1).view(11, -1).numpy()
        first, second = (tops[:, list(side)] for side in zip(*views.compared, strict=True))
        right = targets.numpy()[:, None]
        either = (first == right) | (second == right)
        alone = measure_consistency(model, images, mode=mode, targets=targets, **arguments)
        for result in (alone, together[mode]):
            assert result.consistency == (first == second).mean()
            assert result.unanimity == (tops == tops[:, :1]).all(1).mean()
            assert result.accuracy == (tops == right).mean()
            assert result.worst_case_accuracy == (tops == right).all(1).mean()
            if either.any():
                assert result.correct_consistency == ((first == second) & either).sum() / either.sum()
                low, high = result.correct_consistency_interval
                assert low <= result.correct_consistency <= high
            else:
                assert result.correct_consistency is None
    assert measure_consistency(model, images, mode="circular", max_shift=4).worst_case_accuracy is None


def test_worst_case_accuracy_is_being_right_under_all_shifts() -> None:
    """A dot's class is its quarter of the image: no shift by up to 2 pixels moves it out if it is as far inside."""
    rows, columns = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    rows, columns = rows.flatten(), columns.flatten()
    images = torch.zeros(256, 1, 16, 16)
    images[torch.arange(256), 0, rows, columns] = 1
    targets = rows // 8 * 2 + columns // 8
    model = nn.Sequential(nn.MaxPool2d(8), nn.Flatten())
    found = measure_consistency(model, images, mode="circular_grid", targets=targets)
    inside = sum(place % 8 in (2, 3, 4, 5) for place in range(16))
    assert found.worst_case_accuracy == inside**2 / 256
    assert (found.views, found.accuracy) == (25, pytest.approx((sum([3, 4, 5, 5, 5, 5, 4, 3]) / 40) ** 2))


def test_views_without_a_prediction_agree_with_nothing() -> None:
    """-1 stands for logits with NaN: an image whose views all are so is neither unanimous nor consistent nor right."""
    views, counts = make_views("circular", pairs=2), ViewCounts()
    predictions = torch.tensor([[-1, -1, -1, -1], [2, 2, 2, 2], [2, 2, -1, -1], [2, 2, 2, 5]])
    counts.add(predictions, torch.tensor([-1, 2, 2, 5]), views)
    assert counts.unanimous == [0, 1, 0, 0]
    assert counts.agreements == [0, 2, 1, 1]
    assert counts.result(views, 0.95).unanimity == 0.25
