"""Functional forms of the anti-aliased layers: they check their arguments, then call one operation each.

>>> x = torch.rand(1, 3, 7, 8)
>>> blur_pool2d(x).shape, max_blur_pool2d(x, 2).shape
(torch.Size([1, 3, 4, 4]), torch.Size([1, 3, 3, 4]))

Source: Zhang, *Making Convolutional Networks Shift-Invariant Again*, ICML 2019, section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dealias import ops
from dealias.errors import InputError, InputTypeError, as_int, check_flag, shown
from dealias.filters import IDEAL, Filter, Taps, resolve_filters
from dealias.ops.arguments import PADDING_MODES as PADDING_MODES
from dealias.ops.arguments import RELU, Blur, First, Pool
from dealias.ops.arguments import PaddingMode as PaddingMode
from dealias.ops.reference import extend, is_traced, sym_max, sym_min

__all__ = [
    "blur_pool1d",
    "blur_pool2d",
    "blur_pool3d",
    "max_blur_pool1d",
    "max_blur_pool2d",
    "max_blur_pool3d",
    "relu_blur_pool2d",
]
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)

# Single calls in the graphs of torch.fx, which cannot trace the checks inside.
torch.fx.wrap("apply_blur")
torch.fx.wrap("apply_max_blur")


_VALID = "an int or a sequence of ints, one for each spatial axis"


def per_axis(name: str, value: int | Sequence[int], spatial: int, minimum: int, bits: int = 63) -> tuple[int, ...]:
    """`value` as one int for each spatial axis, from `minimum` on and below 2**bits; one int stands for all axes."""
    if isinstance(value, (int, str, bytes, bytearray)) or not isinstance(value, Sequence) or not value:
        return (as_int(name, value, minimum, bits=bits, valid=_VALID),) * spatial
    values = tuple(as_int(name, one, minimum, given=value, bits=bits, valid=_VALID) for one in value)
    if len(values) not in (1, spatial):
        raise InputError(
            f"{name}={shown(value)} has {len(values)} values: give one int, or {spatial} for the spatial axes"
        )
    return values if len(values) == spatial else values * spatial


def axis_taps(taps: tuple[Taps, ...], stride: Sequence[int]) -> tuple[Taps, ...]:
    """The `taps` along each axis: none where the stride is 1, unless it is so everywhere (a plain blur)."""
    if max(stride) == 1:
        return taps
    return tuple((1.0,) if step == 1 else line for line, step in zip(taps, stride, strict=True))


def check_padding_mode(padding_mode: str, taps: Sequence[Taps] = ()) -> str:
    """`padding_mode`, if it is one of `PADDING_MODES` that a filter with these `taps` can have."""
    if not isinstance(padding_mode, str) or padding_mode not in PADDING_MODES:
        raise InputError(f"padding_mode={shown(padding_mode)} is unknown: use one of {', '.join(PADDING_MODES)}")
    if IDEAL in taps and padding_mode != "circular":
        raise InputError(f"padding_mode={padding_mode!r}: the filter 'ideal' wraps around, use padding_mode='circular'")
    return padding_mode


def _check_input(x: Tensor, spatial: int) -> None:
    if not isinstance(x, Tensor):
        raise InputTypeError(f"input must be a torch.Tensor, got {type(x).__name__}")
    if x.layout != torch.strided or x.is_nested:
        kind = "nested" if x.is_nested else str(x.layout).removeprefix("torch.")
        raise InputTypeError(f"input is a {kind} tensor: use a dense one, e.g. input.to_dense()")
    if x.dtype not in DTYPES:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
        raise InputTypeError(f"input has dtype {x.dtype}: use one of {names}, e.g. input.float()")
    if x.ndim not in (spatial + 1, spatial + 2):
        axes = ("length", "height, width", "depth, height, width")[spatial - 1]
        raise InputError(
            f"input of shape {tuple(x.shape)} has {x.ndim} axes: "
            f"a {spatial}d layer takes (batch, channels, {axes}) or (channels, {axes})"
        )
    if not is_traced() and 0 in x.shape[-spatial - 1 :]:
        raise InputError(
            f"input of shape {tuple(x.shape)} has no channel or an empty map: every axis but the batch needs a size"
        )


def _requantized(operation: Callable[..., Tensor], x: Tensor, *arguments: Any) -> Tensor:
    """The operation in float32, back on the grid of quantised `x`: neither a blur nor a maximum leaves its range."""
    if x.qscheme() != torch.per_tensor_affine:
        raise InputTypeError(
            f"input has the quantisation {x.qscheme()}: use torch.per_tensor_affine, or input.dequantize()"
        )
    y = operation(x.dequantize(), *arguments)
    return torch.quantize_per_tensor(y, x.q_scale(), x.q_zero_point(), x.dtype)


def apply_blur(x: Tensor, taps: Sequence[Taps], stride: Sequence[int], padding_mode: str, relu: bool = False) -> Tensor:
    """`blur_pool`, or `relu_blur_pool`, with every argument but the input checked already; `taps` of each axis."""
    if isinstance(x, Tensor) and x.is_quantized:
        return _requantized(apply_blur, x, taps, stride, padding_mode, relu)
    spatial = len(stride)
    _check_input(x, spatial)
    blur = Blur(tuple(taps), tuple(stride), padding_mode)
    first: First = RELU if relu else None
    if x.ndim == spatial + 1:
        return ops.blur_pool(x.unsqueeze(0), blur, first).squeeze(0)
    return ops.blur_pool(x, blur, first)


def apply_max_blur(
    x: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    taps: Sequence[Taps],
    padding_mode: str,
) -> Tensor:
    """`max_blur_pool` with every argument but the input checked already; `taps` of each axis."""
    if isinstance(x, Tensor) and x.is_quantized:
        arguments = (kernel_size, stride, padding, dilation, ceil_mode, taps, padding_mode)
        return _requantized(apply_max_blur, x, *arguments)
    spatial = len(stride)
    _check_input(x, spatial)
    wrap = padding_mode == "circular" and not any(padding)
    before, after, sizes = [], [], []
    for size, k, s, p, d in zip(x.shape[-spatial:], kernel_size, stride, padding, dilation, strict=True):
        reach = d * (k - 1)
        dense = size + 2 * p - reach
        out, extra = (dense - 1) // s + 1, 0
        if ceil_mode:  # a last window that leaves the map, if it starts inside the map or its leading padding
            if p + s - 1 <= reach:  # it does; nested minima of symbolic sizes would take torch.export minutes
                extra = (1 - dense) % s
                out = (dense + extra - 1) // s + 1
            else:
                out = sym_min((dense + s - 2) // s, (size + p - 1) // s) + 1
                extra = sym_max(0, (out - 1) * s + 1 - dense)
        if not is_traced() and out < 1:
            least = reach + 1 - 2 * p - (s - 1 if ceil_mode else 0)
            raise InputError(
                f"input of shape {tuple(x.shape)} is too small for kernel_size={k}, padding={p}, dilation={d}: "
                f"the axis of {size} needs at least {least} pixels"
            )
        sizes.append(out)
        before.append(0 if wrap else p)
        after.append(reach if wrap else p + extra)
    batched = x if x.ndim == spatial + 2 else x.unsqueeze(0)
    pool = Pool(tuple(kernel_size), tuple(dilation), tuple(before), tuple(after), wrap)
    y = ops.blur_pool(batched, Blur(tuple(taps), tuple(stride), padding_mode), pool)
    if wrap:  # the wrapped maximum covers the whole map; nn.MaxPool's size may be smaller
        y = extend(y, [(0, out - size) for size, out in zip(y.shape[2:], sizes, strict=True)])
        y = ops.match_layout(y, batched)
    return y if x.ndim == spatial + 2 else y.squeeze(0)


def _blur_pool(
    spatial: int, x: Tensor, filter: Filter, stride: int | Sequence[int], padding_mode: str, relu: bool = False
) -> Tensor:
    steps = per_axis("stride", stride, spatial, 1)
    taps = axis_taps(resolve_filters(filter, len(steps)), steps)
    return apply_blur(x, taps, steps, check_padding_mode(padding_mode, taps), relu)


def pool_arguments(
    spatial: int,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Check `torch.nn.MaxPool2d`'s arguments; return kernel size, stride, padding and dilation for each axis."""
    kernel = per_axis("kernel_size", kernel_size, spatial, 1, 31)
    steps = kernel if stride is None else per_axis("stride", stride, spatial, 1)
    pads = per_axis("padding", padding, spatial, 0, 31)
    dilations = per_axis("dilation", dilation, spatial, 1, 31)
    for k, p in zip(kernel, pads, strict=True):
        if p > k // 2:
            raise InputError(f"padding={p} is too large for kernel_size={k}: it must be at most {k // 2}")
    return kernel, steps, pads, dilations


