"""How stable what networks return is under shifts, whatever their task."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from dealias.evaluation.estimates import Estimate
from dealias.evaluation.network import Network
from dealias.evaluation.tasks import base
from dealias.metrics.comparisons import Findings, comparison_of, merged
from dealias.metrics.outputs import Predictions
from dealias.metrics.views import Mode, ShiftedViews, network_views
from dealias.models import Preprocessing
from dealias.models.inputs import Pixels

_MATCHED = "of the boxes that are found in both views"


def _text(name: str, definition: str, *, is_fraction: bool = False, finding: str = "") -> base.FigureText:
    return base.FigureText(name, f"{definition}.", is_fraction=is_fraction, finding=finding)


@dataclass(frozen=True)
class StabilityTask(base.Task):
    """The metric of the network's task between shifts, as `dealias.measure_stability` has it.

    Attributes:
        shifts: the views that are compared.
    """

    METRICS: ClassVar[Mapping[str, base.Metric]] = {
        "stability": base.Metric(
            "how much what a network of any task returns differs between two random windows of one image; between "
            "circular shifts for networks that see images whole"
        )
    }
    FIGURES: ClassVar[Mapping[str, base.FigureText]] = {
        "detection_matched": _text(
            "boxes found again",
            "of all boxes in two views of one image, the fraction with a match in the other: the same class and an IoU "
            "of at least .5",
            is_fraction=True,
            finding="finds the same boxes in two shifts of one image in",
        ),
        "detection_iou": _text("IoU", f"mean {_MATCHED}"),
        "detection_centre": _text("distance of centres (px)", f"mean {_MATCHED}; less is better"),
        "detection_scale": _text("change of size", f"mean |log(area / area)| {_MATCHED}; less is better"),
        "detection_score": _text("change of the score", f"mean {_MATCHED}; less is better"),
        "detection_mask_iou": _text("IoU of masks", f"mean {_MATCHED}"),
        "detection_point_mean": _text("distance of key points (px)", f"mean {_MATCHED}; less is better"),
        "detection_point_p95": _text(
            "distance of key points, 95th percentile (px)", f"over those {_MATCHED}; less is better"
        ),
        "detection_point_mean_relative": _text(
            "relative distance of key points", f"mean {_MATCHED}, over the box's diagonal; less is better"
        ),
        "detection_empty": _text(
            "pairs without a box",
            "fraction of the pairs of views that have none; they count in no other figure",
            is_fraction=True,
        ),
        "segmentation_pixels": _text(
            "pixels with the same class",
            "fraction of the pixels that two views of one image share (mASSC)",
            is_fraction=True,
            finding="gives the pixels of two shifts of one image the same class in",
        ),
        "segmentation_iou": _text(
            "mean IoU of the class maps", "of one view's against the other's, over the classes that occur in either"
        ),
        "keypoints_mean": _text("distance of key points (px)", "mean between two views of one image; less is better"),
        "keypoints_p95": _text("distance of key points, 95th percentile (px)", "over all pairs; less is better"),
        "keypoints_largest": _text("largest distance of key points (px)", "over all pairs; less is better"),
        "embeddings_mean": _text("1 - cosine", "mean between two views of one image; less is better"),
        "embeddings_p95": _text("1 - cosine, 95th percentile", "over all pairs; less is better"),
        "images_error": _text(
            "error over the range",
            "root mean square difference between the images for two views of one image, over the range of all; "
            "less is better",
        ),
        "images_psnr": _text("PSNR (dB)", "20 log10(1 / error over the range): EQ-T of Karras et al. 2021"),
    }
    networks: ClassVar[base.Networks] = "others"

    shifts: ShiftedViews = field(kw_only=True)

    @classmethod
    def plan(cls, request: base.Request, preprocessing: Preprocessing) -> Iterator[base.Task]:
        """One task; few images in a unit, as their answers are large."""
        if "stability" in request.metrics:
            mode: Mode = "crop" if preprocessing.slides else "circular"
            shifts = network_views(preprocessing, [mode], seed=request.seed)[mode]
            yield cls("stability", request.source, request.seed, images_per_unit=4, shifts=shifts)

    def views(self, picture: Any, position: int, preprocessing: Preprocessing) -> Pixels:
        """The square in which windows slide."""
        return preprocessing.square(picture, preprocessing.shift_size)[None]

    def count(self, views: Tensor, network: Network, targets: Tensor | None, positions: Sequence[int]) -> base.Counts:
        """`states`: of a comparison of the image's views; `nan`: 1 where an answer has NaN.

        Embeddings and images with NaN are not compared.
        """
        found: base.Counts = {"nan": [], "states": []}
        pixels = network.see(views[:, 0])
        for image, position in zip(pixels, positions, strict=True):
            shifted = self.shifts.of(image[None], [position])
            answers = network.answers(shifted)
            comparison = comparison_of(answers.task)
            broken = _has_nan(answers)
            if not broken:
                comparison.add(answers, [position], self.shifts, (shifted.shape[2], shifted.shape[3]))
                broken = comparison.findings().counts.get("invalid", 0) > 0
            found["states"].append(comparison.state())
            found["nan"].append(int(broken))
        return found

    @classmethod
    def summarise(cls, tasks: Sequence[Any], answers: base.Answers, rates: base.Rates | None) -> base.Summary:
        """The figures of the network's task, and the reach of the shifts."""
        estimates: dict[str, Estimate] = {}
        reaches: dict[str, str] = {}
        for task in tasks:
            reaches = {task.shifts.mode: task.shifts.reach}
            states = base.by_image(answers.of(task), "states")
            if any(map(_is_known, states.values())):
                estimates = _estimates(states)
        return base.Summary(estimates, {"reaches": reaches} if reaches else {})


