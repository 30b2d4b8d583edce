"""The operations in pure PyTorch: any device, any dtype, 1 to 3 spatial axes, every size from one pixel.

This is the definition that the native backends must agree with, and the path that is traced for export.
All functions take checked arguments (`dealias.functional` checks them) and batched input (N, C, *spatial).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dealias.filters import Taps

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_F_PAD_MODE = {"reflect": "reflect", "replicate": "replicate", "circular": "circular", "zeros": "constant"}

# Typed, unlike torch's own. They keep symbolic sizes free of guards where the builtins would fix a branch.
sym_max: Callable[[int, int], int] = torch.sym_max
sym_min: Callable[[int, int], int] = torch.sym_min


def _build_kernel(taps: Taps, spatial: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    line = torch.tensor(taps, dtype=torch.float64, device="cpu")  # explicit: not every device has float64
    kernel = line
    for _ in range(spatial - 1):
        kernel = kernel.unsqueeze(-1) * line
    return kernel.to(device=device, dtype=dtype)


_cached_kernel = lru_cache(maxsize=128)(_build_kernel)


def _kernel(taps: Taps, spatial: int, like: Tensor) -> Tensor:
    """The outer product of `taps`; kept, so that an accelerator need not wait for its copy on each call."""
    if torch.compiler.is_compiling() or type(like) not in (Tensor, nn.Parameter):
        return _build_kernel(taps, spatial, like.dtype, like.device)  # a fake tensor must not outlive its mode
    with torch.inference_mode(False):  # or training could not use what inference has kept
        return _cached_kernel(taps, spatial, like.dtype, like.device)


def _border_index(size: int, before: int, after: int, padding_mode: str, device: torch.device) -> Tensor:
    """For each position of the padded axis, the input position that it repeats. Free of guards on `size`."""
    index = torch.arange(-before, size + after, device=device)
    if padding_mode == "replicate":
        return index.clamp(0, size - 1)
    last = size - 1
    period = size if padding_mode == "circular" else sym_max(2 * last, 1)
    index = index.remainder(torch.full_like(index, period))  # a symbolic scalar would not export to ONNX
    return index if padding_mode == "circular" else last - (index - last).abs()


def pad(x: Tensor, before: Sequence[int], after: Sequence[int], padding_mode: str) -> Tensor:
    """Pad the last axes of `x` by a border rule, like `numpy.pad`, also where the map is smaller than the padding."""
    spatial = len(before)
    sizes: Sequence[int] = x.shape[-spatial:]
    if torch._C._get_tracing_state() is not None:  # torch.jit.trace gives sizes as tensors, and fixes them anyway
        sizes = [int(size) for size in sizes]
    limit = 1 if padding_mode == "reflect" else 0
    by_index = padding_mode in ("reflect", "circular") and any(
        not isinstance(size, int) or max(b, a) > size - limit for size, b, a in zip(sizes, before, after, strict=True)
    )
    if by_index:
        for axis, (size, b, a) in enumerate(zip(sizes, before, after, strict=True), start=x.ndim - spatial):
            if b or a:
                x = x.index_select(axis, _border_index(size, b, a, padding_mode, x.device))
        return x
    pads = [amount for pair in zip(reversed(before), reversed(after), strict=True) for amount in pair]
    return F.pad(x, pads, mode=_F_PAD_MODE[padding_mode]) if any(pads) else x


def extend(x: Tensor, sides: Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
    """Add `value` before and after on the last axes; negative amounts crop. No guard on symbolic amounts."""
    amounts = [amount for pair in reversed(sides) for amount in pair]
    needed = any(isinstance(amount, torch.SymInt) or amount for amount in amounts)
    return F.pad(x, amounts, value=value) if needed else x


def _is_channels_last(x: Tensor) -> bool:
    # said with views, because vmap has no is_contiguous(memory_format=...)
    return x.ndim > 3 and not x.is_contiguous() and x.movedim(1, -1).is_contiguous()


def match_layout(y: Tensor, x: Tensor) -> Tensor:
    """`y` in the memory layout of `x`: channels last if `x` is so without doubt (C = 1 is both), else contiguous."""
    return y.movedim(1, -1).contiguous().movedim(-1, 1) if _is_channels_last(x) else y.contiguous()


def blur_pool(x: Tensor, taps: Taps, stride: Sequence[int], padding_mode: str) -> Tensor:
    """Correlate every channel with the outer product of `taps` and keep each `stride`-th sample from index 0."""
    spatial = len(stride)
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        with torch.autocast(device, enabled=False):
            return blur_pool(x, taps, stride, padding_mode)
    if len(taps) == 1:
        steps = (slice(None), slice(None), *(slice(None, None, step) for step in stride))
        y = x[steps] * taps[0]
    else:
        before, after = (len(taps) - 1) // 2, len(taps) // 2
        padded = pad(x, [before] * spatial, [after] * spatial, padding_mode)
        # One channel is blurred as two: oneDNN's convolution of a single channel sums in an order that depends on the
        # position, so that shifts are not exact, and in bfloat16 returns garbage now and then (torch 2.13).
        single = x.shape[1] == 1
        if single:
            padded = padded.expand(-1, 2, *([-1] * spatial))
        channels = padded.shape[1]
        kernel = _kernel(taps, spatial, x).expand(channels, 1, *([len(taps)] * spatial))
        y = _CONV[spatial](padded, kernel, stride=tuple(stride), groups=channels)
        y = y[:, :1] if single else y
    return match_layout(y, x)


def dense_max(
    x: Tensor,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    before: Sequence[int],
    after: Sequence[int],
    wrap: bool,
) -> Tensor:
    """The maximum at stride 1. The border is -inf, or with `wrap` the opposite side of the map."""
    if wrap:
        x, inner = pad(x, before, after, "circular"), [0] * len(kernel_size)
    else:
        # Where the dilation exceeds the map a window may hold nothing but padding, and then the gradient of torch's own
        # padding writes outside of its memory (torch 2.13): pad explicitly.
        inner = [
            0 if d > 1 and (isinstance(size, torch.SymInt) or size < d) else b
            for size, b, d in zip(x.shape[2:], before, dilation, strict=True)
        ]
        x = extend(x, [(b - i, a - i) for b, a, i in zip(before, after, inner, strict=True)], float("-inf"))
    return _MAX_POOL[len(kernel_size)](x, list(kernel_size), 1, inner, list(dilation))


def max_blur_pool(
    x: Tensor,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    before: Sequence[int],
    after: Sequence[int],
    wrap: bool,
    taps: Taps,
    stride: Sequence[int],
    padding_mode: str,
) -> Tensor:
    """`dense_max` then `blur_pool`."""
    dense = dense_max(x, kernel_size, dilation, before, after, wrap)
    return match_layout(blur_pool(dense, taps, stride, padding_mode), x)


def relu_blur_pool(x: Tensor, taps: Taps, stride: Sequence[int], padding_mode: str) -> Tensor:
    """ReLU then `blur_pool`."""
    return blur_pool(F.relu(x), taps, stride, padding_mode)
