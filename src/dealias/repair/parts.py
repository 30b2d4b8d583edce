"""The parts of a pipeline: networks that it calls one after another, and the images that it hands to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dealias.convert import antialias
from dealias.errors import InputError
from dealias.filters import Filter
from dealias.perturb import crop
from dealias.repair.domain import Domain

PASSES = 8
"""The most passes over the pictures; each shows other windows of them to the pipeline."""


def check_parts(pipeline: nn.Module, paths: Iterable[str]) -> None:
    """Check that a pipeline has parts of these paths.

    Raises:
        InputError: it has not.
    """
    modules = dict(pipeline.named_modules())
    if unknown := [path for path in paths if not path or path not in modules]:
        raise InputError(f"parts: the network has no module {unknown[0]!r}: use a path of named_modules()")


def record_inputs(
    pipeline: nn.Module, domain: Domain, indices: Sequence[int], sides: Mapping[str, int], limit: int
) -> dict[str, Tensor]:
    """The images (N, C, side, side) that a pipeline hands to each of its parts, N being `limit` at most.

    Of larger images, windows at random places are taken, as many as would fill them; smaller ones do not count. Where
    the pictures are larger than `domain.crop_size`, the pipeline sees other windows of them until there are enough.
    Everything is shown twice, to count the images and to keep those that were drawn: memory holds these, and what the
    pipeline hands over for one batch of pictures.

    Args:
        pipeline: in evaluation mode.
        domain, indices: the pictures, and the numbers of those that are shown.
        sides: by the part's path in `pipeline`: the side of its images, in pixels.
        limit: the largest number of images of a part; more are thinned out by the seed of `domain`.

    Raises:
        InputError: the pipeline has no such part, or hands it fewer than two images of this size.
    """
    check_parts(pipeline, sides)
    shown = partial(_handed, pipeline, domain, indices, sides, limit)
    draw, counts = np.random.default_rng(domain.shifts["seed"]), dict.fromkeys(sides, 0)
    for path, windows in shown(draw):
        counts[path] += len(windows)
    for path, count in counts.items():
        if count < 2:
            raise InputError(
                f"parts: {path!r} is given no images of at least {sides[path]} x {sides[path]} pixels: use a smaller "
                "side, or other images"
            )
    drawn = {path: set(_drawn(count, limit, draw)) for path, count in counts.items()}
    found: dict[str, list[Tensor]] = {path: [] for path in sides}
    counts = dict.fromkeys(sides, 0)
    for path, windows in shown(np.random.default_rng(domain.shifts["seed"])):
        kept = [place for place in range(len(windows)) if counts[path] + place in drawn[path]]
        found[path].append(windows[kept])
        counts[path] += len(windows)
    return {path: torch.cat(windows) for path, windows in found.items()}


def _handed(
    pipeline: nn.Module,
    domain: Domain,
    indices: Sequence[int],
    sides: Mapping[str, int],
    limit: int,
    draw: np.random.Generator,
) -> Iterator[tuple[str, Tensor]]:
    """For each batch of pictures, the windows (n, C, side, side) that each part is given; until all have `limit`."""
    handed: dict[str, list[Tensor]] = {}
    counts = dict.fromkeys(sides, 0)

    def keep(path: str, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        images, side = arguments[0], sides[path]
        if isinstance(images, Tensor) and images.ndim == 4 and min(images.shape[2:]) >= side:
            room = [size - side for size in images.shape[2:]]
            for _ in range(max(round(images.shape[2] * images.shape[3] / side**2), 1) if any(room) else 1):
                top, left = (int(draw.integers(most + 1)) for most in room)
                handed.setdefault(path, []).append(crop(images, top, left, side).cpu())

    for number in range(1 if domain.crop_size is None else PASSES):
        for part in domain.batches(indices):
            with ExitStack() as hooks, torch.no_grad():
                for path in sides:
                    hooks.enter_context(pipeline.get_submodule(path).register_forward_pre_hook(partial(keep, path)))
                pipeline(domain.anywhere(part, number))
            for path, windows in handed.items():
                counts[path] += sum(map(len, windows))
                yield path, torch.cat(windows)
            handed.clear()
        if min(counts.values()) >= limit:
            break


def _drawn(count: int, limit: int, draw: np.random.Generator) -> list[int]:
    """Numbers below `count`, `limit` of them at most."""
    return [*range(count)] if count <= limit else draw.permutation(count)[:limit].tolist()


def antialias_parts(pipeline: nn.Module, examples: Mapping[str, Tensor], filter: Filter = "bin4") -> nn.Module:
    """A copy of a pipeline in which the parts are anti-aliased: `examples` has a batch for each by path; "" is all."""
    if "" in examples:
        return antialias(pipeline, examples[""], filter=filter)
    converted = deepcopy(pipeline)
    for path, images in examples.items():
        converted.set_submodule(path, antialias(pipeline.get_submodule(path), images, filter=filter))
    return converted
