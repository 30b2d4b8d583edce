"""Find what works pixel by pixel and is not linear, and the maxima, and how each is evaluated at twice the rate.

What lies between the pixels is known of a map that holds no wave above its Nyquist frequency. A non-linearity makes
waves of higher frequencies. At twice the rate those of a polynomial of degree 2 all have a place, those of degree 3 are
mistaken for waves that the map cannot hold either, and a filter takes away all of these.

Source: Karras et al., *Alias-Free Generative Adversarial Networks*, NeurIPS 2021, section 3.2; Michaeli et al.,
*Alias-Free Convnets*, CVPR 2023, section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from torch import nn

from dealias.convert.downsampling import NONLINEARITY, Site
from dealias.convert.edits import MAX_POOLS, AnswerPool, DoubleRate, DoubleRateOfActivation, Edit, ReplacePool
from dealias.convert.frames import Maps
from dealias.convert.placement import (
    CONTAINERS,
    caller_of,
    enclosing,
    is_linear,
    runner_of,
    works_pixelwise,
)
from dealias.convert.plan import SitePlan
from dealias.convert.trace import DOUBLE, HALVE, Call, Node, Trace, Value
from dealias.convert.windows import Window

_TWICE = "evaluated at twice the rate"
_OWN_MODULE = "give it a module of its own"


@dataclass(frozen=True, eq=False)
class Nonlinearity:
    """A non-linear layer or operation on maps; `edit` evaluates it at twice the rate, None where nothing does."""

    site: Site
    edit: Edit | None = None

    def refused(self, reason: str) -> Nonlinearity:
        """The same where it stays as it is, for a reason."""
        return Nonlinearity(replace(self.site, status="not placed", action=None, reason=reason))


def spatial_axes(maps: Maps, value: Value) -> tuple[int, ...]:
    """The axes of the pixels of a map, counted from the last one, below 0."""
    places, length = maps.grids.places(value), len(value.shape)
    if places is None:
        return tuple(range(2 - length, 0))
    return tuple(place - length for place in places)


def acts(node: Node, maps: Maps) -> bool:
    """Whether `node` works on maps pixel by pixel and is not linear."""
    sources = [value for value in node.inputs if value in maps]
    if not sources or is_linear(node, maps) or node.op in (DOUBLE, HALVE):
        return False
    return works_pixelwise(node, spatial_axes(maps, sources[0])) and any(output in maps for output in node.outputs)


def at_twice_the_rate(trace: Trace) -> set[Value]:
    """The values between a layer that doubles the rate of a map and the one that halves it."""
    found: set[Value] = set()
    for node in trace.nodes:
        if node.op == DOUBLE or (node.op != HALVE and not found.isdisjoint(node.inputs)):
            found.update(node.outputs)
    return found


class Nonlinearities:
    """All of a recorded model, but maxima that subsample: their sites have plans of their own."""

    def __init__(self, trace: Trace, plans: Sequence[SitePlan]) -> None:
        self.trace, self.maps = trace, Maps(trace)
        self._doubled = at_twice_the_rate(trace)
        self._whole: dict[Call, bool] = {}
        self._edits = {spot.node: plan.decision.edits for plan in plans if plan.is_placed for spot in plan.spots}

    def found(self) -> list[Nonlinearity]:
        """A non-linearity for each layer, or for each function call of a module, in order of first use."""
        found: dict[object, Nonlinearity] = {}
        for node in self.trace.nodes:
            if "max_pool" in node.op and "adaptive" not in node.op and node.inputs[0] in self.maps:
                for key, one in self._maximum(node):
                    found.setdefault(key, one)
            elif acts(node, self.maps) and self._doubled.isdisjoint(node.inputs):
                key, one = self._activation(node)
                found.setdefault(key, one)
        return list(found.values())

    # Pixel by pixel ---------------------------------------------------------------------------------------------------

    def _activation(self, node: Node) -> tuple[object, Nonlinearity]:
        host = next((call for call in reversed(enclosing(node)) if self._is_whole(call)), None)
        if host is not None and host.input is not None:
            here = self._site(host.path or "", host.input)
            return host.module, self._by_module(host.module, Nonlinearity(here), spatial_axes(self.maps, host.input))
        module, method = caller_of(node)
        here = self._site(self.trace.paths[module], next(one for one in node.inputs if one in self.maps))
        known = node.window == Window("activation") and node.turn is not None
        if not known:
            what = f"{node.op}{f', {node.source},' if node.source else ''} is computed inside a forward"
            return (module, method, node.op, node.source), Nonlinearity(here).refused(f"{what}: {_OWN_MODULE}")
        return (module, node.turn), self._by_turn(node, Nonlinearity(here))

    def _is_whole(self, call: Call) -> bool:
        """Whether all that a module does in `call` is to work on one map, pixel by pixel."""
        if call not in self._whole:
            self._whole[call] = self._works_on_one_map(call)
        return self._whole[call]

    def _works_on_one_map(self, call: Call) -> bool:
        source, result, grids = call.input, call.output, self.maps.grids
        if call.path is None or isinstance(call.module, CONTAINERS) or source is None or result is None:
            return False
        if source not in self.maps or result not in self.maps or source is result:
            return False
        if spatial_axes(self.maps, source) != spatial_axes(self.maps, result) or grids.size(source) != grids.size(
            result
        ):
            return False
        made: set[Value] = {source}
        for node in self.trace.nodes[call.start : call.end]:
            maps = [value for value in node.inputs if value in self.maps]
            if not maps or not made.issuperset(maps) or ("norm" in node.op and is_linear(node, self.maps)):
                return False
            if not works_pixelwise(node, spatial_axes(self.maps, maps[0])):
                return False
            if any(output.consumers and output not in self.maps for output in node.outputs):
                return False
            made.update(node.outputs)
        return True

    def _by_module(self, module: nn.Module, here: Nonlinearity, axes: tuple[int, ...]) -> Nonlinearity:
        """At twice the rate on all calls of `module`; single pixels are the same at any rate."""
        for call in self.trace.calls_of(module):
            value = call.input
            alike = value is not None and len(value.shape) >= -min(axes) and {value.shape[axis] for axis in axes} == {1}
            if not alike and not (
                value is not None and self._is_whole(call) and spatial_axes(self.maps, value) == axes
            ):
                return here.refused(f"other calls of it take in something else: {_OWN_MODULE}")
        return replace(here, edit=DoubleRate(here.site.path, axes))

    def _by_turn(self, node: Node, here: Nonlinearity) -> Nonlinearity:
        """At twice the rate where a forward calls a function."""
        method, last = node.method, dict[Call, Node]()
        for other in self.trace.nodes:
            if method is not None and other.method == method and other.turn == node.turn:
                last[next(call for call in enclosing(other) if call.module is method.module)] = other
        host = runner_of(self.trace, [other.outputs[0] for other in last.values()])
        sources = [next((one for one in other.inputs if one in self.maps), None) for other in last.values()]
        axes = {None if one is None else spatial_axes(self.maps, one) for one in sources}
        if host is None or host.turn is None or len(axes) > 1:
            return here.refused(f"{node.op} is called by a forward that does not run the same each time: {_OWN_MODULE}")
        return replace(here, edit=DoubleRateOfActivation(host.path, host.turn, host.of, axes.pop() or ()))

    # Maxima -----------------------------------------------------------------------------------------------------------

    def _maximum(self, node: Node) -> Iterator[tuple[object, Nonlinearity]]:
        """A max-pool that stays one at stride 1."""
        edits = self._edits.get(node, ())
        if node in self.maps.spots and not edits:
            return  # its site says why
        if any(isinstance(edit, ReplacePool | AnswerPool) for edit in edits):
            return  # whose layers know the rate
        layer = next((call for call in enclosing(node) if isinstance(call.module, MAX_POOLS)), None)
        if layer is not None and layer.path is not None and layer.input is not None:
            axes = spatial_axes(self.maps, layer.input)
            here = Nonlinearity(self._site(layer.path, layer.input))
            yield layer.module, replace(here, edit=DoubleRate(layer.path, axes))
            return
        module, method = caller_of(node)
        here = Nonlinearity(self._site(self.trace.paths[module], node.inputs[0]))
        if node.window is None:
            yield (module, method), here.refused(f"{node.op} is no call that a layer can answer: {_OWN_MODULE}")
        else:
            edit = AnswerPool(here.site.path, method, node.window, dense=True)
            yield (module, method, node.window), replace(here, edit=edit)

    def _site(self, path: str, value: Value) -> Site:
        size = self.maps.grids.size(value) or value.shape[2:]
        return Site(NONLINEARITY, path, (1,) * len(size), size, size, "placed", action=_TWICE)
