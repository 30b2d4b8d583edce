"""Which subsamplings of a trace stand behind an anchor, and where maps meet that different anchors have rolled."""

from __future__ import annotations

import math
import operator
from typing import NamedTuple, cast

from dealias.convert.anchor_layers import Anchor, Undo
from dealias.convert.downsampling import GROWING, Spot
from dealias.convert.frames import Maps
from dealias.convert.trace import Call, Node, Value


class Rolled(NamedTuple):
    """What an anchor rolls, and its period: two anchors for which these are the same roll alike."""

    value: Value | None
    stride: tuple[int, ...]


class _State(NamedTuple):
    """A map, and its copies under shifts, differ by shifts that are multiples of `period` from `rolled` on."""

    rolled: tuple[Rolled, ...] = ()
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
            return _State((*state.rolled, Rolled(node.inputs[0], module.stride)), module.stride)
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

    def _rolled(self, undo: Undo, number: int, turn: int) -> Rolled:
        anchor = cast(Anchor, undo.anchors[number])
        return Rolled(self.maps.trace.calls_of(anchor)[turn].input, anchor.stride)


def subsamples(spot: Spot) -> bool:
    """Whether an anchor has to stand in front of `spot`: it keeps some pixels of a map, not one for all of them."""
    if spot.kind in GROWING or max(spot.stride) == 1:
        return False
    return spot.kind != "avg_pool" or spot.stride != spot.input_size
