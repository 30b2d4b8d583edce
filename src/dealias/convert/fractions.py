"""What in a trace hinders exactness where a map moves by fractions of its pixels: aliasing, named by layer.

A map moves by fractions where the input does, and behind a site that filters ideally: there a shift by one pixel in
front is one by 1 / stride behind.

Source: Michaeli et al., *Alias-Free Convnets*, CVPR 2023, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Sequence

from dealias.convert.downsampling import GROWING, Spot
from dealias.convert.edits import MAX_POOLS
from dealias.convert.frames import Maps, subsamples
from dealias.convert.layers import Converted
from dealias.convert.nonlinear import acts, at_twice_the_rate
from dealias.convert.trace import BLUR, DOUBLE, HALVE, Node, Value
from dealias.convert.windows import layer_classes
from dealias.filters import IDEAL
from dealias.nn import ReLUBlurPool2d

_METHOD = 'use dealias.antialias(model, example_input, method="alias-free")'
_QUADRATIC = "train with dealias.nn.Quadratic for an activation and dealias.nn.MapNorm for a norm, which are exact"
_AVERAGE = "pool by averages, which are linear"
_COARSE = "end at the coarse map: no upsampling is ideal yet"
_HIGHEST = 3
"""The degree of polynomials at twice the rate of which all that aliases lies where the filter behind takes it away."""
_MAXIMA = (*MAX_POOLS, *layer_classes("LPPool", "AdaptiveMaxPool"), ReLUBlurPool2d)


def filters_ideally(spot: Spot) -> bool:
    """Whether the ideal filter stands in front of what `spot` leaves out."""
    module = spot.node.call.module
    taps = getattr(module, "taps", None)
    if taps is None and isinstance(module, Converted):
        taps = module.blurring.taps(spot.stride)
    if spot.node.op != BLUR or taps is None or len(taps) != len(spot.stride):
        return False
    return all(line == IDEAL for line, step in zip(taps, spot.stride, strict=True) if step > 1)


class Aliasing:
    """What aliases in a network whose input moves by whole pixels or, with `fractional`, by any part of one.

    `uncovered` are the sites without an anchor.
    """

    def __init__(self, maps: Maps, uncovered: Container[Spot], fractional: bool) -> None:
        self.maps, self.uncovered = maps, uncovered
        self._whole = math.inf if fractional else 1
        self._parts: dict[Value, float] = {}  # a map moves by multiples of a pixel over this; by anything if infinite
        self._doubled = at_twice_the_rate(maps.trace)
        self._degree: dict[Value, float] = {}  # of a polynomial in a map at twice its rate

    def found(self) -> Iterator[tuple[Node, str, str]]:
        """The operation, what is wrong with it, and what to do."""
        for node, sources, results in self.maps.steps():
            parts = max(self._parts.get(value, self._whole) for value in sources)
            spot = self.maps.spots.get(node)
            if parts > 1:
                yield from self._problems(node, spot, parts)
            if spot is not None and spot in self.uncovered and filters_ideally(spot):
                parts *= math.lcm(*spot.stride)
            self._parts.update(dict.fromkeys(results, parts))
            self._degree.update(dict.fromkeys(results, self._degree_behind(node, sources)))

    def _problems(self, node: Node, spot: Spot | None, parts: float) -> Iterator[tuple[Node, str, str]]:
        rate = 1 if self._doubled.isdisjoint(node.inputs) else 2
        module = node.call.module
        if node.op == BLUR and isinstance(module, _MAXIMA):
            rate = module.blurring.rate if isinstance(module, Converted) else 1
        if spot is not None and spot.kind in GROWING:
            yield node, "a map that grows by other than an ideal filter, at", _COARSE
        elif spot is not None and subsamples(spot) and not filters_ideally(spot):
            yield node, "what is left out aliases, for want of an ideal filter, at", _METHOD
        if parts <= rate:
            return  # whole samples
        if self._takes_maxima(node):
            yield node, "a maximum, which makes waves that no map can hold, in", _AVERAGE
        elif node.op == HALVE and self._degree.get(node.inputs[0], 1) > _HIGHEST:
            yield node, f"a non-linearity of a degree above {_HIGHEST} in", _QUADRATIC
        elif rate == 1 and acts(node, self.maps):
            yield node, "a non-linearity at the rate of its map, which cannot hold the waves that it makes, in", _METHOD

    def _takes_maxima(self, node: Node) -> bool:
        if node.op == BLUR:
            return isinstance(node.call.module, _MAXIMA)
        pools = "max_pool" in node.op
        reduces = node.op in ("amax", "amin", "max", "min", "argmax") and node.inputs[0] in self.maps
        return pools or (reduces and not any(output in self.maps for output in node.outputs))

    def _degree_behind(self, node: Node, sources: Sequence[Value]) -> float:
        if node.op in (DOUBLE, HALVE) or self._doubled.isdisjoint(node.inputs):
            return 1
        degrees = [self._degree.get(value, 1) for value in node.inputs if value in self.maps]
        if not acts(node, self.maps):  # maxima are named by themselves
            return max(degrees, default=1)
        if node.op == "mul":
            return sum(degrees)
        power = node.settings.get("exponent")
        return degrees[0] * power if node.op == "pow" and isinstance(power, int) and power > 0 else math.inf
