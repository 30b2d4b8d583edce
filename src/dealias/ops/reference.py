"""The operations in pure PyTorch: any device, any dtype, 1 to 3 spatial axes, every size from one pixel.

This is the definition that the native backends must agree with, and the path that is traced for export. All functions
take checked arguments and batched input (N, C, *spatial).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dealias.filters import IDEAL, Taps
from dealias.ops import fourier
from dealias.ops.arguments import RELU, Blur, First, Pool

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_MOST_DENSE_TAPS = 128  # of a dense convolution; beyond, one for each axis costs less
_VECTOR = 8  # channels from which on a layout with the channels last is worth a copy

_C: Any = torch._C  # not all of it is typed
# For `is_plain`, bound once: where maps have filled the caches, each look into a module costs as much as the call.
_is_compiling = torch.compiler.is_compiling
_get_trace = _C._get_tracing_state
_count_dispatch_modes = _C._len_torch_dispatch_stack
_get_transform = _C._functorch.peek_interpreter_stack
_is_batched = _C._functorch.is_legacy_batchedtensor
_forward_ad = torch.autograd.forward_ad
_sym_max: Callable[[int, int], int] = torch.sym_max  # typed, unlike torch's own


def is_traced() -> bool:
    """Whether torch.jit.trace records: the sizes of tensors are then tensors themselves."""
    return _get_trace() is not None


def is_exporting() -> bool:
    """Whether torch.export traces."""
    # PyTorch 2.11 compiles torch.compiler.is_exporting() to True, for torch.compile as well.
    flag = getattr(torch.compiler, "_is_exporting_flag", None)
    return torch.compiler.is_exporting() if flag is None else bool(flag)


def is_recorded() -> bool:
    """Whether torch.compile, torch.export or torch.jit.trace records the operations."""
    return torch.compiler.is_compiling() or is_exporting() or is_traced()


@contextmanager
def _unrecorded() -> Iterator[None]:
    """What happens inside becomes a constant of the trace."""
    state = _get_trace()
    _C._set_tracing_state(None)
    try:
        yield
    finally:
        _C._set_tracing_state(state)


def _is_symbolic(size: object) -> bool:
    return isinstance(size, (torch.SymInt, Tensor))


def sym_max(a: int, b: int) -> int:
    """The greater size, free of guards where the builtin would fix a branch of an export or a trace."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        one, other = (size if isinstance(size, Tensor) else torch.full((), size, device="cpu") for size in (a, b))
        return torch.maximum(one, other)
    # PyTorch 2.11 does not compile torch.sym_max of two numbers that it knows.
    return _sym_max(a, b) if _is_symbolic(a) or _is_symbolic(b) else max(a, b)


def sym_min(a: int, b: int) -> int:
    """The lesser size."""
    return -sym_max(-a, -b)


