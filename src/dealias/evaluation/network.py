"""A network that is evaluated: its device, its batches, its preprocessing and its classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from dealias.errors import InputError, users_code
from dealias.metrics.predictions import check_logits
from dealias.models import ModelSpec, Preprocessing, preprocessing_for


@dataclass
class Network:
    """A network, ready to run.

    Attributes:
        spec: as asked for.
        model: in eval mode, on its device.
        preprocessing: of its images.
        device: where it runs.
        batch_size: of a forward pass, at most; halved where the device's memory is too small.
        classes: number of its logits.
        labels: its class of each class of the images; None where they do not match.
    """

    spec: ModelSpec
    model: nn.Module
    preprocessing: Preprocessing
    device: torch.device
    batch_size: int
    classes: int = 0
    labels: Sequence[int] | None = field(default=None, repr=False)

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of bytes or normalised images, on the CPU; a row with NaN is NaN throughout."""
        parts: list[Tensor] = []
        start = 0
        while start < len(images):
            part = images[start : start + self.batch_size].to(self.device)
            try:
                seen = self.see(part)
                with users_code(f"model={self.spec.name!r} cannot take images of shape {tuple(seen.shape[1:])}"):
                    parts.append(check_logits(self.model(seen)).float().cpu())
            except InputError as error:
                if self.batch_size == 1 or not isinstance(error.__cause__, torch.OutOfMemoryError):
                    raise
                self.batch_size //= 2
                torch.cuda.empty_cache()
                continue
            start += len(part)
        found = torch.cat(parts)
        return found.masked_fill(found.isnan().any(1, keepdim=True), torch.nan)

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
    is_classifier: bool = True,
) -> Network:
    """The network of `spec` on `device`; see `dealias.evaluation.evaluate` for the arguments.

    Classes are counted where it `is_classifier`.

    Raises:
        InputError, MissingExtraError: as `ModelSpec.build` and `dealias.models.preprocessing_for`.
    """
    torch.manual_seed(seed)  # of weights that no checkpoint gives
    model = spec.build()
    preprocessing = preprocessing_for(
        spec.name, model, in_chans=spec.in_chans, image_size=image_size, crop_size=crop_size
    )
    network = Network(spec, model.to(device), preprocessing, device, batch_size)
    if is_classifier:
        network.classes = network.predict(network.blank()).shape[1]
    return network
