"""Answers drawn onto frames: the pixels of the JPEG, on frames of one colour."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dealias.metrics.boxes import Detections
from dealias.metrics.outputs import Predictions
from dealias.report.answers import WIDTH, draw_answer

LOSS = 24
"""Of JPEG, in levels of 255."""


def frame(height: int = 200, width: int = 320, channels: int = 3) -> torch.Tensor:
    return torch.full((channels, height, width), 90, dtype=torch.uint8)


def drawn(frame: torch.Tensor, task: Any, values: Any) -> np.ndarray:
    picture = Image.open(io.BytesIO(draw_answer(frame, Predictions(task, values))))
    assert picture.format == "JPEG"
    return np.asarray(picture).astype(int)


def changed(picture: np.ndarray) -> np.ndarray:
    """The pixels (H, W) that something is drawn on."""
    return (np.abs(picture - 90) > LOSS).any(2)


def extent(mask: np.ndarray) -> list[int]:
    """Left, top, right and bottom of what is true."""
    rows, columns = np.nonzero(mask)
    return [columns.min(), rows.min(), columns.max(), rows.max()]


def detections(boxes: Any, **parts: Any) -> list[Detections]:
    return [Detections.of("x", {"boxes": boxes, "labels": torch.arange(len(boxes)), **parts})]


@pytest.mark.parametrize("scale", [1, 3])
def test_a_box_stands_where_it_was_found(scale: int) -> None:
    """On a frame of 960 pixels it is drawn at half its coordinates."""
    height, width = 200 * scale, 320 * scale
    shown = min(WIDTH / width, 1)
    picture = drawn(frame(height, width), "detection", detections([[40 * scale, 30 * scale, 120 * scale, 110 * scale]]))
    assert picture.shape == (round(height * shown), round(width * shown), 3)
    expected = np.array([40, 30, 120, 110]) * scale * shown
    mask = changed(picture)
    np.testing.assert_allclose(extent(mask), expected, atol=4)  # lines are two pixels wide, and JPEG blurs them
    left, top, right, bottom = expected.astype(int)
    assert not mask[top + 6 : bottom - 6, left + 6 : right - 6].any()


def test_masks_and_key_points_of_detections() -> None:
    masks = torch.zeros(1, 200, 320)
    masks[:, 50:100, 60:140] = 1
    box = [[50, 40, 150, 110]]
    without = changed(drawn(frame(), "detection", detections(box)))
    with_mask = changed(drawn(frame(), "detection", detections(box, masks=masks)))
    inner = np.s_[55:95, 65:135]
    assert not without[inner].any()
    assert with_mask[inner].all()
    points = torch.tensor([[[100.0, 75], [torch.nan, torch.nan]]])
    marked = changed(drawn(frame(), "detection", detections(box, keypoints=points))) & ~without
    np.testing.assert_allclose(extent(marked), [100, 75, 100, 75], atol=4)


@pytest.mark.parametrize("found", [detections(torch.zeros(0, 4)), detections(torch.tensor([[0, 0, torch.nan, 9]]))])
def test_without_detections_the_frame_stays(found: list[Detections]) -> None:
    assert not changed(drawn(frame(), "detection", found)).any()


@pytest.mark.parametrize("as_scores", [False, True])
def test_classes_of_pixels_are_mixed_in_and_the_background_is_not(as_scores: bool) -> None:
    classes = torch.zeros(1, 200, 320, dtype=torch.long)
    classes[:, :, 160:], classes[:, 100:, 160:] = 1, 2
    scores = torch.nn.functional.one_hot(classes, 3).movedim(-1, 1).float()
    picture = drawn(frame(), "segmentation", scores if as_scores else classes)
    assert not changed(picture)[:, :150].any()
    # half of the frame's grey and half of orange and of teal
    for rows, color in ((np.s_[10:90], (230, 97, 1)), (np.s_[110:190], (15, 118, 110))):
        expected = (np.array(color) + 90) / 2
        np.testing.assert_allclose(picture[rows, 170:310].mean((0, 1)), expected, atol=3)


def test_key_points_stand_where_they_were_found() -> None:
    points = torch.tensor([[[300.0, 30], [100, 150], [torch.nan, torch.nan]]])
    mask = changed(drawn(frame(), "keypoints", points))
    np.testing.assert_allclose(extent(mask), [100, 30, 300, 150], atol=4)
    assert not mask[60:120].any()


def test_the_class_is_written_in_the_corner() -> None:
    sure, other = torch.tensor([[0.0, 9]]), torch.tensor([[0.0, 0]])
    pictures = [drawn(frame(), "classes", scores) for scores in (sure, other, torch.tensor([1]))]
    for picture in pictures:
        left, top, right, bottom = extent(changed(picture))
        assert 0 <= left < right < 150
        assert 0 <= top < bottom < 30
    assert (np.abs(pictures[0] - pictures[1]) > LOSS).any()  # 100% and 50%
    assert extent(changed(pictures[2]))[2] < extent(changed(pictures[0]))[2]  # without a probability


def test_frames_of_one_channel_are_grey() -> None:
    picture = drawn(frame(40, 60, channels=1), "embeddings", torch.ones(1, 4))
    assert picture.shape == (40, 60, 3)
    assert not changed(picture).any()
