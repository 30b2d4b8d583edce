"""Raw tensors of detectors become boxes: stand-ins have the shapes and the names of the libraries' own."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dealias.metrics.raw_detections import YOLO_LEAST_SCORE, YOLO_MOST_BOXES, YOLO_MOST_IOU, decode_detr, decode_yolo
from dealias.optional import require

SIZE = (64, 96)
CELLS = 8 * 12 + 4 * 6 + 2 * 3


def network(**head: Any) -> SimpleNamespace:
    """As an ultralytics network, whose last layer knows the number of classes."""
    last = nn.Identity()
    vars(last).update(head)
    return SimpleNamespace(model=nn.Sequential(nn.Identity(), last))


def yolo_output(extras: int = 0) -> tuple[Tensor, dict[str, Any]]:
    """Cells of an ultralytics network with three classes: four boxes that are sure, two of them of one object."""
    cells = torch.zeros(2, 7 + extras, CELLS)
    for place, (x, y, label, score) in enumerate(
        [(20, 20, 0, 0.9), (21, 20, 0, 0.8), (21, 20, 1, 0.7), (60, 40, 2, 0.6)]
    ):
        cells[0, :4, 30 * place] = torch.tensor([x, y, 16.0, 8.0])
        cells[0, 4 + label, 30 * place] = score
        cells[0, 7:, 30 * place] = place + 1.0
    return cells, {
        "boxes": torch.zeros(2, 64, CELLS),
        "scores": torch.zeros(2, 3, CELLS),
        "feats": [torch.zeros(2, 8, 8, 12)],
    }


def test_of_boxes_of_one_object_the_best_is_kept() -> None:
    cells, rest = yolo_output()
    for output in ((cells, rest), cells):
        first, second = decode_yolo(output, SIZE) or ()
        # the second is the first one's, the third has another class
        assert first.labels.tolist() == [0, 1, 2]
        assert first.scores.tolist() == pytest.approx([0.9, 0.7, 0.6])
        assert first.boxes[0].tolist() == [12, 16, 28, 24]
        assert len(second) == 0
    assert (decode_yolo(cells, SIZE, least_score=0.65) or ())[0].labels.tolist() == [0, 1]


@pytest.mark.parametrize("seed", range(8))
def test_suppression_is_supervisions(seed: int) -> None:
    generator = np.random.default_rng(seed)
    centres = generator.uniform(10, 30, (CELLS, 2))
    sides = generator.uniform(10, 14, (CELLS, 2))
    scores = generator.uniform(size=(CELLS, 3)).astype(np.float32) ** 3
    cells = torch.tensor(np.concatenate([centres, sides, scores], 1).astype(np.float32)).T[None]
    with warnings.catch_warnings(action="ignore"):  # it works without OpenCV too
        supervision = require("supervision")
    expected = supervision.Detections(
        xyxy=np.concatenate([centres - sides / 2, centres + sides / 2], 1),
        confidence=scores.max(1),
        class_id=scores.argmax(1),
    )
    expected = expected[expected.confidence >= YOLO_LEAST_SCORE].with_nms(YOLO_MOST_IOU)
    order = np.argsort(-expected.confidence)
    (found,) = decode_yolo(cells, SIZE, network(nc=3)) or ()
    assert 5 < len(found) < (scores.max(1) >= YOLO_LEAST_SCORE).sum()
    np.testing.assert_allclose(found.boxes, expected.xyxy[order], atol=1e-4)
    np.testing.assert_allclose(found.scores, expected.confidence[order])
    assert found.labels.tolist() == expected.class_id[order].tolist()


def test_no_more_boxes_than_ultralytics_keeps() -> None:
    size = (160, 160)
    count = 20 * 20 + 10 * 10 + 5 * 5
    cells = torch.zeros(1, 5, count)
    cells[0, :2] = torch.stack([torch.arange(count) % 25, torch.arange(count) // 25]) * 6.0
    cells[0, 2:4], cells[0, 4] = 4.0, torch.linspace(0.3, 0.9, count)
    (found,) = decode_yolo(cells, size) or ()
    assert len(found) == YOLO_MOST_BOXES
    assert found.scores.tolist() == sorted(cells[0, 4].double().tolist(), reverse=True)[:YOLO_MOST_BOXES]


def test_a_score_that_is_nan_is_counted() -> None:
    cells, _ = yolo_output()
    cells[1, 4:, 7] = torch.nan
    first, second = decode_yolo(cells, SIZE) or ()
    assert (len(first), first.invalid) == (3, 0)
    assert (len(second), second.invalid) == (0, 1)


def test_masks_lie_in_their_boxes() -> None:
    cells, rest = yolo_output(extras=2)
    prototypes = torch.ones(2, 2, 16, 24)
    prototypes[:, :, :, 5:] = -1.0
    first = (decode_yolo(((cells, prototypes), rest), SIZE) or ())[0]
    assert first.masks is not None
    # positive left of column 20, within the box of columns 12 to 27 and rows 16 to 23
    assert first.masks[0].nonzero().amin(0).tolist() == [16, 12]
    assert first.masks[0].nonzero().amax(0).tolist() == [23, 19]
    assert int(first.masks[0].sum()) == 8 * 8


def test_key_points_that_are_not_sure_are_missing() -> None:
    cells, rest = yolo_output(extras=6)
    cells[0, 12, 0] = 0.2
    model = network(nc=3, kpt_shape=[2, 3], stride=torch.tensor([8.0, 16, 32]))
    first = (decode_yolo((cells, rest), SIZE, model) or ())[0]
    assert first.points is not None
    assert first.points.shape == (3, 2, 2)
    assert first.points[0, 0].tolist() == [1, 1]
    assert first.points[0, 1].isnan().all()


def test_end_to_end_networks() -> None:
    rows = torch.zeros(2, 300, 6)
    rows[0, 0] = torch.tensor([12.0, 16, 28, 24, 0.9, 2])
    rows[0, 1] = torch.tensor([12.0, 16, 28, 24, 0.2, 1])
    first, second = decode_yolo((rows, {}), SIZE, network(nc=3)) or ()
    assert first.boxes.tolist() == [[12, 16, 28, 24]]
    assert first.labels.tolist() == [2]
    assert len(second) == 0


@pytest.mark.parametrize(
    "output",
    [
        yolo_output(extras=1),  # the angle of rotated boxes
        torch.zeros(2, 7, CELLS + 1),
        torch.zeros(2, 300, 6),  # without a network that says so
        torch.zeros(2, 7, CELLS, dtype=torch.long),
        torch.zeros(7, CELLS),
        [],
        None,
    ],
)
def test_other_outputs_are_left_to_others(output: Any) -> None:
    assert decode_yolo(output, SIZE) is None


class ModelOutput(OrderedDict[str, Any]):
    """As transformers' base class."""


