"""Detections from the raw tensors of ultralytics' and transformers' networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dealias.metrics.boxes import Detections, box_ious

YOLO_LEAST_SCORE, YOLO_MOST_IOU, YOLO_MOST_BOXES = 0.25, 0.7, 300
"""ultralytics' own settings of `predict`."""
DETR_LEAST_SCORE = 0.5
"""The threshold of transformers' own `post_process_object_detection`."""
YOLO_STRIDES = (8, 16, 32)
_SOFTMAX_OUTPUTS = ("DetrObjectDetectionOutput", "DetrSegmentationOutput", "YolosObjectDetectionOutput")
"""Outputs whose logits have a last class for no object; the others of the DETR family have a sigmoid for each class."""


def decode_yolo(
    output: Any, size: tuple[int, int], model: Any = None, least_score: float | None = None
) -> list[Detections] | None:
    """Detections of a raw output: (N, 4 + classes + extras, cells), or (N, boxes, 6 + extras) of end-to-end networks.

    Boxes with the same class and an IoU above .7 with a better one are left out (non-maximum suppression), as
    ultralytics does. Extras are the coefficients of masks, where the output has prototypes of masks, or key points.

    Args:
        output: the tensor, or a tuple that begins with it.
        size: (height, width) of the input.
        model: the network; its last layer knows the numbers of classes and of key points.
        least_score: .25 by default.

    Returns:
        None where the output is something else, or has rotated boxes.
    """
    values, rest = _first(output)
    least = YOLO_LEAST_SCORE if least_score is None else least_score
    head = _head(model)
    if values is None:
        return None
    strides = _strides(head)
    cells = sum(-(-size[0] // stride) * -(-size[1] // stride) for stride in strides)
    prototypes = next((each for each in _tensors(rest) if each.ndim == 4 and _is_prototypes(each, size)), None)
    if values.shape[2] == cells and values.shape[1] > 4:
        classes = _class_count(head, rest, values.shape[1] - 4)
        rows = [_suppress(each.T.detach().double().cpu(), classes, least) for each in values]
    elif head is not None and values.shape[1] <= YOLO_MOST_BOXES and values.shape[2] >= 6:
        rows = [each[each[:, 4] >= least] for each in values.detach().double().cpu()]
    else:
        return None
    extras = rows[0].shape[1] - 6
    points = getattr(head, "kpt_shape", None)
    if extras and not (prototypes is not None and prototypes.shape[1] == extras) and points is None:
        return None
    return [
        _assemble(row, None if prototypes is None else prototypes[number], points, size)
        for number, row in enumerate(rows)
    ]


def decode_detr(output: Mapping[str, Any], size: tuple[int, int], least_score: float | None = None) -> list[Detections]:
    """Detections of transformers' DETR family: `logits` (N, Q, classes) and `pred_boxes` (N, Q, 4), 0 to 1.

    Queries whose best class has a probability below `least_score`, .5 by default, are left out.
    """
    logits, boxes = output["logits"].detach().double().cpu(), output["pred_boxes"].detach().double().cpu()
    softmax = any(kind.__name__ in _SOFTMAX_OUTPUTS for kind in type(output).__mro__)
    probabilities = logits.softmax(-1)[..., :-1] if softmax else logits.sigmoid()
    scores, labels = probabilities.max(-1)
    scale = torch.tensor([size[1], size[0]] * 2, dtype=torch.float64)
    corners = _corners(boxes) * scale
    masks = output.get("pred_masks")
    found = []
    for number, row in enumerate(scores):
        chosen = ~(row < (DETR_LEAST_SCORE if least_score is None else least_score))
        parts = {"boxes": corners[number, chosen], "scores": row[chosen], "labels": labels[number, chosen]}
        if masks is not None:
            parts["masks"] = _enlarged(masks[number, chosen.to(masks.device)].float(), size).sigmoid()
        found.append(Detections.of("the model's output", parts))
    return found


def _first(output: Any) -> tuple[Tensor | None, Any]:
    """The tensor (N, ., .) with which the output begins, and all that is in the output."""
    first = output
    while isinstance(first, list | tuple) and first:
        first = first[0]
    found = isinstance(first, Tensor) and first.ndim == 3 and first.is_floating_point() and first.shape[0] > 0
    return (first if found else None), output


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping | list | tuple):
        for part in output.values() if isinstance(output, Mapping) else output:
            yield from _tensors(part)


def _head(model: Any) -> Any:
    """The last layer of an ultralytics network, which knows its number of classes `nc`; None of others."""
    layers = getattr(model, "model", None)
    last = layers[-1] if isinstance(layers, torch.nn.Sequential) and len(layers) else None
    return last if hasattr(last, "nc") else None


def _strides(head: Any) -> Sequence[int]:
    strides = getattr(head, "stride", None)
    if isinstance(strides, Tensor) and strides.numel() and bool((strides > 0).all()):
        return [int(stride) for stride in strides.tolist()]
    return YOLO_STRIDES


def _class_count(head: Any, rest: Any, most: int) -> int:
    """The number of classes, from the network's head or the scores that the output also holds."""
    if head is not None:
        return int(head.nc)
    named = _named_scores(rest)
    return named.shape[1] if named is not None else most


def _named_scores(output: Any) -> Tensor | None:
    if isinstance(output, Mapping):
        scores = output.get("scores")
        return scores if isinstance(scores, Tensor) else _named_scores([*output.values()])
    if isinstance(output, list | tuple):
        return next((found for part in output if (found := _named_scores(part)) is not None), None)
    return None


def _is_prototypes(maps: Tensor, size: tuple[int, int]) -> bool:
    """Whether these are maps at a quarter of the input's resolution."""
    return all(side == -(-whole // 4) for side, whole in zip(maps.shape[2:], size, strict=True))


def _suppress(cells: Tensor, classes: int, least: float) -> Tensor:
    """The boxes of one image, best first: rows of x1, y1, x2, y2, score, class and extras."""
    scores, labels = cells[:, 4 : 4 + classes].max(1)
    # a score that is NaN is kept, to be counted as invalid
    order = (~(scores < least)).nonzero().squeeze(1)
    order = order[scores[order].argsort(descending=True, stable=True)]
    rows = [_corners(cells[order, :4]), scores[order, None], labels[order, None].double(), cells[order, 4 + classes :]]
    left = torch.cat(rows, 1)
    kept: list[Tensor] = []
    while len(left) and len(kept) < YOLO_MOST_BOXES:
        best, left = left[0], left[1:]
        kept.append(best)
        ious = box_ious(best[None, :4], left[:, :4])[0]
        left = left[~((ious > YOLO_MOST_IOU) & (left[:, 5] == best[5]))]
    return torch.stack(kept) if kept else torch.cat(rows, 1)[:0]


def _corners(boxes: Tensor) -> Tensor:
    """x1, y1, x2, y2 of boxes (..., 4) given by centre, width and height."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], -1)


def _assemble(rows: Tensor, prototypes: Tensor | None, points: Any, size: tuple[int, int]) -> Detections:
    """Detections of the rows that `_suppress` returns."""
    parts = {"boxes": rows[:, :4], "scores": rows[:, 4], "labels": rows[:, 5]}
    extras = rows[:, 6:]
    if prototypes is not None and prototypes.shape[0] == extras.shape[1]:
        maps = torch.einsum("nc,chw->nhw", extras, prototypes.detach().double().cpu())
        parts["masks"] = (_enlarged(maps, size) > 0) & _inside(rows[:, :4], size)
    elif points is not None and extras.shape[1] == points[0] * points[1]:
        places = extras.view(len(rows), *points)
        if points[1] == 3:
            places = torch.where(places[..., 2:] < 0.5, torch.nan, places)
        parts["keypoints"] = places[..., :2]
    return Detections.of("the model's output", parts)


def _enlarged(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (n, h, w) at the input's resolution, bilinear."""
    if not len(maps):
        return maps.new_zeros(0, *size)
    return F.interpolate(maps[None].cpu(), size, mode="bilinear", align_corners=False)[0]


def _inside(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """The pixels (n, H, W) in each box."""
    rows, columns = torch.arange(size[0])[None, :, None], torch.arange(size[1])[None, None]
    left, top, right, bottom = (boxes[:, side, None, None] for side in range(4))
    return (columns >= left) & (columns < right) & (rows >= top) & (rows < bottom)
