"""Profile the downsampling sites of a network: how much shift-variance each adds.

>>> import torch
>>> from dealias.models import vgg_small
>>> profile = profile_model(vgg_small(padding_mode="circular"), torch.rand(2, 1, 32, 32), shifts=(range(4), range(4)))
>>> site = profile.ranked()[0]
>>> site.kind, site.stride, site.added > 0
('max_pool', (2, 2), True)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from torch import Tensor, nn

from dealias.convert import sites
from dealias.convert.downsampling import Site
from dealias.metrics._evaluation import placed_like
from dealias.metrics.equivariance import Shifts, Stage, check_shifts, internal_feature_distances
from dealias.nn import MaxBlurPool2d

SAMPLED_SHIFTS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
_ALL_SHIFTS_UP_TO = 32


@dataclass(frozen=True)
class SiteProfile:
    """Internal feature distance in front of and behind one downsampling site.

    Attributes:
        path: path of the layer.
        kind, stride, status: as in `dealias.convert.sites.Site`.
        grid: pixels of the image from one sample of the output to the next on each axis: the product of the strides.
        before, after: mean distance of the input and of the output over the shifts.
        added: `after` - `before`.
        maximum: mean distance of a max-pooling's maximum, in front of its subsampling; None for other kinds.
        periodicity: 1 - (mean output distance at shifts by whole `grid` steps) / (mean at other shifts). It is 1 where
            the distance vanishes on the grid, which is aliasing of the strides. None if either kind of shift is
            missing.
        maps: distances (dy, dx) of each stage, "input", "max" and "output".
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
        sites: the sites that are layers with feature maps.
        missed: path or kind of the other sites.
        dy, dx: the shifts, in pixels.
    """

    sites: list[SiteProfile]
    missed: list[str]
    dy: list[int]
    dx: list[int]

    def ranked(self) -> list[SiteProfile]:
        """The sites, in descending order of the shift-variance that they add."""
        return sorted(self.sites, key=lambda site: -site.added)


def profile_model(
    model: nn.Module,
    images: Tensor,
    *,
    shifts: Shifts | None = None,
    batch_size: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> Profile:
    """Measure the internal feature distance in front of and behind every downsampling site, over circular shifts.

    Memory does not grow with the number of shifts.

    Args:
        model: any network of images; it runs in eval mode, without gradients; afterwards its modes are restored.
        images: float (N, C, H, W), normalised as the model expects.
        shifts: rows dy and columns dx, in pixels; by default all for images up to 32 x 32, `SAMPLED_SHIFTS` for larger
            ones.
        batch_size: largest number of images in a forward pass.
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
    listed = sites(model, images[:1])
    # a site that runs several times has one map, of its last run
    profiled = {site.path: site for site in listed if site.path and len(site.stride) == 2}
    pools = {path for path in profiled if isinstance(model.get_submodule(path), nn.MaxPool2d | MaxBlurPool2d)}
    layers: list[tuple[str, Stage]] = [
        (path, stage) for path in profiled for stage in get_args(Stage) if stage != "max" or path in pools
    ]
    if not layers:
        return Profile([], [site.path or site.kind for site in listed], dy, dx)
    total = len(images) * len(dy) * len(dx)
    on_done = None if progress is None else lambda done: progress(done, total)
    distances = internal_feature_distances(
        model, images, layers, shifts=(dy, dx), batch_size=batch_size, progress=on_done
    )
    profiles = []
    for path, site in profiled.items():
        maps = {stage: distances[path, stage].numpy() for of, stage in layers if of == path}
        profiles.append(_profile(site, maps, (height, width), dy, dx))
    return Profile(profiles, [site.path or site.kind for site in listed if site.path not in profiled], dy, dx)


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
    """The periodicity, as in `SiteProfile`, of a map of distances over the shifts `dy` and `dx`.

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
