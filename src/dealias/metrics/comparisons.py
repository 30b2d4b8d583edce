"""Compare a network's answers to the views of an image: for each task its metric, and what is told of it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from dealias.errors import InputError
from dealias.metrics._overlap import as_shifts, shared_parts
from dealias.metrics._rows import Ratio, RatioMetric, RowMetric
from dealias.metrics.boxes import Detections
from dealias.metrics.detection import DetectionConsistency, matched_detections
from dealias.metrics.embeddings import EmbeddingConsistency
from dealias.metrics.images import EquivariancePSNR
from dealias.metrics.keypoints import KeypointConsistency
from dealias.metrics.outputs import Predictions, Task
from dealias.metrics.predictions import top1
from dealias.metrics.segmentation import SegmentationConsistency
from dealias.metrics.views import ShiftedViews

Offsets = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Findings:
    """What a comparison has found: values, the intervals of those that have one, and counts, by name."""

    values: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    counts: Mapping[str, int]


@dataclass(frozen=True)
class Pairs:
    """The compared pairs of views of an image.

    Attributes:
        image: its number.
        views: the numbers of the two views of each pair.
        shifts: of each pair, (dy, dx): see `dealias.metrics.detection`.
        size: (height, width) of the views.
    """

    image: int
    views: Sequence[tuple[int, int]]
    shifts: Offsets
    size: tuple[int, int]

    def sides(self, values: Any) -> tuple[Any, Any]:
        """The answers to the first and to the second view of each pair."""
        first, second = ([pair[side] for pair in self.views] for side in (0, 1))
        if isinstance(values, Tensor):
            return values[first], values[second]
        return [values[view] for view in first], [values[view] for view in second]


class Comparison(ABC):
    """Compares the answers of one task, image by image."""

    task: ClassVar[Task]

    def __init__(self) -> None:
        self.metrics = self._metrics()

    @abstractmethod
    def _metrics(self) -> dict[str, RowMetric]:
        """The metrics by what stands in front of the names of their values."""

    @abstractmethod
    def compare(self, values: Any, pairs: Pairs) -> None:
        """Add an image; `values` are the answers to its views."""

    def add(self, answers: Predictions, images: Sequence[int], views: ShiftedViews, size: tuple[int, int]) -> None:
        """Add images, of which `answers` holds the answers to all views, those of an image in a row.

        Raises:
            InputError: the answers are of another task, or hold NaN where the metric takes none.
        """
        if answers.task != self.task:
            raise InputError(f"the model returns {self.task} for some images and {answers.task} for others: give task=")
        for place, image in enumerate(images):
            own = answers.values[place * views.count : (place + 1) * views.count]
            self.compare(own, Pairs(image, views.compared, views.displacements(image, size), size))

    def findings(self, level: float = 0.95) -> Findings:
        """The values, their intervals and the counts; metrics without any pair are left out."""
        values: dict[str, float] = {}
        intervals: dict[str, tuple[float, float]] = {}
        counts: dict[str, int] = {}
        for prefix, metric in self.metrics.items():
            if metric.rows:
                values |= {f"{prefix}{name}": float(value) for name, value in metric.compute().items()}
                intervals |= {f"{prefix}{name}": bounds for name, bounds in metric.intervals(level).items()}
                counts |= {f"{prefix}{name}": number for name, number in metric.counts().items()}
        return Findings(values, intervals, counts)

    def state(self) -> dict[str, Any]:
        """All that was added, as lists of numbers."""
        return {"task": self.task, "metrics": {prefix: metric.as_lists() for prefix, metric in self.metrics.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Add what another comparison of the task has in its `state`."""
        for prefix, lists in state["metrics"].items():
            self.metrics[prefix].add_lists(lists)


class _ClassConsistency(RatioMetric):
    """Pairs with the same top-1, and images of which all views have the same."""

    columns = ("pairs", "equal", "images", "unanimous", "invalid")
    ratios: ClassVar = {
        "consistency": Ratio("equal", "pairs", is_share=True),
        "unanimity": Ratio("unanimous", "images", is_share=True),
    }
    counted = ("pairs", "invalid")

    def update(self, classes: Tensor, pairs: Pairs) -> None:
        """Add an image; `classes` (views,) are -1 where a score is NaN."""
        first, second = pairs.sides(classes)
        equal, same = (first == second) & (first >= 0), (classes == classes[0]) & (classes >= 0)
        self._add([[len(equal), int(equal.sum()), 1, bool(same.all()), int((classes < 0).sum())]], pairs.image)


class _MaskConsistency(RatioMetric):
    """The mean IoU of the masks of matched boxes, where both views overlap."""

    columns = ("pairs", "masks", "iou")
    ratios: ClassVar = {"iou": Ratio("iou", "masks", largest=1.0)}
    counted = ()

    def update(self, a: Tensor, b: Tensor, shift: tuple[float, float], image: int) -> None:
        """Add the masks (n, H, W) of n matched boxes, each in the pixels of its own view."""
        one, other = (part.flatten(1) for part in shared_parts(a, b, shift))
        union = (one | other).sum(1)
        ious = (one & other).sum(1)[union > 0] / union[union > 0]
        self._add([[1, len(ious), float(ious.double().sum())]], image)


