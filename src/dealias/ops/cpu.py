"""The fused operations on the CPU: a compiled library without a link to libtorch, loaded through ctypes.

The library (`csrc/`) picks the best instruction set of the machine when it runs, or the one that `DEALIAS_ISA` in the
environment names. It reads the input once; results do not depend on the number of threads, bit for bit.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dealias import ops
from dealias.errors import InputError
from dealias.ops.arguments import PADDING_MODES, Blur, First, Ints, dense_size, pool_of
from dealias.ops.fused import is_channels_last, memory_format

INSTRUCTION_SETS = ("portable", "avx2", "avx512")
WANTED = os.environ.get("DEALIAS_ISA", "")
"""The value of `DEALIAS_ISA` at import: empty for the best instruction set of the machine, or one of them."""
_LIBRARY = "dealias_cpu.so"
_BLUR, _RELU, _MAX = 0, 1, 2
_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_MAX_TAPS, _MAX_KERNEL = 64, 3
_MAX_STEP = 2**30 - 1  # of a stride or a dilation: what a window spans must fit the library's 32-bit numbers
_OUT_OF_MEMORY = 2

_Pair = ctypes.c_int32 * 2
_DOUBLES = ctypes.POINTER(ctypes.c_double)


class _Problem(ctypes.Structure):
    """`dealias_problem` of csrc/dealias.h."""

    _fields_ = (
        ("batch", ctypes.c_int64),
        ("channels", ctypes.c_int64),
        ("height", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("op", ctypes.c_int32),
        ("dtype", ctypes.c_int32),
        ("channels_last", ctypes.c_int32),
        ("padding_mode", ctypes.c_int32),
        ("kernel", _Pair),
        ("dilation", _Pair),
        ("before", _Pair),
        ("after", _Pair),
        ("wrap", ctypes.c_int32),
        ("stride", _Pair),
        ("taps", _Pair),
        ("filter", _DOUBLES * 2),
    )


def _load() -> tuple[Any, str | None]:
    for folder in ops.__path__:  # an editable install has two: the source tree and where the build installs
        path = Path(folder) / _LIBRARY
        if path.is_file():
            try:
                return ctypes.CDLL(str(path)), None
            except OSError as error:
                return None, f"{path.name} does not load: {error}"
    return None, "the native library was not built: install dealias where CMake finds a C++ compiler"


_library, _reason = _load()
if _library is not None:
    _forward, _backward = _library.dealias_forward, _library.dealias_backward
    _forward.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_int]
    _backward.argtypes = [ctypes.c_void_p] * 4 + [ctypes.c_int]


def library() -> Any:
    """The loaded library; None where there is none."""
    return _library


def unavailable() -> str | None:
    """Why nothing can run here, or None if it can.

    Raises:
        InputError: `DEALIAS_ISA` names an instruction set that this machine or this build does not have.
    """
    available = INSTRUCTION_SETS if _library is None else instruction_sets()
    if WANTED and WANTED not in available:
        raise InputError(f"DEALIAS_ISA={WANTED!r} is not available: unset it, or use one of {', '.join(available)}")
    return _reason


def covers(dtype: torch.dtype, lengths: Ints, stride: Ints, kernel_size: Ints | None, dilation: Ints | None) -> bool:
    """Whether the kernels take these arguments: float32, bfloat16 and float16, up to 64 taps, maxima up to 3 x 3."""
    if dtype not in _DTYPES or max(lengths) > _MAX_TAPS or max(*stride, *(dilation or ())) > _MAX_STEP:
        return False
    return kernel_size is None or max(kernel_size) <= _MAX_KERNEL


def instruction_set() -> str:
    """The instruction set in use: "portable", "avx2" or "avx512"."""
    return INSTRUCTION_SETS[_library.dealias_isa()]


def instruction_sets() -> tuple[str, ...]:
    """The instruction sets that this machine and this build have, the best last."""
    return INSTRUCTION_SETS[: _library.dealias_best_isa() + 1]


if _library is not None and WANTED in instruction_sets():
    _library.dealias_set_isa(INSTRUCTION_SETS.index(WANTED))


@contextmanager
def use_instruction_set(name: str) -> Iterator[None]:
    """Run with another instruction set, in all threads: for tests and benchmarks.

    Raises:
        InputError: this machine or this build does not have it.
    """
    if name not in instruction_sets():
        raise InputError(f"instruction set {name!r} is not available: use one of {', '.join(instruction_sets())}")
    previous: int = _library.dealias_isa()
    _library.dealias_set_isa(INSTRUCTION_SETS.index(name))
    try:
        yield
    finally:
        _library.dealias_set_isa(previous)


class _Call:
    """One problem, ready to run on any tensors of its shape and layout."""

    __slots__ = ("_filters", "_problem", "address", "layout", "out_size", "size")

    def __init__(
        self, blur: Blur, first: First, dtype: torch.dtype, size: tuple[int, ...], channels_last: bool
    ) -> None:
        self._filters = [(ctypes.c_double * len(line))(*line) for line in blur.taps]
        pool = pool_of(first)
        self._problem = _Problem(
            *size,
            _MAX if first is pool else _RELU if first else _BLUR,
            _DTYPES[dtype],
            channels_last,
            PADDING_MODES.index(blur.padding_mode),
            _Pair(*pool.kernel_size),
            _Pair(*pool.dilation),
            _Pair(*pool.before),
            _Pair(*pool.after),
            pool.wrap,
            _Pair(*blur.stride),
            _Pair(*map(len, blur.taps)),
            (_DOUBLES * 2)(*(ctypes.cast(line, _DOUBLES) for line in self._filters)),
        )
        self.address = ctypes.addressof(self._problem)
        self.layout = memory_format(channels_last)
        self.size = size
        self.out_size = (*size[:2], *blur.output_size(dense_size(size[2:], first)))


_call = lru_cache(maxsize=512)(_Call)


def check(status: int) -> None:
    """Raise an error where the library returned one."""
    if status == _OUT_OF_MEMORY:
        raise MemoryError("the native kernels found no memory for their scratch rows")
    if status:
        raise RuntimeError(f"the native kernels refused their arguments (status {status})")


def forward(x: Tensor, blur: Blur, first: First) -> Tensor:
    """See `fused.Backend`."""
    channels_last = is_channels_last(x)
    x = x.contiguous(memory_format=memory_format(channels_last))
    call = _call(blur, first, x.dtype, x.shape, channels_last)
    y = torch.empty(call.out_size, dtype=x.dtype, device=x.device, memory_format=call.layout)
    check(_forward(call.address, x.data_ptr(), y.data_ptr(), torch.get_num_threads()))
    return y


def backward(
    grad: Tensor, x: Tensor | None, blur: Blur, first: First, size: tuple[int, ...], channels_last: bool
) -> Tensor:
    """See `fused.Backend`."""
    call = _call(blur, first, grad.dtype, size, channels_last)
    grad = grad.contiguous(memory_format=call.layout)
    x = None if x is None else x.contiguous(memory_format=call.layout)
    result = torch.empty(call.size, dtype=grad.dtype, device=grad.device, memory_format=call.layout)
    address = None if x is None else x.data_ptr()
    check(_backward(call.address, address, grad.data_ptr(), result.data_ptr(), torch.get_num_threads()))
    return result
