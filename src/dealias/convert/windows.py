"""Tell one call of a subsampling function from another: by its kind and the arguments that shape its output."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_NAMES: dict[str, tuple[str, ...]] = {
    "conv": ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    "max_pool": ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"),
    "avg_pool": ("input", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"),
    "lp_pool": ("input", "norm_type", "kernel_size", "stride", "ceil_mode"),
    "adaptive_avg_pool": ("input", "output_size"),
    "adaptive_max_pool": ("input", "output_size", "return_indices"),
    "interpolate": ("input", "size", "scale_factor", "mode", "align_corners", "recompute_scale_factor", "antialias"),
    "slice": ("input", "index"),
    "activation": ("input",),
}
"""By kind of function: its positional arguments."""

_Entry = TypeVar("_Entry")
_ACTIVATIONS = (
    *("celu", "elu", "elu_", "gelu", "glu", "hardsigmoid", "hardswish", "hardtanh", "hardtanh_", "leaky_relu"),
    *("leaky_relu_", "logsigmoid", "mish", "prelu", "relu", "relu_", "relu6", "selu", "sigmoid", "sigmoid_", "silu"),
    *("softplus", "tanh", "tanh_"),
)


@dataclass(frozen=True)
class Function:
    """A function of PyTorch whose calls can be answered."""

    kind: str
    spatial: int = 0  # 0 where the input decides
    pair: bool = False  # it returns the maxima and their indices

    def arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """All arguments of a call by name."""
        return dict(zip(_NAMES[self.kind], args, strict=False)) | dict(kwargs)


def _functions() -> dict[Any, Function]:
    """By whatever name they are called: functions of torch and of torch.nn.functional are partly the same."""
    functions = {F.interpolate: Function("interpolate"), Tensor.__getitem__: Function("slice")}
    for kind, spatial in itertools.product(_NAMES, (1, 2, 3)):
        for namespace, suffix in ((F, ""), (torch, ""), (F, "_with_indices")):
            function = getattr(namespace, f"{kind}{spatial}d{suffix}", None)
            if function is not None:
                functions[function] = Function(kind, spatial, pair=suffix != "")
    for owner, name in itertools.product((F, torch, Tensor), _ACTIVATIONS):
        if hasattr(owner, name):
            functions[getattr(owner, name)] = Function("activation")
    return functions


FUNCTIONS = _functions()


@dataclass(frozen=True)
class Window:
    """What tells a strided call from the others: the arguments that shape it, one entry for each spatial axis."""

    kind: str
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()  # of a pooling, as all that follows
    dilation: tuple[int, ...] = ()
    ceil_mode: bool = False
    count_include_pad: bool = True
    divisor_override: int | None = None
    rest: tuple[Any, ...] = ()  # of a call without a kernel: its arguments but the input
    spatial: int = 0  # 0 where the input decides

    def __str__(self) -> str:
        parts = {"kernel_size": self.kernel, "stride": self.stride, "arguments": self.rest}
        return ", ".join([self.kind, *(f"{name}={value}" for name, value in parts.items() if value)])

    def matches(self, other: Window) -> bool:
        """Whether a call with the window `other` is one of these; `torch.fx` does not know the size of a weight."""
        unsized = other.kind == "conv" and not other.kernel and self.stride == other.stride
        return self == other or unsized or (self == ANY_RESAMPLING and other.kind == self.kind)

    @property
    def averages_blocks(self) -> bool:
        """Whether an average pooling takes every pixel once, so that a blur can take its place."""
        return self.kernel == self.stride and not any(self.padding) and not self.divisor_override

    @classmethod
    def of(cls, kind: str, spatial: int, arguments: Mapping[str, Any]) -> Window:
        """The window of a call, or of an operation in a trace, with these arguments."""
        if kind == "conv":
            weight, stride = arguments["weight"], per_axis(arguments.get("stride", 1), spatial)
            if isinstance(weight, torch.fx.Proxy):
                return cls(kind, (), stride)
            shape = tuple(weight.shape if isinstance(weight, Tensor) else weight)
            return cls(kind, tuple(shape[-spatial:]), stride)
        kernel = per_axis(arguments["kernel_size"], spatial)
        given = arguments.get("stride")
        return cls(
            kind,
            kernel,
            kernel if given is None or given == [] else per_axis(given, spatial),
            per_axis(arguments.get("padding", 0), spatial),
            per_axis(arguments.get("dilation", 1), spatial),
            bool(arguments.get("ceil_mode", False)),
            bool(arguments.get("count_include_pad", True)),
            arguments.get("divisor_override"),
            (arguments["norm_type"],) if "norm_type" in arguments else (),
        )


ANY_RESAMPLING = Window("interpolate")
"""Takes every resampling of a method for one of its own: their sizes follow from that of the input."""


def layer_classes(*names: str) -> tuple[type[nn.Module], ...]:
    """The layers of PyTorch with these names over one, two and three axes: "Conv" stands for Conv1d, Conv2d, Conv3d."""
    found = (getattr(nn, f"{name}{spatial}d", None) for name in names for spatial in (1, 2, 3))
    return tuple(one for one in found if one is not None)


def per_axis(value: _Entry | Sequence[_Entry], spatial: int) -> tuple[_Entry, ...]:
    """One entry for each axis, also where PyTorch runs a 1-D layer on 2-D maps."""
    values = tuple(value) if isinstance(value, Sequence) else (value,)
    return values * spatial if len(values) == 1 else values[-spatial:]


def window_of(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Window | None:
    """The window of a call; None where the function is not one of `FUNCTIONS`, or the call cannot subsample.

    >>> window_of(F.max_pool2d, (torch.rand(1, 1, 4, 4), 2), {}).stride
    (2, 2)
    """
    known = FUNCTIONS.get(function)
    if known is None:
        return None
    arguments = known.arguments(args, kwargs)
    if known.kind == "activation":
        return Window("activation")
    if known.kind == "slice":
        steps = _steps(arguments["index"])
        return None if steps is None else Window("slice", rest=steps)
    if known.kind == "interpolate" or known.kind.startswith("adaptive"):
        given = (arguments.get(name) for name in _NAMES[known.kind][1:])
        rest = tuple(tuple(one) if isinstance(one, list) else one for one in given)
        return Window(known.kind, rest=rest, spatial=known.spatial)
    return Window.of(known.kind, known.spatial, arguments)


def _steps(index: Any) -> tuple[Any, ...] | None:
    """`index` as something that compares and hashes, where it is slices alone and one has a step."""
    parts = index if isinstance(index, tuple) else (index,)
    if not all(part is Ellipsis or isinstance(part, slice) for part in parts):
        return None
    if not any(isinstance(part, slice) and part.step is not None and part.step > 1 for part in parts):
        return None
    # a stop may be a size of the map, or a symbol: the start and the step tell slices apart
    return tuple(part if part is Ellipsis else (part.start, part.step) for part in parts)