def _alone(kind: type[RowMetric], **arguments: Any) -> Any:
    """A metric that keeps to its own process."""
    return kind(**arguments, sync_on_compute=False, distributed_available_fn=lambda: False)


class _Classes(Comparison):
    task = "classes"

    def _metrics(self) -> dict[str, RowMetric]:
        return {"": _alone(_ClassConsistency)}

    def compare(self, values: Any, pairs: Pairs) -> None:
        self.metrics[""].update(top1(values) if values.ndim == 2 else values, pairs)


class _Detection(Comparison):
    task = "detection"

    def _metrics(self) -> dict[str, RowMetric]:
        return {
            "": _alone(DetectionConsistency),
            "mask_": _alone(_MaskConsistency),
            "point_": _alone(KeypointConsistency),
        }

    def compare(self, values: Any, pairs: Pairs) -> None:
        first, second = pairs.sides(values)
        self.metrics[""].update(first, second, pairs.shifts, pairs.size, image=pairs.image)
        for a, b, shift in zip(first, second, as_shifts(pairs.shifts, len(first)), strict=True):
            if a.masks is not None or a.points is not None:
                one, other = matched_detections(a, b, shift, pairs.size)
                self._compare_parts(one, other, shift, pairs.image)

    def _compare_parts(self, one: Detections, other: Detections, shift: tuple[float, float], image: int) -> None:
        """Compare the masks and the key points of matched boxes."""
        if not len(one):
            return
        # masks are not interpolated
        whole = all(part == round(part) for part in shift)
        if one.masks is not None and other.masks is not None and whole:
            self.metrics["mask_"].update(one.masks, other.masks, shift, image)
        if one.points is not None and other.points is not None and one.points.shape[1]:
            self.metrics["point_"].update(one.points, other.points, (0, 0), one.boxes, image=image)


class _Segmentation(Comparison):
    task = "segmentation"

    def _metrics(self) -> dict[str, RowMetric]:
        return {"": _alone(SegmentationConsistency)}

    def compare(self, values: Any, pairs: Pairs) -> None:
        self.metrics[""].update(*pairs.sides(values), pairs.shifts, image=pairs.image)


class _Keypoints(Comparison):
    task = "keypoints"

    def _metrics(self) -> dict[str, RowMetric]:
        return {"": _alone(KeypointConsistency)}

    def compare(self, values: Any, pairs: Pairs) -> None:
        self.metrics[""].update(*pairs.sides(values), pairs.shifts, size=pairs.size, image=pairs.image)


class _Embeddings(Comparison):
    task = "embeddings"

    def _metrics(self) -> dict[str, RowMetric]:
        return {"": _alone(EmbeddingConsistency)}

    def compare(self, values: Any, pairs: Pairs) -> None:
        self.metrics[""].update(*pairs.sides(values), image=pairs.image)


class _Images(Comparison):
    task = "images"

    def __init__(self) -> None:
        super().__init__()
        self.range = (math.inf, -math.inf)

    def _metrics(self) -> dict[str, RowMetric]:
        return {"": _alone(EquivariancePSNR)}

    def compare(self, values: Any, pairs: Pairs) -> None:
        times = values.shape[-2] // pairs.size[0]
        shifts = [(dy * times, dx * times) for dy, dx in pairs.shifts]
        self.metrics[""].update(*pairs.sides(values), shifts, image=pairs.image)
        low, high = self.range
        self.range = min(low, float(values.min())), max(high, float(values.max()))

    def findings(self, level: float = 0.95) -> Findings:
        """`psnr` for the range of all answers."""
        low, high = self.range
        metric = _alone(EquivariancePSNR, data_range=high - low if high > low else 1.0)
        metric.add_lists(self.metrics[""].as_lists())
        return Findings({"psnr": float(metric.compute())}, {"psnr": metric.interval(level)}, metric.counts())

    def state(self) -> dict[str, Any]:
        """The range too."""
        return {**super().state(), "range": [*self.range]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Add what another comparison of the task has in its `state`."""
        super().restore(state)
        low, high = state["range"]
        self.range = min(self.range[0], low), max(self.range[1], high)


_KINDS: dict[Task, type[Comparison]] = {
    kind.task: kind for kind in (_Classes, _Detection, _Segmentation, _Keypoints, _Embeddings, _Images)
}


def comparison_of(task: Task) -> Comparison:
    """A comparison of that task, empty."""
    return _KINDS[task]()


def merged(states: Sequence[Mapping[str, Any]]) -> Comparison:
    """A comparison with all that others have in their `state`.

    Raises:
        InputError: they are of different tasks.
    """
    tasks = dict.fromkeys(state["task"] for state in states)
    if len(tasks) > 1:
        raise InputError(f"the model returns {' for some images and '.join(tasks)} for others: give task=")
    comparison = comparison_of(next(iter(tasks)))
    for state in states:
        comparison.restore(state)
    return comparison
