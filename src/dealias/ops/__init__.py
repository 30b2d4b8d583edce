"""One function for all operations; it picks the backend for its input.

Callers (`dealias.functional`) hand over checked arguments and batched input. What a backend does not cover takes the
reference path; `use_backend("reference")`, or `DEALIAS_BACKEND=reference` in the environment, makes everything take it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from dealias.errors import InputError, shown
from dealias.filters import IDEAL
from dealias.ops import fused, reference
from dealias.ops.arguments import Blur, First, Ints, Pool
from dealias.ops.reference import match_layout

__all__ = ["backend_for", "backends", "blur_pool", "match_layout", "use_backend"]


_FIRST_CHOICE = os.environ.get("DEALIAS_BACKEND", "")


class _Choice(threading.local):
    """What the thread has chosen: "" takes the fused kernels wherever they run, "reference" never."""

    def __init__(self) -> None:
        # An attribute of the object: compiled code of PyTorch 2.11 does not notice when it hides one of the class.
        self.name = _FIRST_CHOICE


_choice = _Choice()
_covered: dict[tuple[object, ...], bool] = {}


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Within it this thread takes "reference", the pure PyTorch path, or "fused": the kernels that cover the arguments.

    It goes before `DEALIAS_BACKEND`. A gradient takes the path of its forward.

    >>> with use_backend("reference"):
    ...     backends()["cpu"]
    'the reference path is chosen'

    Raises:
        InputError: there is no such backend.
    """
    if name not in ("reference", "fused"):
        raise InputError(f"backend {shown(name)} is unknown: use 'reference' or 'fused'")
    before, _choice.name = _choice.name, "" if name == "fused" else name
    try:
        yield
    finally:
        _choice.name = before


def _covers(
    device_type: str, dtype: torch.dtype, lengths: Ints, stride: Ints, kernel_size: Ints | None, dilation: Ints | None
) -> bool:
    key = (device_type, dtype, lengths, stride, kernel_size, dilation)
    covered = _covered.get(key)
    if covered is None:
        usable = unavailable(device_type) is None
        covered = usable and fused.backend(device_type).covers(dtype, lengths, stride, kernel_size, dilation)
        _covered[key] = covered
    return covered


# What torch.compiler.assume_constant_result sets; calling that would import all of Dynamo with `import dealias`. It is
# also why the arguments are plain: values that are made while Dynamo traces reach such a function without their fields.
_covers.__dict__["_dynamo_marked_constant"] = True


def unavailable(device_type: str) -> str | None:
    """Why the fused kernels do not run on this type of device, or None if they do."""
    try:
        return fused.backend(device_type).unavailable()
    except ModuleNotFoundError as error:
        return f"{error.name} is not installed"


def _takes_reference() -> bool:
    name = _choice.name
    if name not in ("", "reference"):
        raise InputError(f"DEALIAS_BACKEND={name!r} is unknown: unset it, or set it to 'reference'")
    return name == "reference"


def backends() -> dict[str, str]:
    """What runs on each type of device: "active", or why the reference path is taken instead.

    >>> sorted(backends())
    ['cpu', 'cuda', 'reference']
    """
    chosen = "the reference path is chosen" if _takes_reference() else None
    status = {device: chosen or unavailable(device) or "active" for device in ("cpu", "cuda")}
    return {"reference": "active", **status}


def _needs_plain_operations() -> bool:
    """While exporting, the result must not need dealias; torch.func and forward gradients know PyTorch's own ops."""
    return (
        reference.is_exporting()
        or reference.is_traced()
        or torch.onnx.is_in_onnx_export()
        or torch.autograd.forward_ad._current_level >= 0
        or (not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is not None)
    )


def runs_native(x: Tensor) -> bool:
    """Whether a kernel may take `x`, as far as the choice of the user and what transforms PyTorch's operations go."""
    return not _takes_reference() and reference.is_plain(x) and unavailable(x.device.type) is None


def backend_for(x: Tensor, blur: Blur, first: First = None) -> str:
    """Which backend takes this input: "cpu", "cuda" or "reference".

    >>> backend_for(torch.zeros(1, 1, 8), Blur(((0.5, 0.5),), (2,), "reflect"))
    'reference'
    """
    return _backend_for(x, blur, first, reference.is_plain(x))


def _backend_for(x: Tensor, blur: Blur, first: First, plain: bool) -> str:
    """`backend_for`, with `reference.is_plain(x)` known as `plain`."""
    device = x.device.type
    if len(blur.stride) != 2 or device not in ("cpu", "cuda") or _takes_reference():
        return "reference"
    if IDEAL in blur.taps or (not plain and _needs_plain_operations()):
        return "reference"
    kernel_size, dilation = (first.kernel_size, first.dilation) if isinstance(first, Pool) else (None, None)
    vertical, horizontal = blur.taps
    lengths = len(vertical), len(horizontal)
    return device if _covers(device, x.dtype, lengths, blur.stride, kernel_size, dilation) else "reference"


def blur_pool(x: Tensor, blur: Blur, first: First = None) -> Tensor:
    """Compute what comes `first`, then `blur` it."""
    plain = reference.is_plain(x)
    if _backend_for(x, blur, first, plain) == "reference":
        return reference.blur_pool(x, blur, first)
    return fused.blur_pool(x, blur, first, plain)
