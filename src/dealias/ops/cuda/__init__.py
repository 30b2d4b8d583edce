"""The fused operations on CUDA devices: Triton kernels that read the input once and write the result once.

Importing this module imports Triton. In its interpreter (`TRITON_INTERPRET=1`) the functions take CPU tensors.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from dealias.filters import Taps
from dealias.ops.arguments import Blur, First, Ints, Pool, dense_size
from dealias.ops.cuda import launch
from dealias.ops.cuda.blur_gradient import blur_backward
from dealias.ops.cuda.forward_kernel import blur_pool
from dealias.ops.cuda.launch import BLOCK, Plan
from dealias.ops.cuda.max_gradient import max_backward
from dealias.ops.fused import is_channels_last, memory_format

MAX_TAPS, MAX_STRIDE, MAX_KERNEL = 16, 4, 3
MOST_LANES = 2**31 - BLOCK


def unavailable() -> str | None:
    """Why nothing can run here, or None if it can."""
    if not torch.cuda.is_available():
        return "no CUDA device"
    if torch.version.hip is None and torch.cuda.get_device_capability() < (7, 5):
        return "the CUDA device is older than Triton supports"
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "Triton needs a C compiler: install gcc or clang, or set CC"
    return None


def covers(dtype: torch.dtype, lengths: Ints, stride: Ints, kernel_size: Ints | None, dilation: Ints | None) -> bool:
    """Whether the kernels take these arguments; bfloat16 takes a device of compute capability 8.0."""
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return False
    if dtype == torch.bfloat16 and torch.cuda.is_available() and not torch.cuda.is_bf16_supported(False):
        return False
    if max(lengths) > MAX_TAPS or max(stride) > MAX_STRIDE:
        return False
    return kernel_size is None or (max(kernel_size) <= MAX_KERNEL and dilation is not None and set(dilation) == {1})


@lru_cache
def _packs(device: torch.device) -> bool:
    """Whether two 16-bit elements can be compared at a time, by an instruction of NVIDIA's."""
    return device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)


_processors = lru_cache(launch.processors)


def _empty(like: Tensor, size: Sequence[int], dtype: torch.dtype, channels_last: bool) -> Tensor:
    return torch.empty(size, dtype=dtype, device=like.device, memory_format=memory_format(channels_last))


def _run(kernel: Any, plan: Plan, tensors: Sequence[Tensor], taps: Sequence[Taps]) -> None:
    sizes, constants = plan
    images = tensors[0].shape[0]
    most = max(1, MOST_LANES // sizes.lanes)
    other = tensors[0].is_cuda and tensors[0].device.index != torch.cuda.current_device()
    with torch.cuda.device(tensors[0].device) if other else nullcontext():
        for start in range(0, images, most):
            part = tensors if images <= most else [t[start : start + most] for t in tensors]
            lanes = part[0].shape[0] * sizes.lanes
            grid = (-(-lanes // BLOCK) * sizes.blocks,)
            kernel[grid](*part, *taps, *sizes._replace(lanes=lanes), constants, enable_fp_fusion=True)


def forward(x: Tensor, blur: Blur, first: First) -> Tensor:
    """See `fused.Backend`."""
    channels_last = is_channels_last(x)
    x = x.contiguous(memory_format=memory_format(channels_last))
    size = blur.output_size(dense_size(x.shape[2:], first))
    y = _empty(x, (*x.shape[:2], *size), x.dtype, channels_last)
    if y.numel():
        device = x.device
        plan = launch.forward(
            x.shape, x.element_size(), channels_last, blur, first, _packs(device), _processors(device)
        )
        _run(blur_pool, plan, (x, y), blur.taps)
    return y


def backward(
    grad: Tensor, x: Tensor | None, blur: Blur, first: First, size: tuple[int, ...], channels_last: bool
) -> Tensor:
    """See `fused.Backend`."""
    kind = grad.dtype
    if isinstance(first, Pool) and not launch.foldable(size[2:], blur, first):
        dense = (*size[:2], *first.dense_size(size[2:]))
        # in float32, so that what passes between the two kernels is not rounded
        grad = _backward(grad, None, blur, None, dense, channels_last, torch.float32)
        blur = Blur(((1.0,), (1.0,)), (1, 1), "zeros")
    return _backward(grad, x, blur, first, size, channels_last, kind)


def _backward(
    grad: Tensor,
    x: Tensor | None,
    blur: Blur,
    first: First,
    size: tuple[int, ...],
    channels_last: bool,
    dtype: torch.dtype,
) -> Tensor:
    out = _empty(grad, size, dtype, channels_last)
    if out.numel():
        layout = memory_format(channels_last)
        grad = grad.contiguous(memory_format=layout)
        given = grad if x is None else x.contiguous(memory_format=layout)
        plan = launch.backward(size, given.element_size(), channels_last, blur, first, _processors(grad.device))
        kernel = max_backward if isinstance(first, Pool) else blur_backward
        _run(kernel, plan, (grad, given, out), blur.taps)
    return out
