"""Layers that answer function calls inside a module's forward, where there is no layer to change.

A convolution that pads its input or standardises its weight by itself, or `torch.nn.functional.max_pool2d`: whatever
surrounds the call in `forward` still runs, only the call itself goes to one of these layers. They have no state.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

CALLS = "antialias_calls"
"""The name of the child that holds a module's layers for its function calls."""

_NAMES = {
    "conv": ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    "max_pool": ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"),
    "avg_pool": (
        "input",
        "kernel_size",
        "stride",
        "padding",
        "ceil_mode",
        "count_include_pad",
        "divisor_override",
    ),
}
# Whatever name they are called by: the functions of torch and of torch.nn.functional are partly the same.
_FUNCTIONS: dict[Any, tuple[str, int]] = {
    getattr(namespace, f"{kind}{spatial}d"): (kind, spatial)
    for namespace in (F, torch)
    for kind in _NAMES
    for spatial in (1, 2, 3)
    if hasattr(namespace, f"{kind}{spatial}d")
}


def spatial_axes_of(function: Any) -> int | None:
    """The number of spatial axes of a convolution or pooling whose calls can be answered; None for other functions."""
    return _FUNCTIONS[function][1] if function in _FUNCTIONS else None


@dataclass(frozen=True)
class Window:
    """What tells a strided call from the others: the arguments that shape it, one entry for each spatial axis."""

    kind: str
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...] = ()  # of a pooling, as all that follows
    dilation: tuple[int, ...] = ()
    ceil_mode: bool = False
    count_include_pad: bool = True
    divisor_override: int | None = None

    @classmethod
    def of(cls, kind: str, spatial: int, arguments: Mapping[str, Any]) -> Window:
        """The window of a call, or of an operation in a trace, with these arguments."""
        if kind == "conv":
            weight = arguments["weight"]
            shape = tuple(weight.shape if isinstance(weight, Tensor) else weight)
            stride = _per_axis(arguments.get("stride", 1), spatial)
            return cls(kind, tuple(shape[-spatial:]), stride)
        kernel = _per_axis(arguments["kernel_size"], spatial)
        given = arguments.get("stride")
        return cls(
            kind,
            kernel,
            kernel if given is None or given == [] else _per_axis(given, spatial),
            _per_axis(arguments.get("padding", 0), spatial),
            _per_axis(arguments.get("dilation", 1), spatial),
            bool(arguments.get("ceil_mode", False)),
            bool(arguments.get("count_include_pad", True)),
            arguments.get("divisor_override"),
        )


def _per_axis(value: int | Sequence[int], spatial: int) -> tuple[int, ...]:
    """One entry for each axis, also where PyTorch runs a 1-D layer on 2-D maps."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * spatial if len(values) == 1 else values[-spatial:]


class PoolCall(nn.Module):
    """A layer in place of all poolings with one window."""

    def __init__(self, window: Window, layer: nn.Module) -> None:
        super().__init__()
        self.window, self.layer = window, layer

    def forward(self, function: Callable[..., Tensor], arguments: dict[str, Any]) -> Tensor:
        """Pool `arguments["input"]`."""
        pooled: Tensor = self.layer(arguments["input"])
        return pooled

    def extra_repr(self) -> str:
        """Which calls it answers."""
        return f"kernel_size={self.window.kernel}, stride={self.window.stride}"


class ConvCall(nn.Module):
    """All convolutions with one window, at another stride, with a blur before or behind if there is one."""

    def __init__(
        self, window: Window, stride: tuple[int, ...], before: nn.Module | None, after: nn.Module | None
    ) -> None:
        super().__init__()
        self.window, self.stride, self.before, self.after = window, stride, before, after

    def forward(self, function: Callable[..., Tensor], arguments: dict[str, Any]) -> Tensor:
        """Convolve by `function`."""
        x = arguments["input"]
        if self.before is not None:
            x = self.before(x)
        y = function(**(arguments | {"input": x, "stride": self.stride}))
        if self.after is not None:
            y = self.after(y)
        return y

    def extra_repr(self) -> str:
        """Which calls it answers, and at which stride."""
        return f"kernel_size={self.window.kernel}, stride={self.window.stride} made {self.stride}"


class _Answering(TorchFunctionMode):
    def __init__(self, calls: nn.ModuleList) -> None:
        super().__init__()
        self.calls = calls

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        found = _FUNCTIONS.get(func)
        if found is None:
            return func(*args, **kwargs)
        kind, spatial = found
        arguments = dict(zip(_NAMES[kind], args, strict=False)) | kwargs
        window = Window.of(kind, spatial, arguments)
        for call in self.calls:
            if call.window == window:
                return call(func, arguments)
        return func(*args, **kwargs)


def answer_calls(module: nn.Module, call: nn.Module) -> None:
    """Let `call` answer the function calls with its window that `module` makes in its forward."""
    if CALLS in module._modules:
        calls: Any = module.get_submodule(CALLS)
        calls.append(call)
        return
    module.add_module(CALLS, nn.ModuleList([call]))
    module.forward = _Forward(module, module.__dict__.get("forward"))


class _Forward:
    """A module's own forward, in which the module's layers answer; it travels with the module through copies."""

    def __init__(self, module: nn.Module, own: Callable[..., Any] | None) -> None:
        self.module, self.own = module, own  # what a user put in place of the class's forward, if anything

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        calls: Any = self.module.get_submodule(CALLS)
        with _Answering(calls):
            if self.own is not None:
                return self.own(*args, **kwargs)
            return type(self.module).forward(self.module, *args, **kwargs)

    # by which torch.export names the inputs, and its errors the place
    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._original())

    @property
    def __code__(self) -> CodeType:
        code: CodeType = self._original().__code__
        return code

    def _original(self) -> Any:
        return self.own or type(self.module).forward.__get__(self.module)