def _max_blur_pool(
    x: Tensor, pool: tuple[tuple[int, ...], ...], ceil_mode: bool, filter: Filter, padding_mode: str
) -> Tensor:
    kernel, steps, pads, dilations = pool
    taps = axis_taps(resolve_filters(filter, len(steps)), steps)
    border = check_padding_mode(padding_mode, taps)
    return apply_max_blur(x, kernel, steps, pads, dilations, check_flag("ceil_mode", ceil_mode), taps, border)


def blur_pool1d(
    x: Tensor, filter: Filter = "bin4", stride: int | Sequence[int] = 2, padding_mode: PaddingMode = "reflect"
) -> Tensor:
    """`blur_pool2d` over one spatial axis: (N, C, L) or (C, L)."""
    return _blur_pool(1, x, filter, stride, padding_mode)


def blur_pool2d(
    x: Tensor, filter: Filter = "bin4", stride: int | Sequence[int] = 2, padding_mode: PaddingMode = "reflect"
) -> Tensor:
    """BlurPool: low-pass filter each channel, then keep every `stride`-th sample (Zhang 2019, section 3.2).

    >>> blur_pool2d(torch.ones(2, 3, 5, 5), "tri3", stride=2).shape
    torch.Size([2, 3, 3, 3])

    The map is padded by floor((k - 1) / 2) before and ceil((k - 1) / 2) after on each axis, k the number of taps, and
    correlated with the outer product of the taps, and sampled from index 0. An axis of stride 1 is not filtered when
    another is subsampled; where every stride is 1, all are. Differentiable twice. Autocast leaves the dtype alone.

    The filter "ideal" keeps, of the discrete Fourier transform along an axis of N pixels, the frequencies k with
    2 * stride * |k| < N, and then every `stride`-th sample from index 0. Where `stride` divides N, a circular shift by
    any fraction of a pixel shifts the result by that many pixels over `stride`. The Nyquist frequency of the result is
    left out: one of its two phases cannot be sampled, so that what was kept would depend on the shift.

    Args:
        x: (N, C, H, W) or (C, H, W), float64, float32, bfloat16 or float16, contiguous or channels_last; or quantised
            for each tensor, which is computed in float32 and quantised again with the same scale and zero point.
        filter: see `dealias.filters.resolve_filter`; a tuple of such filters has one for each axis.
        stride: samples between two that are kept, one int or one for each axis.
        padding_mode: "reflect" (bouncing on maps smaller than the padding, as `numpy.pad` does), "replicate",
            "circular" or "zeros"; "circular" with the filter "ideal".

    Returns:
        (N, C, ceil(H / stride), ceil(W / stride)), in the dtype and the memory layout of `x`.

    Raises:
        InputError: an argument is out of range, or `x` has the wrong number of axes or an empty spatial axis.
        InputTypeError: `x` is no tensor or has another dtype.
    """
    return _blur_pool(2, x, filter, stride, padding_mode)


