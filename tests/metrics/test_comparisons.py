"""Comparisons of all tasks: values against NumPy, and parts that are kept as JSON and merged."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dealias.errors import InputError
from dealias.metrics.boxes import Detections
from dealias.metrics.comparisons import Comparison, Pairs, comparison_of, merged
from dealias.metrics.outputs import TASKS, Predictions, Task
from dealias.metrics.views import make_views

SIZE = (24, 32)
VIEWS = make_views("zero_fill", pairs=2, max_shift=2)


def answers(task: Task, images: int, seed: int = 0) -> Predictions:
    """Answers drawn at random to the views of so many images."""
    generator = np.random.default_rng(seed)
    count = images * VIEWS.count
    if task == "detection":
        return Predictions(task, [detections(generator) for _ in range(count)])
    shapes = {
        "classes": (3,),
        "segmentation": (3, *SIZE),
        "keypoints": (4, 2),
        "embeddings": (5,),
        "images": (1, 48, 64),
    }
    return Predictions(task, torch.tensor(generator.uniform(5, 20, (count, *shapes[task]))))


def detections(generator: np.random.Generator) -> Detections:
    corners = np.array([[4, 4], [16, 8]]) + generator.uniform(-0.5, 0.5, (2, 2))
    boxes = np.concatenate([corners, corners + 9], 1)
    entries = {"boxes": boxes, "labels": [0, 1], "scores": generator.uniform(size=2)}
    masks = generator.uniform(size=(2, *SIZE))
    return Detections.of("x", {**entries, "masks": masks, "keypoints": corners[:, None] + generator.uniform(size=2)})


def compared(task: Task, found: Predictions, images: list[int]) -> Comparison:
    comparison = comparison_of(task)
    comparison.add(found, images, VIEWS, SIZE)
    return comparison


def pairs_of(found: Predictions, images: list[int]) -> Iterator[tuple[Any, Any, tuple[int, int]]]:
    """The two answers of each pair and its shift, one by one."""
    for place, image in enumerate(images):
        for (a, b), (dy, dx) in zip(VIEWS.compared, VIEWS.displacements(image, SIZE), strict=True):
            start = place * VIEWS.count
            yield found.values[start + a], found.values[start + b], (int(dy), int(dx))


@pytest.mark.parametrize("as_scores", [False, True])
def test_classes_are_plain_loops(as_scores: bool) -> None:
    images = [3, 8, 1, 4, 9, 2]
    scores = torch.rand(6 * VIEWS.count, 2, generator=torch.Generator().manual_seed(0))
    scores[:4] = torch.tensor([0.0, 1])  # one image is unanimous
    scores[5, 1] = scores[8:12, 0] = torch.nan
    classes = [-1 if row.isnan().any() else int(row.argmax()) for row in scores]
    found = Predictions("classes", scores if as_scores else torch.tensor(classes))
    pairs = [(a, b) for a, b, _ in pairs_of(Predictions("classes", torch.tensor(classes)), images)]
    groups = [{*classes[start : start + 4]} for start in range(0, 24, 4)]
    told = compared("classes", found, images).findings()
    assert told.values == pytest.approx(
        {
            "consistency": np.mean([int(a == b >= 0) for a, b in pairs]),
            "unanimity": np.mean([len(group) == 1 and -1 not in group for group in groups]),
        }
    )
    assert 0 < told.values["unanimity"] < told.values["consistency"] < 1
    assert told.counts == {"pairs": 12, "invalid": 5}


def test_masks_are_compared_where_both_views_show_them() -> None:
    images = [0, 1, 2, 3]
    shifts = [shift for image in images for shift in VIEWS.shifts(image)]
    drawn = zip(answers("detection", 4).values, shifts, strict=True)
    found = Predictions("detection", [each.moved_back((-dy, -dx)) for each, (dy, dx) in drawn])
    told = compared("detection", found, images).findings()
    ious = []
    for a, b, (dy, dx) in pairs_of(found, images):
        for mine, theirs in zip(a.masks.numpy(), b.masks.numpy(), strict=True):
            places = [(y, x) for y in range(24) for x in range(32) if 0 <= y + dy < 24 and 0 <= x + dx < 32]
            both = np.array([(mine[y, x], theirs[y + dy, x + dx]) for y, x in places])
            ious.append(both.all(1).sum() / both.any(1).sum())
    assert told.counts["matches"] == 16
    assert told.values["mask_iou"] == pytest.approx(np.mean(ious))


@pytest.mark.parametrize("shift", [(0, 1), (0, 0.5)])
def test_masks_are_not_interpolated_and_points_need_none(shift: tuple[float, float]) -> None:
    found = answers("detection", 1).values
    comparison = comparison_of("detection")
    comparison.compare([found[0], found[0].moved_back((-shift[0], -shift[1]))], Pairs(0, [(0, 1)], [shift], SIZE))
    told = comparison.findings().values
    assert ("mask_iou" in told) == (shift == (0, 1))
    assert told["point_largest"] == pytest.approx(0, abs=1e-12)
    assert told["matched"] == 1


def test_detections_without_masks_and_points_have_no_such_values() -> None:
    found = [Detections(each.boxes, each.scores, each.labels) for each in answers("detection", 1).values]
    told = compared("detection", Predictions("detection", found), [0]).findings()
    assert not [name for name in (*told.values, *told.counts) if name.startswith(("mask", "point"))]


def test_images_have_the_range_of_all_answers_and_shifts_as_often_as_they_are_larger() -> None:
    images = [5, 6, 7]
    found = answers("images", 3)
    errors: list[Tensor] = []
    for a, b, (dy, dx) in pairs_of(found, images):
        # answers are twice as large as the views: rolled, what went around left out
        moved = b.roll((-2 * dy, -2 * dx), (-2, -1))
        rows, columns = torch.arange(48) + 2 * dy, torch.arange(64) + 2 * dx
        inside = ((rows >= 0) & (rows < 48))[:, None] & ((columns >= 0) & (columns < 64))
        errors.append(((a - moved)[0, inside]) ** 2)
    extent = float(found.values.max() - found.values.min())
    told = compared("images", found, images).findings()
    assert told.values["psnr"] == pytest.approx(10 * math.log10(extent**2 / float(torch.cat(errors).mean())))
    assert told.intervals["psnr"][0] < told.values["psnr"] < told.intervals["psnr"][1]


@pytest.mark.parametrize("task", TASKS)
def test_parts_kept_as_json_are_merged_to_the_same(task: Task) -> None:
    found, images = answers(task, 5), [4, 0, 3, 1, 2]
    cut = 2 * VIEWS.count
    parts = [
        compared(task, Predictions(task, found.values[:cut]), images[:2]),
        comparison_of(task),
        compared(task, Predictions(task, found.values[cut:]), images[2:]),
    ]
    states = [json.loads(json.dumps(part.state())) for part in parts]
    whole = compared(task, found, images)
    assert repr(merged(states).findings(0.9)) == repr(whole.findings(0.9))
    assert repr(merged(states[::-1]).findings()) == repr(whole.findings())
    assert repr(merged(states[:1]).findings()) != repr(whole.findings())
    assert comparison_of("classes").findings().values == {}


def test_a_network_that_changes_its_task_is_named() -> None:
    message = "the model returns classes for some images and embeddings for others: give task="
    with pytest.raises(InputError, match=message):
        merged([comparison_of(task).state() for task in ("classes", "embeddings")])  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        comparison_of("classes").add(answers("embeddings", 1), [0], VIEWS, SIZE)
