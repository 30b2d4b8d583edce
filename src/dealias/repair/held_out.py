"""The held-out images of a repair, and how networks do on them: for each task its own figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dealias.errors import InputError
from dealias.metrics import measure_consistency, measure_stability, wilson_interval
from dealias.metrics.comparisons import Pairs, comparison_of
from dealias.metrics.outputs import Predictions, Task, recognise
from dealias.metrics.predictions import top1
from dealias.metrics.segmentation import class_map
from dealias.metrics.views import make_views
from dealias.repair.domain import Domain


@dataclass(frozen=True)
class Figure:
    """The figure by which a repair is judged, for the agreement with the original and for the stability under shifts.

    `name` is that of a value in `dealias.metrics.measure_stability`; a share is one of images, boxes or pixels.
    """

    name: str
    unit: str = ""
    is_share: bool = False
    larger_is_better: bool = False

    def text(self, value: float) -> str:
        """A value with its unit: a share in percent."""
        return f"{value:.1%}" if self.is_share else f"{value:.3g} {self.unit}".rstrip()


FIGURES: dict[Task, Figure] = {
    "classes": Figure("consistency", is_share=True, larger_is_better=True),
    "detection": Figure("matched", is_share=True, larger_is_better=True),
    "segmentation": Figure("pixels", is_share=True, larger_is_better=True),
    "keypoints": Figure("mean", "px"),
    "embeddings": Figure("mean"),
    "images": Figure("psnr", "dB", larger_is_better=True),
}


class HeldOut:
    """Measures networks, in evaluation mode, on the held-out images or on others.

    Args:
        domain, indices: all images, and the numbers of those to measure on.
        original: the network to agree with.
        targets: the classes (N,) of all images of `domain`, for the accuracy of classifiers; None where they are
            unknown.
        task: of `dealias.metrics.outputs.TASKS`; "auto" recognises it by what `original` returns.

    Attributes:
        task: the task.

    Raises:
        InputError: what `original` returns is not recognised; or `targets` has another number of classes than there
            are images.
    """

    def __init__(
        self,
        domain: Domain,
        indices: Sequence[int],
        original: nn.Module,
        targets: Tensor | None = None,
        task: Task | Literal["auto"] = "auto",
    ) -> None:
        count = len(domain.images)
        if targets is not None and targets.shape != (count,):
            raise InputError(f"targets of shape {tuple(targets.shape)} for {count} images: use ({count},)")
        self._domain, self._indices, self._targets = domain, list(indices), targets
        self._asked: Task | Literal["auto"] = task
        self._wanted = self._answers(original)
        self.task: Task = self._wanted[0].task

    def measure(self, network: nn.Module) -> dict[str, Any]:
        """Figures with 95% intervals: agreement with the original, consistency, and accuracy where it is known.

        Of other networks than classifiers the agreement is the task's figure (see `FIGURES`) between the original's
        answers and this network's, the consistency that between its answers to shifted views.
        """
        answers, domain = self._answers(network.eval()), self._domain
        found = self._compared(answers)
        images = (domain.whole(part) for part in domain.batches(self._indices))
        if self.task != "classes":
            views = make_views(domain.mode, **domain.shifts)
            stable = measure_stability(network, images, task=self.task, views=views, batch_size=domain.batch_size)
            found |= self._named("consistency", stable.values, stable.intervals)
            return {**found, "stability": {name: each for name, each in stable.values.items() if math.isfinite(each)}}
        consistent = measure_consistency(
            network, images, mode=domain.mode, batch_size=domain.batch_size, **domain.shifts
        )
        found |= {"consistency": consistent.consistency, "consistency_interval": list(consistent.interval)}
        if self._targets is not None:
            found |= _fraction("accuracy", _classes(answers) == self._targets[self._indices])
        return found

    def agreement(self, network: nn.Module) -> float:
        """The agreement alone."""
        return float(self._compared(self._answers(network.eval()))["agreement"])

    @torch.no_grad()
    def _answers(self, network: nn.Module) -> list[Predictions]:
        """What the network returns for the images, unshifted, in parts."""
        found = []
        for part in self._domain.batches(self._indices):
            seen = self._domain.centre(part)
            size = (seen.shape[2], seen.shape[3])
            answers = recognise(
                network(seen), count=len(seen), size=size, channels=seen.shape[1], task=self._asked, model=network
            )
            self._asked = answers.task  # what the first answer is, all are
            values = answers.values
            if isinstance(values, Tensor):
                values = class_map("the model's output", values) if answers.task == "segmentation" else values.cpu()
            found.append(Predictions(answers.task, values))
        return found

    def _compared(self, answers: Sequence[Predictions]) -> dict[str, Any]:
        """The task's figure between the original's answers and others."""
        if self.task == "classes":
            classes = _classes(answers)
            return _fraction("agreement", (classes == _classes(self._wanted)) & (classes >= 0))
        comparison, number = comparison_of(self.task), 0
        for ours, theirs, part in zip(answers, self._wanted, self._domain.batches(self._indices), strict=True):
            height, width = self._domain.centre(part[:1]).shape[2:]
            for our, their in zip(ours.values, theirs.values, strict=True):
                pair = torch.stack([their, our]) if isinstance(their, Tensor) else [their, our]
                comparison.compare(pair, Pairs(number, [(0, 1)], [(0.0, 0.0)], (height, width)))
                number += 1
        found = comparison.findings()
        return self._named("agreement", found.values, found.intervals)

    def _named(
        self, name: str, values: Mapping[str, float], intervals: Mapping[str, tuple[float, float]]
    ) -> dict[str, Any]:
        key = FIGURES[self.task].name
        value = values[key]
        return {name: value, f"{name}_interval": list(intervals.get(key, (value, value)))}


def _classes(answers: Sequence[Predictions]) -> Tensor:
    """The classes (N,) of a classifier's answers; -1 where a score is NaN."""
    values = torch.cat([each.values for each in answers if isinstance(each.values, Tensor)])
    return top1(values) if values.ndim == 2 else values


def _fraction(name: str, hits: Tensor) -> dict[str, Any]:
    count = int(hits.sum())
    return {name: count / len(hits), f"{name}_interval": list(wilson_interval(count, len(hits)))}
