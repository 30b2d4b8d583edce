"""The fused two-dimensional operations as `torch.library` ops, which the native backends implement.

A backend, `dealias.ops.<device type>`, computes; shapes for tracing, gradients, batching (vmap) and layouts are settled
here. Plain tensors in eager mode go straight to it, which costs half of what the dispatcher costs; whatever traces or
batches them (torch.compile, tensor subclasses, batched gradients) goes through `torch.ops.dealias`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from dealias.ops import reference
from dealias.ops.arguments import RELU, Blur, First, Ints, Pool, dense_size


class Backend(Protocol):
    """What `dealias.ops.cpu` and `dealias.ops.cuda` offer.

    x is (N, C, H, W), with a dtype and arguments that the backend `covers`. It may be non-contiguous, have no elements
    in N or C, or be ambiguous in its layout; results take the layout of `reference.match_layout`. The incoming `grad`
    may have any strides. Gradients: the first maximum of a window in row-major order takes its gradient, a later NaN
    wins over everything before it (as in `torch.nn.MaxPool2d`); a ReLU passes it on where not x <= 0, so at a NaN too
    (as in `torch.relu`).
    """

    def unavailable(self) -> str | None:
        """Why nothing can run here (no compiler, no driver ...), or None if it can."""

    def covers(
        self, dtype: torch.dtype, lengths: Ints, stride: Ints, kernel_size: Ints | None, dilation: Ints | None
    ) -> bool:
        """Whether the kernels take this dtype, these numbers of taps and strides, and the windows of a maximum."""

    def forward(self, x: Tensor, blur: Blur, first: First) -> Tensor:
        """`reference.blur_pool`."""

    def backward(
        self, grad: Tensor, x: Tensor | None, blur: Blur, first: First, size: tuple[int, ...], channels_last: bool
    ) -> Tensor:
        """The gradient for the input x of `size` (N, C, H, W), in channels_last or contiguous layout.

        x is None where nothing comes first.
        """


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


_ARGUMENTS = (
    "float[] vertical, float[] horizontal, int[] stride, str padding_mode, "
    "bool relu, int[] kernel_size, int[] dilation, SymInt[] before, SymInt[] after, bool wrap"
)
_SCHEMAS = {
    "blur_pool2d": f"(Tensor x, {_ARGUMENTS}) -> Tensor",
    "blur_pool2d_backward": f"(Tensor grad, Tensor? x, SymInt[] size, bool channels_last, {_ARGUMENTS}) -> Tensor",
}
_NO_POOL = Pool((), (), (), (), False)
_NO_GRADIENTS = (None,) * 10  # of `_ARGUMENTS`


def flatten(blur: Blur, first: First) -> tuple[Any, ...]:
    """The arguments of the ops, `_ARGUMENTS`."""
    pool = first if isinstance(first, Pool) else _NO_POOL
    return *blur.taps, blur.stride, blur.padding_mode, first == RELU, *pool


def _unflatten(arguments: Sequence[Any]) -> tuple[Blur, First]:
    """The inverse of `flatten`; the dispatcher makes lists of tuples."""
    plain: list[Any] = [tuple(one) if isinstance(one, list) else one for one in arguments]
    vertical, horizontal, stride, padding_mode, relu, *pool = plain
    first: First = Pool(*pool) if pool[0] else RELU if relu else None
    return Blur((vertical, horizontal), stride, padding_mode), first


_Library: Any = torch.library.Library
_library = _Library("dealias", "DEF")


def _forward(x: Tensor, *arguments: Any) -> Tensor:
    return backend(x.device.type).forward(x, *_unflatten(arguments))


def _backward(grad: Tensor, x: Tensor | None, size: Sequence[int], channels_last: bool, *arguments: Any) -> Tensor:
    return backend(grad.device.type).backward(grad, x, *_unflatten(arguments), tuple(size), channels_last)


for _name, _implementation in (("blur_pool2d", _forward), ("blur_pool2d_backward", _backward)):
    # Inductor must hand over the strides that were traced: the fake result's layout depends on them.
    _library.define(_name + _SCHEMAS[_name], tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order))
    for _device in ("CPU", "CUDA"):
        _library.impl(_name, _implementation, _device)
_forward_op = torch.ops.dealias.blur_pool2d.default
_backward_op = torch.ops.dealias.blur_pool2d_backward.default


# Shapes -------------------------------------------------------------------------------------------------------------


def _fake_forward(x: Tensor, *arguments: Any) -> Tensor:
    blur, first = _unflatten(arguments)
    size = [*x.shape[:2], *blur.output_size(dense_size(x.shape[2:], first))]
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=memory_format(is_channels_last(x)))


def _fake_backward(grad: Tensor, x: Tensor | None, size: Sequence[int], channels_last: bool, *arguments: Any) -> Tensor:
    return torch.empty(size, dtype=grad.dtype, device=grad.device, memory_format=memory_format(channels_last))


# Gradients in terms of the ops: for tracing, and the second derivative everywhere -------------------------------------


def _setup_forward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, *arguments = inputs
    ctx.given = x.shape, is_channels_last(x), *arguments
    _, first = _unflatten(arguments)
    ctx.save_for_backward(None if first is None else x)  # only what comes before the blur needs the input itself


def _forward_gradient(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return _backward_op(grad, *ctx.saved_tensors, *ctx.given), *_NO_GRADIENTS


def _setup_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, x, _, _, *ctx.arguments = inputs
    ctx.save_for_backward(x)


def _backward_gradient(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    """What the backward did once more, forwards: the backward is linear in the gradient that it gets."""
    (x,) = ctx.saved_tensors
    blur, first = _unflatten(ctx.arguments)
    if first == RELU:
        grad = reference.match_layout(torch.where(x <= 0, 0, grad), x)
    elif isinstance(first, Pool):
        grad = reference.match_layout(_at_maxima(grad, x, first), x)
    blurred = _forward_op(grad, *flatten(blur, None))
    return blurred, None if x is None else torch.zeros_like(x), None, None, *_NO_GRADIENTS


def _at_maxima(values: Tensor, x: Tensor, pool: Pool) -> Tensor:
    """Of `values`, a map like x, those at the maxima of the windows over x."""
    if pool.wrap:
        x, values = (reference.pad(t, pool.before, pool.after, "circular") for t in (x, values))
    else:
        sides = tuple(zip(pool.before, pool.after, strict=True))
        x, values = reference.extend(x, sides, float("-inf")), reference.extend(values, sides)
    _, index = F.max_pool2d(x, list(pool.kernel_size), 1, 0, list(pool.dilation), return_indices=True)
    return values.flatten(2).gather(2, index.flatten(2)).view(index.shape)


# Batching: the batch axis of vmap joins N -----------------------------------------------------------------------------


def _joined(t: Tensor | None, dim: int | None, size: int) -> Tensor | None:
    if t is None:
        return None
    return (t.expand(size, *t.shape) if dim is None else t.movedim(dim, 0)).flatten(0, 1)


def _batched_forward(info: Any, in_dims: Sequence[int | None], x: Tensor, *arguments: Any) -> tuple[Tensor, int]:
    result: Tensor = _forward_op(_joined(x, in_dims[0], info.batch_size), *arguments)
    return result.view(info.batch_size, -1, *result.shape[1:]), 0


def _batched_backward(
    info: Any, in_dims: Sequence[int | None], grad: Tensor, x: Tensor | None, size: Sequence[int], *arguments: Any
) -> tuple[Tensor, int]:
    batch: int = info.batch_size
    joined = [_joined(t, dim, batch) for t, dim in zip((grad, x), in_dims, strict=False)]
    result: Tensor = _backward_op(*joined, [batch * size[0], *size[1:]], *arguments)
    return result.view(batch, -1, *result.shape[1:]), 0


for _op, _fake, _gradient, _setup, _batched in (
    (_forward_op, _fake_forward, _forward_gradient, _setup_forward, _batched_forward),
    (_backward_op, _fake_backward, _backward_gradient, _setup_backward, _batched_backward),
):
    torch.library.register_fake(_op.name(), _fake, lib=_library)
    torch.library.register_autograd(_op.name(), _gradient, setup_context=_setup, lib=_library)
    torch.library.register_vmap(_op.name(), _batched, lib=_library)


# Eager mode on plain tensors ------------------------------------------------------------------------------------------


class _BlurPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, blur: Blur, first: First) -> Tensor:
        ctx.given = blur, first, x.shape, is_channels_last(x)
        if first is not None:
            ctx.save_for_backward(x)
        return backend(x.device.type).forward(x, blur, first)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        (grad,) = grads
        blur, first, size, channels_last = ctx.given
        x = None if first is None else ctx.saved_tensors[0]
        if torch.is_grad_enabled() or not reference.is_plain(grad):
            return _backward_op(grad, x, size, channels_last, *flatten(blur, first)), None, None
        return backend(grad.device.type).backward(grad, x, blur, first, size, channels_last), None, None


def blur_pool(x: Tensor, blur: Blur, first: First, plain: bool) -> Tensor:
    """`reference.blur_pool`, by the backend of the input's device; `plain` is `reference.is_plain(x)`."""
    if not plain:
        return cast(Tensor, _forward_op(x, *flatten(blur, first)))
    if x.requires_grad and torch.is_grad_enabled():
        run: Any = _BlurPool
        return cast(Tensor, run.apply(x, blur, first))
    return backend(x.device.type).forward(x, blur, first)
