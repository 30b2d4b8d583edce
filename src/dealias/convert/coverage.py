"""Which subsamplings of a trace stand behind an anchor, and where maps meet that different anchors have rolled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias, cast

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


Pair: TypeAlias = tuple[Node, tuple[Value, Value]]


@dataclass(eq=False)
class Coverage:
    """What the anchors of a network do for its subsamplings.

    Args:
        uncovered: subsamplings whose map moves by other than multiples of their stride.
        parted: operations on two maps that have been rolled by different anchors, and these maps.
    """

    maps: Maps
    uncovered: list[Spot] = field(default_factory=list)
    parted: list[Pair] = field(default_factory=list)

    def __post_init__(self) -> None:
        states: dict[Value, _State] = {}
        turns: dict[Call, int] = {}
        for call in self.maps.trace.calls:
            if isinstance(call.module, Anchor | Undo):
                turns[call] = sum(call.module is other.module for other in turns)
        for node, sources, results in self.maps.steps():
            state = states.get(sources[0], _State())
            for source in sources[1:]:
                other = states.get(source, _State())
                if other.rolled != state.rolled:
                    self.parted.append((node, (sources[0], source)))
                state = _State(state.rolled, tuple(map(math.gcd, state.period, other.period)))
            state = self._behind(node, state, turns)
            states.update(dict.fromkeys(results, state))

    def _behind(self, node: Node, state: _State, turns: dict[Call, int]) -> _State:
        module, spot = node.call.module, self.maps.spots.get(node)
        if isinstance(module, Anchor) and node.call in turns:
            return _State((*state.rolled, Rolled(node.inputs[0], module.stride)), module.stride)
        if isinstance(module, Undo) and node.call in turns:
            undone = {self._rolled(module, step.anchor, step.call) for step in module.turns[turns[node.call]]}
            return _State(tuple(one for one in state.rolled if one not in undone))
        if spot is None:
            return state
        if spot.kind in GROWING:
            period = state.period or (1,) * len(spot.stride)
            return _State(state.rolled, tuple(a * b for a, b in zip(period, spot.stride, strict=False)))
        if not subsamples(spot):
            return state
        if not _covers(state.period, spot.stride):
            self.uncovered.append(spot)
            return _State(state.rolled)
        return _State(state.rolled, tuple(a // b for a, b in zip(state.period, spot.stride, strict=True)))

    def _rolled(self, undo: Undo, number: int, turn: int) -> Rolled:
        anchor = cast(Anchor, undo.anchors[number])
        return Rolled(self.maps.trace.calls_of(anchor)[turn].input, anchor.stride)


def _covers(period: Sequence[int], stride: Sequence[int]) -> bool:
    return len(period) == len(stride) and all(a % b == 0 for a, b in zip(period, stride, strict=True))


def subsamples(spot: Spot) -> bool:
    """Whether an anchor has to stand in front of `spot`: it keeps some pixels of a map, not one for all of them."""
    if spot.kind in GROWING or max(spot.stride) == 1:
        return False
    covers_all = spot.kind == "avg_pool" and spot.stride == spot.input_size
    return not covers_all
