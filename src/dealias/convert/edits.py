"""The changes that anti-aliasing makes to a model, each at one module, by its path.

None touches a parameter, a buffer or their order.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dealias.convert.calls import ChangedCall, PoolCall, SliceCall, answer_calls
from dealias.convert.layers import CONVERTED, Blurring, convert_layer
from dealias.convert.rate_layers import Doubling, Halving
from dealias.convert.windows import Window, layer_classes, per_axis

BEFORE = "antialias_before"
AFTER = "antialias_after"
_CONVS = layer_classes("Conv")
MAX_POOLS = layer_classes("MaxPool")


@dataclass(frozen=True)
class Edit(ABC):
    """A change to the module at `path`."""

    path: str

    def apply(self, model: nn.Module, blurring: Blurring) -> nn.Module | None:
        """Change `model`; return the layer that now blurs, if there is one."""
        return self._change(model.get_submodule(self.path), blurring)

    @abstractmethod
    def _change(self, module: Any, blurring: Blurring) -> nn.Module | None: ...


@dataclass(frozen=True)
class SetStride(Edit):
    """Give the convolution or pooling at `path` another stride."""

    stride: tuple[int, ...]

    def _change(self, module: Any, blurring: Blurring) -> None:
        module.stride = self.stride if isinstance(module, _CONVS) or len(set(self.stride)) > 1 else self.stride[0]


@dataclass(frozen=True)
class KeepStride(Edit):
    """Let the convolution at `path` convolve at another stride than its attribute, which other code reads."""

    stride: tuple[int, ...]

    @classmethod
    def of(cls, edit: Edit, layer: nn.Module) -> KeepStride | None:
        """An edit with the effect of `edit` that leaves the attribute of `layer` alone; None where there is none."""
        if isinstance(edit, SetStride) and isinstance(layer, _CONVS) and type(layer) in CONVERTED:
            return cls(edit.path, edit.stride)
        return None

    def _change(self, module: Any, blurring: Blurring) -> None:
        convert_layer(module, blurring, kept=self.stride)


@dataclass(frozen=True)
class WholeMap(KeepStride):
    """Let the convolution also wrap around by `more` samples, so that its dense map has as many pixels as its input."""

    more: tuple[int, ...]

    def _change(self, module: Any, blurring: Blurring) -> None:
        convert_layer(module, blurring, kept=self.stride, more=self.more)


class _BlurHook:
    """Applies blurs to what a module takes in or returns.

    It holds them itself, so that it works where `fuse_modules` moves it; the child of the module is what users see.
    """

    def __init__(self, blur: nn.Module, path: str) -> None:
        self.blurs, self.path = [blur], path  # of the module that it was placed at

    def repeats(self, hooks: Iterable[Any]) -> bool:
        """Whether a copy stands in front of this hook: `fuse_modules` copies a module's hooks, then moves them too."""
        return next(hook for hook in hooks if isinstance(hook, type(self)) and hook.path == self.path) is not self

    def run(self, x: Tensor) -> Tensor:
        for blur in self.blurs:
            # torch.fx knows modules by their place in the model, and a blur that moved has none
            x = blur.forward(x) if isinstance(x, torch.fx.Proxy) else blur(x)
        return x


class _BlurInput(_BlurHook):
    """A forward pre-hook that blurs the first argument."""

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        inner = next(iter(module._modules.values()), None)  # of a convolution that was fused with its activation
        copied = None if inner is None else blur_hook(inner, before=True)
        if self.repeats(module._forward_pre_hooks.values()) or (copied is not None and copied.path == self.path):
            return args
        return (self.run(args[0]), *args[1:])


class _BlurOutput(_BlurHook):
    """A forward hook that blurs what the module returns."""

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        return output if self.repeats(module._forward_hooks.values()) else self.run(output)


def blur_hook(module: nn.Module, before: bool) -> _BlurHook | None:
    """The hook that blurs what `module` takes in or returns, if it has one."""
    hooks: dict[int, Any] = module._forward_pre_hooks if before else module._forward_hooks
    return next((hook for hook in hooks.values() if isinstance(hook, _BlurHook)), None)


