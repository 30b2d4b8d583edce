"""Detections as the objects of other libraries, which their pipelines return.

>>> found = read_pipeline([{"boxes": [[0, 0, 10, 10]], "labels": [1]}], count=1, size=(32, 32))
>>> found[0].boxes.tolist()
[[0.0, 0.0, 10.0, 10.0]]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dealias.metrics.boxes import Detections


def read_pipeline(output: Any, count: int, size: tuple[int, int]) -> list[Detections] | Tensor | None:
    """The detections in each image, or the class probabilities (N, C) of a classifier of ultralytics.

    Known are lists with an object for each image, or one alone for a single image: `Detections`, torchvision's
    dictionaries, ultralytics' `Results`, supervision's `Detections`, and the tuples of facenet-pytorch's MTCNN.

    Args:
        output: of a pipeline.
        count: the number of images.
        size: (height, width) of the images.

    Returns:
        None where the output is something else.
    """
    items = list(output) if isinstance(output, list | tuple) and len(output) == count else None
    for candidates in (items, [output] if count == 1 else None):
        if candidates and all(_is_results(item) for item in candidates):
            return _read_results(candidates, size)
        if candidates:
            found = [_as_detections(item) for item in candidates]
            if all(item is not None for item in found):
                return [item for item in found if item is not None]
    return None


def _as_detections(item: Any) -> Detections | None:
    """Those of torchvision, of supervision or of MTCNN; None where the item is something else."""
    if isinstance(item, Detections):
        return item
    if isinstance(item, Mapping) and "boxes" in item and "labels" in item:
        return Detections.of("the model's output", item)
    if hasattr(item, "xyxy") and hasattr(item, "class_id"):
        return _assemble(item.xyxy, item.confidence, item.class_id, item.mask)
    if isinstance(item, tuple) and len(item) in (2, 3):
        boxes, scores = item[:2]
        points = item[2] if len(item) == 3 else None
        if boxes is None and len(scores) == 1 and scores[0] is None:  # MTCNN's way to say that there is no face
            return _assemble([], [], [])
        if getattr(boxes, "ndim", 0) == 2 and boxes.shape[1] == 4 and len(scores) == len(boxes):
            return _assemble(boxes, scores, None, None, points)
    return None


def _assemble(boxes: Any, scores: Any, labels: Any, masks: Any = None, points: Any = None) -> Detections:
    """Detections of parts of any kind of array; without scores they are 1, without labels 0."""
    found = {"boxes": _tensor(boxes).double().reshape(-1, 4)}
    count = len(found["boxes"])
    found["scores"] = torch.ones(count) if scores is None else _tensor(scores)
    found["labels"] = torch.zeros(count) if labels is None else _tensor(labels)
    if masks is not None:
        found["masks"] = _tensor(masks)
    if points is not None and count:
        found["keypoints"] = _tensor(points).double()
    return Detections.of("the model's output", found)


def _tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if str(getattr(value, "dtype", None)) == "object":  # as MTCNN's landmarks
        value = value.tolist()
    return torch.as_tensor(value)


def _is_results(item: Any) -> bool:
    return hasattr(item, "orig_shape") and hasattr(item, "boxes") and hasattr(item, "probs")


def _read_results(items: Sequence[Any], size: tuple[int, int]) -> list[Detections] | Tensor | None:
    """ultralytics' Results: detections with masks and key points, or the probabilities of a classifier."""
    if all(item.probs is not None for item in items):
        return torch.stack([_tensor(item.probs.data) for item in items])
    if any(item.boxes is None for item in items):
        return None
    found = []
    for item in items:
        masks, points = item.masks, item.keypoints
        if masks is not None:
            masks = F.interpolate(_tensor(masks.data)[:, None].float(), size)[:, 0]
        if points is not None:
            places, sure = _tensor(points.xy), getattr(points, "conf", None)
            points = places if sure is None else places.masked_fill((_tensor(sure) < 0.5)[..., None], torch.nan)
        found.append(_assemble(item.boxes.xyxy, item.boxes.conf, item.boxes.cls, masks, points))
    return found
