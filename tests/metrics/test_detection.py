"""Detections: values against closed forms and plain loops, AP against torchmetrics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dealias.errors import InputError
from dealias.metrics import DetectionConsistency, ShiftAveragePrecision, average_precision, detection_consistency
from dealias.optional import require

SIZE = (200, 300)


def found(boxes: Any, labels: Any = None, scores: Any = None) -> dict[str, torch.Tensor]:
    boxes = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    count = len(boxes)
    return {
        "boxes": boxes,
        "labels": torch.ones(count, dtype=torch.long) if labels is None else torch.as_tensor(labels),
        "scores": torch.full((count,), 0.5) if scores is None else torch.as_tensor(scores),
    }


def scene(generator: np.random.Generator, count: int, side: float = 20.0) -> np.ndarray:
    """Boxes far from one another and from the borders, so that each can only match its own."""
    places = generator.permutation([(y, x) for y in range(40, 160, 40) for x in range(40, 260, 40)])[:count]
    centres = places + generator.uniform(-3, 3, (count, 2))
    return np.concatenate([centres[:, ::-1] - side / 2, centres[:, ::-1] + side / 2], 1)


@pytest.mark.parametrize("shift", [(0, 0), (7, -3), (0.25, 1.5)])
def test_an_equivariant_detector_is_perfect(shift: tuple[float, float]) -> None:
    generator = np.random.default_rng(0)
    boxes = scene(generator, 8)
    dy, dx = shift
    labels, scores = generator.integers(0, 3, 8), generator.uniform(size=8).astype(np.float32)
    a, b = found(boxes, labels, scores), found(boxes + np.array([dx, dy] * 2), labels, scores)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    b = {key: value[order] for key, value in b.items()}
    values = {name: value.item() for name, value in detection_consistency([a], [b], shift, SIZE).items()}
    assert values == pytest.approx({"matched": 1, "iou": 1, "centre": 0, "scale": 0, "score": 0}, abs=2e-5)


def test_injected_jitter_gives_its_closed_form_within_the_interval() -> None:
    generator = np.random.default_rng(1)
    metric = DetectionConsistency()
    dropout, relabelled, sigma, growth, noise = 0.2, 0.1, 0.8, 0.1, 0.05
    for _ in range(150):
        boxes = scene(generator, 6)
        views = []
        for _ in range(2):
            kept = generator.uniform(size=6) >= dropout
            moved = boxes + np.tile(generator.normal(0, sigma, (6, 2)), 2)
            sides = np.exp(growth * generator.choice([-1, 1], 6) / 2)[:, None] * np.array([-10, -10, 10, 10])
            moved = (moved[:, [0, 1, 0, 1]] + moved[:, [2, 3, 2, 3]]) / 2 + sides
            labels = (generator.uniform(size=6) < relabelled).astype(int)
            scores = 0.5 + generator.normal(0, noise, 6)
            views.append(found(moved[kept], labels[kept], scores[kept].astype(np.float32)))
        metric.update([views[0]], [views[1]], (0, 0), SIZE)
    # a box is there in both views, with the same label; the centres differ by a normal with variance 2 sigma^2
    same = relabelled**2 + (1 - relabelled) ** 2
    expected = {
        "matched": (1 - dropout) * same,
        "centre": sigma * np.sqrt(np.pi),
        "scale": growth,
        "score": 2 * noise / np.sqrt(np.pi),
    }
    values, intervals = metric.compute(), metric.intervals(0.99)
    for name, value in expected.items():
        low, high = intervals[name]
        assert low < value < high, (name, value, intervals[name])
        assert low < values[name] < high
        assert high - low < 0.3 * value


def test_boxes_outside_the_overlap_and_invalid_ones_are_left_out_and_counted() -> None:
    a = found([[10, 10, 30, 30], [0, 100, 8, 120], [-50, -50, -20, -20], [5, 5, torch.nan, 9]])
    b = found([[10, 30, 30, 50], [10, 10, 20, 20], [50, 60, 40, 70]], scores=[0.5, torch.nan, 0.5])
    metric = DetectionConsistency()
    # view b shows the scene 20 px lower and 10 px further left: x < 10 of view a is not in view b
    metric.update(
        [a, found([])], [{**b, "boxes": b["boxes"] - torch.tensor([10.0, 0, 10, 0])}, found([])], (20, -10), SIZE
    )
    assert metric.counts() == {"pairs": 2, "empty": 1, "boxes": 2, "matches": 1, "outside": 2, "invalid": 3}
    assert metric.compute()["matched"] == 1
    assert metric.compute()["centre"] == 0


def test_without_any_box_the_values_are_nan() -> None:
    metric = DetectionConsistency()
    metric.update([found([])], [found([])], (1, 1), SIZE)
    assert all(value.isnan() for value in metric.compute().values())
    assert all(np.isnan(bounds).all() for bounds in metric.intervals().values())
    assert metric.counts()["empty"] == 1
    metric.update([found([[10, 10, 30, 30]])], [found([])], (1, 1), SIZE)
    assert metric.compute()["matched"] == 0
    assert metric.compute()["iou"].isnan()


def test_batches_add_up() -> None:
    generator = np.random.default_rng(2)
    pairs = []
    for _ in range(12):
        boxes = scene(generator, 5)
        pairs.append((found(boxes), found(boxes + np.tile(generator.normal(0, 1, (5, 2)), 2))))
    a, b = ([pair[side] for pair in pairs] for side in (0, 1))
    whole, parts = DetectionConsistency(), DetectionConsistency()
    images = torch.arange(12) // 3
    whole.update(a, b, (0, 0), SIZE, image=images)
    for start in range(0, 12, 4):
        part = slice(start, start + 4)
        parts.update(a[part], b[part], torch.zeros(4, 2), SIZE, image=images[part])
    assert parts.compute() == whole.compute()
    assert parts.intervals() == whole.intervals()
    unnumbered = DetectionConsistency()
    unnumbered.update(a, b, (0, 0), SIZE)
    assert unnumbered.intervals()["centre"] != whole.intervals()["centre"]


def torchmetrics_map(predictions: list[Any], targets: list[Any]) -> float:
    metric = require("torchmetrics.detection").MeanAveragePrecision(backend="faster_coco_eval")
    metric.update(predictions, targets)
    return float(metric.compute()["map"])


def test_average_precision_is_torchmetrics_and_its_bounds_are_those_of_each_image() -> None:
    generator = np.random.default_rng(4)
    shifts = [(0, 0), (3, -2), (1, 5)]
    targets, predictions = [], []
    for _ in range(6):
        boxes = scene(generator, 4)
        labels = generator.integers(0, 2, 4)
        targets.append(found(boxes, labels))
        views = []
        for dy, dx in shifts:
            noisy = boxes + np.tile(generator.normal(0, 1, (4, 2)), 2) + np.array([dx, dy] * 2)
            views.append(found(noisy, labels, generator.uniform(size=4).astype(np.float32)))
        predictions.append(views)
    plain = [views[0] for views in predictions]
    assert average_precision(plain, targets)["map"] == pytest.approx(torchmetrics_map(plain, targets))
    metric = ShiftAveragePrecision()
    metric.update(predictions[:2], targets[:2], shifts, SIZE)
    metric.update(predictions[2:], targets[2:], torch.tensor(shifts), SIZE)
    table = []
    for views, target in zip(predictions, targets, strict=True):
        row = []
        for view, (dy, dx) in zip(views, shifts, strict=True):
            undone = {**view, "boxes": view["boxes"] - torch.tensor([dx, dy] * 2)}
            row.append(torchmetrics_map([undone], [target]))
        table.append(row)
    expected = {"best": np.max(table, 1).mean(), "worst": np.min(table, 1).mean(), "mean": np.mean(table)}
    assert {name: value.item() for name, value in metric.compute().items()} == pytest.approx(expected, abs=1e-6)
    assert expected["worst"] < expected["mean"] < expected["best"]
    low, high = metric.intervals()["worst"]
    assert 0 <= low < expected["worst"] < high <= 1
    metric.update([[found([])] * 3], [found([])], shifts, SIZE)
    assert metric.counts() == {"images": 6, "empty": 1}


def test_bad_input() -> None:
    good = found([[1, 2, 3, 4]])
    for a, b, shift, size, message in [
        ([good], [], (0, 0), SIZE, "a has 1 images and b 0"),
        ([], [], (0, 0), SIZE, "one at least"),
        (good, [good], (0, 0), SIZE, "a must be a list"),
        ([good], [None], (0, 0), SIZE, r"b\[0\]=None"),
        ([good], [good], (0, 0, 0), SIZE, "shift has shape"),
        ([good], [good], (0, 400), SIZE, "nothing in common"),
        ([good], [good], (0, 0), 200, "size=200"),
    ]:
        with pytest.raises(InputError, match=message):
            DetectionConsistency().update(a, b, shift, size)
    for predictions, message in [([], "one entry for each image"), ([[good]], "1 views"), ([good], "a list")]:
        with pytest.raises(InputError, match=message):
            ShiftAveragePrecision().update(predictions, [good], [(0, 0), (1, 1)], SIZE)
    with pytest.raises(InputError, match="targets 2"):
        average_precision([good], [good, good])