@dataclass(frozen=True)
class Blur(Edit):
    """Blur what the module at `path` takes in or returns; if `dense`, for the stride of the module itself."""

    before: bool
    stride: tuple[int, ...]
    dense: bool = False

    def _change(self, module: Any, blurring: Blurring) -> nn.Module:
        quantises = type(module) in (nn.ReLU, nn.ReLU6) or not type(module).__module__.startswith("torch.nn")
        quantises = quantises or isinstance(module, nn.Sequential)
        blur = blurring.pool(self.stride, quantises=quantises, dense=self.dense)
        hang(module, self.path, blur, before=self.before)
        return blur


def hang(module: nn.Module, path: str, layer: nn.Module, *, before: bool, nearest: bool = False) -> None:
    """Let `layer` change what the module at `path` takes in or returns, behind what hangs there already.

    With `nearest`, no other layer hangs between the module and `layer`.
    """
    name, first = BEFORE if before else AFTER, nearest and not before
    earlier = module._modules.get(name)
    both = (layer, earlier) if first else (earlier, layer)
    module.add_module(name, layer if earlier is None else nn.Sequential(*both))
    if isinstance(module, nn.Sequential):  # which runs a child of its own accord
        return
    hook = blur_hook(module, before)
    if hook is not None:
        hook.blurs.insert(0 if first else len(hook.blurs), layer)
        return
    if before:  # both in front of the user's hooks, which are to see what enters and leaves the module
        handle = module.register_forward_pre_hook(_BlurInput(layer, path), prepend=True)
    else:
        handle = module.register_forward_hook(_BlurOutput(layer, path), prepend=True)
    # The handle travels with the module through pickle, and keeps the number of the hook from being given out
    # again in the process that loads it.
    setattr(module, f"{name}_hook", handle)
    if type(module).__module__.startswith("torch.nn"):
        # torch.fx then traces into it, so that the layer stands in its graphs by itself
        module.__module__ = __name__


@dataclass(frozen=True)
class ReplacePool(Edit):
    """A pooling or resampling layer in its anti-aliased form.

    `whole_windows` says that an average leaves out the last samples where they fill no window; `changes` are new values
    of attributes.
    """

    whole_windows: bool = True
    changes: Mapping[str, Any] = field(default_factory=dict)

    def _change(self, module: Any, blurring: Blurring) -> nn.Module:
        return convert_layer(module, blurring, whole=self.whole_windows, changes=self.changes)


@dataclass(frozen=True)
class AnswerCalls(Edit):
    """A layer for the function calls with this window that `method` makes; None for a forward that a user gave it."""

    method: str | None
    window: Window


@dataclass(frozen=True)
class AnswerPool(AnswerCalls):
    """An anti-aliased layer for the function calls with this window; at stride 1 and without a blur if `dense`."""

    whole_windows: bool = True
    dense: bool = False

    def _change(self, module: Any, blurring: Blurring) -> nn.Module | None:
        window, blur = self.window, None
        layer = _layer_for(window, (1,) * len(window.stride))
        if self.dense and blurring.rate > 1 and window.kind == "max_pool":
            layer = _max_at_twice_the_rate(layer, blurring.plain)
        if window.kind == "avg_pool" and not window.averages_blocks and not self.dense:
            blur = blurring.pool(window.stride)
            layer = nn.Sequential(layer, blur)
        elif not self.dense:
            layer = blur = convert_layer(_layer_for(window, window.stride), blurring, whole=self.whole_windows)
        answer_calls(module, self.method, PoolCall(window, layer))
        return blur


def _max_at_twice_the_rate(layer: Any, plain: bool) -> nn.Module:
    """`layer`, a max-pool at stride 1, between what doubles and halves the rate."""
    border = _space_out(layer)
    axes = tuple(range(-len(layer.dilation), 0))
    return nn.Sequential(Doubling(axes, plain), *border, layer, Halving(axes, plain))


def _space_out(pool: Any) -> list[nn.Module]:
    """Let the windows of a max-pool reach as far on a map at twice the rate; return what is to pad that, if anything.

    PyTorch's own padding may be half a kernel at most, whatever its dilation is.
    """
    axes = next(axes for axes, kind in enumerate(MAX_POOLS, start=1) if isinstance(pool, kind))
    padding, dilation = (tuple(2 * one for one in per_axis(one, axes)) for one in (pool.padding, pool.dilation))
    pool.dilation = dilation
    if hasattr(pool, "rate"):  # a layer of to_circular(), which pads by itself
        pool.rate, pool.padding = 2, padding
        return []
    pool.padding = 0
    pads = tuple(amount for amount in reversed(padding) for _ in range(2))
    pad: Any = (nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d)[axes - 1]
    return [pad(pads, -math.inf)] if any(pads) else []


