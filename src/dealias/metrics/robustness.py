"""The metrics of ImageNet-C and ImageNet-P: robustness to corruptions, stability under perturbations.

Source: Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and Perturbations, ICLR
2019, sections 4.1 and 4.2.
"""

from __future__ import annotations

import csv
from abc import abstractmethod
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any, ClassVar

import torch
from torch import Tensor

from dealias.errors import InputError, InputTypeError
from dealias.metrics._rows import Ratio, RowMetric
from dealias.metrics._torchmetrics import Metric
from dealias.metrics.intervals import wilson_interval
from dealias.metrics.predictions import checked_classes
from dealias.perturb.names import CORRUPTIONS, SEVERITIES, VALIDATION_CORRUPTIONS, check_corruption, check_difficulty


@cache
def alexnet_corruption_errors() -> dict[str, float]:
    """AlexNet's error on each of ImageNet-C's fifteen corruptions, the mean over severities; mCE divides by it.

    >>> alexnet_corruption_errors()["fog"]
    0.819324
    """
    file = resources.files("dealias.metrics").joinpath("alexnet_imagenet_c.csv")
    rows = csv.DictReader(file.read_text(encoding="utf-8").splitlines())
    return {row["corruption"]: float(row["alexnet_error"]) for row in rows}


def flip_rate(logits: Tensor, *, noise: bool = False, difficulty: int = 1) -> Tensor:
    """The share of frame pairs whose top-1 class differs (flip probability, section 4.2).

    >>> classes = torch.tensor([[3, 3, 7, 7, 3]])
    >>> flip_rate(classes).item(), flip_rate(classes, noise=True).item(), flip_rate(classes, difficulty=2).item()
    (0.5, 0.5, 1.0)

    Args:
        logits: float (sequences, frames, classes), or the classes themselves, integer (sequences, frames).
        noise: compare each frame with the first, which is clean, as for gaussian_noise, shot_noise and speckle_noise.
            Other frames are compared with the frame `difficulty` earlier.
        difficulty: 1, 2 or 3. Without effect for noise, whose sequences themselves differ by difficulty.

    Returns:
        A float32 scalar, the mean over sequences.

    Raises:
        InputError: the shape or the difficulty is invalid, there are no sequences or too few frames, or a value is NaN.
        InputTypeError: the dtype is neither float nor, where allowed, integer.
    """
    return _flips(logits, noise, difficulty).float().mean()


def top5_distance(logits: Tensor, *, noise: bool = False, difficulty: int = 1) -> Tensor:
    """The change of the ranks of the five leading classes between frames (T5D, section 4.2).

    For two frames it is the sum over k = 1..5 of |k - min(s(k), 6)|, where s(k) is the rank in the second frame of the
    class with rank k in the first. Equal logits rank by their class index.

    >>> logits = torch.tensor([[[9., 8, 7, 6, 5, 4, 3], [8, 9, 7, 6, 5, 4, 3]]])
    >>> top5_distance(logits).item()
    2.0

    Args:
        logits: float (sequences, frames, classes).
        noise, difficulty: as for `flip_rate`.

    Returns:
        A float32 scalar, the mean over pairs and sequences. Errors as for `flip_rate`.
    """
    return _distances(logits, noise, difficulty).float().mean()


