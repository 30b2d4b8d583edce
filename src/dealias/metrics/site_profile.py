"""Which downsampling site of a network adds how much shift-variance: the first thing to look at when it flickers.

>>> import torch
>>> from dealias.models import vgg_small
>>> profile = profile_model(vgg_small(padding_mode="circular"), torch.rand(2, 1, 32, 32), shifts=(range(4), range(4)))
>>> site = profile.ranked()[0]
>>> site.kind, site.stride, site.added > 0
('max_pool', (2, 2), True)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from dealias.convert import sites
from dealias.convert.downsampling import Site
from dealias.metrics._evaluation import placed_like
from dealias.metrics.equivariance import Layer, Shifts, Stage, check_shifts, internal_feature_distances
from dealias.nn import MaxBlurPool2d

SAMPLED_SHIFTS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
_ALL_SHIFTS_UP_TO = 32


@dataclass(frozen=True)
class SiteProfile:
    """Internal feature distance at one downsampling site, in front of and behind it.

    Attributes:
        path: of the layer.
        kind, stride, status: as in `dealias.convert.sites.Site`.
        grid: pixels of the image from one sample of its output to the next, on each axis: the strides so far.
        before, after: mean distance over the shifts of what reaches it, and of what leaves it.
        added: `after` - `before`.
        maximum: mean distance behind the maximum of a max-pooling, in front of its subsampling; None elsewhere.
        periodicity: how much the output's distance drops at shifts by whole `grid` steps: one less the ratio of its
            means there and elsewhere. 1 where it vanishes on the grid: aliasing of the strides. None where the shifts
            have no step but 0, or nothing else.
        maps: the distances (dy, dx) of each stage, "input", "max" and "output".
    """

    path: str
    kind: str
    stride: tuple[int, ...]
    status: str
    grid: tuple[int, int]
    before: float
    after: float
    added: float
    maximum: float | None
    periodicity: float | None
    maps: dict[str, list[list[float]]]


@dataclass(frozen=True)
class Profile:
    """The sites of a network in the order in which they run.

    Attributes:
        sites: those with feature maps at a layer of their own.
        missed: path or kind of the others.
        dy, dx: the shifts, in pixels.
    """

    sites: list[SiteProfile]
    missed: list[str]
    dy: list[int]
    dx: list[int]

    def ranked(self) -> list[SiteProfile]:
        """The sites, those that add most shift-variance first."""
        return sorted(self.sites, key=lambda site: -site.added)

    def as_json(self) -> dict[str, Any]:
        """Plain lists and numbers, as `Profile.from_json` takes them."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Profile:
        """What `as_json` gave."""
        found = [
            SiteProfile(**{**site, "stride": tuple(site["stride"]), "grid": tuple(site["grid"])})
            for site in stored["sites"]
        ]
        return cls(found, stored["missed"], stored["dy"], stored["dx"])


def profile_model(
    model: nn.Module,
    images: Tensor,
    *,
    shifts: Shifts | None = None,
    batch_size: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> Profile:
    """Internal feature distance at the neighbours of every downsampling site, over circular shifts.

    Memory does not grow with the number of shifts.

    Args:
        model: any network of images; it runs in eval mode, without gradients, and is as before afterwards.
        images: float (N, C, H, W), normalised as the model expects.
        shifts: rows dy and columns dx, in pixels; by default all of them for images up to 32 x 32, for larger ones
            those of `SAMPLED_SHIFTS`.
        batch_size: number of images in a forward pass, at most.
        progress: called with the number of shifted images done and their total.

    Raises:
        InputError, InputTypeError: as `dealias.sites` and `dealias.metrics.internal_feature_distance`.

    Source: Zhang (2019), section 4.1 and figure 5.
    """
    images = placed_like(images, model)
    height, width = images.shape[-2:]
    if shifts is None and max(height, width) > _ALL_SHIFTS_UP_TO:
        shifts = (SAMPLED_SHIFTS, SAMPLED_SHIFTS)
    dy, dx = check_shifts(shifts, images)
    found = sites(model, images[:1])
    # a site that runs several times has one map, that of the last time
    placed = {site.path: site for site in found if site.path and len(site.stride) == 2}
    stages = {path: _stages(model, path) for path in placed}
    layers: list[Layer] = [(path, stage) for path in placed for stage in stages[path]]
    if not layers:
        return Profile([], [site.path or site.kind for site in found], dy, dx)
    total = len(images) * len(dy) * len(dx)
    tell = None if progress is None else lambda done: progress(done, total)
    distances = internal_feature_distances(model, images, layers, shifts=(dy, dx), batch_size=batch_size, progress=tell)
    profiles = []
    for path, site in placed.items():
        maps = {stage: distances[path, stage].numpy() for stage in stages[path]}
        profiles.append(_profile(site, maps, (height, width), dy, dx))
    return Profile(profiles, [site.path or site.kind for site in found if site.path not in placed], dy, dx)


def _stages(model: nn.Module, path: str) -> tuple[Stage, ...]:
    pooling = isinstance(model.get_submodule(path), nn.MaxPool2d | MaxBlurPool2d)
    return ("input", "max", "output") if pooling else ("input", "output")


def _profile(
    site: Site, maps: dict[Stage, np.ndarray[Any, Any]], size: tuple[int, int], dy: list[int], dx: list[int]
) -> SiteProfile:
    rows, columns = (max(round(pixels / max(out, 1)), 1) for pixels, out in zip(size, site.output_size, strict=True))
    before, after = float(maps["input"].mean()), float(maps["output"].mean())
    return SiteProfile(
        path=site.path,
        kind=site.kind,
        stride=site.stride,
        status=site.status,
        grid=(rows, columns),
        before=before,
        after=after,
        added=after - before,
        maximum=float(maps["max"].mean()) if "max" in maps else None,
        periodicity=periodicity(maps["output"], dy, dx, (rows, columns)),
        maps={stage: np.round(values, 6).tolist() for stage, values in maps.items()},
    )


def periodicity(distances: np.ndarray[Any, Any], dy: list[int], dx: list[int], grid: tuple[int, int]) -> float | None:
    """See `SiteProfile`; of a map of distances over the shifts `dy` and `dx`.

    >>> distances = np.array([[0, 1, 0, 1], [1, 1, 1, 1], [0, 1, 0, 1], [1, 1, 1, 1]])
    >>> periodicity(distances, [0, 1, 2, 3], [0, 1, 2, 3], (2, 2))
    1.0
    """
    rows, columns = np.asarray(dy)[:, None], np.asarray(dx)[None, :]
    whole = (rows % grid[0] == 0) & (columns % grid[1] == 0)
    still = (rows == 0) & (columns == 0)
    on, off = distances[whole & ~still], distances[~whole]
    if not on.size or not off.size or off.mean() <= 0:
        return None
    return float(1 - on.mean() / off.mean())