def _estimates(states: Mapping[int, Mapping[str, Any]]) -> dict[str, Estimate]:
    """The figures that have a text, with what each image adds to them."""
    known = {position: state for position, state in states.items() if _is_known(state)}
    whole = merged(list(known.values()))
    found = _shown(whole.findings(), whole.task)
    # PSNRs are over the range of all answers
    common = {key: value for key, value in whole.state().items() if key == "range"}
    parts_of = {position: merged([{**state, **common}]).findings() for position, state in known.items()}
    each = {position: _shown(found_in, whole.task).values for position, found_in in parts_of.items()}
    estimates = {}
    for name, value in found.values.items():
        key = f"{whole.task}_{name}"
        if key in StabilityTask.FIGURES and math.isfinite(value):
            interval = found.intervals.get(name)
            bounded = interval is not None and all(map(math.isfinite, interval))
            parts = {
                position: values[name] for position, values in each.items() if math.isfinite(values.get(name, math.nan))
            }
            # percentiles and the largest value are not made of what the images add
            adds = parts if interval is not None else {}
            estimates[key] = Estimate(value, interval if bounded else None, len(parts), adds)
    return estimates


def _has_nan(answers: Predictions) -> bool:
    """Whether the answers cannot be compared."""
    values = answers.values
    return isinstance(values, Tensor) and answers.task in ("embeddings", "images") and not bool(values.isfinite().all())


def _is_known(state: Mapping[str, Any]) -> bool:
    """Whether anything was compared."""
    return bool(state["metrics"][""]["rows"])


def _shown(findings: Findings, task: str) -> Findings:
    """With the values that only reports have: the share of pairs without a box, and the error behind a PSNR."""
    values, intervals = dict(findings.values), dict(findings.intervals)
    if task == "detection":
        values["empty"] = findings.counts["empty"] / findings.counts["pairs"]
    if task == "images":
        low, high = intervals["psnr"]
        values["error"], intervals["error"] = _error(values["psnr"]), (_error(high), _error(low))
    return Findings(values, intervals, findings.counts)


def _error(decibels: float) -> float:
    """The error over the range of a PSNR."""
    return 10 ** (-decibels / 20) if decibels > -math.inf else math.inf
