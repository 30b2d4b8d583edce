"""The user's own images for the report's slider: P(class) of the most unstable ones at every shift."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress

import torch

from dealias.data import Source
from dealias.data.pictures import picture_url
from dealias.errors import InputError, MissingExtraError
from dealias.evaluation.network import Network
from dealias.evaluation.plan import EvaluationPlan
from dealias.evaluation.results import Slide
from dealias.evaluation.store import Record
from dealias.evaluation.tasks.shifts import ShiftTask
from dealias.models import imagenet_labels
from dealias.perturb import circular_shift, crop

SLIDES = 8


def make_slides(records: Sequence[Record], plan: EvaluationPlan, networks: Sequence[Network]) -> list[Slide]:
    """For the images on which the baseline is least stable, that first: a picture and each network's curve.

    The curve is P(class) at every shift along the diagonal: of the right class if the baseline sees it at any shift,
    else of the class to which it gives the highest mean probability. Networks with another preprocessing than the
    baseline's are left out: they see other windows. Networks that return no class scores have no slides.
    """
    source, baseline = plan.request.source, networks[0]
    if baseline.task != "classes":
        return []
    shown = [network for network in networks if network.preprocessing == baseline.preprocessing]
    slides: list[Slide] = []
    for number in _least_stable_first(records, len(source), baseline.spec.label):
        if len(slides) == SLIDES:
            break
        with suppress(InputError):
            slides.append(_slide(source, number, shown))
    return slides


def _slide(source: Source, number: int, networks: Sequence[Network]) -> Slide:
    """The slide of one image for networks that see the same windows, the baseline first."""
    baseline = networks[0]
    preprocessing = baseline.preprocessing
    pixels = preprocessing.square(source.read(number), preprocessing.shift_size)
    views, shifts = _views(torch.from_numpy(pixels), preprocessing.crop_size)
    probabilities = {network.spec.label: network.predict(views).softmax(1).nan_to_num(0.0) for network in networks}
    label = _shown_class(probabilities[baseline.spec.label], baseline, source.labels[number])
    return Slide(
        name=source.names[number],
        label=_class_name(label, baseline, source.classes or []),
        shifts=shifts,
        curves={name: [round(value, 4) for value in found[:, label].tolist()] for name, found in probabilities.items()},
        crop=preprocessing.crop_size,
        size=preprocessing.shift_size,
        source=picture_url(pixels),
    )


def _shown_class(probabilities: torch.Tensor, baseline: Network, label: int) -> int:
    targets = baseline.targets([label])
    if targets is not None and (probabilities.argmax(1) == targets).any():
        return int(targets)
    return int(probabilities.mean(0).argmax())


def _class_name(label: int, baseline: Network, folders: Sequence[str]) -> str:
    """The folder's name of the network's class, or ImageNet's, or its number."""
    if len(folders) == baseline.classes:
        return folders[label]
    if baseline.classes == 1000:
        with suppress(MissingExtraError):
            return imagenet_labels()[label]
    return f"class {label}"


def _least_stable_first(records: Sequence[Record], images: int, label: str) -> list[int]:
    """Numbers of the images by how well the network's predictions agree between shifts, those without shifts last."""
    stability: dict[int, tuple[float, float]] = {}
    for record in records:
        if record.task == ShiftTask.NAME and record.group == 0 and record.positions:
            stability |= dict(zip(record.numbers, ShiftTask.stability(record.counts[label]), strict=True))
    return sorted(range(images), key=lambda number: (*stability.get(number, (math.inf, 0.0)), number))


def _views(pixels: torch.Tensor, side: int) -> tuple[torch.Tensor, list[int]]:
    """Windows along the diagonal of bytes (C, H, W); where there is no room to slide, circular shifts."""
    room = pixels.shape[1] - side
    if room:
        shifts = list(range(room + 1))
        return torch.stack([crop(pixels, shift, shift, side) for shift in shifts]), shifts
    shifts = list(range(-(side // 2), side // 2))
    # a window that moves down sees the image move up
    return torch.stack([circular_shift(pixels, -shift, -shift) for shift in shifts]), shifts
