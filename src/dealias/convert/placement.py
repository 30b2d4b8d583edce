"""Follow values through a trace to their non-linearity, and find the modules at which they can be blurred.

The blur of a strided convolution stands behind the non-linearity (Zhang 2019, section 3.2).
"""

from __future__ import annotations

import heapq
from collections.abc import Container, Sequence
from dataclasses import dataclass

from torch import nn

from dealias.convert.grids import Grids
from dealias.convert.trace import BLUR, Call, Method, Node, Trace, Value

ACTIVATIONS = {
    *("_prelu_kernel", "celu", "clamp", "clamp_max", "clamp_min", "elu", "erf", "gelu", "glu", "hardshrink"),
    *("hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "log_sigmoid_forward", "mish", "relu"),
    *("rrelu_with_noise", "selu", "sigmoid", "silu", "softplus", "softshrink", "tanh", "threshold"),
}
_COPIES = {"alias", "clone", "detach", "_to_copy", "lift_fresh", "contiguous", "copy"}
_NORMS = {"native_group_norm", "native_layer_norm", "_fused_rms_norm"}
# What moves channels about or takes some of them, and leaves every pixel in its place where its map stays whole.
_OF_CHANNELS = {
    *("view", "_unsafe_view", "reshape", "permute", "transpose", "unsqueeze", "squeeze", "expand", "cat", "stack"),
    *("split", "split_with_sizes", "chunk", "slice", "select", "unbind"),
}
_REDUCING_LINEARLY = {"mean", "sum"}
_REDUCING = _REDUCING_LINEARLY | {"amax", "amin", "max", "min", "logsumexp", "softmax", "_softmax"}
_LINEAR = {"add", "sub", "rsub", "neg"} | _COPIES | _OF_CHANNELS | _REDUCING_LINEARLY
_LINEAR_BY_A_CONSTANT = {"mul", "div", "addcmul"}
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_POOLED = ("adaptive_", "avg_pool", "max_pool", "mean", "sum", "var", "amax", "amin", "norm")


@dataclass(frozen=True, eq=False)
class Cut:
    """A map on which all depends that is computed from a map later."""

    value: Value
    level: int  # 1 behind its non-linearity, 0 in front
    gated: bool = False  # whether its statistics have changed it on the way, as in squeeze-and-excite and group norms


@dataclass(frozen=True, eq=False)
class Region:
    """What some maps become pixel by pixel, up to where something else takes part."""

    values: frozenset[Value]  # the maps, and the statistics pooled from them
    cuts: tuple[Cut, ...]  # in order; the first ones are the maps themselves, where there is only one
    foreign: tuple[Value, ...] = ()  # maps from elsewhere in the way of the next cut, e.g. another branch of a sum
    convolutions: tuple[Node, ...] = ()  # 1x1, on the way

    @property
    def behind(self) -> list[Cut]:
        """The cuts behind the first non-linearity, up to the next one."""
        return [cut for cut in self.cuts if cut.level == 1]

    @property
    def in_front(self) -> list[Value]:
        """The cuts in front of any non-linearity."""
        return [cut.value for cut in self.cuts if cut.level == 0]


def explore(grids: Grids, starts: Sequence[Value], *, pooled: Sequence[Value] = (), mixing: bool = False) -> Region:
    """Follow the maps `starts`, all of one size, for as long as every operation keeps their pixels in place.

    Norms, activations, operations on channels and gates by pooled statistics (squeeze-and-excite) do; with `mixing`,
    1x1 convolutions too, in front of the non-linearity and of where the starts meet. A sum or a concatenation with a
    map from elsewhere does not. Of the starts, the `pooled` ones need no non-linearity in front of their blur.
    """
    walk = _Walk(grids, starts, mixing)
    walk.linear -= set(pooled)
    return walk.run()


def is_linear(node: Node, maps: Container[Value]) -> bool:
    """Whether what `node` does to `maps` pixel by pixel is linear, where statistics are constants."""
    if node.op in _LINEAR or "batch_norm" in node.op or node.op == "native_group_norm":
        return True
    return node.op in _LINEAR_BY_A_CONSTANT and sum(value in maps for value in node.inputs) == 1


def works_pixelwise(node: Node, axes: Sequence[int]) -> bool:
    """Whether `node` may work pixel by pixel; `axes` are those of pixels in what it takes in, below 0."""
    if node.reads_constant(axes):
        return False
    length = len(node.inputs[0].shape)
    if node.op in ("native_layer_norm", "_fused_rms_norm"):
        return min(axes, default=0) + length >= 0 and max(axes, default=-length) < -len(
            node.settings["normalized_shape"]
        )
    if node.op in ("softmax", "_softmax", "_log_softmax"):
        return node.settings["dim"] % length - length not in axes
    return node.pointwise or node.op in ACTIVATIONS | _COPIES | _OF_CHANNELS | _REDUCING


class _Walk:
    def __init__(self, grids: Grids, starts: Sequence[Value], mixing: bool) -> None:
        self.grids, self.size, self.mixing = grids, grids.size(starts[0]), mixing
        self.branches, self.met = len(starts) > 1, False
        self.maps, self.statistics = set(starts), set[Value]()
        self.linear = set(starts)  # the maps that a start reaches without a non-linearity
        self.open = {value: len(value.consumers) for value in starts}
        self.waiting: dict[int, Node] = {}
        self.heap: list[int] = []
        self.nonlinear = False  # since the last cut
        self.convolutions: list[Node] = []
        self.measured = False  # whether a norm computed the statistics of a map
        self.cuts = [Cut(starts[0], 0)] if len(starts) == 1 else []
        for value in starts:
            self.wait(value)

    def wait(self, value: Value) -> None:
        for node in value.consumers:
            if node.index not in self.waiting:
                self.waiting[node.index] = node
                heapq.heappush(self.heap, node.index)

    def run(self) -> Region:
        foreign: tuple[Value, ...] = ()
        while self.heap and not any(value.returned for value in self.open):
            node = self.waiting[heapq.heappop(self.heap)]
            known = self.maps | self.statistics
            foreign = tuple(value for value in node.inputs if value not in known)
            if foreign or not node.outputs or not self.take(node):
                foreign = tuple(value for value in foreign if self.grids.size(value) == self.size)
                break
            foreign = ()
            for source in set(node.inputs) & self.open.keys():
                self.open[source] -= 1
                if not self.open[source]:
                    del self.open[source]
            for output in node.outputs:
                if output.consumers or output.returned:
                    self.open[output] = len(output.consumers)
                    self.wait(output)
            if not self.cut(node):
                break
        values = frozenset(self.maps | self.statistics)
        return Region(values, tuple(self.cuts), foreign, tuple(self.convolutions))

    def take(self, node: Node) -> bool:
        """Whether `node` keeps all pixels in place; if so, what it returns belongs to the region."""
        if self.statistics.issuperset(node.inputs):
            self.statistics.update(node.outputs)
            return True
        outputs = [output for output in node.outputs if output.consumers or output.returned] or [node.outputs[0]]
        if all(self.is_statistic(node, output) for output in outputs):
            self.statistics.update(node.outputs)
            return True
        if not self.keeps_pixels(node) or not all(self.is_map(output) for output in outputs):
            return False
        self.measured |= self.measures(node)
        self.convolutions += [node] if node.op == "convolution" else []
        nonlinear = self.is_nonlinear(node)
        self.nonlinear |= nonlinear
        self.maps.update(outputs)
        if not nonlinear and not self.linear.isdisjoint(node.inputs):
            self.linear.update(outputs)
        return True

    def keeps_pixels(self, node: Node) -> bool:
        if self.mixing and _is_pixelwise_convolution(node):
            # behind a non-linearity, and where all branches have met, the blur comes first
            return self.linear.issuperset(node.inputs) and not self.met
        if _is_norm(node):
            return True
        if node.reads_constant(range(2 - len(node.inputs[0].shape), 0)):
            return False
        if node.op in ("softmax", "_softmax"):
            return not self.grids.axes[node.inputs[0]][node.settings["dim"]]
        return node.pointwise or node.op in ACTIVATIONS | _COPIES | _OF_CHANNELS | _REDUCING

    def is_map(self, value: Value) -> bool:
        return self.grids.is_whole(value) and self.grids.size(value) == self.size

    def is_statistic(self, node: Node, value: Value) -> bool:
        pixels = self.grids.size(value)
        pooled = any(name in node.op for name in _POOLED)
        return pooled and (set(pixels) == {1} if pixels is not None else not any(self.grids.axes.get(value, ())))

    def measures(self, node: Node) -> bool:
        if "batch_norm" in node.op:
            return bool(node.settings.get("training", node.settings.get("use_input_stats", False)))
        if node.op in ("native_layer_norm", "_fused_rms_norm"):
            return any(self.grids.axes[node.inputs[0]][-len(node.settings["normalized_shape"]) :])
        return node.op == "native_group_norm"

    def is_nonlinear(self, node: Node) -> bool:
        if node.op in _LINEAR or _is_norm(node) or node.op == "convolution":
            return False
        # a gate by statistics is the same at every pixel
        if node.op in _LINEAR_BY_A_CONSTANT and sum(value in self.maps for value in node.inputs) == 1:
            return False
        return node.op in ACTIVATIONS or not _is_norm_layer(node.call.module)

    def cut(self, node: Node) -> bool:
        """Note what `node` returns if all goes on through it; False where a second non-linearity stood in front."""
        if len(self.open) != 1 or not self.open.keys() <= set(node.outputs) & self.maps:
            return True
        (value,) = self.open
        self.met = self.branches
        behind = bool(self.cuts) and self.cuts[-1].level == 1
        if behind and self.nonlinear:
            return False
        level = 0 if value in self.linear else 1
        spatial = len(self.size or ())
        if self.grids.axes[value] == (0, 0, *range(1, spatial + 1)):  # what a blur takes
            self.cuts.append(Cut(value, level, self.measured or bool(self.statistics)))
        if level == 1 or not self.nonlinear:
            self.nonlinear = False
        return True


def _is_pixelwise_convolution(node: Node) -> bool:
    if node.op != "convolution" or node.settings.get("transposed"):
        return False
    settings = node.settings
    return set(settings["weight"][2:]) | set(settings["stride"]) == {1} and not any(settings["padding"])


def _is_norm(node: Node) -> bool:
    return node.op in _NORMS or "batch_norm" in node.op


def follows_linearly(value: Value) -> bool:
    """Whether `value` is made of what convolutions returned, by norms and linear operations alone."""
    node = value.producer
    if node is None or node.op == BLUR:
        return False
    if node.op == "convolution":
        return True
    linear = node.op in _LINEAR or _is_norm(node) or (node.op in _LINEAR_BY_A_CONSTANT and len(node.inputs) == 1)
    return linear and all(map(follows_linearly, node.inputs))


def enclosing(node: Node) -> list[Call]:
    """The module calls that `node` ran in, innermost first."""
    calls: list[Call] = []
    call: Call | None = node.call
    while call is not None:
        calls.append(call)
        call = call.parent
    return calls


def caller_of(node: Node) -> Method:
    """What calls the function behind `node`: a method of the innermost module of the model, if none is known."""
    return node.method or Method(next(call.module for call in enclosing(node) if call.path is not None), None)


@dataclass(frozen=True)
class Host:
    """A module at which values can be blurred: what it returns, what it takes in, or an activation that it runs."""

    module: nn.Module
    path: str
    before: bool
    turn: int | None = None  # of the activation, among those that its forward runs
    of: int = 0  # so many


def hosts_of(trace: Trace, values: Sequence[Value]) -> list[Host] | None:
    """Where to blur `values`, for all who use them and nothing else; None where no modules will do.

    Tools that people use afterwards replace norms and merge them into convolutions, so an activation, a block or the
    layer that reads the map is chosen before a norm.
    """
    returning = _modules_for(trace, [_returning(value) for value in values])
    steady = [call for call in returning if not _is_norm_layer(call.module)]
    receiving = _modules_for(trace, [_receiving(value) for value in values])
    blocks = [call for call in receiving if not type(call.module).__module__.startswith("torch.nn")]
    for calls, before in ((steady, False), (blocks, True), (receiving, True), (returning, False)):
        if calls:
            return [Host(calls[0].module, calls[0].path or "", before)]
    return _readers(trace, values)


def _is_norm_layer(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower()


def _readers(trace: Trace, values: Sequence[Value]) -> list[Host] | None:
    """The layers that take `values` in, where there are several: each then blurs for itself."""
    if any(value.returned or not value.consumers for value in values):
        return None
    hosts: dict[nn.Module, Host] = {}
    wanted = {*values}
    for node in dict.fromkeys(node for value in values for node in value.consumers):
        call = next((call for call in enclosing(node) if call.input in wanted and call.path is not None), None)
        if call is None or isinstance(call.module, CONTAINERS):
            return None
        calls = trace.calls_of(call.module)
        if len(calls) != len(values) or any(other.input not in wanted for other in calls):
            return None
        hosts[call.module] = Host(call.module, call.path or "", True)
    return list(hosts.values())


def runner_of(trace: Trace, values: Sequence[Value]) -> Host | None:
    """The module whose forward runs the activation that returns `values`, the same one each time: the last resort."""
    (method, turn), *others = {(node.method, node.turn) for value in values if (node := value.producer) is not None}
    if others or method is None or turn is None:
        return None
    calls = trace.calls_of(method.module)
    counts = {call.activations_after - call.activations for call in calls}
    if len(calls) != len(values) or len(counts) != 1:
        return None
    return Host(method.module, trace.paths[method.module], False, turn, *counts)


def _returning(value: Value) -> list[Call]:
    return [
        call
        for call in (enclosing(value.producer) if value.producer is not None else ())
        if call.output is value and not any(map(call.runs, value.consumers)) and _can_return_blurred(call.module)
    ]


def _receiving(value: Value) -> list[Call]:
    return [] if value.returned or not value.consumers else taking(value, value.consumers)


def taking(value: Value, readers: Sequence[Node]) -> list[Call]:
    """The module calls, innermost first, that take `value` in and run `readers` of its consumers alone."""
    return [
        call
        for call in enclosing(readers[0])
        if can_take(call, value) and set(filter(call.runs, value.consumers)) == set(readers)
    ]


def can_take(call: Call, value: Value) -> bool:
    """Whether `value` can be changed where `call` takes it in."""
    made_inside = value.producer is not None and call.runs(value.producer)
    return call.input is value and call.path is not None and not made_inside and not isinstance(call.module, CONTAINERS)


def _can_return_blurred(module: nn.Module) -> bool:
    """A container that runs its children can be given one more child only where it runs them in order."""
    if isinstance(module, nn.Sequential):
        return type(module).forward is nn.Sequential.forward
    return not isinstance(module, nn.ModuleList | nn.ModuleDict)


def _modules_for(trace: Trace, candidates: list[list[Call]]) -> list[Call]:
    """The modules, innermost first, of which each call is a candidate of one value, one call for each value."""
    return [
        call
        for call in candidates[0]
        if call.path is not None
        and set(trace.calls_of(call.module))
        == {match for calls in candidates for match in calls if match.module is call.module}
        and len(trace.calls_of(call.module)) == len(candidates)
    ]
