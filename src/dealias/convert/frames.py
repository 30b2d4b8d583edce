"""By which subsamplings each map of a trace has come about, which must start from the same pixels, and which do."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, cast

from dealias.convert.anchor_layers import Anchor, Undo
from dealias.convert.downsampling import GROWING, Spot, find_downsampling
from dealias.convert.trace import BLUR, DOUBLE, Call, Node, Trace, Value
from dealias.convert.windows import layer_classes

_ATOMIC = layer_classes("Conv", "CircularPad", "MaxPool", "AvgPool")
"""Layers that pad by copies of slices, or run on a map with one more axis."""


class Maps:
    """Which values of a trace are maps, and the order in which they are made."""

    def __init__(self, trace: Trace) -> None:
        self.trace, (spots, self.grids) = trace, find_downsampling(trace)
        self.spots = {spot.node: spot for spot in spots}
        self.early: set[Value] = set()  # what is made of the input before the first convolution
        self._alike: set[Value] = set()  # one pixel, repeated everywhere
        self._ending: dict[int, list[Call]] = {}
        for call in trace.calls:
            if isinstance(call.module, _ATOMIC) and call.end > call.start:
                self._ending.setdefault(call.end - 1, []).append(call)
        for node in trace.nodes:
            self._note_early(node)
            self._note_alike(node)

    def _note_alike(self, node: Node) -> None:
        sizes = {value: self.grids.size(value) for value in node.inputs}
        known = [value in self._alike or max(size, default=1) == 1 for value, size in sizes.items() if size is not None]
        if known and all(known):
            self._alike.update(value for value in node.outputs if value in self)

    def _note_early(self, node: Node) -> None:
        for value in node.inputs:
            if value.producer is None and len(value.shape) > 2:
                self.early.add(value)
        if not self.early.isdisjoint(node.inputs):
            ranks = {len(value.shape) for value in node.inputs if value in self.early}
            self.early.update(
                output for output in node.outputs if self.grids.size(output) is None and {len(output.shape)} == ranks
            )

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, Value) or value in self._alike:
            return False
        size = self.grids.size(value)
        return max(size, default=1) > 1 if size is not None else value in self.early and max(value.shape[2:]) > 1

    def steps(self) -> Iterator[tuple[Node, list[Value], list[Value]]]:
        """Each operation with the maps that it takes in and those that it returns.

        The last operation of a layer that pads has the layer's own input and output.
        """
        for node in self.trace.nodes:
            sources = [value for value in node.inputs if value in self]
            results = [value for value in node.outputs if value in self]
            for call in self._ending.get(node.index, ()):
                if call.input is not None and call.output is not None and call.input in self:
                    sources = [self._entering(call, call.input)]
                    results = [value for value in (call.output,) if value in self]
            if sources:
                yield node, sources, results

    def _entering(self, call: Call, value: Value) -> Value:
        """What the layer works on, behind the layers that hang in front of it."""
        for node in self.trace.nodes[call.start : call.end]:
            if node.op not in (BLUR, DOUBLE) or node.call is call or node.inputs[0] is not value:
                break
            value = node.outputs[0]
        return value


class Level(NamedTuple):
    """A subsampling on the way of a map; `left` is the part of its stride that no upsampling has undone.

    Where maps meet, their levels are to be the same: those that differ there belong to one `Family`.
    """

    spot: Spot
    left: tuple[int, ...]


Levels: TypeAlias = tuple[Level, ...]


@dataclass(eq=False)
class Family:
    """Subsamplings that take one anchor for all; `stride` is the largest of the ways through them."""

    spots: list[Spot]
    stride: tuple[int, ...]


class Rise(NamedTuple):
    """An upsampling that brings maps back to the grid in front of `families`, the coarsest last.

    `scales` are the pixels of the result from one pixel of that grid to the next, for each family and axis.
    """

    spot: Spot
    families: tuple[Family, ...]
    scales: tuple[tuple[int, ...], ...]


class Frames:
    """The levels of all maps, where the subsamplings count that need an anchor."""

    def __init__(self, maps: Maps, needs_anchor: Callable[[Spot], bool]) -> None:
        self.maps = maps
        self.levels: dict[Value, Levels] = {}
        self.family: dict[Spot, Family] = {}
        self.ways: dict[Spot, Levels] = {}  # behind each subsampling that counts, itself the last
        risen: dict[Spot, tuple[Levels, Levels]] = {}
        for node, sources, results in self.maps.steps():
            known = [self.levels.setdefault(value, ()) for value in sources]
            levels = known[0]
            for other in known[1:]:
                self._meet(levels, other)
            spot = self.maps.spots.get(node)
            if spot is not None and spot.kind in GROWING:
                risen[spot] = self._risen(levels, spot.stride)
                levels = risen[spot][0]
            elif spot is not None and needs_anchor(spot):
                self.family.setdefault(spot, Family([spot], spot.stride))
                levels = self.ways[spot] = (*levels, Level(spot, spot.stride))
            for value in results:
                self.levels[value] = levels
        self.rises = [self._rise(spot, *parts) for spot, parts in risen.items()]

    def merged(self, levels: Levels) -> list[tuple[Family, tuple[int, ...]]]:
        """The families on the way of a map, each with what is left of its stride."""
        parts: list[tuple[Family, tuple[int, ...]]] = []
        for spot, left in levels:
            family = self.family[spot]
            if parts and parts[-1][0] is family:
                parts[-1] = family, _times(parts[-1][1], left)
            else:
                parts.append((family, left))
        return parts

    def _meet(self, one: Levels, other: Levels) -> None:
        """Let the levels in which two maps differ be of one family, where they come to the same stride."""
        while one and other and self.family[one[0].spot] is self.family[other[0].spot] and one[0].left == other[0].left:
            one, other = one[1:], other[1:]
        if not one or not other or self.merged(one) == self.merged(other):
            return
        strides = [functools.reduce(_times, (level.left for level in levels)) for levels in (one, other)]
        if strides[0] != strides[1]:
            return
        spots = [level.spot for level in (*one, *other)]
        families = dict.fromkeys(self.family[spot] for spot in spots)
        joined = Family([spot for family in families for spot in family.spots], strides[0])
        for family in families:
            joined.stride = tuple(map(max, joined.stride, family.stride))
        self.family.update(dict.fromkeys(joined.spots, joined))

    def _risen(self, levels: Levels, factor: Sequence[int]) -> tuple[Levels, Levels]:
        """What remains of `levels` behind an upsampling by `factor`, and what it has undone."""
        kept, undone, rest = list(levels), list[Level](), tuple(factor)
        while kept and max(rest) > 1 and len(rest) == len(kept[-1].left):
            spot, left = kept.pop()
            if all(more % step == 0 for more, step in zip(rest, left, strict=True)):
                undone.append(Level(spot, left))
                rest = tuple(more // step for more, step in zip(rest, left, strict=True))
            else:
                if all(step % more == 0 for more, step in zip(rest, left, strict=True)):
                    left = tuple(step // more for more, step in zip(rest, left, strict=True))
                kept.append(Level(spot, left))
                break
        return tuple(kept), tuple(undone[::-1])

    def _rise(self, spot: Spot, kept: Levels, undone: Levels) -> Rise:
        families, scales, scale = list[Family](), list[tuple[int, ...]](), (1,) * len(spot.stride)
        unfinished = {self.family[level.spot] for level in kept}
        for family, stride in self.merged(undone):
            if family not in unfinished:
                families.append(family)
                scales.append(scale)
            scale = _times(scale, stride)
        return Rise(spot, tuple(families), tuple(scales))


class _Rolled(NamedTuple):
    """What an anchor rolls, and its period: two anchors for which these are the same roll alike."""

    value: Value | None
    stride: tuple[int, ...]


class _State(NamedTuple):
    """A map, and its copies under shifts, differ by shifts that are multiples of `period` from `rolled` on."""

    rolled: tuple[_Rolled, ...] = ()
    period: tuple[int, ...] = ()  # empty for 1 on each axis


class Coverage:
    """What the anchors of a network do for its subsamplings."""

    def __init__(self, maps: Maps) -> None:
        self.maps = maps
        self.uncovered: set[Spot] = set()  # whose map moves by other than multiples of their stride
        self.parted: dict[Node, tuple[Value, Value]] = {}  # two maps that have been rolled by different anchors
        self._turns: dict[Call, int] = {}  # of each call of an anchor or an undo, among those of its module
        for call in maps.trace.calls:
            if isinstance(call.module, Anchor | Undo):
                self._turns[call] = sum(call.module is other.module for other in self._turns)
        states: dict[Value, _State] = {}
        for node, sources, results in maps.steps():
            state = states.get(sources[0], _State())
            for source in sources[1:]:
                other = states.get(source, _State())
                if other.rolled != state.rolled:
                    self.parted[node] = (sources[0], source)
                state = _State(state.rolled, tuple(map(math.gcd, state.period, other.period)))
            states.update(dict.fromkeys(results, self._behind(node, state)))

    def _behind(self, node: Node, state: _State) -> _State:
        module, spot = node.call.module, self.maps.spots.get(node)
        if isinstance(module, Anchor) and node.call in self._turns:
            return _State((*state.rolled, _Rolled(node.inputs[0], module.stride)), module.stride)
        if isinstance(module, Undo) and node.call in self._turns:
            undone = {self._rolled(module, step.anchor, step.call) for step in module.turns[self._turns[node.call]]}
            return _State(tuple(one for one in state.rolled if one not in undone))
        if spot is not None and spot.kind in GROWING:
            period = state.period or (1,) * len(spot.stride)
            return _State(state.rolled, tuple(a * b for a, b in zip(period, spot.stride, strict=False)))
        if spot is None or not subsamples(spot):
            return state
        if len(state.period) != len(spot.stride) or any(map(operator.mod, state.period, spot.stride)):
            self.uncovered.add(spot)
            return _State(state.rolled)
        return _State(state.rolled, tuple(map(operator.floordiv, state.period, spot.stride)))

    def _rolled(self, undo: Undo, number: int, turn: int) -> _Rolled:
        anchor = cast(Anchor, undo.anchors[number])
        return _Rolled(self.maps.trace.calls_of(anchor)[turn].input, anchor.stride)


def subsamples(spot: Spot) -> bool:
    """Whether an anchor has to stand in front of `spot`: it keeps some pixels of a map, not one for all of them."""
    if spot.kind in GROWING or max(spot.stride) == 1:
        return False
    return spot.kind != "avg_pool" or spot.stride != spot.input_size


def _times(one: Sequence[int], other: Sequence[int]) -> tuple[int, ...]:
    return tuple(a * b for a, b in zip(one, other, strict=True))
