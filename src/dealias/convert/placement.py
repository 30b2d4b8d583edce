"""Follow a value through a trace to its non-linearity, and find the modules at which it can be blurred.

The blur of a strided convolution stands behind the non-linearity (Zhang 2019, section 3.2), so the question is which
value that is, and whether some module returns it or takes it in, whole and for this purpose alone.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from dealias.convert.trace import BLUR, Call, Node, Trace, Value

_NORM_MODULES = (
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.LocalResponseNorm,
)
_ACTIVATIONS = {
    "_prelu_kernel",
    "celu",
    "clamp",
    "clamp_min",
    "elu",
    "erf",
    "gelu",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "leaky_relu",
    "log_sigmoid_forward",
    "mish",
    "relu",
    "rrelu_with_noise",
    "selu",
    "sigmoid",
    "silu",
    "softplus",
    "softshrink",
    "tanh",
    "threshold",
}
# Operations that keep every pixel in its place, beside those that PyTorch tags as pointwise.
_IN_PLACE_OF_PIXELS = _ACTIVATIONS | {"alias", "clone", "detach", "_to_copy", "lift_fresh"}
_NORMS = {"native_group_norm", "native_layer_norm", "_fused_rms_norm"}
_LINEAR = {"add", "sub", "rsub", "neg", "alias", "clone", "detach", "_to_copy", "lift_fresh"}
_LINEAR_BY_A_CONSTANT = {"mul", "div", "addcmul"}
_MIXING = ("convolution", "_pool", "mm", "attention", "upsample", BLUR)  # neither a norm nor an activation


@dataclass(frozen=True)
class Chain:
    """The values that a value becomes one after the other, each made of the one before alone, pixel by pixel."""

    values: tuple[Value, ...]
    nonlinear: bool  # the last value is the first one behind a non-linearity

    @property
    def end(self) -> Value:
        """Where the chain ends."""
        return self.values[-1]


def follow(trace: Trace, value: Value) -> Chain:
    """Follow `value` through norms and pointwise operations to its non-linearity, or as far as it goes alone."""
    values = [value]
    while (step := _through_module(trace, values[-1]) or _through_operations(values[-1])) is not None:
        following, nonlinear = step
        values.append(following)
        if nonlinear:
            return Chain(tuple(values), True)
    return Chain(tuple(values), False)


def beyond(value: Value) -> list[Value]:
    """The values that `value` becomes by linear pointwise operations, which commute with a blur."""
    values: list[Value] = []
    while (step := _through_operations(values[-1] if values else value)) is not None and not step[1]:
        values.append(step[0])
    return values


def _through_module(trace: Trace, value: Value) -> tuple[Value, bool] | None:
    """The step through a normalisation or activation module, whatever operations it is made of."""
    if value.returned or not value.consumers:
        return None
    for call in enclosing(value.consumers[0]):
        output = call.output
        if call.input is not value or output is None or not all(map(call.runs, value.consumers)):
            continue
        if output is value or output.shape != value.shape or output.producer is None or not call.runs(output.producer):
            continue
        ops = {node.op for node in trace.nodes[call.start : call.end]}
        if any(name in op for name in _MIXING for op in ops):
            continue
        module = call.module
        if isinstance(module, _NORM_MODULES) or "norm" in type(module).__name__.lower():
            return output, bool(ops & _ACTIVATIONS)
        if type(module).__module__ == nn.ReLU.__module__:
            return output, True
    return None


def _through_operations(value: Value) -> tuple[Value, bool] | None:
    """The step through pointwise operations to the next value that alone carries on, e.g. over x * sigmoid(x)."""
    if value.returned:
        return None
    region, waiting, nonlinear = {value}, {node.index: node for node in value.consumers}, False
    heap = list(waiting)
    heapq.heapify(heap)
    open_values = {value: len(value.consumers)}
    while heap:
        node = waiting[heapq.heappop(heap)]
        output = node.outputs[0] if node.outputs else None
        keeps_pixels = node.pointwise or node.op in _IN_PLACE_OF_PIXELS or _is_norm(node)
        keeps_pixels &= not _depends_on_position(node)
        if output is None or not keeps_pixels or output.shape != value.shape or not region.issuperset(node.inputs):
            return None
        nonlinear |= _is_nonlinear(node)
        for source in set(node.inputs):
            open_values[source] -= 1
            if not open_values[source]:
                del open_values[source]
        region.add(output)
        for consumer in output.consumers:
            if consumer.index not in waiting:
                waiting[consumer.index] = consumer
                heapq.heappush(heap, consumer.index)
        if output.consumers:
            open_values[output] = len(output.consumers)
        if open_values.keys() <= {output}:
            return output, nonlinear
        if output.returned:
            return None
    return None


def _depends_on_position(node: Node) -> bool:
    """Whether a constant map, such as a position embedding, takes part: it fits one size only."""
    axes = len(node.inputs[0].shape) - 2
    shapes = [shape for shape in node.settings.values() if isinstance(shape, torch.Size)]
    return sum(max(shape[-axes:], default=1) > 1 for shape in shapes if axes > 0) > len(node.inputs)


def _is_norm(node: Node) -> bool:
    return node.op in _NORMS or "batch_norm" in node.op


def _is_nonlinear(node: Node) -> bool:
    if node.op in _LINEAR or _is_norm(node):
        return False
    return not (node.op in _LINEAR_BY_A_CONSTANT and len(node.inputs) == 1)


def enclosing(node: Node) -> list[Call]:
    """The module calls that `node` ran in, innermost first."""
    calls: list[Call] = []
    call: Call | None = node.call
    while call is not None:
        calls.append(call)
        call = call.parent
    return calls


def returning_modules(trace: Trace, values: Sequence[Value]) -> list[nn.Module]:
    """The modules, innermost first, each call of which returns one of `values`, one call for each value.

    Blurring what such a module returns blurs these values for all who use them, and nothing else.
    """
    return _modules_for(trace, [_returning(value) for value in values])


def receiving_modules(trace: Trace, values: Sequence[Value]) -> list[nn.Module]:
    """The modules, innermost first, each call of which is the only user of one of `values`, one call for each value.

    Blurring what such a module takes in blurs these values for all who use them, and nothing else.
    """
    return _modules_for(trace, [_receiving(value) for value in values])


def _returning(value: Value) -> list[Call]:
    producer = value.producer
    return [
        call
        for call in (enclosing(producer) if producer is not None else ())
        if call.output is value and not any(map(call.runs, value.consumers)) and _can_return_blurred(call.module)
    ]


def _receiving(value: Value) -> list[Call]:
    producer = value.producer
    if value.returned or not value.consumers:
        return []
    return [
        call
        for call in enclosing(value.consumers[0])
        if call.input is value
        and all(map(call.runs, value.consumers))
        and not (producer is not None and call.runs(producer))
        and not isinstance(call.module, nn.Sequential | nn.ModuleList | nn.ModuleDict)
    ]


def _can_return_blurred(module: nn.Module) -> bool:
    """A container that runs its children can be given one more child only where it runs them in order."""
    if isinstance(module, nn.Sequential):
        return type(module).forward is nn.Sequential.forward
    return not isinstance(module, nn.ModuleList | nn.ModuleDict)


def _modules_for(trace: Trace, candidates: list[list[Call]]) -> list[nn.Module]:
    return [
        call.module
        for call in candidates[0]
        if call.path is not None
        and set(trace.calls_of(call.module))
        == {match for calls in candidates for match in calls if match.module is call.module}
        and len(trace.calls_of(call.module)) == len(candidates)
    ]
