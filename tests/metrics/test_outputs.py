"""What networks return is recognised, and brought into one form for each task."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dealias.errors import InputError
from dealias.metrics.boxes import Detections
from dealias.metrics.outputs import TASKS, Predictions, describe, recognise

SIZE = (64, 96)
CELLS = 8 * 12 + 4 * 6 + 2 * 3


def ask(output: Any, count: int = 2, **known: Any) -> Predictions:
    return recognise(output, count=count, size=SIZE, **known)


@pytest.mark.parametrize(
    ("output", "task", "shape"),
    [
        (torch.rand(2, 10), "classes", (2, 10)),
        (torch.rand(2, 10).numpy(), "classes", (2, 10)),
        (torch.tensor([3, 4]), "classes", (2,)),
        ((torch.rand(2, 10), torch.rand(2, 10)), "classes", (2, 10)),  # ultralytics' classifiers
        (F.normalize(torch.randn(2, 8)), "embeddings", (2, 8)),
        (torch.rand(2, 21, *SIZE), "segmentation", (2, 21, *SIZE)),
        (torch.rand(2, 21, 16, 24), "segmentation", (2, 21, *SIZE)),
        (torch.zeros(2, *SIZE, dtype=torch.uint8), "segmentation", (2, *SIZE)),
        (torch.zeros(2, 8, 12, dtype=torch.long), "segmentation", (2, *SIZE)),
        (torch.rand(2, 3, *SIZE), "images", (2, 3, *SIZE)),
        (torch.rand(2, 3, 128, 192), "images", (2, 3, 128, 192)),
        (torch.rand(2, *SIZE), "images", (2, 1, *SIZE)),
        (torch.rand(2, 17, 2), "keypoints", (2, 17, 2)),
        (OrderedDict(out=torch.rand(2, 5, *SIZE), aux=torch.rand(2, 5, *SIZE)), "segmentation", (2, 5, *SIZE)),
        ({"loss": None, "logits": torch.rand(2, 7)}, "classes", (2, 7)),
        ({"logits": torch.rand(2, 7, 16, 24)}, "segmentation", (2, 7, *SIZE)),
        ({"last_hidden_state": torch.rand(2, 50, 32)}, "embeddings", (2, 32)),
        ({"last_hidden_state": torch.rand(2, 50, 32), "pooler_output": torch.rand(2, 16)}, "embeddings", (2, 16)),
        ({"image_embeds": torch.rand(2, 12)}, "embeddings", (2, 12)),
        ({"predicted_depth": torch.rand(2, 16, 24)}, "images", (2, 1, *SIZE)),
        ({"reconstruction": torch.rand(2, 3, 128, 192)}, "images", (2, 3, 128, 192)),
        ({"heatmaps": torch.rand(2, 17, 16, 24)}, "keypoints", (2, 17, 2)),
    ],
)
def test_shapes_tell_the_task(output: Any, task: str, shape: tuple[int, ...]) -> None:
    found = ask(output)
    assert found.task == task
    assert isinstance(found.values, Tensor)
    assert tuple(found.values.shape) == shape


@pytest.mark.parametrize(
    ("output", "task", "shape"),
    [
        (torch.rand(2, 8), "embeddings", (2, 8)),
        (torch.rand(2, 8, 4, 4), "embeddings", (2, 128)),
        (torch.rand(2, 3, *SIZE), "segmentation", (2, 3, *SIZE)),
        (torch.rand(2, 1, *SIZE), "segmentation", (2, *SIZE)),
        (torch.rand(2, 1, *SIZE), "images", (2, 1, *SIZE)),
        (torch.rand(2, 4, 3), "keypoints", (2, 4, 2)),
        (("text", torch.rand(2, 8)), "embeddings", (2, 8)),
        ({"mask": torch.rand(2, 5, *SIZE), "iou": torch.rand(2, 5)}, "classes", (2, 5)),
    ],
)
def test_the_task_can_be_told(output: Any, task: Any, shape: tuple[int, ...]) -> None:
    found = ask(output, task=task)
    assert found.task == task
    assert isinstance(found.values, Tensor)
    assert tuple(found.values.shape) == shape


def test_maps_are_enlarged_as_the_libraries_do() -> None:
    scores = torch.rand(2, 4, 16, 24)
    expected = F.interpolate(scores, SIZE, mode="bilinear", align_corners=False)
    torch.testing.assert_close(ask(scores).values, expected)
    labels = torch.randint(0, 5, (2, 16, 24))
    nearest = labels.repeat_interleave(4, 1).repeat_interleave(4, 2)
    assert torch.equal(ask(labels).values, nearest)
    foreground = torch.tensor([[[[1.0, -1.0]], [[torch.nan, 0.5]]]])[0][:, None]
    found = recognise(foreground, count=2, size=(1, 2), task="segmentation")
    assert found.values.tolist() == [[[1, 0]], [[-1, 1]]]


def test_the_maxima_of_heat_maps_are_points_of_the_input() -> None:
    maps = torch.zeros(2, 3, 16, 24)
    maps[0, 1, 5, 7] = maps[1, 2, 0, 23] = 1.0
    maps[1, 0, 3, 3] = torch.nan
    points = ask(maps, task="keypoints").values
    # the cell (5, 7) of 4 pixels covers rows 20 to 23 and columns 28 to 31
    assert points[0, 1].tolist() == [29.5, 21.5]
    assert points[1, 2].tolist() == [93.5, 1.5]
    assert points[1, 0].isnan().all()


def test_transformers_masks_of_queries_are_a_map_of_classes() -> None:
    queries = torch.full((2, 3, 5), -9.0)  # four classes and none
    queries[:, 0, 1] = queries[:, 1, 2] = queries[:, 2, 4] = 9.0
    masks = torch.full((2, 3, 16, 24), -9.0)
    masks[:, 0, :8], masks[:, 1, 8:], masks[:, 2] = 9.0, 9.0, 9.0
    found = ask({"class_queries_logits": queries, "masks_queries_logits": masks})
    assert found.task == "segmentation"
    classes = found.values.argmax(1)
    assert (classes[:, :28] == 1).all()
    assert (classes[:, 36:] == 2).all()


def detections() -> list[Any]:
    """Two detections in the first image, of scores .9 and .6: of a pipeline, of ultralytics, of transformers."""
    boxes, scores = torch.tensor([[8.0, 8, 24, 24], [40, 8, 56, 24]]), torch.tensor([0.9, 0.6])
    nothing = {"boxes": boxes[:0], "labels": scores[:0], "scores": scores[:0]}
    cells = torch.zeros(2, 5, CELLS)
    cells[0, :, [0, 1]] = torch.tensor([[16.0, 16, 16, 16, 0.9], [48, 16, 16, 16, 0.6]]).T
    logits = torch.full((2, 2, 1), -9.0)
    logits[0, :, 0] = scores.logit()
    queries = torch.tensor([[16.0, 16, 16, 16], [48, 16, 16, 16]]) / torch.tensor([96, 64, 96, 64])
    return [
        [{"boxes": boxes, "labels": torch.zeros(2), "scores": scores}, nothing],
        cells,
        (cells, {"feats": []}),
        {"logits": logits, "pred_boxes": queries.expand(2, 2, 4)},
    ]


@pytest.mark.parametrize("output", detections())
def test_detections_of_a_least_score(output: Any) -> None:
    boxes = [[8, 8, 24, 24], [40, 8, 56, 24]]
    for task, least, scores in [("auto", None, [0.9, 0.6]), ("detection", 0.7, [0.9]), ("auto", 0.95, [])]:
        found = ask(output, task=task, least_score=least)
        assert found.task == "detection"
        first, second = found.values
        assert isinstance(first, Detections)
        assert first.scores.tolist() == pytest.approx(scores)
        np.testing.assert_allclose(first.boxes, np.reshape(boxes[: len(scores)], (-1, 4)), atol=1e-4)
        assert len(second) == 0


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (None, "builtins.NoneType"),
        ("text", "builtins.str"),
        ({}, "empty dict"),
        ({"a": torch.rand(2, 3), "b": 1}, "dict with the keys a, b"),
        (torch.rand(3, 10), r"Tensor \(3, 10\) of float32 for 2 images of 64x96"),
        (torch.rand(2, 1, *SIZE), "not recognised"),
        (torch.rand(2), "not recognised"),
        ((torch.rand(2, 3), torch.rand(2, 4)), "tuple of 2"),
        ([torch.rand(2, 3, 4)] * 3, r"list of 3 .*\.\.\."),
        (torch.rand(2, 3, 4, 5, 6), "not recognised"),
        (torch.rand(2, 10).to(torch.complex64), "complex64"),
    ],
)
def test_unknown_outputs_are_described_in_a_line(output: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        ask(output)
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 500
    assert "task=" in text
    assert "predict=" in text


def test_an_output_that_is_not_of_the_task_told() -> None:
    for task in TASKS:
        if task not in ("classes", "embeddings"):
            with pytest.raises(InputError, match=f"not of task='{task}'"):
                ask(torch.rand(2, 10), task=task)
    with pytest.raises(InputError, match="task='boxes' is unknown"):
        ask(torch.rand(2, 10), task="boxes")
    assert describe([]) == "list of 0 ()"