class DetrObjectDetectionOutput(ModelOutput):
    """As transformers', with a class for no object."""


@pytest.mark.parametrize("kind", [DetrObjectDetectionOutput, ModelOutput])
def test_transformers_detections_are_numpys(kind: type) -> None:
    generator = np.random.default_rng(0)
    logits, boxes = generator.normal(0, 2, (2, 20, 4)), generator.uniform(0.1, 0.9, (2, 20, 4))
    masks = generator.normal(size=(2, 20, 16, 24))
    powers = np.exp(logits)
    if kind is DetrObjectDetectionOutput:
        probabilities = (powers / powers.sum(-1, keepdims=True))[..., :3]
    else:
        probabilities = powers / (1 + powers)
    entries = {"logits": logits, "pred_boxes": boxes, "pred_masks": masks}
    output = kind({name: torch.tensor(entry) for name, entry in entries.items()})
    for least in (None, 0.8, 0.0):
        for number, found in enumerate(decode_detr(output, SIZE, least)):
            kept = probabilities[number].max(-1) >= (0.5 if least is None else least)
            x, y, width, height = boxes[number, kept].T * np.array([96, 64, 96, 64])[:, None]
            corners = np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], 1)
            np.testing.assert_allclose(found.boxes, corners)
            np.testing.assert_allclose(found.scores, probabilities[number, kept].max(-1))
            assert found.labels.tolist() == probabilities[number, kept].argmax(-1).tolist()
            assert found.masks is not None
            larger = F.interpolate(torch.tensor(masks[number, kept])[None].float(), SIZE, mode="bilinear")[0]
            assert torch.equal(found.masks, larger > 0)
            assert 0 < len(found) <= 20
