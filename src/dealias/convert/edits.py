"""The changes that anti-aliasing makes to a model, each at one module, by its path.

No change touches a parameter, a buffer or their order: the stride of a layer becomes smaller, a layer without state
takes the place of another one or answers a function call, or a blur is hung before or behind a module as a child that
a hook applies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from torch import Tensor, nn

from dealias import nn as layers
from dealias.convert.calls import ConvCall, PoolCall, Window, answer_calls
from dealias.convert.layers import (
    AvgBlurPool1d,
    AvgBlurPool2d,
    AvgBlurPool3d,
    HookedBlurPool1d,
    HookedBlurPool2d,
    HookedBlurPool3d,
)
from dealias.filters import Filter

BEFORE = "antialias_before"
AFTER = "antialias_after"

_BLUR_POOL = {1: layers.BlurPool1d, 2: layers.BlurPool2d, 3: layers.BlurPool3d}
_HOOKED_BLUR_POOL = {1: HookedBlurPool1d, 2: HookedBlurPool2d, 3: HookedBlurPool3d}
_AVG_BLUR_POOL = {1: AvgBlurPool1d, 2: AvgBlurPool2d, 3: AvgBlurPool3d}
_MAX_BLUR_POOL = {1: layers.MaxBlurPool1d, 2: layers.MaxBlurPool2d, 3: layers.MaxBlurPool3d}


@dataclass(frozen=True)
class Blurring:
    """How to blur: what is the same for all blurs of a model."""

    filter: Filter
    padding_mode: Any

    def pool(self, stride: tuple[int, ...], hooked: bool = False) -> nn.Module:
        """A blur that subsamples by `stride`; `hooked` if a hook is to apply it."""
        classes = _HOOKED_BLUR_POOL if hooked else _BLUR_POOL
        return classes[len(stride)](self.filter, stride, self.padding_mode)

    def average(self, stride: tuple[int, ...], whole_windows: bool) -> nn.Module:
        """A blur in place of an average; `whole_windows` leaves out what fills no window of the pooling."""
        classes = _AVG_BLUR_POOL if whole_windows else _BLUR_POOL
        return classes[len(stride)](self.filter, stride, self.padding_mode)

    def maximum(self, spatial: int, **arguments: Any) -> nn.Module:
        """A MaxBlurPool with `arguments` of `torch.nn.MaxPool`."""
        return _MAX_BLUR_POOL[spatial](**arguments, filter=self.filter, padding_mode=self.padding_mode)


@dataclass(frozen=True)
class SetStride:
    """Give the convolution or pooling at `path` another stride."""

    path: str
    stride: tuple[int, ...]

    def apply(self, model: nn.Module, blurring: Blurring) -> tuple[nn.Module, None]:
        """Change `model`; return it and the layer that blurs, if there is one."""
        layer: Any = model.get_submodule(self.path)
        layer.stride = self.stride
        return model, None


@dataclass(frozen=True)
class Blur:
    """Blur what the module at `path` takes in or returns."""

    path: str
    before: bool
    stride: tuple[int, ...]

    def apply(self, model: nn.Module, blurring: Blurring) -> tuple[nn.Module, nn.Module]:
        """Change `model`; return it and the layer that blurs."""
        module = model.get_submodule(self.path)
        hooked = not isinstance(module, nn.Sequential)  # which runs a child of its own accord
        blur = blurring.pool(self.stride, hooked)
        name = BEFORE if self.before else AFTER
        if hasattr(module, name):
            module.add_module(name, nn.Sequential(module.get_submodule(name), blur))
            return model, blur
        module.add_module(name, blur)
        if not hooked:
            return model, blur
        handle = (
            module.register_forward_pre_hook(_blur_input) if self.before else module.register_forward_hook(_blur_output)
        )
        # The handle travels with the module through pickle, and keeps the number of the hook from being given out
        # again in the process that loads it.
        setattr(module, f"{name}_hook", handle)
        return model, blur


def _blur_input(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (module.get_submodule(BEFORE)(args[0]), *args[1:])


def _blur_output(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Any:
    return module.get_submodule(AFTER)(output)


@dataclass(frozen=True)
class ReplaceReLU:
    """ReLU and the blur behind it as one operation."""

    path: str
    stride: tuple[int, ...]

    def apply(self, model: nn.Module, blurring: Blurring) -> tuple[nn.Module, nn.Module]:
        """Change `model`; return it and the layer that blurs."""
        blur = layers.ReLUBlurPool2d(blurring.filter, self.stride, blurring.padding_mode)
        return _replace(model, self.path, blur), blur


@dataclass(frozen=True)
class ReplaceMaxPool:
    """`torch.nn.MaxPool` by MaxBlurPool, with its own arguments except for `changes`."""

    path: str
    changes: Mapping[str, Any]

    def apply(self, model: nn.Module, blurring: Blurring) -> tuple[nn.Module, nn.Module]:
        """Change `model`; return it and the layer that blurs."""
        pool: Any = model.get_submodule(self.path)
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
        arguments = {name: getattr(pool, name) for name in names} | dict(self.changes)
        blur = blurring.maximum(spatial_axes(pool), **arguments)
        return _replace(model, self.path, blur), blur


@dataclass(frozen=True)
class ReplaceAvgPool:
    """`torch.nn.AvgPool` by a blur; `whole_windows` leaves out what fills no window of the pooling."""

    path: str
    stride: tuple[int, ...]
    whole_windows: bool

    def apply(self, model: nn.Module, blurring: Blurring) -> tuple[nn.Module, nn.Module]:
        """Change `model`; return it and the layer that blurs."""
        blur = blurring.average(self.stride, self.whole_windows)
        return _replace(model, self.path, blur), blur


@dataclass(frozen=True)
class AnswerMaxPool:
    """MaxBlurPool for the function calls with this window that the module at `path` makes."""

    path: str
    window: Window

    def apply(self, model: nn.Module, blurring: Blurring) -> tuple[nn.Module, nn.Module]:
        """Change `model`; return it and the layer that blurs."""
        window = self.window
        blur = blurring.maximum(
            len(window.stride),
            kernel_size=window.kernel,
            stride=window.stride,
            padding=window.padding,
            dilation=window.dilation,
            ceil_mode=window.ceil_mode,
        )
        answer_calls(model.get_submodule(self.path), PoolCall(window, blur))
        return model, blur


@dataclass(frozen=True)
class AnswerAvgPool:
    """A blur for the function calls with this window: in place of the average, or behind it at stride 1 (`dense`)."""

    path: str
    window: Window
    dense: bool
    whole_windows: bool

    def apply(self, model: nn.Module, blurring: Blurring) -> tuple[nn.Module, nn.Module]:
        """Change `model`; return it and the layer that blurs."""
        window, owner = self.window, model.get_submodule(self.path)
        if not self.dense:
            blur = blurring.average(window.stride, self.whole_windows)
            answer_calls(owner, PoolCall(window, blur))
            return model, blur
        blur = blurring.pool(window.stride)
        answer_calls(owner, PoolCall(window, nn.Sequential(_dense_average(window), blur)))
        return model, blur


def _dense_average(window: Window) -> nn.Module:
    spatial = len(window.kernel)
    classes: tuple[Any, ...] = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
    more = {"divisor_override": window.divisor_override} if spatial > 1 else {}
    pool: nn.Module = classes[spatial - 1](window.kernel, 1, window.padding, False, window.count_include_pad, **more)
    return pool


@dataclass(frozen=True)
class AnswerConv:
    """Another stride for the convolutions with this window that the module at `path` makes by function calls."""

    path: str
    window: Window
    stride: tuple[int, ...]
    blur: Literal["before", "after"] | None = None  # None where the blur is an edit of its own
    blur_stride: tuple[int, ...] = ()

    def apply(self, model: nn.Module, blurring: Blurring) -> tuple[nn.Module, nn.Module | None]:
        """Change `model`; return it and the layer that blurs, if there is one."""
        blur = None if self.blur is None else blurring.pool(self.blur_stride)
        before, after = (blur if self.blur == side else None for side in ("before", "after"))
        answer_calls(model.get_submodule(self.path), ConvCall(self.window, self.stride, before, after))
        return model, blur


Edit: TypeAlias = (
    SetStride | Blur | ReplaceReLU | ReplaceMaxPool | ReplaceAvgPool | AnswerMaxPool | AnswerAvgPool | AnswerConv
)

_SPATIAL = {
    1: (nn.Conv1d, nn.MaxPool1d, nn.AvgPool1d),
    2: (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d),
    3: (nn.Conv3d, nn.MaxPool3d, nn.AvgPool3d),
}


def spatial_axes(module: nn.Module) -> int:
    """How many spatial axes a convolution or pooling layer of PyTorch has."""
    return next(axes for axes, classes in _SPATIAL.items() if isinstance(module, classes))


_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)


def _replace(model: nn.Module, path: str, new: nn.Module) -> nn.Module:
    """Put `new` in the place of the module at `path` under all its names, with its hooks; return the model."""
    old = model.get_submodule(path)
    new.training = old.training
    for name in _HOOKS:  # the user's own, e.g. to read feature maps
        setattr(new, name, getattr(old, name))
    for name, child in old.named_children():  # a blur in front, from an earlier conversion
        new.add_module(name, child)
    names = [
        (parent, name)
        for parent in model.modules()
        for name, child in parent._modules.items()  # named_children() would leave out second names
        if child is old
    ]
    for parent, name in names:
        setattr(parent, name, new)
    return new if old is model else model
