"""Boxes: geometry and matching against NumPy and brute force."""

from __future__ import annotations

from itertools import combinations, permutations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dealias.errors import InputError
from dealias.metrics.boxes import Detections, as_detections, box_ious, lengths, match_boxes


def plain_iou(a: Any, b: Any) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union if union > 0 else 0.0


@st.composite
def box_sets(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Boxes of a few pixels at a few places, so that many overlap; some without area."""
    sets = []
    for _ in range(2):
        rows = draw(
            st.lists(st.tuples(*(st.integers(0, 6),) * 2, *(st.integers(0, 6),) * 2, st.integers(0, 1)), max_size=4)
        )
        sets.append(np.array([(x, y, x + w, y + h, label) for x, y, w, h, label in rows], float).reshape(-1, 5))
    return sets[0], sets[1]


@given(box_sets(), st.sampled_from([0.3, 0.5]))
@settings(max_examples=150, deadline=None)
def test_matching_is_brute_force(sets: tuple[np.ndarray, np.ndarray], least: float) -> None:
    a, b = sets
    ious = np.array([[plain_iou(one, other) for other in b] for one in a]).reshape(len(a), len(b))
    np.testing.assert_allclose(box_ious(torch.tensor(a[:, :4]), torch.tensor(b[:, :4])), ious, atol=1e-12)
    allowed = (ious >= least) & (a[:, None, 4] == b[None, :, 4])
    best = 0.0
    for count in range(min(len(a), len(b)) + 1):
        for rows in combinations(range(len(a)), count):
            for columns in permutations(range(len(b)), count):
                if all(allowed[pair] for pair in zip(rows, columns, strict=True)):
                    best = max(best, sum(ious[pair] for pair in zip(rows, columns, strict=True)))
    first, second = (Detections.of("x", {"boxes": each[:, :4], "labels": each[:, 4]}) for each in sets)
    rows, columns = match_boxes(first, second, least)
    assert len({*rows}) == len(rows) == len({*columns})
    assert all(allowed[pair] for pair in zip(rows, columns, strict=True))
    assert sum(ious[pair] for pair in zip(rows, columns, strict=True)) == pytest.approx(best)


def drawn(count: int = 30) -> tuple[np.ndarray, Detections]:
    generator = np.random.default_rng(0)
    corners = generator.uniform(-20, 100, (count, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(0, 60, (count, 2))], 1)
    points = generator.uniform(0, 100, (count, 3, 2))
    entries = {"boxes": boxes, "labels": np.arange(count), "scores": generator.uniform(size=count), "keypoints": points}
    return boxes, Detections.of("x", entries)


def test_geometry_is_numpys() -> None:
    boxes, found = drawn()
    centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    np.testing.assert_allclose(found.centres, centres)
    np.testing.assert_allclose(found.diagonals, np.linalg.norm(sides, axis=1))
    np.testing.assert_allclose(found.areas, sides[:, 0] * sides[:, 1])
    np.testing.assert_allclose(lengths(torch.tensor(sides)), np.linalg.norm(sides, axis=1))
    back = found.moved_back((2.5, -4))
    np.testing.assert_allclose(back.boxes, boxes - np.array([-4, 2.5, -4, 2.5]))
    assert found.points is not None
    assert back.points is not None
    np.testing.assert_allclose(back.points, found.points.numpy() - np.array([-4, 2.5]))
    inside = [number for number, (x, y) in enumerate(centres) if 10 <= y < 60 and 20 <= x < 90]
    assert 0 < len(inside) < 30
    assert found.centred_in((10, 20, 60, 90)).labels.tolist() == inside
    assert found.take([4, 2]).labels.tolist() == [4, 2]
    as_dict = found.as_dict()
    assert as_dict["boxes"].dtype == as_dict["scores"].dtype == torch.float32


def test_a_centre_on_the_border_of_a_region_counts_once() -> None:
    entries = {"boxes": [[0, 0, 4, 4], [6, 6, 14, 14]], "labels": [0, 1]}  # centres at 2 and 10
    found = Detections.of("x", entries)
    for region, inside in [
        ((2, 2, 11, 11), [0, 1]),
        ((2, 2, 10, 11), [0]),
        ((2, 2, 11, 10), [0]),
        ((3, 2, 11, 11), [1]),
        ((2, 3, 11, 11), [1]),
        ((10, 10, 18, 18), [1]),
    ]:
        assert found.centred_in(region).labels.tolist() == inside


def test_invalid_detections_are_left_out_with_all_their_parts() -> None:
    nan, inf = torch.nan, torch.inf
    boxes = [[0, 0, 4, 4], [0, 0, nan, 4], [0, 0, 4, inf], [5, 0, 4, 4], [1, 1, 1, 1], [2, 2, 5, 5]]
    masks = torch.linspace(0, 1, 6).view(6, 1, 1, 1).expand(6, 1, 2, 3)
    entries = {"boxes": boxes, "labels": range(6), "scores": [1, 1, 1, 1, 0.5, nan], "masks": masks}
    found = Detections.of("x", {**entries, "labels": torch.arange(6), "keypoints": torch.ones(6, 2, 3)})
    assert found.labels.tolist() == [0, 4]
    assert found.invalid == 4
    assert found.masks is not None
    assert found.masks.shape == (2, 2, 3)
    assert found.masks.all((1, 2)).tolist() == [False, True]  # .8 is above .5
    assert found.points is not None
    assert found.points.shape == (2, 2, 2)
    assert Detections.of("x", found) is found
    assert Detections.of("x", {"boxes": [], "labels": []}).boxes.shape == (0, 4)
    assert Detections.of("x", {"boxes": boxes[:1], "labels": [1]}).scores.tolist() == [1]  # as of a target


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ({}, "a must be a list of dictionaries, one for each image, got dict"),
        ([None], r"a\[0\]=None must be a dictionary"),
        ([{"boxes": torch.ones(1, 4)}], r"a\[0\] has no labels: give"),
        ([{}], "has no boxes and no labels"),
        ([{"boxes": torch.ones(1, 4), "labels": [1], "scores": torch.ones(2)}], r"1 boxes and scores of shape \(2,\)"),
        ([{"boxes": torch.ones(1, 4), "labels": [1], "masks": torch.ones(3, 2, 2)}], "1 boxes and masks of shape"),
        ([{"boxes": torch.ones(1, 5), "labels": [1]}], r"a\[0\]\['boxes'\] of shape \(1, 5\): use \(n, 4\)"),
        ([{"boxes": "x", "labels": [1]}], r"a\[0\]\['boxes'\] must be a tensor, got str"),
    ],
)
def test_bad_input(items: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        as_detections("a", items)
    assert str(caught.value).isprintable()
