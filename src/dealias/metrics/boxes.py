"""Detected boxes: their checks, IoU, and the matching of two sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dealias.errors import InputError, InputTypeError, check_kind
from dealias.optional import require


@dataclass(frozen=True, eq=False)
class Detections:
    """The objects that a network finds in an image, on the CPU.

    Attributes:
        boxes: float64 (n, 4): x1, y1, x2, y2 in pixels of the network's input.
        scores: float64 (n,).
        labels: int64 (n,).
        masks: bool (n, H, W), or None.
        points: key points, float64 (n, K, 2): x, y; NaN where a point is not found; or None.
        invalid: number of detections left out as a coordinate or the score is NaN or infinite, or a side is negative.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor | None = None
    points: Tensor | None = None
    invalid: int = 0

    @classmethod
    def of(cls, name: str, found: Any) -> Detections:
        """The detections of a dictionary in torchvision's format, or of `Detections` themselves.

        Args:
            name: of the argument, for messages.
            found: `boxes` (n, 4), `scores` (n,) and `labels` (n,); possibly `masks` (n, H, W) or (n, 1, H, W), which
                are true above .5, and `keypoints` (n, K, 2 or 3). A target needs no scores.

        Raises:
            InputError: an entry is missing, or has another shape.
            InputTypeError: it is no dictionary, or an entry is no array.
        """
        if isinstance(found, Detections):
            return found
        check_kind(name, found, Mapping, "a dictionary of boxes, scores and labels")
        if missing := [key for key in ("boxes", "labels") if key not in found]:
            raise InputError(f"{name} has no {' and no '.join(missing)}: give boxes (n, 4), scores (n,), labels (n,)")
        boxes = _array(name, found, "boxes").double()
        if boxes.numel() and (boxes.ndim != 2 or boxes.shape[1] != 4):
            raise InputError(f"{name}['boxes'] of shape {tuple(boxes.shape)}: use (n, 4), x1, y1, x2, y2")
        boxes = boxes.reshape(-1, 4)
        count = len(boxes)
        labels = _array(name, found, "labels").long()
        scores = _array(name, found, "scores").double() if "scores" in found else torch.ones(count).double()
        masks, points = (
            _array(name, found, key) if found.get(key) is not None else None for key in ("masks", "keypoints")
        )
        for key, part in {"scores": scores, "labels": labels, "masks": masks, "keypoints": points}.items():
            if part is not None and len(part) != count:
                raise InputError(f"{name} has {count} boxes and {key} of shape {tuple(part.shape)}: give one for each")
        if masks is not None:
            masks = masks.reshape(count, *masks.shape[-2:]) > 0.5
        detections = cls(boxes, scores, labels, masks, None if points is None else points[..., :2].double())
        good = boxes.isfinite().all(1) & scores.isfinite() & (boxes[:, 2:] >= boxes[:, :2]).all(1)
        return replace(detections.take(good), invalid=int((~good).sum()))

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def centres(self) -> Tensor:
        """The centres (n, 2): x, y."""
        return (self.boxes[:, :2] + self.boxes[:, 2:]) / 2

    @property
    def diagonals(self) -> Tensor:
        """The lengths (n,) of the boxes' diagonals."""
        return lengths(self.boxes[:, 2:] - self.boxes[:, :2])

    @property
    def areas(self) -> Tensor:
        """The areas (n,) of the boxes."""
        return (self.boxes[:, 2:] - self.boxes[:, :2]).prod(1)

    def take(self, chosen: Tensor | Sequence[int]) -> Detections:
        """The chosen ones, by a mask or by their numbers."""
        which = chosen if isinstance(chosen, Tensor) else torch.tensor(chosen, dtype=torch.long)
        parts: dict[str, Any] = {key: part[which] for key, part in vars(self).items() if isinstance(part, Tensor)}
        return replace(self, **parts)

    def moved_back(self, shift: tuple[float, float]) -> Detections:
        """Boxes and key points less the shift (dy, dx); masks stay as they are."""
        dy, dx = shift
        step = torch.tensor([dx, dy], dtype=torch.float64)
        points = None if self.points is None else self.points - step
        return replace(self, boxes=self.boxes - step.repeat(2), points=points)

    def centred_in(self, region: tuple[float, float, float, float]) -> Detections:
        """Those whose centre lies between top, left (both included), bottom and right (excluded)."""
        top, left, bottom, right = region
        x, y = self.centres.unbind(1)
        return self.take((x >= left) & (x < right) & (y >= top) & (y < bottom))

    def as_dict(self) -> dict[str, Tensor]:
        """Boxes (float32), scores and labels in torchvision's format."""
        return {"boxes": self.boxes.float(), "scores": self.scores.float(), "labels": self.labels}


def lengths(vectors: Tensor) -> Tensor:
    """The lengths (...) of vectors (..., 2)."""
    return torch.hypot(vectors[..., 0], vectors[..., 1])


def box_ious(a: Tensor, b: Tensor) -> Tensor:
    """The IoU (n, m) of boxes (n, 4) and (m, 4); 0 for two boxes without area."""
    low = torch.maximum(a[:, None, :2], b[None, :, :2])
    high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (a, b)]
    union = areas[0][:, None] + areas[1][None] - shared
    return torch.where(union > 0, shared / union, 0.0)


def match_boxes(a: Detections, b: Detections, least_iou: float = 0.5) -> tuple[list[int], list[int]]:
    """The one-to-one matching of largest total IoU: the numbers in `a` and in `b`, pair by pair.

    Only boxes with the same label and an IoU of at least `least_iou` are matched (Kuhn, The Hungarian method, 1955).
    """
    ious = box_ious(a.boxes, b.boxes)
    gains = torch.where((a.labels[:, None] == b.labels[None]) & (ious >= least_iou), ious, 0.0)
    if not gains.any():
        return [], []
    rows, columns = require("scipy.optimize").linear_sum_assignment(gains.numpy(), maximize=True)
    pairs = [(row, column) for row, column in zip(rows.tolist(), columns.tolist(), strict=True) if gains[row, column]]
    return [row for row, _ in pairs], [column for _, column in pairs]


def as_detections(name: str, items: Any) -> list[Detections]:
    """The detections of each image of a list.

    Raises:
        InputError, InputTypeError: it is no list, or as `Detections.of`.
    """
    if isinstance(items, Mapping | str) or not isinstance(items, Sequence):
        raise InputTypeError(f"{name} must be a list of dictionaries, one for each image, got {type(items).__name__}")
    return [Detections.of(f"{name}[{number}]", item) for number, item in enumerate(items)]


def _array(name: str, found: Mapping[str, Any], key: str) -> Tensor:
    try:
        return torch.as_tensor(found[key]).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        raise InputTypeError(f"{name}[{key!r}] must be a tensor, got {type(found[key]).__name__}") from None
