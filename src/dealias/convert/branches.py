"""Find the strided branches whose maps meet in front of their non-linearity: they share one blur, behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dealias.convert.downsampling import Spot
from dealias.convert.grids import Grids
from dealias.convert.groups import Group
from dealias.convert.placement import Region, explore
from dealias.convert.trace import Value


class Branches:
    """Knows what becomes of the map that each spot returns."""

    def __init__(self, grids: Grids, groups: Sequence[Group]) -> None:
        self.grids = grids
        self.group_of = {spot: group for group in groups for spot in group.spots}
        self._regions: dict[tuple[Spot, bool], Region] = {}
        self._joining: set[Spot] = set()

    def region(self, spot: Spot, mixing: bool = False) -> Region:
        """What becomes of the map that `spot` returns."""
        key = (spot, mixing)
        if key not in self._regions:
            self._regions[key] = explore(self.grids, [spot.result], mixing=mixing)
        return self._regions[key]

    def meetings(self, group: Group) -> Iterator[tuple[tuple[Group, ...], list[Region]]]:
        """The groups that could share a blur, and a region for each call: `group` by itself, then all that meet it."""
        alone = [self.region(spot) for spot in group.spots]
        if all(region.behind for region in alone):
            yield (group,), alone
        joined = [self._joined(spot) for spot in group.spots]
        members = {tuple(sorted({id(self.group_of[spot]) for spot in spots})) for spots, _ in joined}
        spots = [spot for spots, _ in joined for spot in spots]
        groups = tuple(dict.fromkeys(self.group_of[spot] for spot in spots))
        whole = {spot for one in groups for spot in one.spots} == set(spots) and len(spots) == len(set(spots))
        if len(members) == 1 and len(groups) > 1 and whole:
            yield groups, [region for _, region in joined]

    def _joined(self, spot: Spot) -> tuple[list[Spot], Region]:
        """`spot` and the strided branches whose maps it meets, and the region of all of them."""
        self._joining.add(spot)
        spots, region = [spot], self.region(spot)
        while region.foreign:
            partners = [self._partners(value, spots) for value in region.foreign]
            if not all(partners):
                break
            spots += dict.fromkeys(spot for some in partners for spot in some)
            pooled = [one.result for one in spots if one.kind != "conv"]
            region = explore(self.grids, [one.result for one in spots], pooled=pooled, mixing=True)
        self._joining.discard(spot)
        return spots, region

    def _partners(self, value: Value, spots: Sequence[Spot]) -> list[Spot]:
        """The spots whose dense maps become `value`, where they meet those of `spots`; none if something else does."""
        fitting = [spot for spot in self.group_of if spot not in spots and self._fits(spot, spots[0])]
        for spot in fitting:
            if value in self.region(spot, mixing=True).values:
                return [spot]
        for spot in fitting:  # branches that meet others in front of it
            if spot not in self._joining:
                joined, region = self._joined(spot)
                if value in region.values and set(joined).isdisjoint(spots):
                    return joined
        return []

    def _fits(self, spot: Spot, other: Spot) -> bool:
        """Whether `spot` can share a blur with `other`."""
        group = self.group_of[spot]
        if spot.kind not in ("conv", "max_pool", "avg_pool") or spot.stride != other.stride or group.stays:
            return False
        same = spot.dense_size == other.dense_size and group.steps == self.group_of[other].steps
        return same and group.densify() is not None
