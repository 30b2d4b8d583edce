"""Errors on the corruptions of ImageNet-C, made on the fly or read as released."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from dealias.data import Source, open_source
from dealias.errors import InputError
from dealias.evaluation.estimates import Estimate, fraction
from dealias.evaluation.network import Network
from dealias.evaluation.tasks import base
from dealias.metrics import alexnet_corruption_errors, clustered_wilson_interval, mean_normalised
from dealias.metrics.predictions import top1
from dealias.models import Preprocessing
from dealias.models.inputs import Pixels
from dealias.perturb.corruptions import CORRUPTIONS, SEVERITIES, VALIDATION_CORRUPTIONS, corrupt
from dealias.perturb.released import released_corruption


@dataclass(frozen=True)
class CorruptionTask(base.Task):
    """Errors on one corruption at five severities, or at one on `released` images."""

    METRICS: ClassVar[Mapping[str, base.Metric]] = {
        "imagenet-c": base.Metric("errors on 15 corruptions at 5 severities", labelled=True),
        "imagenet-c-extra": base.Metric("errors on the 4 corruptions for validation", labelled=True),
    }
    FIGURES: ClassVar[Mapping[str, base.FigureText]] = {
        "mean_corruption_error": base.FigureText(
            "mean corruption error", "ImageNet-C, mean error over corruptions and severities; less is better."
        ),
        "mce": base.FigureText("mCE", "the same, each corruption divided by AlexNet's error; less is better."),
    }
    PLOTS: ClassVar[Mapping[str, base.PlotText]] = {
        "corruptions": base.PlotText(
            "Corruption errors (ImageNet-C)",
            "Top-1 error on corrupted images, the mean over severities.",
            "Bars of the error on each corruption.",
        ),
        "severities": base.PlotText(
            "The same at each severity",
            "Top-1 error at severities 1 to 5.",
            "Line plots of the error against the severity, one for each corruption.",
        ),
    }
    labelled: ClassVar[bool] = True

    corruption: str = field(default="", kw_only=True)
    severities: Sequence[int] = field(default=SEVERITIES, kw_only=True)
    released: bool = field(default=False, kw_only=True)

    @classmethod
    def plan(cls, request: base.Request, preprocessing: Preprocessing) -> Iterator[base.Task]:
        """A task for each corruption; of the released images one for each severity too."""
        names = list(CORRUPTIONS) if "imagenet-c" in request.metrics else []
        names += VALIDATION_CORRUPTIONS if "imagenet-c-extra" in request.metrics else ()
        settings: dict[str, Any] = {"images_per_unit": 32, "released": True}
        for name in names:
            if request.imagenet_c is None:
                yield cls(f"imagenet-c/{name}", request.source, request.seed, corruption=name)
                continue
            for level in SEVERITIES:
                stored = _released(request, request.imagenet_c, name, level)
                task = f"imagenet-c/{name}/{level}"
                yield cls(task, stored, request.seed, corruption=name, severities=(level,), **settings)

    def views(self, picture: Any, position: int, preprocessing: Preprocessing) -> Pixels:
        """The centre at each severity, every image with draws of its own; released images as they are."""
        if self.released:  # they have the size of the network's input; others are resized to it
            return preprocessing.square(picture, preprocessing.crop_size)[None]
        image = preprocessing.centre(preprocessing.square(picture, preprocessing.image_size)).transpose(1, 2, 0)
        draws = {level: base.generator(self.seed, self.name, level, position) for level in self.severities}
        views = [corrupt(image, self.corruption, level, generator=draw) for level, draw in draws.items()]
        return np.stack(views).transpose(0, 3, 1, 2)

    def count(self, views: Tensor, network: Network, targets: Tensor | None, positions: Sequence[int]) -> base.Counts:
        """`errors`: for each severity the images with the wrong top-1; `nan`."""
        assert targets is not None  # the task is not planned without
        predictions = top1(base.logits_of(views, network))
        wrong = (predictions != targets.to(predictions.device).unsqueeze(1)).int()
        errors = {str(level): wrong[:, column].tolist() for column, level in enumerate(self.severities)}
        return {"errors": errors, "nan": (predictions < 0).any(1).int().tolist()}

    @classmethod
    def summarise(cls, tasks: Sequence[Any], answers: base.Answers, rates: base.Rates | None) -> base.Summary:
        """Errors of each corruption at each severity, and the means that papers report."""
        cells: dict[str, dict[str, dict[int, int]]] = {}
        for task in tasks:
            for positions, counts in answers.of(task):
                for severity, wrong in counts["errors"].items():
                    cell = cells.setdefault(task.corruption, {}).setdefault(severity, {})
                    cell.update(zip(positions, wrong, strict=True))
        table = {
            name: {severity: fraction(cell).figure for severity, cell in sorted(cells[name].items())}
            for name in base.in_order(CORRUPTIONS, cells)
        }
        counted = [name for name in table if name in CORRUPTIONS]
        errors = {name: sum(figure.value for figure in table[name].values()) / len(table[name]) for name in counted}
        estimates = _mean_errors(errors, [cell for name in counted for cell in cells[name].values()])
        return base.Summary(estimates, {"corruptions": table})


def _mean_errors(errors: Mapping[str, float], cells: Sequence[Mapping[int, int]]) -> dict[str, Estimate]:
    """The mean over corruptions, and the mCE where all are there at all severities."""
    if not errors:
        return {}
    wrong: Counter[int] = Counter()
    trials: Counter[int] = Counter()
    for cell in cells:
        wrong.update(cell)
        trials.update(cell.keys())
    # an image that the released folders lack here or there has fewer trials
    each = {position: count / trials[position] for position, count in wrong.items()}
    interval = clustered_wilson_interval(list(wrong.values()), list(trials.values()))
    found = {"mean_corruption_error": Estimate(sum(errors.values()) / len(errors), interval, len(each), each)}
    if max(trials.values()) == len(CORRUPTIONS) * len(SEVERITIES):
        found["mce"] = Estimate(mean_normalised(errors, alexnet_corruption_errors()), None, len(each))
    return found


def _released(request: base.Request, place: str | Path, name: str, severity: int) -> Source:
    """The released images of a corruption, of the same classes as the request's."""
    stored = open_source(released_corruption(place, name, severity), limit=request.limit, seed=request.seed)
    if stored.classes != request.source.classes:
        raise InputError(
            f"imagenet_c={str(place)!r} has other classes than images={request.source.place!r}: "
            "both need the same subfolders"
        )
    return stored
