"""Detections of other libraries' pipelines: stand-ins have the shapes and the names of the libraries' own objects."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dealias.metrics.boxes import Detections
from dealias.metrics.pipelines import read_pipeline
from dealias.optional import require

SIZE = (64, 96)


def read(output: Any, count: int = 2) -> list[Detections]:
    found = read_pipeline(output, count, SIZE)
    assert isinstance(found, list)
    assert len(found) == count
    return found


def test_torchvisions_detections() -> None:
    item = {
        "boxes": torch.rand(3, 4).cumsum(1),
        "labels": torch.tensor([1, 2, 3]),
        "scores": torch.tensor([0.9, 0.5, 0.1]),
    }
    item |= {"masks": torch.rand(3, 1, *SIZE), "keypoints": torch.rand(3, 17, 3), "keypoints_scores": torch.rand(3, 17)}
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long), "scores": torch.zeros(0)}
    first, second = read([item, empty])
    torch.testing.assert_close(first.boxes, item["boxes"].double())
    assert first.masks is not None
    assert torch.equal(first.masks, item["masks"][:, 0] > 0.5)
    assert first.points is not None
    torch.testing.assert_close(first.points, item["keypoints"][..., :2].double())
    assert len(second) == 0
    assert read([first, second])[0] is first


class Boxes:
    """As ultralytics.engine.results.Boxes."""

    def __init__(self, count: int) -> None:
        self.xyxy, self.conf, self.cls = (
            torch.tensor([[0.0, 0, 8, 8]]).repeat(count, 1),
            torch.ones(count),
            torch.ones(count),
        )


def results(count: int, **parts: Any) -> SimpleNamespace:
    """As ultralytics.engine.results.Results."""
    known = {"orig_shape": SIZE, "boxes": Boxes(count), "masks": None, "keypoints": None, "probs": None, "names": {}}
    return SimpleNamespace(**(known | parts))


def test_ultralytics_results() -> None:
    half = torch.zeros(1, 32, 48)
    half[:, :, 24:] = 1
    points = SimpleNamespace(xy=torch.tensor([[[1.0, 2.0], [0.0, 0.0]]]), conf=torch.tensor([[0.9, 0.2]]))
    first, second = read([results(1, masks=SimpleNamespace(data=half), keypoints=points), results(0)])
    assert first.masks is not None
    assert first.masks[0].nonzero().amin(0).tolist() == [0, 48]
    assert int(first.masks.sum()) == 64 * 48
    assert first.points is not None
    assert first.points[0, 0].tolist() == [1, 2]
    assert first.points[0, 1].isnan().all()
    assert len(second) == 0
    assert len(read([results(2)], count=1)[0]) == 2
    assert len(read(results(3), count=1)[0]) == 3
    assert read_pipeline([results(1, boxes=None)], 1, SIZE) is None  # rotated boxes


def test_the_probabilities_of_ultralytics_classifiers() -> None:
    scores = torch.rand(2, 5)
    found = read_pipeline([results(0, probs=SimpleNamespace(data=row)) for row in scores], 2, SIZE)
    assert isinstance(found, torch.Tensor)
    assert torch.equal(found, scores)


def test_supervisions_detections() -> None:
    with warnings.catch_warnings(action="ignore"):  # it works without OpenCV too
        supervision = require("supervision")
    boxes = np.array([[0.0, 0, 8, 8], [5, 5, 9, 20]])
    item = supervision.Detections(xyxy=boxes, confidence=np.array([0.5, 0.6]), class_id=np.array([4, 2]))
    for found in read([item, item]) + read(item, count=1):
        assert found.boxes.tolist() == boxes.tolist()
        assert found.scores.tolist() == [0.5, 0.6]
        assert found.labels.tolist() == [4, 2]
    nameless = supervision.Detections(xyxy=boxes[:1], mask=np.ones((1, *SIZE), bool))
    (found,) = read(nameless, count=1)
    assert found.masks is not None
    assert found.masks.all()
    assert (found.scores.tolist(), found.labels.tolist()) == ([1], [0])
    assert len(read(supervision.Detections.empty(), count=1)[0]) == 0


def test_mtcnns_detections() -> None:
    # MTCNN.detect returns arrays of objects, and None where there is no face
    boxes, scores = np.array([[1, 2, 30, 40]], dtype=object), np.array([0.99], dtype=object)
    landmarks = np.array([[[5, 6]] * 5], dtype=object)
    (found,) = read((boxes, scores, landmarks), count=1)
    assert found.boxes.tolist() == [[1, 2, 30, 40]]
    assert found.scores.tolist() == pytest.approx([0.99])
    assert found.points is not None
    assert found.points.tolist() == [[[5, 6]] * 5]
    assert read((boxes, scores), count=1)[0].points is None
    for nothing in ((None, np.array([None])), (None, np.array([None]), None)):
        assert len(read(nothing, count=1)[0]) == 0


@pytest.mark.parametrize(
    "output",
    [
        None,
        torch.rand(2, 4),
        [{"boxes": torch.zeros(0, 4)}] * 2,
        [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0)}] * 3,
        [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0)}, None],
        (np.zeros((1, 4)), np.zeros(2)),
        [results(1), {"boxes": torch.zeros(0, 4)}],
    ],
)
def test_other_outputs_are_left_to_others(output: Any) -> None:
    assert read_pipeline(output, 2, SIZE) is None
