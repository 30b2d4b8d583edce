"""Detections: how consistent they are between two shifts of an image, and what shifts do to average precision.

>>> metric = DetectionConsistency()
>>> a = [{"boxes": torch.tensor([[10.0, 10, 30, 30]]), "scores": torch.tensor([0.9]), "labels": torch.tensor([1])}]
>>> b = [{"boxes": torch.tensor([[11.0, 12, 31, 32]]), "scores": torch.tensor([0.8]), "labels": torch.tensor([1])}]
>>> metric.update(a, b, shift=(2, 0), size=(64, 64))
>>> {name: round(value.item(), 3) for name, value in metric.compute().items()}
{'matched': 1.0, 'iou': 0.905, 'centre': 1.0, 'scale': 0.0, 'score': 0.1}
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from dealias.errors import InputError, InputTypeError
from dealias.metrics._overlap import Shift, as_shifts, as_size, overlap
from dealias.metrics._rows import Ratio, RatioMetric
from dealias.metrics.boxes import Detections, as_detections, box_ious, lengths, match_boxes
from dealias.optional import require

_AVERAGE_PRECISIONS = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large")


class DetectionConsistency(RatioMetric):
    """How well the detections in two shifts of an image agree, once the shift is undone.

    Boxes of the same label are matched one to one, so that their total IoU is largest; a match has an IoU of at least
    .5. Boxes whose centre lies outside what both views show are left out, as are boxes with a coordinate or a score
    that is NaN or infinite: `counts` tells how many, and how many pairs have no box in either view.

    `compute` returns float32 scalars, NaN where there is nothing to compare:
        matched: 2 matches / all boxes.
        iou: mean IoU of the matches.
        centre: mean distance of their centres, in pixels.
        scale: mean |log(area / area)|.
        score: mean |score - score|.

    Raises:
        InputError: as `update`; or `compute`, `intervals` or `counts` is called before any `update`.
        MissingExtraError: SciPy, which matches the boxes, is not installed.
    """

    columns = ("pairs", "empty", "boxes", "matched", "matches", "iou", "centre", "scale", "score", "outside", "invalid")
    ratios: ClassVar = {
        "matched": Ratio("matched", "boxes", is_share=True),
        "iou": Ratio("iou", "matches", largest=1.0),
        "centre": Ratio("centre", "matches"),
        "scale": Ratio("scale", "matches"),
        "score": Ratio("score", "matches"),
    }
    counted = ("pairs", "empty", "boxes", "matches", "outside", "invalid")

    def update(self, a: Any, b: Any, shift: Shift, size: Sequence[int], image: Any = None) -> None:
        """Add pairs of views.

        Args:
            a, b: the detections in the first and the second view of each pair: lists of dictionaries in torchvision's
                format, `boxes` (n, 4) x1, y1, x2, y2 in pixels, `scores` (n,), `labels` (n,).
            shift: (dy, dx) in pixels, one for all pairs or (N, 2): what stands at (y, x) in view a stands at
                (y + dy, x + dx) in view b.
            size: (height, width) of the views.
            image: the number of the image, one for all pairs or one for each: the pairs of an image are one unit of
                the intervals. By default each pair is one.

        Raises:
            InputError: the lists have different lengths or are empty, an entry is missing or has another shape, or the
                views have nothing in common.
            InputTypeError: an argument is of the wrong type.
        """
        firsts, seconds = as_detections("a", a), as_detections("b", b)
        if len(firsts) != len(seconds) or not firsts:
            raise InputError(f"a has {len(firsts)} images and b {len(seconds)}: give as many of both, one at least")
        shifts, sides = as_shifts(shift, len(firsts)), as_size(size)
        rows = [_row(*pair, sides) for pair in zip(firsts, seconds, shifts, strict=True)]
        self._add(rows, image)


def detection_consistency(a: Any, b: Any, shift: Shift, size: Sequence[int]) -> dict[str, Tensor]:
    """The values of `DetectionConsistency` for pairs of views; arguments and errors as for its `update`."""
    metric = DetectionConsistency()
    metric.update(a, b, shift, size)
    return metric.compute()


def matched_detections(
    a: Detections, b: Detections, shift: tuple[float, float], size: tuple[int, int]
) -> tuple[Detections, Detections]:
    """The matched detections of two views, pair by pair, both in the coordinates of view a.

    Masks stay in those of their own view.
    """
    region = overlap(shift, size)
    first, second = a.centred_in(region), b.moved_back(shift).centred_in(region)
    rows, columns = match_boxes(first, second)
    return first.take(rows), second.take(columns)


def _row(a: Detections, b: Detections, shift: tuple[float, float], size: tuple[int, int]) -> list[float]:
    region = overlap(shift, size)
    boxes = len(a.centred_in(region)) + len(b.moved_back(shift).centred_in(region))
    one, other = matched_detections(a, b, shift, size)
    sums = [
        box_ious(one.boxes, other.boxes).diagonal(),
        lengths(one.centres - other.centres),
        (one.areas / other.areas).log().abs(),
        (one.scores - other.scores).abs(),
    ]
    counts = [1, boxes == 0, boxes, 2 * len(one), len(one)]
    left_out = [len(a) + len(b) - boxes, a.invalid + b.invalid]
    return [*counts, *(float(part.sum()) for part in sums), *left_out]


class ShiftAveragePrecision(RatioMetric):
    """The best and the worst average precision (AP) that a choice among shifts leaves, image by image.

    Of each image and each shift the AP is that of torchmetrics' `MeanAveragePrecision` on that image alone (IoU .5 to
    .95, mean over classes). `worst` is the mean over images of the lowest AP over the shifts, `best` of the highest,
    `mean` of the mean: float32 scalars. Only objects and boxes whose centre lies in what all views show count; images
    without such an object count in none: `counts` tells how many.

    Raises:
        InputError: as `update`; or `compute`, `intervals` or `counts` is called before any `update`.
        MissingExtraError: faster-coco-eval, which computes the AP, is not installed.

    Source: the bounds of AP under shifts of Manfredi and Wang, Shift Equivariance in Object Detection, 2020.
    """

    higher_is_better = True
    plot_upper_bound = 1.0
    columns = ("images", "empty", "best", "worst", "mean")
    ratios: ClassVar = {name: Ratio(name, "images", largest=1.0) for name in ("best", "worst", "mean")}
    counted = ("images", "empty")

    def update(self, predictions: Any, targets: Any, shifts: Shift, size: Sequence[int]) -> None:
        """Add images.

        Args:
            predictions: for each image a list of its detections at each shift, dictionaries in torchvision's format.
            targets: for each image a dictionary of `boxes` (n, 4) and `labels` (n,), in the pixels of the image.
            shifts: (S, 2): what stands at (y, x) in the image stands at (y + dy, x + dx) in the view.
            size: (height, width) of the views.

        Raises:
            InputError, InputTypeError: as `DetectionConsistency.update`; or an image has not one list for each shift.
        """
        truths = as_detections("targets", targets)
        if not isinstance(predictions, Sequence) or len(predictions) != len(truths) or not truths:
            raise InputError("predictions and targets must have one entry for each image, and one image at least")
        moves = as_shifts(shifts, len(shifts) if isinstance(shifts, Sequence | Tensor) else 1, "shifts")
        regions = [overlap(move, as_size(size)) for move in moves]
        tops, lefts, bottoms, rights = zip(*regions, strict=True)
        region = max(tops), max(lefts), min(bottoms), min(rights)
        self._add([_bounds(each, truth, moves, region) for each, truth in zip(predictions, truths, strict=True)], None)


def average_precision(predictions: Sequence[Any], targets: Sequence[Any]) -> dict[str, float]:
    """COCO's average precision of a set of images: torchmetrics' `MeanAveragePrecision`, by faster-coco-eval.

    Args:
        predictions: for each image a dictionary of `boxes`, `scores` and `labels` in torchvision's format.
        targets: for each image a dictionary of `boxes` and `labels`.

    Returns:
        `map` (IoU .5 to .95), `map_50`, `map_75`, `map_small`, `map_medium` and `map_large`; NaN where there is no
        such object.

    Raises:
        InputError, InputTypeError: the lists differ in length, or as `DetectionConsistency.update`.
        MissingExtraError: torchmetrics, torchvision or faster-coco-eval is not installed.
    """
    found, truths = as_detections("predictions", predictions), as_detections("targets", targets)
    if len(found) != len(truths) or not truths:
        raise InputError(f"predictions has {len(found)} images and targets {len(truths)}: give as many, one at least")
    require("faster_coco_eval")
    metric = require("torchmetrics.detection").MeanAveragePrecision(backend="faster_coco_eval")
    metric.warn_on_many_detections = False
    metric.update([each.as_dict() for each in found], [each.as_dict() for each in truths])
    values = metric.compute()
    # torchmetrics gives -1 where there is nothing
    return {name: float(values[name]) if values[name] >= 0 else math.nan for name in _AVERAGE_PRECISIONS}


def _bounds(
    views: Any, truth: Detections, moves: list[tuple[float, float]], region: tuple[float, float, float, float]
) -> list[float]:
    """The row of an image: whether it counts, and its best, worst and mean AP."""
    if isinstance(views, Mapping) or not isinstance(views, Sequence):
        raise InputTypeError("predictions must hold for each image a list of its detections at each shift")
    found = as_detections("predictions", views)
    if len(found) != len(moves):
        raise InputError(f"predictions has {len(found)} views of an image and shifts {len(moves)}: give one for each")
    target = truth.centred_in(region)
    if not len(target):
        return [0, 1, 0, 0, 0]
    undone = [each.moved_back(move).centred_in(region) for each, move in zip(found, moves, strict=True)]
    values = torch.tensor([average_precision([each], [target])["map"] for each in undone], dtype=torch.float64)
    return [1, 0, float(values.max()), float(values.min()), float(values.mean())]
