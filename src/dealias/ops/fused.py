"""The fused two-dimensional operations as `torch.library` ops, which the native backends implement.

A backend is a module `dealias.ops.<device type>` (`cpu`: compiled C++, `cuda`: Triton) that follows `Backend`. It
computes; shapes for tracing, gradients, batching (vmap) and the choice of the memory layout are settled here, once.
All arguments arrive checked: x is (N, C, H, W) with a dtype and arguments that the backend said it `covers`.

Plain tensors in eager mode go straight to the backend through a small autograd function, which costs half of what
the dispatcher costs; whatever traces or batches them (torch.compile, tensor subclasses, batched gradients) goes
through `torch.ops.dealias`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Protocol, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from dealias.ops import reference

Ints: TypeAlias = Sequence[int]
Floats: TypeAlias = Sequence[float]


class Backend(Protocol):
    """What `dealias.ops.cpu` and `dealias.ops.cuda` offer.

    x may be non-contiguous, have no elements in N or C, or be ambiguous in its layout; results take the layout of
    `reference.match_layout`. The incoming `grad` may have any strides. `vertical` and `horizontal` are the taps along H
    and along W; they, `stride` and the other sequences are tuples or lists. Gradients: nothing but the arguments below
    is saved; the first maximum of a window in row-major order takes its gradient, a later NaN wins over everything
    before it (as in `torch.nn.MaxPool2d`).
    """

    def unavailable(self) -> str | None:
        """Why nothing can run here (no compiler, no driver ...), or None if it can."""

    def covers(
        self,
        dtype: torch.dtype,
        taps: Sequence[Floats],
        stride: Ints,
        kernel_size: Ints | None,
        dilation: Ints | None,
    ) -> bool:
        """Whether the kernels take this dtype, the taps and strides, and the kernel and dilation of a maximum."""

    def blur_pool2d(self, x: Tensor, vertical: Floats, horizontal: Floats, stride: Ints, padding_mode: str) -> Tensor:
        """`reference.blur_pool`."""

    def blur_pool2d_backward(
        self,
        grad: Tensor,
        input_size: Ints,
        vertical: Floats,
        horizontal: Floats,
        stride: Ints,
        padding_mode: str,
        channels_last: bool,
    ) -> Tensor:
        """The gradient for the input of `input_size` (N, C, H, W), in channels_last or contiguous layout."""

    def relu_blur_pool2d(
        self, x: Tensor, vertical: Floats, horizontal: Floats, stride: Ints, padding_mode: str
    ) -> Tensor:
        """`reference.relu_blur_pool`."""

    def relu_blur_pool2d_backward(
        self, grad: Tensor, x: Tensor, vertical: Floats, horizontal: Floats, stride: Ints, padding_mode: str
    ) -> Tensor:
        """The gradient for x: that of the blur where not x <= 0, so a NaN passes it on as in `torch.relu`."""

    def max_blur_pool2d(
        self,
        x: Tensor,
        kernel_size: Ints,
        dilation: Ints,
        before: Ints,
        after: Ints,
        wrap: bool,
        vertical: Floats,
        horizontal: Floats,
        stride: Ints,
        padding_mode: str,
    ) -> Tensor:
        """`reference.max_blur_pool`."""

    def max_blur_pool2d_backward(
        self,
        grad: Tensor,
        x: Tensor,
        kernel_size: Ints,
        dilation: Ints,
        before: Ints,
        after: Ints,
        wrap: bool,
        vertical: Floats,
        horizontal: Floats,
        stride: Ints,
        padding_mode: str,
    ) -> Tensor:
        """The gradient for x of `max_blur_pool2d`."""


_backends: dict[str, Backend] = {}


def backend(device_type: str) -> Backend:
    """The module of a backend; importing it imports what it needs (Triton for `cuda`).

    Raises:
        ModuleNotFoundError: there is no such backend, or a package that it needs is missing.
    """
    module = _backends.get(device_type)
    if module is None:
        module = _backends[device_type] = cast(Backend, import_module(f"dealias.ops.{device_type}"))
    return module


def is_channels_last(x: Tensor) -> bool:
    """`reference.is_channels_last`, the usual cases first."""
    return not x.is_contiguous() and (
        (x.is_contiguous(memory_format=torch.channels_last) and x.shape[1] > 1) or reference.is_channels_last(x)
    )


def memory_format(channels_last: bool) -> torch.memory_format:
    """The layout's name in PyTorch."""
    return torch.channels_last if channels_last else torch.contiguous_format


