"""What networks return is recognised: stand-ins have the shapes and the names of the libraries' own."""

from __future__ import annotations

from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dealias.errors import InputError
from dealias.metrics.outputs import TASKS, Predictions, describe, recognise

SIZE = (64, 96)
CELLS = 8 * 12 + 4 * 6 + 2 * 3


def ask(output: Any, count: int = 2, **known: Any) -> Predictions:
    return recognise(output, count=count, size=SIZE, **known)


def of_image(found: Predictions, number: int = 0) -> Any:
    assert found.task == "detection"
    return found.values[number]


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


def test_torchvisions_detections() -> None:
    item = {
        "boxes": torch.rand(3, 4).cumsum(1),
        "labels": torch.tensor([1, 2, 3]),
        "scores": torch.tensor([0.9, 0.5, 0.1]),
    }
    item |= {"masks": torch.rand(3, 1, *SIZE), "keypoints": torch.rand(3, 17, 3), "keypoints_scores": torch.rand(3, 17)}
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long), "scores": torch.zeros(0)}
    found = ask([item, empty])
    first = of_image(found)
    torch.testing.assert_close(first.boxes, item["boxes"].double())
    assert torch.equal(first.masks, item["masks"][:, 0] > 0.5)
    torch.testing.assert_close(first.points, item["keypoints"][..., :2].double())
    assert len(of_image(found, 1)) == 0
    assert of_image(ask([item, empty], least_score=0.5)).labels.tolist() == [1, 2]


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
    masks = SimpleNamespace(data=torch.ones(1, 32, 48))
    sure = torch.tensor([[0.9, 0.2]])
    points = SimpleNamespace(xy=torch.tensor([[[1.0, 2.0], [0.0, 0.0]]]), conf=sure)
    found = ask([results(1, masks=masks, keypoints=points), results(0)])
    first = of_image(found)
    assert first.masks.shape == (1, *SIZE)
    assert first.points[0, 0].tolist() == [1, 2]
    assert first.points[0, 1].isnan().all()
    assert len(of_image(found, 1)) == 0
    assert len(of_image(ask([results(2)], count=1))) == 2
    assert ask([results(0, probs=SimpleNamespace(data=torch.rand(5)))], count=1).task == "classes"
    with pytest.raises(InputError, match="not recognised"):
        ask([results(0, boxes=None)], count=1)  # rotated boxes


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


def test_ultralytics_raw_tensors() -> None:
    cells, rest = yolo_output()
    for output in ((cells, rest), cells):
        found = ask(output)
        first = of_image(found)
        # the second is the first one's, the third has another class
        assert first.labels.tolist() == [0, 1, 2]
        assert first.scores.tolist() == pytest.approx([0.9, 0.7, 0.6])
        assert first.boxes[0].tolist() == [12, 16, 28, 24]
        assert len(of_image(found, 1)) == 0
    assert of_image(ask(cells, least_score=0.65)).labels.tolist() == [0, 1]


def test_ultralytics_masks_and_key_points() -> None:
    cells, rest = yolo_output(extras=2)
    prototypes = torch.ones(2, 2, 16, 24)
    prototypes[:, :, :, 5:] = -1.0
    first = of_image(ask(((cells, prototypes), rest)))
    # positive left of column 20, within the box of columns 12 to 27 and rows 16 to 23
    assert first.masks[0].nonzero().amin(0).tolist() == [16, 12]
    assert first.masks[0].nonzero().amax(0).tolist() == [23, 19]
    cells, rest = yolo_output(extras=6)
    head = nn.Identity()
    head.nc, head.kpt_shape, head.stride = 3, [2, 3], torch.tensor([8.0, 16, 32])  # type: ignore[assignment]
    model = SimpleNamespace(model=nn.Sequential(nn.Identity(), head))
    cells[0, 12, 0] = 0.2
    first = of_image(ask((cells, rest), model=model))
    assert first.points.shape == (3, 2, 2)
    assert first.points[0, 0].tolist() == [1, 1]
    assert first.points[0, 1].isnan().all()  # not sure enough
    with pytest.raises(InputError, match="not recognised"):
        ask((yolo_output(extras=1)[0], rest))  # the angle of rotated boxes


def test_ultralytics_end_to_end_networks() -> None:
    head = nn.Identity()
    head.nc = 3  # type: ignore[assignment]
    model = SimpleNamespace(model=nn.Sequential(head))
    rows = torch.zeros(2, 300, 6)
    rows[0, 0] = torch.tensor([12.0, 16, 28, 24, 0.9, 2])
    first = of_image(ask((rows, {}), model=model))
    assert first.boxes.tolist() == [[12, 16, 28, 24]]
    assert first.labels.tolist() == [2]


class ModelOutput(OrderedDict[str, Any]):
    """As transformers' base class."""


class DetrObjectDetectionOutput(ModelOutput):
    """As transformers', with a class for no object."""


@pytest.mark.parametrize("kind", [DetrObjectDetectionOutput, ModelOutput])
def test_transformers_detections(kind: type) -> None:
    logits = torch.full((2, 5, 4), -9.0)
    logits[..., 3] = 0.0
    logits[0, 1, 2] = 9.0
    boxes = torch.full((2, 5, 4), 0.5)
    boxes[0, 1] = torch.tensor([0.5, 0.25, 0.5, 0.25])
    if kind is ModelOutput:
        logits = logits[..., :3]
    first = of_image(ask(kind(logits=logits, pred_boxes=boxes)))
    assert first.labels.tolist() == [2]
    assert first.boxes.tolist() == [[24, 8, 72, 24]]
    assert len(of_image(ask(kind(logits=logits, pred_boxes=boxes), least_score=0.0))) == 5


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


def test_supervisions_detections_and_mtcnns() -> None:
    item = SimpleNamespace(xyxy=np.ones((2, 4)), confidence=np.array([0.5, 0.6]), class_id=np.array([1, 2]), mask=None)
    assert of_image(ask([item, item])).scores.tolist() == [0.5, 0.6]
    assert len(of_image(ask(item, count=1))) == 2
    nameless = SimpleNamespace(xyxy=np.ones((1, 4)), confidence=None, class_id=None, mask=np.ones((1, *SIZE), bool))
    assert of_image(ask(nameless, count=1)).masks.all()
    # MTCNN.detect returns arrays of objects, and None where there is no face
    boxes, scores = np.array([[1, 2, 30, 40]], dtype=object), np.array([0.99], dtype=object)
    landmarks = np.array([[[5, 6]] * 5], dtype=object)
    first = of_image(ask((boxes, scores, landmarks), count=1))
    assert first.boxes.tolist() == [[1, 2, 30, 40]]
    assert first.points.shape == (1, 5, 2)
    for nothing in ((None, np.array([None])), (None, np.array([None]), None)):
        assert len(of_image(ask(nothing, count=1))) == 0


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
