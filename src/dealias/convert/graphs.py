"""Give the operations of a graph, as of `torch.export`, modules of their own, so that it is converted as any model.

Each convolution, pooling, resampling and activation becomes a module without state.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    getattr(torch.ops.aten, f"{name}{spatial}d").default: getattr(F, f"{name}{spatial}d")
    for name in ("conv", "max_pool", "avg_pool", "adaptive_avg_pool")
    for spatial in (1, 2, 3)
    if hasattr(getattr(torch.ops.aten, f"{name}{spatial}d"), "default")
}
_ACTIVATIONS = (
    *("relu", "relu_", "silu", "silu_", "gelu", "sigmoid", "hardswish", "hardswish_", "hardtanh", "hardtanh_"),
    *("elu", "elu_", "leaky_relu", "leaky_relu_", "mish", "mish_", "tanh", "softplus", "glu", "clamp", "hardsigmoid"),
)
_STARTS = ("conv", "max_pool", "avg_pool", "lp_pool", "adaptive_", "interpolate")


class Operation(nn.Module):
    """One call of a function in a graph; `template` are its arguments, with the number of a tensor in its place."""

    def __init__(self, function: Callable[..., Any], template: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
        super().__init__()
        self.function, self.template = function, template

    def forward(self, *tensors: Any) -> Any:
        """Call the function."""
        args, kwargs = _map(self.template, lambda one: tensors[one.number] if isinstance(one, _Slot) else one)
        return self.function(*args, **kwargs)

    def extra_repr(self) -> str:
        """Which function it calls."""
        return getattr(self.function, "__name__", str(self.function))


_map: Callable[..., Any] = fx.node.map_aggregate


class _Slot:
    """The place of a tensor among constant arguments."""

    def __init__(self, number: int) -> None:
        self.number = number


def has_graphs(model: nn.Module) -> bool:
    """Whether a part of `model` is a graph."""
    return isinstance(model, nn.Module) and any(isinstance(module, fx.GraphModule) for module in model.modules())


def with_modules(model: nn.Module) -> nn.Module:
    """`model`, or a copy in which the operations of its graphs are modules; parameters and buffers have their names."""
    if not has_graphs(model):
        return model
    model = copy.deepcopy(model)
    for module in list(model.modules()):
        if isinstance(module, fx.GraphModule):
            for node in list(module.graph.nodes):
                if (function := _function_of(node)) is not None:
                    _give_module(module, node, function)
            module.recompile()
    return model


def _give_module(module: fx.GraphModule, node: fx.Node, function: Callable[..., Any]) -> None:
    """Let `module` call a module for what `node` of its graph calls."""
    tensors: list[fx.Node] = []

    def slot(one: Any) -> Any:
        if not isinstance(one, fx.Node):
            return one
        tensors.append(one)
        return _Slot(len(tensors) - 1)

    operation = Operation(function, _map((node.args, dict(node.kwargs)), slot))
    name = node.name if not hasattr(module, node.name) else f"{node.name}_operation"
    module.add_submodule(name, operation)
    with module.graph.inserting_before(node):
        call = module.graph.call_module(name, tuple(tensors))
    call.meta = dict(node.meta)
    node.replace_all_uses_with(call)
    module.graph.erase_node(node)


def _function_of(node: fx.Node) -> Callable[..., Any] | None:
    """The function that takes the place of the one that `node` calls; None where the call stays as it is."""
    if node.op != "call_function":
        return None
    if node.target in _FUNCTIONS:
        return _FUNCTIONS[node.target]
    name = getattr(node.target, "__name__", "").partition(".")[0]
    known = name in _ACTIVATIONS or name.startswith(_STARTS)
    returns_tensor = isinstance(node.meta.get("val", torch.empty(0)), torch.Tensor)
    return node.target if known and returns_tensor and callable(node.target) else None