_BLUR = "float[] vertical, float[] horizontal, int[] stride, str padding_mode"
_MAX = f"int[] kernel_size, int[] dilation, SymInt[] before, SymInt[] after, bool wrap, {_BLUR}"
_SCHEMAS = {
    "blur_pool2d": f"(Tensor x, {_BLUR}) -> Tensor",
    "blur_pool2d_backward": f"(Tensor grad, SymInt[] input_size, {_BLUR}, bool channels_last) -> Tensor",
    "relu_blur_pool2d": f"(Tensor x, {_BLUR}) -> Tensor",
    "relu_blur_pool2d_backward": f"(Tensor grad, Tensor x, {_BLUR}) -> Tensor",
    "max_blur_pool2d": f"(Tensor x, {_MAX}) -> Tensor",
    "max_blur_pool2d_backward": f"(Tensor grad, Tensor x, {_MAX}) -> Tensor",
}
_Library: Any = torch.library.Library
_library = _Library("dealias", "DEF")


def _implementation(device_type: str, name: str) -> Callable[..., Tensor]:
    def run(*args: Any) -> Tensor:
        return cast(Tensor, getattr(backend(device_type), name)(*args))

    return run


for _name, _schema in _SCHEMAS.items():
    # Inductor must hand over the strides that were traced: the fake result's layout depends on them.
    _library.define(_name + _schema, tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order))
    for _device in ("cpu", "cuda"):
        _library.impl(_name, _implementation(_device, _name), _device.upper())
_ops = torch.ops.dealias


# Shapes -------------------------------------------------------------------------------------------------------------


def _blurred(x: Tensor, dense: Ints, stride: Ints) -> Tensor:
    size = [x.shape[0], x.shape[1], *((n + step - 1) // step for n, step in zip(dense, stride, strict=True))]
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=memory_format(is_channels_last(x)))


def _fake_blur(x: Tensor, vertical: Floats, horizontal: Floats, stride: Ints, padding_mode: str) -> Tensor:
    return _blurred(x, x.shape[2:], stride)


def _fake_blur_backward(
    grad: Tensor,
    input_size: Ints,
    vertical: Floats,
    horizontal: Floats,
    stride: Ints,
    padding_mode: str,
    channels_last: bool,
) -> Tensor:
    return torch.empty(input_size, dtype=grad.dtype, device=grad.device, memory_format=memory_format(channels_last))


def _fake_max(
    x: Tensor, kernel_size: Ints, dilation: Ints, before: Ints, after: Ints, wrap: bool, *blur: Any
) -> Tensor:
    dense = [
        n + b + a - d * (k - 1) for n, b, a, k, d in zip(x.shape[2:], before, after, kernel_size, dilation, strict=True)
    ]
    return _blurred(x, dense, blur[-2])


def _fake_like_x(grad: Tensor, x: Tensor, *args: Any) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=memory_format(is_channels_last(x)))


# Gradients in terms of the ops: for tracing, and the second derivative everywhere -------------------------------------


