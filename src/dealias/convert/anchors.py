"""Place anchors: in front of each subsampling, or where branches part whose maps meet again behind several of them.

Source: Chaman and Dokmanic, CVPR 2021, section 3; for what is undone, Chaman and Dokmanic, *Truly shift-equivariant
convolutional neural networks with adaptive polyphase upsampling*, 2021.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from dealias.convert.anchor_layers import Anchor, Step, Undo
from dealias.convert.calls import ChangedCall, answer_calls
from dealias.convert.downsampling import GROWING, Site, Spot, Status
from dealias.convert.edits import hang
from dealias.convert.frames import Coverage, Family, Frames, Maps, Rise, subsamples
from dealias.convert.guard import watch_over
from dealias.convert.placement import CONTAINERS, caller_of, can_take, enclosing, taking
from dealias.convert.trace import Node, Trace, Value
from dealias.convert.windows import ANY_RESAMPLING, Window


@dataclass(frozen=True)
class Place:
    """Where a layer is put: in front of or behind a module, or at the function calls with one window of a method."""

    module: nn.Module
    path: str
    side: Literal["before", "after", "calls"]
    method: str | None = None
    window: Window | None = None

    def uses(self, trace: Trace) -> list[Any]:
        """The calls or operations at which a layer that is put here runs, in order."""
        if self.window is None:
            return trace.calls_of(self.module)
        nodes = [node for node in trace.nodes if node.window is not None and self.window.matches(node.window)]
        return list({id(node.window): node for node in nodes if self._answers(node)}.values())

    def _answers(self, node: Node) -> bool:
        """Whether a layer that answers the calls of a method answers this one: also in modules that a forward calls."""
        inside = self.method in ("forward", None) and any(call.module is self.module for call in enclosing(node))
        return inside or caller_of(node) == (self.module, self.method)

    def __str__(self) -> str:
        where = f"`{self.path}`" if self.path else "the model"
        return where if self.window is None else f"the {self.window.kind} in {where}"


Use = tuple[Place, Any]
"""A place, and the call or operation at which its layer is to run."""


class AnchorPlans:
    """What `method="polyphase"` does to a recorded model."""

    def __init__(self, trace: Trace) -> None:
        self.trace, self.maps = trace, Maps(trace)
        uncovered = Coverage(self.maps).uncovered
        self.frames = Frames(self.maps, lambda spot: subsamples(spot) and spot in uncovered)
        self.steps = {node: (sources, results) for node, sources, results in self.maps.steps()}
        self.dominators = _Dominators(self.maps)
        families = dict.fromkeys(self.frames.family.values())
        self.uses = self._settled({family: list(self._alternatives(family)) for family in families})
        self.rises = [rise for rise in self.frames.rises if self._undone(rise)]

    # Where the map is rolled ------------------------------------------------------------------------------------------

    def _alternatives(self, family: Family) -> Iterator[list[Use]]:
        """The places for the anchors of `family`, the best first."""
        if len(family.spots) == 1:
            (spot,) = family.spots
            value, readers = spot.source, self._own_readers(spot)
        else:
            found = self.dominators.nearest([spot.source for spot in family.spots])
            if found is None:
                return
            value, readers = found, self._readers(found, family)
        if not readers:
            return
        for call in taking(value, readers):
            yield [(Place(call.module, call.path or "", "before"), call)]
        if set(readers) == set(value.consumers) and not value.returned and value.producer is not None:
            for call in enclosing(value.producer):
                if call.output is value and call.path is not None and not isinstance(call.module, CONTAINERS):
                    yield [(Place(call.module, call.path, "after"), call)]
        uses = [self._use_of(node, value, family) for node in readers]
        if all(uses):
            yield list(dict.fromkeys(use for use in uses if use is not None))

    def _own_readers(self, spot: Spot) -> list[Node]:
        if spot.call is None:
            start = spot.node
            while start not in spot.source.consumers:  # the first of several slices
                producer = start.inputs[0].producer
                if producer is None:
                    return []
                start = producer
            return [start]
        return [node for node in spot.source.consumers if spot.call.runs(node)]

    def _readers(self, value: Value, family: Family) -> list[Node]:
        """The operations on `value` that lead to `family`; none if one leads elsewhere too, or from another grid."""
        fates: dict[Node, set[str]] = {}
        inner = {spot.node for spot in family.spots}
        for call in (spot.call for spot in family.spots if spot.call is not None):
            inner.update(self.trace.nodes[call.start : call.end])
        for node in reversed(self.trace.nodes):
            if node in inner:
                fates[node] = {"family"}
            elif self.maps.spots.get(node) in self.frames.family:
                fates[node] = {"other"}
            else:
                results = self.steps.get(node, ((), ()))[1]
                fates[node] = {"other"} if any(result.returned for result in results) else set()
                fates[node].update(*(fates[reader] for result in results for reader in result.consumers))
        readers = [node for node in value.consumers if "family" in fates[node]]
        own = self.frames.merged(self.frames.levels.get(value, ()))
        if any(fates[node] != {"family"} for node in readers) or any(family is one for one, _ in own):
            return []
        return readers

    def _use_of(self, node: Node, value: Value, family: Family) -> Use | None:
        """Where to roll what `node` alone reads."""
        for call in enclosing(node):
            if can_take(call, value):
                return Place(call.module, call.path or "", "before"), call
        spot = next((spot for spot in family.spots if node in (spot.node, *self._own_readers(spot))), None)
        return None if spot is None or node.window is None else (self._calls(node, node.window), spot.node)

    def _calls(self, node: Node, window: Window) -> Place:
        """The calls with `window` in the method that makes the one behind `node`."""
        module, method = caller_of(node)
        return Place(module, self.trace.paths[module], "calls", method, window)

    def _settled(self, alternatives: dict[Family, list[list[Use]]]) -> dict[Family, list[Use]]:
        """For each family the best places whose every use is taken, with the same stride; none where none will do."""
        while True:
            best = {family: places[0] if places else [] for family, places in alternatives.items()}
            taken: dict[Place, list[tuple[Any, tuple[int, ...]]]] = {}
            for family, uses in best.items():
                for place, use in uses:
                    taken.setdefault(place, []).append((use, family.stride))
            unsettled = (
                family
                for family, uses in best.items()
                if not all(self._is_whole(place, taken[place]) for place, _ in uses)
            )
            if (first := next(unsettled, None)) is None:
                return best
            del alternatives[first][0]

    def _is_whole(self, place: Place, taken: list[tuple[Any, tuple[int, ...]]]) -> bool:
        uses = [use for use, _ in taken]
        return len({stride for _, stride in taken}) == 1 and set(uses) == set(place.uses(self.trace))

    # Where the roll is undone -----------------------------------------------------------------------------------------

    def _undone(self, rise: Rise) -> list[tuple[Family, tuple[int, ...]]]:
        """The families whose anchors are undone behind `rise`, with the pixels of its result between two of theirs."""
        pairs = zip(rise.families, rise.scales, strict=True)
        return [(family, scale) for family, scale in pairs if self.uses.get(family)]

    def _rise_place(self, rise: Rise) -> Place | None:
        call, node = rise.spot.call, rise.spot.node
        if call is not None:
            return Place(call.module, call.path or "", "after")
        resamples = node.window is not None and ANY_RESAMPLING.matches(node.window)
        return self._calls(node, ANY_RESAMPLING) if resamples else None

    # Doing it ---------------------------------------------------------------------------------------------------------

    def apply(self, model: nn.Module) -> None:
        """Put the anchors into `model`, which is the recorded one or a copy of it."""
        undone = {family for rise in self.rises for family, _ in self._undone(rise)}
        layers: dict[Place, Anchor] = {}
        for family, uses in self.uses.items():
            for place, _ in uses:
                if place not in layers:
                    layers[place] = Anchor(family.stride, len(place.uses(self.trace)))
                    _put(model, place, layers[place])
                layers[place].undone |= family in undone
        places: dict[Place, list[Rise]] = {}
        for rise in self.rises:
            if (where := self._rise_place(rise)) is not None:
                places.setdefault(where, []).append(rise)
        for place, rises in places.items():
            _put(model, place, self._undo(place, rises, layers))
        if layers:
            watch_over(model, anchors=[(place.path, place.side) for place in (*layers, *places)])

    def _undo(self, place: Place, rises: Sequence[Rise], layers: dict[Place, Anchor]) -> Undo:
        anchors, turns = list[Anchor](), list[list[Step]]()
        by_use = {(rise.spot.call or rise.spot.node): rise for rise in rises}
        for use in place.uses(self.trace):
            steps = []
            for family, scale in self._undone(by_use[use]) if use in by_use else ():
                anchor_place, anchor_use = self.uses[family][0]
                anchor = layers[anchor_place]
                if anchor not in anchors:
                    anchors.append(anchor)
                turn = anchor_place.uses(self.trace).index(anchor_use)
                steps.append(Step(anchors.index(anchor), turn, scale))
            turns.append(steps)
        return Undo(anchors, turns)

    def sites(self) -> list[Site]:
        """A site for each change of resolution, in order."""
        return [spot.site(*self._outcome(spot)) for spot in self.maps.spots.values()]

    def _outcome(self, spot: Spot) -> tuple[Status, str]:
        """What is done at `spot`, or why nothing is."""
        family = self.frames.family.get(spot)
        rise = next((rise for rise in self.rises if rise.spot is spot), None)
        if family is not None and (uses := self.uses[family]):
            period, shared = family.stride, len(family.spots)
            places = " and ".join(dict.fromkeys(f"{place.side} {place}" for place, _ in uses))
            text = f"anchor of period {period[0] if len(set(period)) == 1 else period} {places}"
            return "placed", text + (f", for {shared} sites whose maps meet" if shared > 1 else "")
        if family is not None and len(family.spots) == 1:
            why = "no layer of its own makes or takes in the map in front of it, so that no anchor can stand there"
            return "not placed", why
        if family is not None:
            return "not placed", (
                f"its map meets that of {len(family.spots) - 1} more sites, and no module takes in, or returns, the "
                "map where these branches part"
            )
        if rise is not None:
            hosts = [f"{place.side} {place}" for one, _ in self._undone(rise) for place, _ in self.uses[one][:1]]
            if self._rise_place(rise) is not None:
                return "placed", f"undoes the anchor {', then '.join(reversed(hosts))}"
            return "not placed", f"no module returns this map, so that the anchor {', '.join(hosts)} cannot be undone"
        if spot.kind in GROWING:
            return "left alone", "the map grows: nothing is subsampled here"
        return "left alone", "anchored already, or one pixel is left of the whole map"


class _Dominators:
    """For each map the nearest one through which every way to it leads."""

    def __init__(self, maps: Maps) -> None:
        self.above: dict[Value, Value | None] = {}
        self.depth: dict[Value, int] = {}
        for _, sources, results in maps.steps():
            for source in sources:
                if source not in self.depth:
                    self.above[source], self.depth[source] = None, 0
            nearest = self.nearest(sources)
            for result in results:
                if result not in self.depth:
                    self.above[result] = nearest
                    self.depth[result] = 0 if nearest is None else self.depth[nearest] + 1

    def nearest(self, values: Sequence[Value]) -> Value | None:
        """The nearest map through which every way to all of `values` leads; itself for a single one."""
        one: Value | None = values[0]
        for value in values[1:]:
            other: Value | None = value
            while one is not other:
                if one is None or other is None:
                    return None
                if self.depth[one] >= self.depth[other]:
                    one = self.above[one]
                else:
                    other = self.above[other]
        return one


def _put(model: nn.Module, place: Place, layer: Anchor | Undo) -> None:
    module = model.get_submodule(place.path)
    if place.window is None:
        hang(module, place.path, layer, before=place.side == "before")
    else:
        before, after = (layer, None) if isinstance(layer, Anchor) else (None, layer)
        answer_calls(module, place.method, ChangedCall(place.window, before=before, after=after))
