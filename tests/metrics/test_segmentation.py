"""Segmentation: mASSC and mIoU against plain loops; an equivariant segmenter and one that relabels at a known rate."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dealias.errors import InputError, InputTypeError
from dealias.metrics import SegmentationConsistency, segmentation_consistency


def plain(a: np.ndarray, b: np.ndarray, dy: int, dx: int) -> tuple[float, float]:
    """mASSC and mean IoU of two class maps, pixel by pixel."""
    pairs = [
        (a[y, x], b[y + dy, x + dx])
        for y in range(a.shape[0])
        for x in range(a.shape[1])
        if 0 <= y + dy < b.shape[0] and 0 <= x + dx < b.shape[1]
    ]
    ious = []
    for each in {label for pair in pairs for label in pair}:
        both = sum(one == other == each for one, other in pairs)
        ious.append(both / sum(each in pair for pair in pairs))
    return sum(one == other for one, other in pairs) / len(pairs), sum(ious) / len(ious)


@given(st.integers(0, 2**32 - 1), st.integers(-4, 4), st.integers(-4, 4), st.booleans())
@settings(max_examples=60, deadline=None)
def test_values_are_plain_loops(seed: int, dy: int, dx: int, as_scores: bool) -> None:
    generator = np.random.default_rng(seed)
    height, width, classes = 5 + seed % 3, 6 + seed % 4, 2 + seed % 3
    a, b = generator.integers(0, classes, (2, 2, height, width))
    expected = [plain(one, other, dy, dx) for one, other in zip(a, b, strict=True)]
    maps = [torch.tensor(each) for each in (a, b)]
    if as_scores:
        maps = [torch.nn.functional.one_hot(each, classes).movedim(-1, 1).float() for each in maps]
    found = segmentation_consistency(*maps, (dy, dx))
    assert found["pixels"].item() == pytest.approx(np.mean([share for share, _ in expected]))
    assert found["iou"].item() == pytest.approx(np.mean([iou for _, iou in expected]))


def test_an_equivariant_segmenter_is_perfect() -> None:
    scene = torch.randint(0, 5, (3, 40, 50))
    tops, lefts = torch.tensor([4, 0, 9]), torch.tensor([1, 7, 3])
    views = [
        torch.stack(
            [
                each[top + dy : top + dy + 24, left : left + 32]
                for each, top, left in zip(scene, tops, lefts, strict=True)
            ]
        )
        for dy in (0, 2)
    ]
    metric = SegmentationConsistency()
    metric.update(*views, shift=(-2, 0))
    assert metric.compute() == {"pixels": 1, "iou": 1}
    assert metric.intervals()["pixels"][1] == 1


def test_relabelling_at_a_known_rate_gives_its_closed_form() -> None:
    generator = np.random.default_rng(0)
    rate, metric = 0.2, SegmentationConsistency()
    for _ in range(60):
        scene = generator.integers(0, 2, (30, 30))
        views = [np.where(generator.uniform(size=scene.shape) < rate, 1 - scene, scene) for _ in range(2)]
        metric.update(*(torch.tensor(each)[None] for each in views), shift=(0, 0))
    same = rate**2 + (1 - rate) ** 2
    intervals = metric.intervals(0.99)
    assert intervals["pixels"][0] < same < intervals["pixels"][1]
    # of two equally frequent classes: the pixels with both, over those with either
    iou = same / (2 - same)
    assert intervals["iou"][0] < iou < intervals["iou"][1]
    assert np.diff(intervals["iou"]) < 0.02


def test_pixels_without_a_class_agree_with_none_and_are_counted() -> None:
    scores = torch.randn(1, 3, 4, 4)
    scores[0, 1, 2, 2] = torch.nan
    metric = SegmentationConsistency()
    metric.update(scores, scores, (0, 0))
    assert metric.compute()["pixels"].item() == pytest.approx(15 / 16)
    assert metric.counts() == {"pairs": 1, "invalid": 2}
    metric.reset()
    metric.update(scores * torch.nan, scores * torch.nan, (0, 0))
    assert metric.compute()["pixels"] == 0
    assert metric.compute()["iou"].isnan()


@pytest.mark.parametrize("shift", [(0.25, 0.25), (-1.5, 0.0), (0.0, 2.75)])
def test_fractions_of_a_pixel_are_undone_in_class_scores(shift: tuple[float, float]) -> None:
    """Smooth scores, known between the pixels; a network that rounds to whole pixels disagrees along the borders."""

    def scores(dy: float, dx: float) -> torch.Tensor:
        y, x = torch.meshgrid(torch.arange(40.0) - dy, torch.arange(48.0) - dx, indexing="ij")
        return torch.stack([torch.sin(0.9 * x), torch.cos(0.7 * y - 0.2 * x), torch.zeros_like(x)])[None]

    exact = segmentation_consistency(scores(0, 0), scores(*shift), shift)
    coarse = segmentation_consistency(scores(0, 0), scores(round(shift[0]), round(shift[1])), shift)
    assert exact["pixels"] > 0.997
    assert coarse["pixels"] < 0.96


def test_bad_input() -> None:
    good = torch.zeros(2, 8, 8, dtype=torch.long)
    for a, b, shift, message in [
        (good, good[:1], (0, 0), "same pairs"),
        (good, good, (0.5, 0), "whole pixels"),
        (good, good, (8, 0), "nothing in common"),
        (good[0], good[0], (0, 0), "N, H, W"),
        (good[:0], good[:0], (0, 0), "none of them 0"),
    ]:
        with pytest.raises(InputError, match=message):
            segmentation_consistency(a, b, shift)
    for a in (good.float(), good[:, None]):
        with pytest.raises(InputTypeError, match="class scores"):
            segmentation_consistency(a, a, (0, 0))
    with pytest.raises(InputTypeError, match="ndarray"):
        segmentation_consistency(good.numpy(), good, (0, 0))
