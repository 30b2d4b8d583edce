"""The user's own images for the report's slider: P(class) of the most unstable ones at every shift."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from PIL import Image

from dealias.errors import InputError, MissingExtraError
from dealias.evaluation.network import Network
from dealias.evaluation.plan import Plan
from dealias.evaluation.store import Record
from dealias.models import imagenet_labels
from dealias.perturb import circular_shift, crop
from dealias.report import picture_bytes, picture_source

SLIDES = 8


def make_slides(records: Sequence[Record], plan: Plan, networks: Sequence[Network]) -> list[dict[str, Any]]:
    """For the images on which the baseline is least stable, that first: a picture and each network's curve.

    The curve is P(class) at every shift along the diagonal: of the right class if the baseline sees it at any shift,
    else of the class to which it gives the highest mean probability. Networks with another preprocessing than the
    baseline's are left out: they see other windows.
    """
    baseline = networks[0]
    preprocessing = baseline.preprocessing
    shown = [network for network in networks if network.preprocessing == preprocessing]
    slides: list[dict[str, Any]] = []
    for number in _least_stable_first(records, len(plan.source), baseline.spec.label):
        if len(slides) == SLIDES:
            break
        try:
            picture = plan.source.read(number)
        except InputError:
            continue
        pixels = preprocessing.square(picture, preprocessing.shift_size)
        views, shifts = _views(torch.from_numpy(pixels), preprocessing.crop_size)
        probabilities = {network.spec.label: network.predict(views).softmax(1).nan_to_num(0.0) for network in shown}
        label = _shown_class(probabilities[baseline.spec.label], baseline, plan.source.labels[number])
        slides.append(
            {
                "name": plan.source.names[number],
                "label": _class_name(label, baseline, plan),
                "shifts": shifts,
                "curves": {
                    name: [round(value, 4) for value in found[:, label].tolist()]
                    for name, found in probabilities.items()
                },
                "crop": preprocessing.crop_size,
                "size": preprocessing.shift_size,
                "source": picture_source(picture_bytes(_picture(pixels))),
            }
        )
    return slides


def _shown_class(probabilities: torch.Tensor, baseline: Network, label: int) -> int:
    targets = baseline.targets([label])
    if targets is not None and (probabilities.argmax(1) == targets).any():
        return int(targets)
    return int(probabilities.mean(0).argmax())


def _class_name(label: int, baseline: Network, plan: Plan) -> str:
    """The folder's name of the network's class, or ImageNet's, or its number."""
    folders = plan.source.classes or []
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
        if record["task"] != "shifts" or record["group"] != 0 or not record["positions"]:
            continue
        counts = record["counts"][label]
        modes = [found for found in counts.values() if isinstance(found, dict)]
        agreements = [sum(values) for values in zip(*(found["agreements"] for found in modes), strict=True)]
        variation = counts.get("diagonal", {}).get("variation", [0.0] * len(record["numbers"]))
        for number, agree, vary in zip(record["numbers"], agreements or variation, variation, strict=True):
            stability[number] = (agree, -vary)
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


def _picture(pixels: np.ndarray[Any, Any]) -> Image.Image:
    return Image.fromarray(np.broadcast_to(pixels, (3, *pixels.shape[1:])).transpose(1, 2, 0).copy())