@dataclass(frozen=True)
class DoubleRate(Edit):
    """Evaluate the non-linearity at `path`, or the max-pool at stride 1, at twice the rate along `axes`."""

    axes: tuple[int, ...]

    def _change(self, module: Any, blurring: Blurring) -> None:
        border = _space_out(module) if isinstance(module, MAX_POOLS) else []
        doubling = Doubling(self.axes, blurring.plain)
        layer = nn.Sequential(doubling, *border) if border else doubling
        hang(module, self.path, layer, before=True, nearest=True)
        hang(module, self.path, Halving(self.axes, blurring.plain), before=False, nearest=True)


_CLASSES = {
    "max_pool": "MaxPool",
    "avg_pool": "AvgPool",
    "lp_pool": "LPPool",
    "adaptive_max_pool": "AdaptiveMaxPool",
    "adaptive_avg_pool": "AdaptiveAvgPool",
}


def _layer_for(window: Window, stride: tuple[int, ...]) -> nn.Module:
    """The layer of PyTorch that does what a call with `window` does, at `stride`."""
    spatial, rest = len(stride) or window.spatial, window.rest
    if window.kind == "interpolate":
        size, scale_factor, mode, align_corners, recompute, _ = rest
        return nn.Upsample(size, scale_factor, mode or "nearest", align_corners, recompute)
    layer: Callable[..., nn.Module] = getattr(nn, f"{_CLASSES[window.kind]}{spatial}d")
    if window.kind.startswith("adaptive"):
        return layer(rest[0])
    if window.kind == "lp_pool":
        return layer(rest[0], window.kernel, stride)
    if window.kind == "max_pool":
        return layer(window.kernel, stride, window.padding, window.dilation, ceil_mode=window.ceil_mode)
    more = {"divisor_override": window.divisor_override} if spatial > 1 else {}
    return layer(window.kernel, stride, window.padding, window.ceil_mode, window.count_include_pad, **more)


@dataclass(frozen=True)
class AnswerConv(AnswerCalls):
    """Another stride for the convolutions with this window that a module makes by function calls."""

    stride: tuple[int, ...]
    blur: Literal["before", "after"] | None = None  # None where the blur is an edit of its own
    blur_stride: tuple[int, ...] = ()
    dense: bool = False  # the blur leaves the subsampling to the convolution

    def _change(self, module: Any, blurring: Blurring) -> nn.Module | None:
        blur = None if self.blur is None else blurring.pool(self.blur_stride, dense=self.dense)
        sides = {} if self.blur is None else {self.blur: blur}
        answer_calls(module, self.method, ChangedCall(self.window, self.stride, **sides))
        return blur


@dataclass(frozen=True)
class AtActivation(Edit):
    """Layers at activation number `turn` of the `of` activations that a module's forward runs."""

    turn: int
    of: int

    def answer(self, module: nn.Module, before: nn.Module | None, after: nn.Module, *, nearest: bool = False) -> None:
        """Put a layer in front of the activation, if there is one, and one behind it."""
        for layer in module.modules():
            if type(layer).__module__ == nn.ReLU.__module__:
                layer.__module__ = __name__  # torch.fx then traces into it, and its activation takes its turn
        call = ChangedCall(Window("activation", rest=(self.turn, self.of)), before=before, after=after)
        answer_calls(module, "forward", call, nearest=nearest)


@dataclass(frozen=True)
class AnswerActivation(AtActivation):
    """A blur behind an activation."""

    stride: tuple[int, ...]

    def _change(self, module: Any, blurring: Blurring) -> nn.Module:
        blur = blurring.pool(self.stride)
        self.answer(module, None, blur)
        return blur


@dataclass(frozen=True)
class DoubleRateOfActivation(AtActivation):
    """Evaluate an activation at twice the rate along `axes`."""

    axes: tuple[int, ...]

    def _change(self, module: Any, blurring: Blurring) -> None:
        layers = Doubling(self.axes, blurring.plain), Halving(self.axes, blurring.plain)
        self.answer(module, *layers, nearest=True)


@dataclass(frozen=True)
class AnswerSlice(AnswerCalls):
    """A blur in front of the strided slices with this window."""

    def _change(self, module: Any, blurring: Blurring) -> nn.Module:
        call = SliceCall(self.window, blurring)
        answer_calls(module, self.method, call)
        return call
