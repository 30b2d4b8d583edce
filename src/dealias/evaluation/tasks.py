"""What an evaluation measures: which views of an image a network sees, and what of its answers is counted.

A task makes the views of an image in the loader's processes, as bytes, and counts the networks' logits, in whole
numbers for each image. (Curves of probabilities are no counts; they are kept for each image too.)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
from PIL import Image
from torch import Tensor

from dealias.data import Source
from dealias.errors import InputError
from dealias.evaluation.network import Network
from dealias.metrics.measure import ViewCounts, correct_probabilities
from dealias.metrics.robustness import sequence_counts
from dealias.metrics.site_profile import profile_model
from dealias.metrics.views import WINDOWED, Mode, ShiftedViews
from dealias.models import Preprocessing
from dealias.models.inputs import Pixels
from dealias.perturb.corruptions import SEVERITIES, corrupt
from dealias.perturb.released import read_video
from dealias.perturb.sequences import NOISE_PERTURBATIONS, sequence

Counts: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Task(ABC):
    """One kind of views of the images of a source.

    Attributes:
        name: of the task, which its records bear.
        source: the images.
        seed: of the random draws.
        images_per_unit: how many images are worked on, and counted, at once.
    """

    labelled: ClassVar[bool] = False
    """Whether it counts what is right."""

    name: str
    source: Source
    seed: int
    images_per_unit: int = field(default=16, kw_only=True)

    def open(self, number: int) -> Any:
        """What `views` is given of an image: a Pillow picture.

        Raises:
            InputError: it cannot be read.
        """
        return self.source.read(number)

    @abstractmethod
    def views(self, picture: Any, position: int, preprocessing: Preprocessing) -> Pixels:
        """What the networks see of a picture: bytes (views, C, H, W)."""

    @abstractmethod
    def count(self, views: Tensor, network: Network, targets: Tensor | None, positions: Sequence[int]) -> Counts:
        """What is counted of a network's answers to views (N, views, C, H, W), bytes: lists with one entry an image.

        Args:
            views: of the images.
            network: that answers.
            targets: the classes (N,); None where they are not the network's.
            positions: the number of each image in the source.
        """


def top1(logits: Tensor) -> Tensor:
    """The classes (...) of logits (..., classes), -1 where they are NaN."""
    return logits.argmax(-1).masked_fill(logits.isnan().any(-1), -1)


def in_rows(views: Tensor, network: Network) -> Tensor:
    """Logits (N, views, classes) of views (N, views, C, H, W), bytes."""
    logits = network.predict(views.flatten(0, 1))
    return logits.view(*views.shape[:2], -1)


@dataclass(frozen=True)
class ShiftTask(Task):
    """Accuracy, and consistency in the modes of `dealias.metrics.measure_consistency`, on the same images."""

    labelled: ClassVar[bool] = True
    modes: Mapping[Mode, Mapping[str, Any]] = field(default_factory=dict, kw_only=True)
    accuracy: bool = field(default=True, kw_only=True)

    def views(self, picture: Any, position: int, preprocessing: Preprocessing) -> Pixels:
        """The square in which windows slide; where accuracy takes another size, its centre in the corner of another."""
        sliding = preprocessing.square(picture, preprocessing.shift_size)
        if preprocessing.image_size == preprocessing.shift_size:
            return sliding[None]
        corner = np.zeros_like(sliding)
        side = preprocessing.crop_size
        corner[:, :side, :side] = preprocessing.centre(preprocessing.square(picture, preprocessing.image_size))
        return np.stack([sliding, corner])

    def count(self, views: Tensor, network: Network, targets: Tensor | None, positions: Sequence[int]) -> Counts:
        """`top1` and `top5` (1 where right), and for each mode the fields of `ViewCounts`, `variation` and `nan`."""
        side = network.preprocessing.crop_size
        pixels, last = network.see(views[:, 0]), network.see(views[:, -1])
        corner = 0 if views.shape[1] > 1 else round((pixels.shape[-1] - side) / 2)
        middle = last[..., corner : corner + side, corner : corner + side]
        found: Counts = {"nan": [0] * len(pixels)}
        if self.accuracy and targets is not None:
            logits = network.predict(middle)
            right = targets.to(logits.device).unsqueeze(1)
            broken = logits.isnan().any(-1)
            leaders = logits.topk(min(5, logits.shape[1]), dim=1).indices.masked_fill(broken.unsqueeze(1), -1)
            found["top1"] = (top1(logits) == right[:, 0]).int().tolist()
            found["top5"] = (leaders == right).any(1).int().tolist()
            found["nan"] = broken.int().tolist()
        for mode, arguments in self.modes.items():
            shifts = ShiftedViews(mode, seed=self.seed, **arguments)
            shifted = shifts.of(pixels if mode in WINDOWED else middle, positions)
            logits = network.predict(shifted).view(len(pixels), shifts.count, -1)
            predictions = top1(logits)
            counts = ViewCounts.none()
            counts.add(predictions, targets, shifts)
            found[mode] = {key: value for key, value in asdict(counts).items() if value}
            found["nan"] = [int(a or b) for a, b in zip(found["nan"], (predictions < 0).any(1).tolist(), strict=True)]
            if mode == "diagonal":
                labels = _likeliest(logits) if targets is None else targets
                curves = correct_probabilities(logits, labels).nan_to_num(0.0)
                found[mode]["variation"] = curves.diff(dim=1).abs().mean(1).tolist()
                found[mode]["mean_curve_sum"] = curves.double().sum(0).tolist()
        return found


def _likeliest(logits: Tensor) -> Tensor:
    """The class of the highest mean probability over the views."""
    return logits.softmax(-1).nan_to_num(0.0).mean(1).argmax(1)


@dataclass(frozen=True)
class CorruptionTask(Task):
    """Errors on one of ImageNet-C's corruptions at five severities, made on the fly."""

    labelled: ClassVar[bool] = True
    corruption: str = field(default="", kw_only=True)

    def views(self, picture: Any, position: int, preprocessing: Preprocessing) -> Pixels:
        """The centre at severities 1 to 5; every image has draws of its own."""
        image = preprocessing.centre(preprocessing.square(picture, preprocessing.image_size)).transpose(1, 2, 0)
        return np.stack(
            [
                corrupt(
                    image, self.corruption, severity, generator=_generator(self.seed, self.name, severity, position)
                )
                for severity in SEVERITIES
            ]
        ).transpose(0, 3, 1, 2)

    def count(self, views: Tensor, network: Network, targets: Tensor | None, positions: Sequence[int]) -> Counts:
        """For each severity the images with the wrong top-1."""
        predictions = top1(in_rows(views, network))
        return _errors(predictions, targets, SEVERITIES)


