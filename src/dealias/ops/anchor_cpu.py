"""Anchors on the CPU, in the compiled library, which rolls a sample while it is in the cache."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor

from dealias.ops import cpu
from dealias.ops.fused import is_channels_last, memory_format

_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float64: 2, torch.float16: 3}
_Pair = ctypes.c_int32 * 2

BreakTies: TypeAlias = Callable[[Tensor, Sequence[int]], Tensor]


class _Map(ctypes.Structure):
    """`dealias_map` of csrc/anchor.h."""

    _fields_ = (
        ("batch", ctypes.c_int64),
        ("channels", ctypes.c_int64),
        ("height", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("channels_last", ctypes.c_int32),
        ("bytes", ctypes.c_int32),
    )


@cache
def _functions() -> tuple[Any, Any] | None:
    """The functions of the library; None where it is missing, or older than they are."""
    library = cpu.library()
    if not hasattr(library, "dealias_roll"):
        return None
    anchor, roll = library.dealias_anchor, library.dealias_roll
    pointer = ctypes.c_void_p
    anchor.argtypes = [pointer, pointer, ctypes.c_int, pointer, ctypes.c_double, *[pointer] * 3, ctypes.c_int]
    roll.argtypes = [*[pointer] * 4, ctypes.c_int]
    return anchor, roll


def covers(x: Tensor) -> bool:
    """Whether the library rolls a map of this shape and device."""
    return x.device.type == "cpu" and x.ndim == 4 and x.numel() > 0 and _functions() is not None


def covers_anchor(x: Tensor) -> bool:
    """Whether it finds the offsets of an anchor for this dtype too."""
    return x.dtype in _DTYPES and covers(x)


def _prepared(x: Tensor) -> tuple[Tensor, _Map, Tensor]:
    """`x` without gaps, its description for the library, and a tensor for the result."""
    channels_last = is_channels_last(x)
    layout = memory_format(channels_last)
    x = x.contiguous(memory_format=layout)
    result = torch.empty(x.shape, dtype=x.dtype, memory_format=layout)
    return x, _Map(*x.shape, channels_last, x.element_size()), result


class _Anchor(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, stride: Sequence[int], slack: float, break_ties: BreakTies) -> Any:
        run, _ = cast(tuple[Any, Any], _functions())
        x, problem, y = _prepared(x)
        offsets = torch.empty(x.shape[0], 2, dtype=torch.int64)
        ties = (ctypes.c_bool * len(x))()
        addresses = offsets.data_ptr(), ties, y.data_ptr()
        arguments = (x.data_ptr(), _DTYPES[x.dtype], _Pair(*stride), slack, *addresses, torch.get_num_threads())
        cpu.check(run(ctypes.byref(problem), *arguments))
        if any(ties):
            tied = torch.tensor(list(ties))
            offsets[tied] = break_ties(x[tied], stride)
            y[tied] = roll(x[tied], offsets[tied])
        ctx.mark_non_differentiable(offsets)
        ctx.offsets = offsets
        return y, offsets

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return roll(grads[0], -ctx.offsets), None, None, None


def anchored(x: Tensor, stride: Sequence[int], slack: float, break_ties: BreakTies) -> tuple[Tensor, Tensor]:
    """`dealias.ops.anchor.anchored`; `break_ties` gives the offsets of samples with several largest energies."""
    run: Any = _Anchor
    return cast(tuple[Tensor, Tensor], run.apply(x, stride, slack, break_ties))


class _Roll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, offsets: Tensor) -> Tensor:
        ctx.offsets = offsets
        _, run = cast(tuple[Any, Any], _functions())
        x, problem, y = _prepared(x)
        starts = offsets.remainder(torch.tensor(x.shape[2:]))
        addresses = x.data_ptr(), starts.data_ptr(), y.data_ptr()
        cpu.check(run(ctypes.byref(problem), *addresses, torch.get_num_threads()))
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return roll(grads[0], -ctx.offsets), None


def roll(x: Tensor, offsets: Tensor) -> Tensor:
    """`x` (N, C, H, W) rolled so that each sample's pixel at `offsets` (N, 2) comes first; any int64 numbers."""
    run: Any = _Roll
    return cast(Tensor, run.apply(x, offsets))
