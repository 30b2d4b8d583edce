"""Flips and top-5 distances along the perturbation sequences of ImageNet-P, made on the fly or read as released."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from torch import Tensor

from dealias.data import Source
from dealias.errors import InputError
from dealias.evaluation.estimates import Estimate, fraction, mean, mean_by_image
from dealias.evaluation.network import Network
from dealias.evaluation.tasks import base
from dealias.metrics import mean_normalised
from dealias.metrics.robustness import sequence_counts
from dealias.models import Preprocessing
from dealias.models.inputs import Pixels
from dealias.perturb.released import read_video, released_videos
from dealias.perturb.sequences import NOISE_PERTURBATIONS, PERTURBATIONS, VALIDATION_PERTURBATIONS, sequence


@dataclass(frozen=True)
class SequenceTask(base.Task):
    """Flips and top-5 distances along one perturbation sequence, or along released videos of so many `frames`."""

    METRICS: ClassVar[Mapping[str, base.Metric]] = {
        "imagenet-p": base.Metric("flip rate and T5D on 10 perturbation sequences"),
        "imagenet-p-extra": base.Metric("the same on the 4 for validation"),
    }
    FIGURES: ClassVar[Mapping[str, base.FigureText]] = {
        "mean_flip_rate": base.FigureText(
            "mean flip rate", "ImageNet-P, fraction of neighbouring frames with another top-1 class; less is better."
        ),
        "mean_t5d": base.FigureText(
            "mean T5D",
            "by how much the five leading classes change places, 0 to 15; less is better.",
            is_fraction=False,
        ),
        "mfr": base.FigureText("mFR", "flip rates divided by those of the network given for it; less is better."),
        "mt5d": base.FigureText("mT5D", "T5Ds divided by those of the network given for it; less is better."),
    }
    PLOTS: ClassVar[Mapping[str, base.PlotText]] = {
        "perturbations": base.PlotText(
            "Flip rates (ImageNet-P)",
            "How often the top-1 class changes along a perturbation sequence.",
            "Bars of the flip rate on each perturbation.",
        )
    }

    perturbation: str = field(default="", kw_only=True)
    difficulty: int = field(default=1, kw_only=True)
    frames: int | None = field(default=None, kw_only=True)

    @classmethod
    def plan(cls, request: base.Request, preprocessing: Preprocessing) -> Iterator[base.Task]:
        """A task for each perturbation."""
        names = list(PERTURBATIONS) if "imagenet-p" in request.metrics else []
        names += VALIDATION_PERTURBATIONS if "imagenet-p-extra" in request.metrics else ()
        for name in names:
            source, frames = request.source, None
            if request.imagenet_p is not None:
                source, frames = _released(request, request.imagenet_p, name)
            settings: dict[str, Any] = {"difficulty": request.difficulty, "frames": frames, "images_per_unit": 8}
            yield cls(f"imagenet-p/{name}", source, request.seed, perturbation=name, **settings)

    def open(self, number: int) -> Any:
        """A picture; or all frames of a released video, bytes (frames, H, W, 3)."""
        if self.frames is None:
            return super().open(number)
        path = self.source.opener(self.source.positions[number])
        assert isinstance(path, Path)  # released videos are files
        found = read_video(path)
        if len(found) != self.frames:
            raise InputError(f"it has {len(found)} frames and the first video {self.frames}: all need the same number")
        return found

    def views(self, picture: Any, position: int, preprocessing: Preprocessing) -> Pixels:
        """The frames."""
        if self.frames is not None:  # they have the size of the network's input; others are resized to it
            pictures = map(Image.fromarray, picture)
            return np.stack([preprocessing.square(frame, preprocessing.crop_size) for frame in pictures])
        image = preprocessing.square(picture, preprocessing.image_size).transpose(1, 2, 0)
        frames = sequence(
            image,
            self.perturbation,
            difficulty=self.difficulty,
            generator=base.generator(self.seed, self.name, self.difficulty, position),
            size=preprocessing.crop_size,
        )
        return frames.transpose(0, 3, 1, 2)

    def count(self, views: Tensor, network: Network, targets: Tensor | None, positions: Sequence[int]) -> base.Counts:
        """For each sequence `flips` and `moved`, the sums over its `pairs` of frames, and `nan`."""
        logits = base.logits_of(views, network)
        broken = logits.isnan().any(-1)
        noise = self.perturbation in NOISE_PERTURBATIONS
        flips, moved = sequence_counts(logits, noise=noise, difficulty=self.difficulty)
        return {
            "flips": flips.sum(1).tolist(),
            "moved": moved.sum(1).tolist(),
            "pairs": [flips.shape[1]] * len(flips),
            "nan": broken.any(1).int().tolist(),
        }

    @classmethod
    def summarise(cls, tasks: Sequence[Any], answers: base.Answers, rates: base.Rates | None) -> base.Summary:
        """Flip rate and T5D of each perturbation, and the means that papers report."""
        flips: dict[str, Estimate] = {}
        moves: dict[str, Estimate] = {}
        found = {task.perturbation: parts for task in tasks if (parts := answers.of(task))}
        for name in base.in_order(PERTURBATIONS, found):
            pairs = found[name][0][1]["pairs"][0]
            flips[name] = fraction(base.by_image(found[name], "flips"), pairs)
            moved = base.by_image(found[name], "moved")
            moves[name] = mean({position: count / pairs for position, count in moved.items()})
        table = {name: {"flip_rate": flips[name].figure, "t5d": moves[name].figure} for name in flips}
        estimates = _mean_rates("flip_rate", "mfr", flips, rates) | _mean_rates("t5d", "mt5d", moves, rates)
        return base.Summary(estimates, {"perturbations": table})


def _mean_rates(
    key: str, normalised: str, estimates: Mapping[str, Estimate], rates: base.Rates | None
) -> dict[str, Estimate]:
    """The mean over perturbations, and that of the rates divided by those given."""
    counted = [name for name in estimates if name in PERTURBATIONS]
    if not counted:
        return {}
    values = {name: estimates[name].value for name in counted}
    each = mean_by_image([estimates[name].each for name in counted])
    interval = mean(each).interval if each else None
    found = {f"mean_{key}": Estimate(sum(values.values()) / len(values), interval, len(each), each)}
    if rates is not None and set(PERTURBATIONS) <= set(counted):
        ratio = mean_normalised(values, {name: row[key] for name, row in rates.items()})
        found[normalised] = Estimate(ratio, None, len(each))
    return found


def _released(request: base.Request, place: str | Path, name: str) -> tuple[Source, int]:
    """The videos of a perturbation, and the number of frames of the first readable one, 0 if there is none."""
    videos = released_videos(place, name, difficulty=request.difficulty)
    classes = sorted({label for _, label in videos})
    paths = [path for path, _ in videos]
    labels, names = [classes.index(label) for _, label in videos], [str(path.relative_to(place)) for path in paths]
    stored = Source.of_all(place, classes, labels, names, paths.__getitem__).limited(request.limit, request.seed)
    for path in paths:
        with suppress(InputError):
            return stored, len(read_video(path))
    return stored, 0


def read_rates(path: str | Path) -> dict[str, dict[str, float]]:
    """Flip rate and T5D of a network on each perturbation, from a CSV file with perturbation,flip_rate,t5d.

    Raises:
        InputError: the file has another form, or a rate is not positive.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        found = {row["perturbation"]: {key: float(row[key]) for key in ("flip_rate", "t5d")} for row in rows}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"imagenet_p_rates={str(path)!r} cannot be used ({error}): a CSV file with the columns perturbation, "
            "flip_rate and t5d"
        ) from None
    missing = [name for name in PERTURBATIONS if not all(value > 0 for value in found.get(name, {"": 0.0}).values())]
    if missing:
        raise InputError(f"imagenet_p_rates={str(path)!r} has no positive rates for {', '.join(missing)}")
    return found
