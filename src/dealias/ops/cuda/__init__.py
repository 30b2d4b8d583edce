"""The fused operations on CUDA devices: Triton kernels that read the input once and write the result once.

Importing this module imports Triton. In its interpreter (`TRITON_INTERPRET=1`) the functions take CPU tensors.
The contract is `dealias.ops.fused.Backend`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import Any, TypeAlias

import torch
from torch import Tensor

from dealias.ops.cuda import launch
from dealias.ops.cuda.blur_backward import blur_backward
from dealias.ops.cuda.forward import forward
from dealias.ops.cuda.launch import BLOCK, Pair, Plan, Pool
from dealias.ops.cuda.max_backward import max_backward
from dealias.ops.fused import is_channels_last, memory_format

Ints: TypeAlias = Sequence[int]
Floats: TypeAlias = Sequence[float]

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


def covers(
    dtype: torch.dtype, taps: Sequence[Floats], stride: Ints, kernel_size: Ints | None, dilation: Ints | None
) -> bool:
    """Whether the kernels take these arguments; bfloat16 takes a device of compute capability 8.0."""
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return False
    if dtype == torch.bfloat16 and torch.cuda.is_available() and not torch.cuda.is_bf16_supported(False):
        return False
    if max(map(len, taps)) > MAX_TAPS or max(stride) > MAX_STRIDE:
        return False
    return kernel_size is None or (max(kernel_size) <= MAX_KERNEL and dilation is not None and set(dilation) == {1})


@lru_cache
def _packs(device: torch.device) -> bool:
    """Whether two 16-bit elements can be compared at a time, by an instruction of NVIDIA's."""
    return device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0)


_processors = lru_cache(launch.processors)


def _pair(values: Ints) -> Pair:
    first, second = values
    return int(first), int(second)


def _empty(like: Tensor, size: Ints, dtype: torch.dtype, channels_last: bool) -> Tensor:
    return torch.empty(size, dtype=dtype, device=like.device, memory_format=memory_format(channels_last))


def _run(kernel: Any, plan: Plan, tensors: Sequence[Tensor], taps: Sequence[Floats]) -> None:
    images = tensors[0].shape[0]
    most = max(1, MOST_LANES // plan.lanes)
    other = tensors[0].is_cuda and tensors[0].device.index != torch.cuda.current_device()
    with torch.cuda.device(tensors[0].device) if other else nullcontext():
        for start in range(0, images, most):
            part = tensors if images <= most else [t[start : start + most] for t in tensors]
            lanes = part[0].shape[0] * plan.lanes
            grid = (-(-lanes // BLOCK) * plan.blocks,)
            kernel[grid](
                *part,
                *map(tuple, taps),
                lanes=lanes,
                **plan.sizes,
                **plan.constants,
                enable_fp_fusion=True,
            )


def _forward(x: Tensor, taps: Sequence[Floats], stride: Ints, padding_mode: str, pool: Pool, relu: bool) -> Tensor:
    channels_last = is_channels_last(x)
    x = x.contiguous(memory_format=memory_format(channels_last))
    steps = _pair(stride)
    height, width = pool.dense(_pair(x.shape[2:]))
    y = _empty(x, (x.shape[0], x.shape[1], -(-height // steps[0]), -(-width // steps[1])), x.dtype, channels_last)
    if y.numel():
        plan = launch.forward(
            tuple(x.shape),
            x.element_size(),
            channels_last,
            _pair([len(line) for line in taps]),
            steps,
            padding_mode,
            pool,
            relu,
            _packs(x.device),
            _processors(x.device),
        )
        _run(forward, plan, (x, y), taps)
    return y


def _backward(
    kernel: Any,
    grad: Tensor,
    x: Tensor | None,
    size: Ints,
    taps: Sequence[Floats],
    stride: Ints,
    padding_mode: str,
    pool: Pool | None,
    dtype: torch.dtype,
    channels_last: bool,
) -> Tensor:
    out = _empty(grad, size, dtype, channels_last)
    if out.numel():
        layout = memory_format(channels_last)
        grad = grad.contiguous(memory_format=layout)
        given = grad if x is None else x.contiguous(memory_format=layout)
        plan = launch.backward(
            tuple(size),
            given.element_size(),
            channels_last,
            _pair([len(line) for line in taps]),
            _pair(stride),
            padding_mode,
            pool,
            pool is None and x is not None,
            _processors(grad.device),
        )
        _run(kernel, plan, (grad, given, out), taps)
    return out


def blur_pool2d(x: Tensor, vertical: Floats, horizontal: Floats, stride: Ints, padding_mode: str) -> Tensor:
    """See `fused.Backend`."""
    return _forward(x, (vertical, horizontal), stride, padding_mode, Pool(), False)


def blur_pool2d_backward(
    grad: Tensor,
    input_size: Ints,
    vertical: Floats,
    horizontal: Floats,
    stride: Ints,
    padding_mode: str,
    channels_last: bool,
) -> Tensor:
    """See `fused.Backend`."""
    return _backward(
        blur_backward,
        grad,
        None,
        input_size,
        (vertical, horizontal),
        stride,
        padding_mode,
        None,
        grad.dtype,
        channels_last,
    )


def relu_blur_pool2d(x: Tensor, vertical: Floats, horizontal: Floats, stride: Ints, padding_mode: str) -> Tensor:
    """See `fused.Backend`."""
    return _forward(x, (vertical, horizontal), stride, padding_mode, Pool(), True)


def relu_blur_pool2d_backward(
    grad: Tensor, x: Tensor, vertical: Floats, horizontal: Floats, stride: Ints, padding_mode: str
) -> Tensor:
    """See `fused.Backend`."""
    return _backward(
        blur_backward,
        grad,
        x,
        x.shape,
        (vertical, horizontal),
        stride,
        padding_mode,
        None,
        x.dtype,
        is_channels_last(x),
    )


def max_blur_pool2d(
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
    """See `fused.Backend`."""
    pool = Pool(_pair(kernel_size), _pair(before), _pair(after), wrap)
    return _forward(x, (vertical, horizontal), stride, padding_mode, pool, False)


def max_blur_pool2d_backward(
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
    """See `fused.Backend`."""
    pool = Pool(_pair(kernel_size), _pair(before), _pair(after), wrap)
    channels_last = is_channels_last(x)
    size = _pair(x.shape[2:])
    taps: Sequence[Floats] = (vertical, horizontal)
    if not launch.foldable(size, _pair([len(line) for line in taps]), _pair(stride), padding_mode, pool):
        dense = (*x.shape[:2], *pool.dense(size))
        # in float32, so that what passes between the two kernels is not rounded
        grad = _backward(
            blur_backward, grad, None, dense, taps, stride, padding_mode, None, torch.float32, channels_last
        )
        taps, stride, padding_mode = ((1.0,), (1.0,)), (1, 1), "zeros"
    return _backward(max_backward, grad, x, x.shape, taps, stride, padding_mode, pool, x.dtype, channels_last)
