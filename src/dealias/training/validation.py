"""Validation: accuracy and shift consistency after each epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from dealias.errors import InputError
from dealias.metrics._evaluation import evaluating
from dealias.metrics.measure import ViewCounts
from dealias.metrics.predictions import check_logits, top1
from dealias.metrics.views import Mode, ShiftedViews, network_views
from dealias.models import Preprocessing
from dealias.runtime import from_workers
from dealias.training.batches import Images, make_loader, readable
from dealias.training.processes import ProcessPart

Views: TypeAlias = dict[Mode, ShiftedViews]


def views_for(preprocessing: Preprocessing, pairs: int, seed: int) -> Views:
    """The shifts that validation compares: Zhang's two crops, or circular and zero-filled ones of whole images."""
    modes: tuple[Mode, ...] = ("crop",) if preprocessing.slides else ("circular", "zero_fill")
    return network_views(preprocessing, modes, pairs=pairs, seed=seed)


class Validation:
    """Measures a network on the validation images; each process reads its part, `batch_size` images at a time."""

    def __init__(
        self, images: Images, preprocessing: Preprocessing, views: Views, batch_size: int, part: ProcessPart
    ) -> None:
        self._views = views
        numbers = range(len(images.labels))[part.rank :: part.processes]
        batches = [numbers[start : start + batch_size] for start in range(0, len(numbers), batch_size)]
        self.batches = make_loader(_ValidationImages(images, preprocessing, views), batches, part)

    def measure(self, model: nn.Module, accelerator: Any, after_batch: Callable[[], None]) -> dict[str, Any]:
        """Accuracy and consistency over the images of all processes, as counts and fractions.

        `model` is not wrapped by Accelerate; `after_batch` is called after each batch.
        """
        counts = torch.zeros(2 + 2 * len(self._views), dtype=torch.int64, device=accelerator.device)
        with evaluating(model), accelerator.autocast():
            for images, shifted, labels in from_workers(self.batches):
                right = _top1(model, images, accelerator.device) == labels.to(accelerator.device)
                found = [len(labels), int(right.sum())]
                for mode, pixels in shifted.items():
                    views, agreements = self._views[mode], ViewCounts()
                    predictions = _top1(model, pixels, accelerator.device, parts=views.count)
                    agreements.add(predictions.view(len(labels), -1), None, views)
                    found += [len(labels) * len(views.compared), sum(agreements.agreements)]
                counts += torch.tensor(found, device=counts.device)
                after_batch()
        images_seen, correct, *pairs = accelerator.reduce(counts, "sum").tolist()
        result: dict[str, Any] = {"images": images_seen, "correct": correct, "accuracy": correct / images_seen}
        for mode, total, agreed in zip(self._views, pairs[::2], pairs[1::2], strict=True):
            result |= {f"{mode}_pairs": total, f"{mode}_agreements": agreed, f"{mode}_consistency": agreed / total}
        return result


class _ValidationImages(Dataset["tuple[Tensor, dict[Mode, Tensor], Tensor]"]):
    """Reads images as the network takes them, and their shifted views; the key of an item is its images' numbers."""

    def __init__(self, images: Images, preprocessing: Preprocessing, views: Views) -> None:
        self._images, self._preprocessing, self._views = images, preprocessing, views

    def __getitem__(self, numbers: Sequence[int]) -> tuple[Tensor, dict[Mode, Tensor], Tensor]:
        """Images (N, C, H, W), the views (N * count, C, h, w) of each mode, and the classes."""
        found = [(number, readable(self._images, number)) for number in numbers]
        kept = [(number, image) for number, image in found if image is not None]
        if not kept:
            raise InputError("not one image of a batch can be read")
        if all(isinstance(image, Tensor) for _, image in kept):
            seen = wide = torch.stack([image for _, image in kept])
        else:
            pictures, preprocessing = [image for _, image in kept], self._preprocessing
            large = [preprocessing.square(picture, preprocessing.shift_size) for picture in pictures]
            same = preprocessing.image_size == preprocessing.shift_size
            small = large if same else [preprocessing.square(picture, preprocessing.image_size) for picture in pictures]
            wide, seen = (
                preprocessing.normalise(torch.from_numpy(np.stack(squares)))
                for squares in (large, list(map(preprocessing.centre, small)))
            )
        places = [number for number, _ in kept]
        views = {mode: shifted.of(wide, places) for mode, shifted in self._views.items()}
        return seen, views, torch.tensor([self._images.labels[number] for number in places])


def _top1(model: nn.Module, images: Tensor, device: torch.device, parts: int = 1) -> Tensor:
    return top1(torch.cat([check_logits(model(part.to(device))).float() for part in images.chunk(parts)]))
