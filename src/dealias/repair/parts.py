"""The parts of a pipeline: networks that it calls one after another, and the images that it hands to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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


@torch.no_grad()
def record_inputs(
    pipeline: nn.Module, domain: Domain, indices: Sequence[int], sides: Mapping[str, int], limit: int
) -> dict[str, Tensor]:
    """The images (N, C, side, side) that a pipeline hands to each of its parts, N being `limit` at most.

    Of larger images, windows at random places are taken, as many as would fill them; smaller ones do not count. Where
    the pictures are larger than `domain.crop_size`, the pipeline sees other windows of them until there are enough.

    Args:
        pipeline: in evaluation mode.
        domain, indices: the pictures, and the numbers of those that are shown.
        sides: by the part's path in `pipeline`: the side of its images, in pixels.
        limit: the largest number of images of a part; more are thinned out by the seed of `domain`.

    Raises:
        InputError: the pipeline has no such part, or hands it fewer than two images of this size.
    """
    check_parts(pipeline, sides)
    draw = np.random.default_rng(domain.shifts["seed"])
    found: dict[str, list[Tensor]] = {path: [] for path in sides}

    def keep(path: str, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        images, side = arguments[0], sides[path]
        if isinstance(images, Tensor) and images.ndim == 4 and min(images.shape[2:]) >= side:
            room = [size - side for size in images.shape[2:]]
            for _ in range(max(round(images.shape[2] * images.shape[3] / side**2), 1) if any(room) else 1):
                top, left = (int(draw.integers(most + 1)) for most in room)
                found[path].append(crop(images, top, left, side).cpu())

    with ExitStack() as hooks:
        for path in sides:
            hooks.enter_context(pipeline.get_submodule(path).register_forward_pre_hook(partial(keep, path)))
        for number in range(1 if domain.crop_size is None else PASSES):
            for part in domain.batches(indices):
                pipeline(domain.anywhere(part, number))
            if all(sum(map(len, images)) >= limit for images in found.values()):
                break
    for path, images in found.items():
        if sum(map(len, images)) < 2:
            raise InputError(
                f"parts: {path!r} is given no images of at least {sides[path]} x {sides[path]} pixels: use a smaller "
                "side, or other images"
            )
    return {path: _thinned(torch.cat(images), limit, draw) for path, images in found.items()}


def antialias_parts(pipeline: nn.Module, examples: Mapping[str, Tensor], filter: Filter = "bin4") -> nn.Module:
    """A copy of a pipeline in which the parts are anti-aliased: `examples` has a batch for each by path; "" is all."""
    if "" in examples:
        return antialias(pipeline, examples[""], filter=filter)
    converted = deepcopy(pipeline)
    for path, images in examples.items():
        converted.set_submodule(path, antialias(pipeline.get_submodule(path), images, filter=filter))
    return converted


def _thinned(images: Tensor, limit: int, draw: np.random.Generator) -> Tensor:
    if len(images) <= limit:
        return images
    return images[torch.from_numpy(np.sort(draw.permutation(len(images))[:limit]))]
