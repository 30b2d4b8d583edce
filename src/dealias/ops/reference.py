"""The operations in pure PyTorch: any device, any dtype, 1 to 3 spatial axes, every size from one pixel.

This is the definition that the native backends must agree with, and the path that is traced for export.
All functions take checked arguments (`dealias.functional` checks them) and batched input (N, C, *spatial).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dealias.filters import Taps

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}
_F_PAD_MODE = {"reflect": "reflect", "replicate": "replicate", "circular": "circular", "zeros": "constant"}

_kernels: dict[tuple[object, ...], Tensor] = {}


def _build_kernel(taps: Taps, spatial: int, like: Tensor) -> Tensor:
    line = torch.tensor(taps, dtype=torch.float64)
    kernel = line
    for _ in range(spatial - 1):
        kernel = kernel.unsqueeze(-1) * line
    return kernel.to(device=like.device, dtype=like.dtype)


def _kernel(taps: Taps, spatial: int, like: Tensor) -> Tensor:
    """The outer product of `taps`, built once for each dtype and device."""
    if torch.compiler.is_compiling():
        return _build_kernel(taps, spatial, like)
    key = (taps, spatial, like.dtype, like.device)
    kernel = _kernels.get(key)
    if kernel is None:
        with torch.inference_mode(False):
            kernel = _build_kernel(taps, spatial, like)
        if type(kernel) is Tensor:  # a fake tensor must not outlive its mode
            _kernels[key] = kernel
    return kernel


def _border_index(size: int, before: int, after: int, padding_mode: str, device: torch.device) -> Tensor:
    """For each position of the padded axis, the input position that it repeats. Free of guards on `size`."""
    index = torch.arange(-before, size + after, device=device)
    if padding_mode == "replicate":
        return index.clamp(0, size - 1)
    if padding_mode == "circular":
        return index.remainder(size)
    last = size - 1
    period = torch.sym_max(2 * last, 1)
    return last - (index.remainder(period) - last).abs()


def pad(x: Tensor, before: Sequence[int], after: Sequence[int], padding_mode: str) -> Tensor:
    """Pad the last axes of `x` by a border rule, like `numpy.pad`, also where the map is smaller than the padding."""
    spatial = len(before)
    sizes = x.shape[-spatial:]
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


def match_layout(y: Tensor, x: Tensor) -> Tensor:
    """`y` in the memory layout of `x`: channels last if `x` is so without doubt (C = 1 is both), else contiguous."""
    layout = _CHANNELS_LAST.get(x.ndim - 2)
    if layout is not None and x.is_contiguous(memory_format=layout) and not x.is_contiguous():
        return y.contiguous(memory_format=layout)
    return y.contiguous()


def blur_pool(x: Tensor, taps: Taps, stride: Sequence[int], padding_mode: str) -> Tensor:
    """Correlate every channel with the outer product of `taps` and keep each `stride`-th sample from index 0."""
    spatial = len(stride)
    if torch.is_autocast_enabled(x.device.type):
        with torch.autocast(x.device.type, enabled=False):
            return blur_pool(x, taps, stride, padding_mode)
    if len(taps) == 1:
        steps = (slice(None), slice(None), *(slice(None, None, step) for step in stride))
        y = x[steps] * taps[0]
    else:
        before, after = (len(taps) - 1) // 2, len(taps) // 2
        padded = pad(x, [before] * spatial, [after] * spatial, padding_mode)
        channels = x.shape[1]
        kernel = _kernel(taps, spatial, x).expand(channels, 1, *([len(taps)] * spatial))
        y = _CONV[spatial](padded, kernel, stride=tuple(stride), groups=channels)
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
    spatial = len(kernel_size)
    if wrap:
        x, inner = pad(x, before, after, "circular"), [0] * spatial
    elif list(before) == list(after):
        inner = list(before)
    else:
        pads = [amount for pair in zip(reversed(before), reversed(after), strict=True) for amount in pair]
        x, inner = F.pad(x, pads, value=float("-inf")), [0] * spatial
    return _MAX_POOL[spatial](x, list(kernel_size), 1, inner, list(dilation))


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
    return blur_pool(dense_max(x, kernel_size, dilation, before, after, wrap), taps, stride, padding_mode)


def relu_blur_pool(x: Tensor, taps: Taps, stride: Sequence[int], padding_mode: str) -> Tensor:
    """ReLU then `blur_pool`."""
    return blur_pool(F.relu(x), taps, stride, padding_mode)