def blur_pool3d(
    x: Tensor, filter: Filter = "bin4", stride: int | Sequence[int] = 2, padding_mode: PaddingMode = "reflect"
) -> Tensor:
    """`blur_pool2d` over three spatial axes: (N, C, D, H, W) or (C, D, H, W)."""
    return _blur_pool(3, x, filter, stride, padding_mode)


def relu_blur_pool2d(
    x: Tensor, filter: Filter = "bin4", stride: int | Sequence[int] = 2, padding_mode: PaddingMode = "reflect"
) -> Tensor:
    """`blur_pool2d(relu(x))`: what follows the stride-1 convolution in ConvBlurPool (Zhang 2019, equation 8).

    >>> relu_blur_pool2d(torch.tensor([[[-1.0, 3.0]]]), "none", stride=1)
    tensor([[[0., 3.]]])

    Arguments, result and errors as for `blur_pool2d`.
    """
    return _blur_pool(2, x, filter, stride, padding_mode, relu=True)


def max_blur_pool1d(
    x: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    *,
    filter: Filter = "bin4",
    padding_mode: PaddingMode = "reflect",
) -> Tensor:
    """`max_blur_pool2d` over one spatial axis: (N, C, L) or (C, L)."""
    pool = pool_arguments(1, kernel_size, stride, padding, dilation)
    return _max_blur_pool(x, pool, ceil_mode, filter, padding_mode)


def max_blur_pool2d(
    x: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    *,
    filter: Filter = "bin4",
    padding_mode: PaddingMode = "reflect",
) -> Tensor:
    """Anti-aliased max pooling: the maximum at stride 1, then `blur_pool2d` at `stride` (Zhang 2019, equation 7).

    >>> max_blur_pool2d(torch.rand(2, 3, 7, 8), kernel_size=2).shape
    torch.Size([2, 3, 3, 4])

    The output has the size of `torch.nn.functional.max_pool2d` with the same arguments, for every input size. The
    maximum pads with -inf; ties and NaN behave as in `max_pool2d`. With `padding_mode="circular"` and `padding=0` the
    maximum wraps around (`dilation * (kernel_size - 1)` samples behind the map), so that a circular shift of the
    input by `stride` shifts the output by one pixel bit for bit, wherever `stride` divides the map and the output has
    size / stride pixels.

    Args:
        x: (N, C, H, W) or (C, H, W), float64, float32, bfloat16 or float16, contiguous or channels_last.
        kernel_size, stride, padding, dilation, ceil_mode: as in `max_pool2d`.
        filter, padding_mode: of the blur, as in `blur_pool2d`.

    Returns:
        The pooled map, in the dtype and the memory layout of `x`.

    Raises:
        InputError: an argument is out of range, or `x` has the wrong number of axes or is smaller than the kernel.
        InputTypeError: `x` is no tensor or has another dtype.
    """
    pool = pool_arguments(2, kernel_size, stride, padding, dilation)
    return _max_blur_pool(x, pool, ceil_mode, filter, padding_mode)


def max_blur_pool3d(
    x: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    *,
    filter: Filter = "bin4",
    padding_mode: PaddingMode = "reflect",
) -> Tensor:
    """`max_blur_pool2d` over three spatial axes: (N, C, D, H, W) or (C, D, H, W)."""
    pool = pool_arguments(3, kernel_size, stride, padding, dilation)
    return _max_blur_pool(x, pool, ceil_mode, filter, padding_mode)