def _build_kernel(taps: tuple[Taps, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    kernel = torch.ones((), dtype=torch.float64, device="cpu")  # explicit: not every device has float64
    for line in taps:
        kernel = kernel.unsqueeze(-1) * torch.tensor(line, dtype=torch.float64, device="cpu")
    return kernel.to(device=device, dtype=dtype)


_cached_kernel = lru_cache(maxsize=128)(_build_kernel)


def _kernel(taps: Sequence[Taps], like: Tensor) -> Tensor:
    """The outer product of `taps`; kept, so that an accelerator need not wait for its copy on each call."""
    if torch.compiler.is_compiling() or type(like) not in (Tensor, nn.Parameter):
        return _build_kernel(tuple(taps), like.dtype, like.device)  # a fake tensor must not outlive its mode
    with torch.inference_mode(False):  # or training could not use what inference has kept
        return _cached_kernel(tuple(taps), like.dtype, like.device)


def _border_index(size: int, before: int, after: int, padding_mode: str, device: torch.device) -> Tensor:
    """For each position in front of an axis and behind it, the one inside that it repeats. Free of guards on `size`."""
    index = torch.cat([torch.arange(-before, 0, device=device), torch.arange(after, device=device) + size])
    last = size - 1
    period = size if padding_mode == "circular" else sym_max(2 * last, 1)
    # a symbolic scalar would not export to ONNX
    index = index.remainder(period if isinstance(period, Tensor) else torch.full_like(index, period))
    return index if padding_mode == "circular" else last - (index - last).abs()


def pad(x: Tensor, before: Sequence[int], after: Sequence[int], padding_mode: str) -> Tensor:
    """Pad the last axes of `x` by a border rule, like `numpy.pad`, also where the map is smaller than the padding."""
    spatial = len(before)
    sizes: Sequence[int] = x.shape[-spatial:]
    limit = 1 if padding_mode == "reflect" else 0
    by_index = padding_mode in ("reflect", "circular") and any(
        _is_symbolic(size) or max(b, a) > size - limit for size, b, a in zip(sizes, before, after, strict=True)
    )
    if by_index:
        for axis, (size, b, a) in enumerate(zip(sizes, before, after, strict=True), start=x.ndim - spatial):
            if b or a:
                index = _border_index(size, b, a, padding_mode, x.device)
                front, behind = (x.index_select(axis, part) for part in index.split([b, a]))
                x = torch.cat([front, x, behind], axis)  # ONNX Runtime gathers a whole map slowly
        return x
    pads = [amount for pair in zip(reversed(before), reversed(after), strict=True) for amount in pair]
    return F.pad(x, pads, mode="constant" if padding_mode == "zeros" else padding_mode) if any(pads) else x


def extend(x: Tensor, sides: Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
    """Add `value` before and after on the last axes; negative amounts crop. No guard on symbolic amounts."""
    amounts = [amount for pair in reversed(sides) for amount in pair]
    needed = any(_is_symbolic(amount) or amount for amount in amounts)
    return F.pad(x, amounts, value=value) if needed else x


def is_channels_last(x: Tensor) -> bool:
    """Whether the elements of x lie in the order of channels last, with or without gaps, and in no other order."""
    if x.ndim <= 3 or x.is_contiguous() or x.shape[1] == 1 or all(size == 1 for size in x.shape[2:]):
        return False
    strides, least = x.stride(), 1  # said with strides, because vmap has no is_contiguous(memory_format=...)
    for axis in (1, *range(x.ndim - 1, 1, -1), 0):
        if x.shape[axis] > 1:
            if strides[axis] < least:
                return False
            least = strides[axis] * x.shape[axis]
    return True


def match_layout(y: Tensor, x: Tensor) -> Tensor:
    """`y` in the memory layout of `x`: channels last if `x` is so (see `is_channels_last`), else contiguous."""
    return y.movedim(1, -1).contiguous().movedim(-1, 1) if is_channels_last(x) else y.contiguous()


def _uses_convolutions(x: Tensor) -> bool:
    """Whether `x` is blurred by convolutions: where operations are recorded, and on devices other than the CPU."""
    return x.device.type != "cpu" or is_recorded()


def is_plain(x: Tensor) -> bool:
    """Whether nothing but autograd would see x pass through the dispatcher."""
    return (
        (type(x) is Tensor or type(x) is nn.Parameter)
        and not _is_compiling()
        and _count_dispatch_modes() == 0
        and _get_trace() is None
        and _forward_ad._current_level < 0
        and _get_transform() is None
        and not _is_batched(x)  # from autograd.grad(is_grads_batched=True)
    )


class _Line(NamedTuple):
    """One axis of a blur whose border is padded already: `sum(taps[t] * x[i * step + t])` for each output i."""

    axis: int
    taps: Taps
    step: int
    outputs: int

    def window(self, x: Tensor, tap: int) -> Tensor:
        """The samples that `taps[tap]` multiplies, as a view."""
        index = (slice(None),) * self.axis + (slice(tap, tap + (self.outputs - 1) * self.step + 1, self.step),)
        return x[index]


# Sums of products, each rounded by itself: a convolution would be free to sum in an order, and to fuse the roundings in
# a way, that depend on the position, so that a window that moves would change its last bits.


def _correlate_plainly(x: Tensor, line: _Line) -> Tensor:
    """The sums of `line`, in operations that every transform of PyTorch knows."""
    y = line.window(x, 0) * line.taps[0]
    for tap, weight in enumerate(line.taps[1:], start=1):
        y = y + line.window(x, tap) * weight
    return y


def _spread_plainly(grad: Tensor, line: _Line, size: int) -> Tensor:
    """The gradient of `_correlate_plainly`, for a padded axis of `size`."""
    result = None
    for tap, weight in enumerate(line.taps):
        end = tap + (line.outputs - 1) * line.step + 1
        part = torch.ops.aten.slice_backward(grad * weight, _resized(grad, line, size), line.axis, tap, end, line.step)
        result = part if result is None else result + part
    return cast(Tensor, result)


def _resized(grad: Tensor, line: _Line, size: int) -> list[int]:
    return [*grad.shape[: line.axis], size, *grad.shape[line.axis + 1 :]]


def _correlate_in_place(x: Tensor, line: _Line) -> Tensor:
    """The same bits as `_correlate_plainly`, in two buffers."""
    y = line.window(x, 0) * line.taps[0]
    product = torch.empty_like(y)
    for tap, weight in enumerate(line.taps[1:], start=1):
        torch.mul(line.window(x, tap), weight, out=product)
        y.add_(product)
    return y


class _Correlate(torch.autograd.Function):
    """`_correlate_in_place`; its gradient does not fill a map of zeros for each tap, as that of a slice does."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, line: _Line) -> Tensor:
        ctx.line, ctx.size, ctx.channels_last = line, x.shape[line.axis], is_channels_last(x)
        return _correlate_in_place(x, line)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        (grad,) = grads
        if not is_plain(grad):
            return _spread_plainly(grad, ctx.line, ctx.size), None
        spread: Any = _Spread
        return spread.apply(grad, ctx.line, ctx.size, ctx.channels_last), None


class _Spread(torch.autograd.Function):
    """The gradient of `_Correlate`."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, line: _Line, size: int, channels_last: bool) -> Tensor:
        ctx.line = line
        shape = _resized(grad, line, size)
        if channels_last:
            shape.append(shape.pop(1))
        result = grad.new_zeros(shape)
        result = result.movedim(-1, 1) if channels_last else result
        product = torch.empty_like(grad)
        for tap, weight in enumerate(line.taps):
            torch.mul(grad, weight, out=product)
            line.window(result, tap).add_(product)
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        return _correlate(grads[0], ctx.line), None, None, None


def _correlate(x: Tensor, line: _Line) -> Tensor:
    if not is_plain(x):
        return _correlate_plainly(x, line)
    if x.requires_grad and torch.is_grad_enabled():
        correlate: Any = _Correlate
        return cast(Tensor, correlate.apply(x, line))
    return _correlate_in_place(x, line)


def _along(axis: int, blur: Blur) -> Blur:
    """The part of the blur along one axis."""
    if len(blur.stride) == 1:
        return blur
    others = len(blur.stride) - 1
    taps, stride = ((1.0,),) * others, (1,) * others
    return Blur(
        (*taps[:axis], blur.taps[axis], *taps[axis:]),
        (*stride[:axis], blur.stride[axis], *stride[axis:]),
        blur.padding_mode,
    )


def _axis_by_axis(x: Tensor, blur: Blur, run: Callable[[Tensor, Blur, int], Tensor]) -> Tensor:
    """`run` along each axis that is filtered, in at least float32; rounded once, at the end."""
    y = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    for axis, line in enumerate(blur.taps):
        if len(line) != 1:
            y = run(y, _along(axis, blur), axis)
    return y.to(x.dtype)


def _sum_along(x: Tensor, blur: Blur, axis: int) -> Tensor:
    """The same window gives the same bits wherever it stands, on every machine."""
    line, step = blur.taps[axis], blur.stride[axis]
    padded = pad(x, *blur.border(), blur.padding_mode)
    return _correlate(padded, _Line(axis + 2, line, step, -(-x.shape[axis + 2] // step)))


def _blur_by_convolution(x: Tensor, blur: Blur) -> Tensor:
    spatial = len(blur.stride)
    padded = pad(x, *blur.border(), blur.padding_mode)
    # One channel is blurred as two: oneDNN's convolution of a single channel sums in an order that depends on the
    # position, so that shifts are not exact, and in bfloat16 returns garbage now and then (torch 2.13).
    with _unrecorded() if is_traced() else nullcontext():  # a trace has a constant kernel and number of channels
        single = x.shape[1] == 1
        channels = 2 if single else x.shape[1]
        kernel = _kernel(blur.taps, x)
        kernel = kernel.expand(channels, 1, *kernel.shape)
    if single:
        padded = padded.expand(-1, 2, *([-1] * spatial))
    y = _CONV[spatial](padded, kernel, stride=blur.stride, groups=channels)
    return y[:, :1] if single else y


def _blur_by_convolutions(x: Tensor, blur: Blur) -> Tensor:
    """One dense convolution for short filters, one along each axis for long ones."""
    with without_autocast(x.device.type):
        if math.prod([len(line) for line in blur.taps]) <= _MOST_DENSE_TAPS:
            return _blur_by_convolution(x, blur)
        return _axis_by_axis(x, blur, lambda y, part, axis: _blur_by_convolution(y, part))


def without_autocast(device: str) -> AbstractContextManager[Any]:
    """Leave the dtypes of matrix products and convolutions alone."""
    # PyTorch 2.11 does not compile the first question; what it compiles for has autocast.
    known = torch.compiler.is_compiling() or torch.amp.is_autocast_available(device)
    active = known and torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if active else nullcontext()


def _blur_ideally(x: Tensor, blur: Blur) -> Tensor:
    """The ideal filter along its axes, other filters along theirs."""

    def run(y: Tensor, part: Blur, axis: int) -> Tensor:
        if part.taps[axis] != IDEAL:
            return _blur_by_convolution(y, part) if _uses_convolutions(y) else _sum_along(y, part, axis)
        if is_channels_last(y):  # in the order in which its elements lie
            return fourier.subsampled(y.movedim(1, -1), axis + 1, part.stride[axis]).movedim(-1, 1)
        return fourier.subsampled(y, axis + 2, part.stride[axis])

    with without_autocast(x.device.type):
        return _axis_by_axis(x, blur, run)


def _blur(x: Tensor, blur: Blur) -> Tensor:
    taps, stride, padding_mode = blur
    # What is not filtered is subsampled first: less is left for the others.
    first = [step if len(line) == 1 else 1 for line, step in zip(taps, stride, strict=True)]
    if max(first) > 1:
        kept = (slice(None), slice(None), *(slice(None, None, step) for step in first))
        x = x[kept]
        blur = Blur(taps, tuple([step // done for step, done in zip(stride, first, strict=True)]), padding_mode)
    if all(len(line) == 1 for line in taps):
        return x.clone()  # never a view of the input
    if IDEAL in taps:
        return _blur_ideally(x, blur)
    return _blur_by_convolutions(x, blur) if _uses_convolutions(x) else _axis_by_axis(x, blur, _sum_along)


def dense_max(x: Tensor, pool: Pool) -> Tensor:
    """The maximum at stride 1."""
    kernel_size, dilation, before, after, wrap = pool
    if wrap:
        x, inner = pad(x, before, after, "circular"), [0] * len(kernel_size)
    else:
        # Where the dilation exceeds the map a window may hold nothing but padding, and then the gradient of torch's own
        # padding writes outside of its memory (torch 2.13): pad explicitly. More than half a kernel it refuses to pad.
        inner = [
            0 if b > k // 2 or (d > 1 and (_is_symbolic(size) or size < d)) else b
            for size, k, b, d in zip(x.shape[2:], kernel_size, before, dilation, strict=True)
        ]
        x = extend(x, [(b - i, a - i) for b, a, i in zip(before, after, inner, strict=True)], float("-inf"))
    if x.ndim == 4 and not _uses_convolutions(x) and x.shape[1] >= _VECTOR:
        # In channels last PyTorch's maximum is twice as fast, copies included; vmap takes no memory format.
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    return _MAX_POOL[len(kernel_size)](x, list(kernel_size), 1, inner, list(dilation))


def blur_pool(x: Tensor, blur: Blur, first: First = None) -> Tensor:
    """Compute what comes `first`, then `blur` it; the result has the layout of x."""
    dense = dense_max(x, first) if isinstance(first, Pool) else F.relu(x) if first == RELU else x
    return match_layout(_blur(dense, blur), x)
