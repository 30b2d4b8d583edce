"""The options of a repair, checked when they are made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveInt

from dealias.filters import Filter, resolve_filter
from dealias.metrics.outputs import Task
from dealias.training.settings import Fraction, NonNegative, Options, Positive


def _plain_numbers(value: Any) -> Any:
    """NumPy's numbers cannot be written as JSON."""
    return [int(number) for number in value] if isinstance(value, Iterable) else value


def _plain_filter(value: Any) -> Any:
    resolve_filter(value)
    return value if isinstance(value, str | int) else [float(tap) for tap in value]


_Filter = Annotated[Filter, BeforeValidator(_plain_filter)]
_HeldOut = Annotated[Annotated[float, Field(gt=0, lt=1)] | list[int], BeforeValidator(_plain_numbers)]


class RepairOptions(Options):
    """The options of a repair that need no network and no images.

    Attributes:
        task: what the network returns: one of `dealias.metrics.outputs.TASKS`; "auto" recognises it.
        filter: of the anti-aliased copy: a name, a number of binomial taps, or taps.
        parts: where the network is a pipeline: the networks in it to repair, one after the other, by their paths, with
            the side of the images that each learns from. They are the images that the pipeline hands to it.
        part_images: the largest number of images from which a part learns.
        epochs: passes over the images that are not held out. A run that has finished resumes with more of them.
        min_agreement: fraction of the held-out images whose predictions must be the original's; of detected boxes or of
            pixels, where the network returns these. Where it returns key points, embeddings or images, the copy may
            differ from the original by as much as the original's answers to shifted images differ.
        min_consistency: fraction that the consistency on the held-out images must reach; None: the original's.
        held_out: the fraction of the images that is held out, or their numbers.
        keep_norms: leave the batch norms' statistics as the original's, and normalise by them in training too: for few
            images, and where few sites are filtered. Else they are re-estimated, and train.
        average_shifts: learn from the mean of the original's predictions over an image and four shifts of it.
        feature_weight: weight of the features' term of the loss.
        learning_rate: the peak of the one-cycle schedule (SGD, Nesterov momentum 0.9).
        batch_size: images in a step.
        seed: of the split, the order of the images and the shifts.
    """

    task: Task | Literal["auto"] = "auto"
    filter: _Filter = "bin4"
    parts: dict[str, PositiveInt] = Field(default_factory=dict)
    part_images: Annotated[int, Field(ge=2)] = 4000
    epochs: PositiveInt = 5
    min_agreement: Fraction = 0.98
    min_consistency: Fraction | None = None
    held_out: _HeldOut = 0.2
    keep_norms: bool = False
    average_shifts: bool = False
    feature_weight: NonNegative = 1.0
    learning_rate: Positive = 0.01
    batch_size: Annotated[int, Field(ge=2)] = 64
    seed: int = 0

    def identity(self) -> dict[str, Any]:
        """The options that a run has in common with the run that it resumes."""
        return self.model_dump(exclude={"min_agreement", "min_consistency", "epochs"})
