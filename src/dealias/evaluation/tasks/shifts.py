"""Accuracy, and consistency under every kind of shift, on the same images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from dealias.evaluation.estimates import Estimate, fraction, mean
from dealias.evaluation.network import Network
from dealias.evaluation.tasks import base
from dealias.metrics import clustered_wilson_interval
from dealias.metrics.measure import ViewCounts
from dealias.metrics.predictions import correct_probabilities, top1
from dealias.metrics.views import KINDS, MODES, Mode, ShiftedViews, network_views
from dealias.models import Preprocessing
from dealias.models.inputs import Pixels

_MODES: Mapping[str, Mode] = {mode.replace("_", "-"): mode for mode in MODES if mode != "crop"}
_PAIRS: Mapping[Mode, str] = {
    "crop": "two random windows of one image (Zhang 2019)",
    "circular": "two random circular shifts of one image",
    "fractional": "two random circular shifts of one image by fractions of a pixel",
    "half_pixel": "two random circular shifts of one image, apart by half a pixel and whole ones",
    "third_pixel": "two random circular shifts of one image, apart by thirds of a pixel and whole ones",
    "zero_fill": "two small random shifts of one image that move zeros in at the border",
    "diagonal": "two neighbouring windows along the diagonal of one image",
    "grid": "the window in the middle and another on the grid",
    "circular_grid": "the image as it is and rolled by whole pixels on the grid",
    "half_pixel_grid": "the image as it is and rolled by half pixels on the grid",
}
_WORST_CASE: Mapping[Mode, tuple[str, str, str]] = {
    "grid": ("worst_case_accuracy", "windows", "in every window"),
    "circular_grid": ("circular_worst_case_accuracy", "whole pixels", "under every circular shift by whole pixels"),
    "half_pixel_grid": ("half_pixel_worst_case_accuracy", "half pixels", "under every circular shift by half pixels"),
}
"""By grid: the figure, what an adversary chooses from in short, and in its definition."""


def _consistency_texts(mode: Mode, pairs: str) -> dict[str, base.FigureText]:
    shown = mode.replace("_", "-")
    agreement = f"fraction of pairs with the same top-1 class: {pairs}."
    unanimity = "fraction of images with the same top-1 class in all those views."
    correct = "of the pairs with at least one right prediction, the fraction with the same."
    return {
        f"{mode}_consistency": base.FigureText(
            f"{shown} consistency", agreement, finding=f"gives {pairs.partition(' (')[0]} the same top-1 class in"
        ),
        f"{mode}_unanimity": base.FigureText(f"{shown} k-way agreement", unanimity),
        f"{mode}_correct_consistency": base.FigureText(f"{shown} consistency where right", correct),
    }


def _worst_case_text(short: str, where: str) -> base.FigureText:
    definition = f"fraction of images right {where} of the grid, also called adversarial accuracy"
    return base.FigureText(f"worst-case accuracy, {short}", f"{definition} (Engstrom et al. 2019).")


@dataclass(frozen=True)
class ShiftTask(base.Task):
    """Accuracy, and consistency in the modes of `dealias.metrics.measure_consistency`.

    Attributes:
        shifts: the kinds of views that are compared.
        accuracy: whether accuracy is measured.
    """

    METRICS: ClassVar[Mapping[str, base.Metric]] = {
        "accuracy": base.Metric("top-1 and top-5 accuracy", labelled=True, default=True),
        "consistency": base.Metric(
            "agreement of two random crops (Zhang 2019); of circular shifts for networks of 32 x 32 images",
            default=True,
        ),
        "circular": base.Metric("agreement of two random circular shifts"),
        "fractional": base.Metric("the same for shifts by fractions of a pixel"),
        "half-pixel": base.Metric("the same for shifts by half a pixel and whole ones"),
        "third-pixel": base.Metric("the same for shifts by thirds of a pixel and whole ones"),
        "zero-fill": base.Metric("agreement of two random shifts that move zeros in"),
        "diagonal": base.Metric("P(correct) along the diagonal and its variation", default=True),
        "one-pixel": base.Metric("probability that one pixel changes the prediction"),
        "grid": base.Metric("accuracy in the worst of 25 windows", labelled=True),
        "circular-grid": base.Metric("accuracy under the worst of 25 circular shifts by whole pixels", labelled=True),
        "half-pixel-grid": base.Metric("accuracy under the worst of 25 circular shifts by half pixels", labelled=True),
    }
    FIGURES: ClassVar[Mapping[str, base.FigureText]] = {
        "accuracy": base.FigureText(
            "accuracy", "fraction of images with the right top-1 class.", finding="gives the right top-1 class in"
        ),
        "top5_accuracy": base.FigureText(
            "top-5 accuracy", "fraction of images with the right class among the first five."
        ),
        **{key: text for mode, pairs in _PAIRS.items() for key, text in _consistency_texts(mode, pairs).items()},
        "one_pixel_flip_probability": base.FigureText(
            "one-pixel flip probability",
            "fraction of pairs of windows one pixel apart with another top-1 class (Azulay and Weiss 2019); less is "
            "better.",
            finding="changes its top-1 class with a shift by one pixel in",
        ),
        **{key: _worst_case_text(short, where) for key, short, where in _WORST_CASE.values()},
        "probability_variation": base.FigureText(
            "variation of P(correct)",
            "mean change of P(correct class) from one diagonal shift to the next; less is better.",
            is_fraction=False,
        ),
    }
    PLOTS: ClassVar[Mapping[str, base.PlotText]] = {
        "accuracy_consistency": base.PlotText(
            "Accuracy against consistency",
            "Up and to the right is better.",
            "Scatter plot of accuracy against consistency.",
        ),
        "curves": base.PlotText(
            "P(correct) along the diagonal",
            "Mean over all images at each offset of the window. Single images vary far more: see the slider.",
            "Line plot of the mean probability of the correct class against the shift.",
        ),
    }
    NAME: ClassVar[str] = "shifts"
    labelled: ClassVar[bool] = True

    shifts: Mapping[Mode, ShiftedViews] = field(default_factory=dict, kw_only=True)
    accuracy: bool = field(default=True, kw_only=True)

    @classmethod
    def measures(cls, metric: str, preprocessing: Preprocessing) -> bool:
        """Windows slide in images that are larger than what the network sees."""
        return preprocessing.slides or metric not in _MODES or not KINDS[_MODES[metric]].windowed

    @classmethod
    def plan(cls, request: base.Request, preprocessing: Preprocessing) -> Iterator[base.Task]:
        """One task for all modes."""
        consistency: Mode = "crop" if preprocessing.slides else "circular"
        modes = [consistency] if "consistency" in request.metrics else []
        modes += [mode for name, mode in _MODES.items() if name in request.metrics]
        shifts = network_views(preprocessing, dict.fromkeys(modes), seed=request.seed)
        accuracy = "accuracy" in request.metrics
        if shifts or accuracy:
            yield cls(cls.NAME, request.source, request.seed, images_per_unit=32, shifts=shifts, accuracy=accuracy)

    def views(self, picture: Any, position: int, preprocessing: Preprocessing) -> Pixels:
        """The square in which windows slide; where accuracy takes another size, its centre in the corner of another."""
        sliding = preprocessing.square(picture, preprocessing.shift_size)
        if preprocessing.image_size == preprocessing.shift_size:
            return sliding[None]
        corner = np.zeros_like(sliding)
        side = preprocessing.crop_size
        corner[:, :side, :side] = preprocessing.centre(preprocessing.square(picture, preprocessing.image_size))
        return np.stack([sliding, corner])

    def count(self, views: Tensor, network: Network, targets: Tensor | None, positions: Sequence[int]) -> base.Counts:
        """`top1` and `top5` (1 where right), and for each mode the fields of `ViewCounts`, `variation` and `nan`."""
        side = network.preprocessing.crop_size
        pixels, last = network.see(views[:, 0]), network.see(views[:, -1])
        corner = 0 if views.shape[1] > 1 else round((pixels.shape[-1] - side) / 2)
        middle = last[..., corner : corner + side, corner : corner + side]
        found: base.Counts = {"nan": [0] * len(pixels)}
        if self.accuracy and targets is not None:
            found = _count_right(network.predict(middle), targets)
        for mode, shifts in self.shifts.items():
            shifted = shifts.of(pixels if shifts.windowed else middle, positions)
            logits = network.predict(shifted).view(len(pixels), shifts.count, -1)
            found[mode] = _count_views(logits, targets, shifts)
            broken = logits.isnan().any(-1).any(1).tolist()
            found["nan"] = [int(a or b) for a, b in zip(found["nan"], broken, strict=True)]
        return found

    @classmethod
    def summarise(cls, tasks: Sequence[Any], answers: base.Answers, rates: base.Rates | None) -> base.Summary:
        """Accuracies, the figures and the reach of each mode, and the curve of mean P(correct) along the diagonal."""
        estimates: dict[str, Estimate] = {}
        details: dict[str, Any] = {"reaches": {}}
        for task in tasks:
            details["reaches"] = {mode: shifts.reach for mode, shifts in task.shifts.items()}
            parts = answers.of(task)
            if not parts:
                continue
            for key, name in (("top1", "accuracy"), ("top5", "top5_accuracy")):
                if key in parts[0][1]:
                    estimates[name] = fraction(base.by_image(parts, key))
            for mode, shifts in task.shifts.items():
                of_mode = [(positions, counts[mode]) for positions, counts in parts]
                estimates |= dict(_mode_estimates(of_mode, shifts))
                if mode == "diagonal":
                    sums = zip(*(counts["mean_curve_sum"] for _, counts in of_mode), strict=True)
                    images = sum(len(positions) for positions, _ in of_mode)
                    details["curves"] = [sum(column) / images for column in sums]
        return base.Summary(estimates, details)

    @staticmethod
    def stability(counts: base.Counts) -> list[tuple[float, float]]:
        """For each image, how well its views agree, then less the variation of P(correct): the least stable first."""
        modes = [found for found in counts.values() if isinstance(found, dict)]
        agreements = [sum(values) for values in zip(*(found["agreements"] for found in modes), strict=True)]
        variation = counts.get("diagonal", {}).get("variation", [0.0] * len(counts["nan"]))
        return [(agree, -vary) for agree, vary in zip(agreements or variation, variation, strict=True)]


def _count_right(logits: Tensor, targets: Tensor) -> base.Counts:
    right = targets.to(logits.device).unsqueeze(1)
    broken = logits.isnan().any(-1)
    leaders = logits.topk(min(5, logits.shape[1]), dim=1).indices.masked_fill(broken.unsqueeze(1), -1)
    return {
        "nan": broken.int().tolist(),
        "top1": (top1(logits) == right[:, 0]).int().tolist(),
        "top5": (leaders == right).any(1).int().tolist(),
    }


def _count_views(logits: Tensor, targets: Tensor | None, shifts: ShiftedViews) -> base.Counts:
    counts = ViewCounts()
    counts.add(top1(logits), targets, shifts)
    found: base.Counts = {key: value for key, value in asdict(counts).items() if value}
    if shifts.mode == "diagonal":
        # without classes, the class of the highest mean probability over the views
        labels = logits.softmax(-1).nan_to_num(0.0).mean(1).argmax(1) if targets is None else targets
        curves = correct_probabilities(logits, labels).nan_to_num(0.0)
        found["variation"] = curves.diff(dim=1).abs().mean(1).tolist()
        found["mean_curve_sum"] = curves.double().sum(0).tolist()
    return found


def _mode_estimates(parts: Sequence[base.Part], shifts: ShiftedViews) -> Iterator[tuple[str, Estimate]]:
    mode = shifts.mode
    agreements = fraction(base.by_image(parts, "agreements"), len(shifts.compared))
    if mode == "one_pixel":
        low, high = agreements.interval or (0.0, 1.0)
        flips = {position: 1 - value for position, value in agreements.each.items()}
        yield "one_pixel_flip_probability", Estimate(1 - agreements.value, (1 - high, 1 - low), len(flips), flips)
        return
    yield f"{mode}_consistency", agreements
    yield f"{mode}_unanimity", fraction(base.by_image(parts, "unanimous"))
    if "right_pairs" not in parts[0][1]:
        return
    right, pairs = (list(base.by_image(parts, key).values()) for key in ("right_agreements", "right_pairs"))
    if any(pairs):
        interval = clustered_wilson_interval(right, pairs)
        yield f"{mode}_correct_consistency", Estimate(sum(right) / sum(pairs), interval, len(pairs))
    if mode in _WORST_CASE:
        counts = base.by_image(parts, "right_views")
        yield _WORST_CASE[mode][0], fraction({key: int(count == shifts.count) for key, count in counts.items()})
    if mode == "diagonal":
        yield "probability_variation", mean(base.by_image(parts, "variation"))
