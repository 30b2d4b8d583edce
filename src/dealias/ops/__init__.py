"""One function for each operation; each picks the backend for its input.

Callers (`dealias.functional`) hand over checked arguments and batched input. Backends other than the
reference cover part of the arguments; whatever they do not cover takes the reference path.
`DEALIAS_BACKEND=reference` in the environment makes everything take it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor

from dealias.errors import InputError
from dealias.filters import Taps
from dealias.ops import fused, reference
from dealias.ops.reference import match_layout

__all__ = ["backend_for", "backends", "blur_pool", "match_layout", "max_blur_pool", "relu_blur_pool"]

FORCED = os.environ.get("DEALIAS_BACKEND", "")
"""The value of `DEALIAS_BACKEND` at import: empty, or "reference"."""

_covered: dict[tuple[object, ...], bool] = {}


def _covers(
    device_type: str,
    dtype: torch.dtype,
    taps: tuple[Taps, ...],
    stride: tuple[int, ...],
    kernel_size: tuple[int, ...] | None,
    dilation: tuple[int, ...] | None,
) -> bool:
    key = (device_type, dtype, taps, stride, kernel_size, dilation)
    covered = _covered.get(key)
    if covered is None:
        usable = unavailable(device_type) is None
        covered = usable and fused.backend(device_type).covers(dtype, taps, stride, kernel_size, dilation)
        _covered[key] = covered
    return covered


# What torch.compiler.assume_constant_result sets; calling that would import all of Dynamo with `import dealias`.
_covers.__dict__["_dynamo_marked_constant"] = True


def unavailable(device_type: str) -> str | None:
    """Why the fused kernels do not run on this type of device, or None if they do."""
    if FORCED:
        if FORCED != "reference":
            raise InputError(f"DEALIAS_BACKEND={FORCED!r} is unknown: unset it, or set it to 'reference'")
        return "DEALIAS_BACKEND=reference"
    try:
        return fused.backend(device_type).unavailable()
    except ModuleNotFoundError as error:
        return f"{error.name} is not installed"


def backends() -> dict[str, str]:
    """What runs on each type of device: "active", or why the reference path is taken instead.

    >>> sorted(backends())
    ['cpu', 'cuda', 'reference']
    """
    status = {device: unavailable(device) or "active" for device in ("cpu", "cuda")}
    return {"reference": "active", **status}


def _needs_plain_operations() -> bool:
    """While exporting, the result must not need dealias; torch.func and forward gradients know PyTorch's own ops."""
    return (
        torch.compiler.is_exporting()
        or torch._C._get_tracing_state() is not None
        or torch.onnx.is_in_onnx_export()
        or torch.autograd.forward_ad._current_level >= 0
        or (not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is not None)
    )


def backend_for(
    x: Tensor,
    taps: Sequence[Taps],
    stride: Sequence[int],
    kernel_size: Sequence[int] | None = None,
    dilation: Sequence[int] | None = None,
) -> str:
    """Which backend takes this input: "cpu", "cuda" or "reference". Give `kernel_size` and `dilation` of a maximum.

    >>> backend_for(torch.zeros(1, 1, 8), ((0.5, 0.5),), (2,))
    'reference'
    """
    device = x.device.type
    if len(stride) != 2 or device not in ("cpu", "cuda") or _needs_plain_operations():
        return "reference"
    pool = None if kernel_size is None else tuple(kernel_size)
    steps = None if dilation is None else tuple(dilation)
    return device if _covers(device, x.dtype, tuple(taps), tuple(stride), pool, steps) else "reference"


def blur_pool(x: Tensor, taps: Sequence[Taps], stride: Sequence[int], padding_mode: str) -> Tensor:
    """Correlate each axis of every channel with its `taps` and keep each `stride`-th sample from index 0."""
    if backend_for(x, taps, stride) == "reference":
        return reference.blur_pool(x, taps, stride, padding_mode)
    return fused.blur_pool2d(x, *taps, stride, padding_mode)


def relu_blur_pool(x: Tensor, taps: Sequence[Taps], stride: Sequence[int], padding_mode: str) -> Tensor:
    """ReLU then `blur_pool`."""
    if backend_for(x, taps, stride) == "reference":
        return reference.relu_blur_pool(x, taps, stride, padding_mode)
    return fused.relu_blur_pool2d(x, *taps, stride, padding_mode)


def max_blur_pool(
    x: Tensor,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    before: Sequence[int],
    after: Sequence[int],
    wrap: bool,
    taps: Sequence[Taps],
    stride: Sequence[int],
    padding_mode: str,
) -> Tensor:
    """The maximum at stride 1, padded by -inf (or wrapped around), then `blur_pool`."""
    maximum = (x, kernel_size, dilation, before, after, wrap)
    if backend_for(x, taps, stride, kernel_size, dilation) == "reference":
        return reference.max_blur_pool(*maximum, taps, stride, padding_mode)
    return fused.max_blur_pool2d(*maximum, *taps, stride, padding_mode)
