"""Repair a network that is at hand with photographs, and name those that it has not learned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from dealias.data import Source
from dealias.errors import InputError
from dealias.evaluation.network import Network
from dealias.progress import OnProgress
from dealias.repair.domain import split_held_out
from dealias.repair.options import RepairOptions
from dealias.repair.run import RepairResult, repair


@dataclass(frozen=True, eq=False)
class PhotoRepair:
    """A repair with photographs.

    Attributes:
        outcome: of `repair`.
        held_out: numbers of the photographs that it has not learned from.
    """

    outcome: RepairResult
    held_out: Sequence[int]


def repair_with_photographs(
    original: Network,
    converted: nn.Module,
    source: Source,
    output: Path,
    options: RepairOptions,
    *,
    resume: bool = False,
    on_progress: OnProgress = lambda stage, done: None,
) -> PhotoRepair:
    """Train the anti-aliased copy of a network with photographs, as `repair` does; writes into `output`.

    Photographs that cannot be read are left out.

    Args:
        original: the network; it is not changed.
        converted: its copy, changed in place.
        source: the photographs.
        output, resume, on_progress: as for `repair`.
        options: of the repair; `held_out` is a fraction of the photographs.

    Raises:
        InputError: as `repair`; or none of the photographs can be read.
    """
    preprocessing = original.preprocessing
    pixels, readable = [], []
    for number in range(len(source)):
        try:
            pixels.append(torch.from_numpy(preprocessing.square(source.read(number), preprocessing.shift_size)))
            readable.append(number)
        except InputError as error:
            problem = error
    if not pixels:
        raise InputError(f"photos={str(source.place)!r} has none that can be read: {problem}")
    images = torch.stack(pixels)
    held = split_held_out(images, options.held_out, options.seed)[1]
    outcome = repair(
        original.model,
        images,
        converted=converted,
        prepare=preprocessing.normalise,
        crop_size=preprocessing.crop_size if preprocessing.slides else None,
        output=output,
        resume=resume,
        on_progress=on_progress,
        about={
            "model": original.spec.identity(),
            "preprocessing": asdict(preprocessing),
            "images": {"place": str(source.place), "fingerprint": source.fingerprint()},
        },
        **{**options.model_dump(), "held_out": held},
    )
    return PhotoRepair(outcome, [readable[index] for index in held])