class _SequenceMetric(RowMetric):
    """Sums over the pairs of frames of all sequences: a row for each sequence."""

    higher_is_better = False
    columns = ("sequences", "pairs", "total")
    counted = ("sequences", "pairs")

    def __init__(self, noise: bool = False, difficulty: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_difficulty(difficulty)
        self.noise, self.difficulty = noise, difficulty

    def update(self, logits: Tensor) -> None:
        """Count a batch of sequences; errors as for `flip_rate`."""
        values = self._values(logits)
        self._add([[1, values.shape[1], total] for total in values.sum(1).tolist()], None)

    def compute(self) -> Tensor:
        """The mean over the pairs of all sequences, a float32 scalar."""
        return torch.tensor(self.ratio("mean"), device=self.device)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The interval of the mean as in `intervals`; the sequences are its units, as their pairs are alike."""
        return self.intervals(level)["mean"]

    @abstractmethod
    def _values(self, logits: Tensor) -> Tensor:
        """The values that are summed up, (sequences, pairs)."""


class FlipRate(_SequenceMetric):
    """`flip_rate` over many batches, as a torchmetrics Metric with the arguments `noise` and `difficulty`.

    >>> metric = FlipRate()
    >>> metric.update(torch.tensor([[[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]]]))
    >>> metric.compute()
    tensor(0.5000)
    """

    plot_upper_bound = 1.0
    ratios: ClassVar = {"mean": Ratio("total", "pairs", is_share=True)}

    def _values(self, logits: Tensor) -> Tensor:
        return _flips(logits, self.noise, self.difficulty)


class T5D(_SequenceMetric):
    """`top5_distance` over many batches, as a torchmetrics Metric with the arguments `noise` and `difficulty`.

    >>> metric = T5D(noise=True)
    >>> metric.update(torch.rand(4, 31, 10))
    >>> 0 <= metric.compute().item() <= 15
    True
    """

    plot_upper_bound = 15.0
    ratios: ClassVar = {"mean": Ratio("total", "pairs", largest=15.0)}

    def _values(self, logits: Tensor) -> Tensor:
        return _distances(logits, self.noise, self.difficulty)


class CorruptionError(Metric):
    """Top-1 errors on corrupted images, their mean, and the mCE (section 4.1), as a torchmetrics Metric.

    >>> metric = CorruptionError()
    >>> metric.update("fog", 1, torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([0, 0]))
    >>> {name: round(value.item(), 3) for name, value in metric.compute().items()}
    {'fog': 0.5, 'mean': 0.5, 'mce': nan}

    The counts are integers: the result is exact and the same on any number of processes.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    plot_lower_bound = 0.0

    errors: Tensor
    images: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.corruptions = CORRUPTIONS + VALIDATION_CORRUPTIONS
        for name in ("errors", "images"):
            zeros = torch.zeros(len(self.corruptions), len(SEVERITIES), dtype=torch.long)
            self.add_state(name, default=zeros, dist_reduce_fx="sum")

    def update(self, corruption: str, severity: int, logits: Tensor, target: Tensor) -> None:
        """Count the errors on a batch.

        Args:
            corruption: one of ImageNet-C's fifteen, or of its four for validation.
            severity: 1 to 5.
            logits: float (N, classes), or the predicted classes, integer (N,).
            target: the true classes, integer (N,).

        Raises:
            InputError: the corruption or the severity is unknown, shapes do not match, or a value is NaN.
            InputTypeError: the dtype is neither float nor integer.
        """
        row, column = self._cell(corruption, severity)
        predictions = checked_classes("logits", logits)
        if target.ndim != 1 or target.is_floating_point() or target.shape != predictions.shape:
            raise InputError(
                f"target is {target.dtype} of shape {tuple(target.shape)}: use integer classes ({len(predictions)},),"
                " one for each row of logits"
            )
        self.errors[row, column] += (predictions != target).sum()
        self.images[row, column] += len(predictions)

    def compute(self) -> dict[str, Tensor]:
        """Float32 scalars: the error of each corruption that has images, `mean` and `mce`.

        The error of a corruption is the mean over its severities that have images. `mean` is the mean over those of the
        fifteen corruptions that have images; `mce` divides each by AlexNet's error first. AlexNet's errors are means
        over five severities, so that `mce` is NaN until all 75 pairs have images; `mean` is NaN before the first.
        """
        cells = self._cells()
        means = cells.nanmean(1)
        result = {name: mean for name, mean in zip(self.corruptions, means, strict=True) if not mean.isnan()}
        alexnet = torch.tensor(list(alexnet_corruption_errors().values()), device=cells.device)
        result["mean"] = means[: len(alexnet)].nanmean()
        # unlike nanmean, mean keeps NaN
        result["mce"] = (cells[: len(alexnet)].mean(1) / alexnet).mean()
        return result

    def table(self) -> dict[str, list[float]]:
        """The errors at severities 1 to 5 of each corruption that has images; NaN at severities without images."""
        with self.sync_context(dist_sync_fn=self.dist_sync_fn):
            cells = self._cells()
        return {name: row.tolist() for name, row in zip(self.corruptions, cells, strict=True) if not row.isnan().all()}

    def interval(self, corruption: str, severity: int, level: float = 0.95) -> tuple[float, float]:
        """Wilson's confidence interval of the error on one corruption at one severity; the images are the trials."""
        row, column = self._cell(corruption, severity)
        with self.sync_context(dist_sync_fn=self.dist_sync_fn):
            errors, images = int(self.errors[row, column]), int(self.images[row, column])
        if not images:
            raise InputError(f"{corruption} at severity {severity} has no images yet: call update first")
        return wilson_interval(errors, images, level)

    def _cells(self) -> Tensor:
        # 0 / 0 is NaN
        return self.errors / self.images

    def _cell(self, corruption: str, severity: int) -> tuple[int, int]:
        check_corruption(corruption, severity, "corruption")
        return self.corruptions.index(corruption), severity - 1


def mean_normalised(values: Mapping[str, float], baseline: Mapping[str, float]) -> float:
    """The mean over perturbations of value / value of the baseline network: mFR for flip rates, mT5D for T5Ds.

    >>> mean_normalised({"rotate": 0.1, "tilt": 0.1}, {"rotate": 0.2, "tilt": 0.4})
    0.375

    Raises:
        InputError: `values` is empty, or a value of the baseline is missing or not positive.
    """
    if not values:
        raise InputError("values is empty: give at least one perturbation")
    unusable = [name for name in values if not baseline.get(name, 0) > 0]
    if unusable:
        raise InputError(
            f"baseline has no positive value for {', '.join(unusable)}: it must have one for each of values"
        )
    return sum(value / baseline[name] for name, value in values.items()) / len(values)


def sequence_counts(logits: Tensor, *, noise: bool = False, difficulty: int = 1) -> tuple[Tensor, Tensor]:
    """The flips (bool) and the T5D distances (integer) of each pair of frames, both (sequences, pairs).

    NaN is allowed: a frame with NaN in its logits has no prediction, and its pairs count as flips with the largest
    distance, 15. Arguments and other errors are those of `top5_distance`.
    """
    _check_sequences(logits, difficulty, dimensions=(3,))
    broken = logits.isnan().any(-1)
    known = logits.masked_fill(broken.unsqueeze(-1), 0.0)
    earlier, later = _pairs(broken, noise, difficulty)
    unknown = earlier | later
    flips, distances = _flips(known, noise, difficulty), _distances(known, noise, difficulty)
    return flips | unknown, distances.masked_fill(unknown, 15)


def _flips(logits: Tensor, noise: bool, difficulty: int) -> Tensor:
    """Bool (sequences, pairs)."""
    _check_sequences(logits, difficulty, dimensions=(2, 3) if not _is_float(logits) else (3,))
    classes = checked_classes("logits", logits.flatten(0, 1)).view(logits.shape[:2])
    earlier, later = _pairs(classes, noise, difficulty)
    return earlier != later


def _distances(logits: Tensor, noise: bool, difficulty: int) -> Tensor:
    """Integers (sequences, pairs)."""
    _check_sequences(logits, difficulty, dimensions=(3,))
    if not _is_float(logits):
        raise InputTypeError(f"logits are {logits.dtype}: use float")
    if logits.isnan().any():
        raise InputError("logits have NaN")
    order = logits.argsort(dim=-1, descending=True, stable=True)
    # the rank, from 0, of each class
    places = order.argsort(dim=-1)
    leaders = order[..., : min(5, logits.shape[-1])]
    earlier, _ = _pairs(leaders, noise, difficulty)
    _, later = _pairs(places, noise, difficulty)
    moved = later.gather(-1, earlier.expand(*later.shape[:2], -1)).clamp(max=5)
    return (moved - torch.arange(leaders.shape[-1], device=logits.device)).abs().sum(-1)


def _pairs(frames: Tensor, noise: bool, difficulty: int) -> tuple[Tensor, Tensor]:
    """The earlier and the later frames of all pairs."""
    if noise:
        return frames[:, :1], frames[:, 1:]
    return frames[:, :-difficulty], frames[:, difficulty:]


def _is_float(logits: Tensor) -> bool:
    return isinstance(logits, Tensor) and logits.is_floating_point()


def _check_sequences(logits: Tensor, difficulty: int, dimensions: tuple[int, ...]) -> None:
    check_difficulty(difficulty)
    if not isinstance(logits, Tensor):
        raise InputTypeError(f"logits must be a torch.Tensor, got {type(logits).__name__}")
    if logits.ndim not in dimensions or 0 in logits.shape:
        raise InputError(f"logits of shape {tuple(logits.shape)}: use (sequences, frames, classes), none of them 0")
    if logits.shape[1] <= difficulty:
        raise InputError(f"logits have {logits.shape[1]} frames: difficulty={difficulty} needs more than {difficulty}")