@dataclass(frozen=True)
class ReleasedCorruptionTask(Task):
    """Errors on one folder of the released ImageNet-C."""

    labelled: ClassVar[bool] = True
    corruption: str = field(default="", kw_only=True)
    severity: int = field(default=1, kw_only=True)

    def views(self, picture: Any, position: int, preprocessing: Preprocessing) -> Pixels:
        """The released images have the size of the network's input already; others are resized to it."""
        return preprocessing.square(picture, preprocessing.crop_size)[None]

    def count(self, views: Tensor, network: Network, targets: Tensor | None, positions: Sequence[int]) -> Counts:
        """The images with the wrong top-1."""
        return _errors(top1(in_rows(views, network)), targets, (self.severity,))


@dataclass(frozen=True)
class SequenceTask(Task):
    """Flips and top-5 distances along one of ImageNet-P's perturbation sequences, generated or released."""

    perturbation: str = field(default="", kw_only=True)
    difficulty: int = field(default=1, kw_only=True)

    def views(self, picture: Any, position: int, preprocessing: Preprocessing) -> Pixels:
        """The frames."""
        image = preprocessing.square(picture, preprocessing.image_size).transpose(1, 2, 0)
        frames = sequence(
            image,
            self.perturbation,
            difficulty=self.difficulty,
            generator=_generator(self.seed, self.name, self.difficulty, position),
            size=preprocessing.crop_size,
        )
        return frames.transpose(0, 3, 1, 2)

    def count(self, views: Tensor, network: Network, targets: Tensor | None, positions: Sequence[int]) -> Counts:
        """For each sequence `flips` and `moved`, the sums over its `pairs` of frames, and `nan`."""
        logits = in_rows(views, network)
        broken = logits.isnan().any(-1)
        flips, moved = sequence_counts(
            logits, noise=self.perturbation in NOISE_PERTURBATIONS, difficulty=self.difficulty
        )
        return {
            "flips": flips.sum(1).tolist(),
            "moved": moved.sum(1).tolist(),
            "pairs": [flips.shape[1]] * len(flips),
            "nan": broken.any(1).int().tolist(),
        }


@dataclass(frozen=True)
class ReleasedSequenceTask(SequenceTask):
    """The same on the released videos, all of so many `frames`."""

    frames: int = field(default=0, kw_only=True)

    def open(self, number: int) -> Any:
        """All frames of a video, bytes (frames, H, W, 3)."""
        path = self.source.opener(self.source.positions[number])
        assert isinstance(path, Path)  # released videos are files
        found = read_video(path)
        if len(found) != self.frames:
            raise InputError(f"it has {len(found)} frames and the first video {self.frames}: all need the same number")
        return found

    def views(self, picture: Any, position: int, preprocessing: Preprocessing) -> Pixels:
        """The frames have the size of the network's input already; others are resized to it."""
        frames = [Image.fromarray(frame) for frame in picture]
        return np.stack([preprocessing.square(frame, preprocessing.crop_size) for frame in frames])


@dataclass(frozen=True)
class EquivarianceTask(Task):
    """Internal feature distance at the downsampling sites: of few images, all of them at once."""

    def views(self, picture: Any, position: int, preprocessing: Preprocessing) -> Pixels:
        """The centre."""
        return preprocessing.centre(preprocessing.square(picture, preprocessing.image_size))[None]

    def count(self, views: Tensor, network: Network, targets: Tensor | None, positions: Sequence[int]) -> Counts:
        """`profile`: see `dealias.metrics.site_profile.Profile.as_json`."""
        images = network.see(views[:, 0].to(network.device))
        return {"profile": profile_model(network.model, images, batch_size=network.batch_size).as_json()}


def _errors(predictions: Tensor, targets: Tensor | None, severities: Sequence[int]) -> Counts:
    assert targets is not None  # the task is not planned without
    wrong = (predictions != targets.to(predictions.device).unsqueeze(1)).int()
    errors = {str(severity): wrong[:, column].tolist() for column, severity in enumerate(severities)}
    return {"errors": errors, "nan": (predictions < 0).any(1).int().tolist()}


def _generator(seed: int, name: str, level: int, position: int) -> np.random.Generator:
    return np.random.default_rng((seed, position, level, *name.encode()))