def _setup_blur(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, *ctx.args = inputs
    ctx.size, ctx.channels_last = x.shape, is_channels_last(x)


def _blur_gradient(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return _ops.blur_pool2d_backward(grad, ctx.size, *ctx.args, ctx.channels_last), *(None,) * 4


def _setup_blur_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, _, *ctx.args, _ = inputs


def _blur_backward_gradient(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return _ops.blur_pool2d(grad, *ctx.args), *(None,) * 6


def _setup_save_x(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, *ctx.args = inputs
    ctx.save_for_backward(x)


def _relu_gradient(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return _ops.relu_blur_pool2d_backward(grad, *ctx.saved_tensors, *ctx.args), *(None,) * 4


def _max_gradient(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return _ops.max_blur_pool2d_backward(grad, *ctx.saved_tensors, *ctx.args), *(None,) * 9


def _setup_save_second(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, x, *ctx.args = inputs
    ctx.save_for_backward(x)


def _relu_backward_gradient(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    (x,) = ctx.saved_tensors
    passed = reference.match_layout(torch.where(x <= 0, 0, grad), x)
    return _ops.blur_pool2d(passed, *ctx.args), torch.zeros_like(x), *(None,) * 4


def _max_backward_gradient(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    (x,) = ctx.saved_tensors
    kernel_size, dilation, before, after, wrap, *blur = ctx.args
    if wrap:
        x_pad, grad_pad = (reference.pad(t, before, after, "circular") for t in (x, grad))
    else:
        pads = [before[1], after[1], before[0], after[0]]
        x_pad, grad_pad = F.pad(x, pads, value=float("-inf")), F.pad(grad, pads)
    _, index = F.max_pool2d(x_pad, list(kernel_size), 1, 0, list(dilation), return_indices=True)
    dense = grad_pad.flatten(2).gather(2, index.flatten(2)).view(index.shape)
    blurred = _ops.blur_pool2d(reference.match_layout(dense, x), *blur)
    return blurred, torch.zeros_like(x), *(None,) * 9


# Batching: the batch axis of vmap joins N -----------------------------------------------------------------------------


def _register(
    name: str,
    tensors: int,
    fake: Callable[..., Tensor],
    setup: Callable[..., None],
    gradient: Callable[..., tuple[Any, ...]],
) -> None:
    qualified = f"dealias::{name}"
    op = getattr(_ops, name).default

    def batched(info: Any, in_dims: Sequence[int | None], *args: Any) -> tuple[Tensor, int]:
        size = info.batch_size
        folded = [
            (t.expand(size, *t.shape) if dim is None else t.movedim(dim, 0)).flatten(0, 1)
            for t, dim in zip(args[:tensors], in_dims, strict=False)
        ]
        rest = list(args[tensors:])
        if name == "blur_pool2d_backward":
            rest[0] = [size * rest[0][0], *rest[0][1:]]
        result: Tensor = op(*folded, *rest)
        return result.view(size, -1, *result.shape[1:]), 0

    torch.library.register_fake(qualified, fake, lib=_library)
    torch.library.register_autograd(qualified, gradient, setup_context=setup, lib=_library)
    torch.library.register_vmap(qualified, batched, lib=_library)


_register("blur_pool2d", 1, _fake_blur, _setup_blur, _blur_gradient)
_register("blur_pool2d_backward", 1, _fake_blur_backward, _setup_blur_backward, _blur_backward_gradient)
_register("relu_blur_pool2d", 1, _fake_blur, _setup_save_x, _relu_gradient)
_register("relu_blur_pool2d_backward", 2, _fake_like_x, _setup_save_second, _relu_backward_gradient)
_register("max_blur_pool2d", 1, _fake_max, _setup_save_x, _max_gradient)
_register("max_blur_pool2d_backward", 2, _fake_like_x, _setup_save_second, _max_backward_gradient)


# Eager mode on plain tensors ------------------------------------------------------------------------------------------


class _BlurPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *args: Any) -> Tensor:
        ctx.args, ctx.size, ctx.channels_last = args, x.shape, is_channels_last(x)
        return backend(x.device.type).blur_pool2d(x, *args)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        (grad,) = grads
        if torch.is_grad_enabled() or not reference.is_plain(grad):
            return _blur_gradient(ctx, grad)
        run: Any = backend(grad.device.type).blur_pool2d_backward
        return run(grad, ctx.size, *ctx.args, ctx.channels_last), *(None,) * 4


class _ReluBlurPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *args: Any) -> Tensor:
        ctx.args = args
        ctx.save_for_backward(x)
        return backend(x.device.type).relu_blur_pool2d(x, *args)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        (grad,) = grads
        if torch.is_grad_enabled() or not reference.is_plain(grad):
            return _relu_gradient(ctx, grad)
        run = backend(grad.device.type).relu_blur_pool2d_backward
        return run(grad, *ctx.saved_tensors, *ctx.args), *(None,) * 4


class _MaxBlurPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *args: Any) -> Tensor:
        ctx.args = args
        ctx.save_for_backward(x)
        return backend(x.device.type).max_blur_pool2d(x, *args)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        (grad,) = grads
        if torch.is_grad_enabled() or not reference.is_plain(grad):
            return _max_gradient(ctx, grad)
        run = backend(grad.device.type).max_blur_pool2d_backward
        return run(grad, *ctx.saved_tensors, *ctx.args), *(None,) * 9


def _entry(name: str, function: Any) -> Callable[..., Tensor]:
    op = getattr(_ops, name).default

    def run(x: Tensor, *args: Any) -> Tensor:
        if not reference.is_plain(x):
            return cast(Tensor, op(x, *args))
        if x.requires_grad and torch.is_grad_enabled():
            return cast(Tensor, function.apply(x, *args))
        return cast(Tensor, getattr(backend(x.device.type), name)(x, *args))

    return run


blur_pool2d = _entry("blur_pool2d", _BlurPool)
relu_blur_pool2d = _entry("relu_blur_pool2d", _ReluBlurPool)
max_blur_pool2d = _entry("max_blur_pool2d", _MaxBlurPool)
