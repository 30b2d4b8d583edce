"""A network that is evaluated: its device, its batches, its preprocessing and its classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from dealias.errors import InputError, users_code
from dealias.metrics.outputs import AnyTask, Predictions, recognise
from dealias.metrics.predictions import check_logits
from dealias.models import ModelSpec, Preprocessing, preprocessing_for

_Answer = TypeVar("_Answer")


@dataclass
class Network:
    """A network, ready to run.

    Attributes:
        spec: as asked for.
        model: in eval mode, on its device.
        preprocessing: of its images.
        device: where it runs.
        batch_size: of a forward pass, at most; halved where the device's memory is too small.
        task: what it returns: one of `dealias.metrics.outputs.TASKS`.
        classes: number of its logits; 0 where it returns something else.
        labels: its class of each class of the images; None where they do not match.
        least_score: of its detections, as for `dealias.metrics.outputs.recognise`.
    """

    spec: ModelSpec
    model: nn.Module
    preprocessing: Preprocessing
    device: torch.device
    batch_size: int
    task: AnyTask = "classes"
    classes: int = 0
    labels: Sequence[int] | None = field(default=None, repr=False)
    least_score: float | None = None

    def predict(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of bytes or normalised images, on the CPU; a row with NaN is NaN throughout."""
        found = torch.cat(self._run(images, lambda output, seen: check_logits(output).float().cpu()))
        return found.masked_fill(found.isnan().any(1, keepdim=True), torch.nan)

    def answers(self, images: Tensor, *, compact: bool = True) -> Predictions:
        """What the network returns for bytes or normalised images (N, C, H, W), whatever its task.

        With `compact` a segmentation has the class of each pixel in place of the scores, which are many times as large.
        """

        def read(output: Any, seen: Tensor) -> Predictions:
            found = recognise(
                output,
                count=len(seen),
                size=(seen.shape[2], seen.shape[3]),
                channels=seen.shape[1],
                task=self.task,
                model=self.model,
                least_score=self.least_score,
            )
            return found.compact() if compact else found

        return Predictions.joined(self._run(images, read))

    @torch.no_grad()
    def _run(self, images: Tensor, read: Callable[[Any, Tensor], _Answer]) -> list[_Answer]:
        """What `read` makes of each batch's output and of the images that the network saw."""
        parts: list[_Answer] = []
        start = 0
        while start < len(images):
            part = images[start : start + self.batch_size].to(self.device)
            try:
                seen = self.see(part)
                with users_code(f"model={self.spec.name!r} cannot take images of shape {tuple(seen.shape[1:])}"):
                    parts.append(read(self.model(seen), seen))
            except InputError as error:
                if self.batch_size == 1 or not isinstance(error.__cause__, torch.OutOfMemoryError):
                    raise
                self.batch_size //= 2
                torch.cuda.empty_cache()
                continue
            start += len(part)
        return parts

    def see(self, images: Tensor) -> Tensor:
        """Images as the network takes them: bytes are normalised."""
        return self.preprocessing.normalise(images) if images.dtype == torch.uint8 else images

    def targets(self, labels: Sequence[int]) -> Tensor | None:
        """The network's classes of images with these labels."""
        return None if self.labels is None else torch.tensor([self.labels[label] for label in labels])

    def blank(self) -> Tensor:
        """An empty image (1, C, H, W) of the size that the network sees, on its device."""
        side = self.preprocessing.crop_size
        with users_code(f"crop_size={side} does not fit into memory"):
            return torch.zeros(1, self.preprocessing.channels, side, side, device=self.device)


def build_network(
    spec: ModelSpec,
    device: torch.device,
    batch_size: int,
    *,
    image_size: int | None = None,
    crop_size: int | None = None,
    seed: int = 0,
    task: AnyTask = "classes",
) -> Network:
    """The network of `spec` on `device`; see `dealias.evaluation.evaluate` for the arguments.

    Raises:
        InputError, MissingExtraError: as `ModelSpec.build` and `dealias.models.preprocessing_for`.
    """
    torch.manual_seed(seed)  # of weights that no checkpoint gives
    model = spec.build()
    preprocessing = preprocessing_for(
        spec.name, model, in_chans=spec.in_chans, image_size=image_size, crop_size=crop_size
    )
    network = Network(spec, model.to(device), preprocessing, device, batch_size, task)
    if task != "classes":
        network.task = network.answers(network.blank()).task
    if network.task == "classes":
        network.classes = network.predict(network.blank()).shape[1]
    return network
