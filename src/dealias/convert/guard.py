"""See on every call of a converted model that each blur is still where it was placed.

Tools that people use afterwards replace layers, and with a layer may go a hook. Without this check the model would then
compute another function in silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dealias.convert.calls import CALLS
from dealias.convert.edits import (
    AnswerActivation,
    AnswerConv,
    AnswerPool,
    AnswerSlice,
    Blur,
    Edit,
    SetStride,
    blur_hook,
)
from dealias.errors import InputError

_ANSWERS = (AnswerActivation, AnswerConv, AnswerPool, AnswerSlice)


@dataclass(frozen=True)
class Placed:
    """What one conversion changed at the sites of one plan, by path.

    Args:
        hosts: path of a module with a blur, whether the blur stands in front of it.
        dense: path and stride of the convolutions and poolings that the blur belongs to.
        callers: paths of modules whose function calls are answered.
    """

    hosts: tuple[tuple[str, bool], ...]
    dense: tuple[tuple[str, tuple[int, ...]], ...]
    callers: tuple[str, ...]

    @classmethod
    def of(cls, edits: Sequence[Edit]) -> Placed:
        """What `edits` leave behind."""
        return cls(
            tuple((edit.path, edit.before) for edit in edits if isinstance(edit, Blur)),
            tuple((edit.path, edit.stride) for edit in edits if isinstance(edit, SetStride)),
            tuple(edit.path for edit in edits if isinstance(edit, _ANSWERS)),
        )

    def problem(self, model: nn.Module) -> str | None:
        """What is wrong in `model`, if anything is. A block that is gone as a whole is not."""
        for path in self.callers:
            module = _find(model, path)
            if module is not None and CALLS not in module._modules:
                return f"`{path}` was replaced"
        hosts = [(path, before, _find(model, path)) for path, before in self.hosts]
        layers = [(path, stride, _find(model, path)) for path, stride in self.dense]
        lost = next(
            (path for path, before, host in hosts if not _blurs(host, before) and not _moved(model, path)), None
        )
        if lost is not None and any(layer is not None for _, _, layer in layers):
            return f"`{lost}`, which had a blur, was replaced"
        if lost is None and hosts:
            for path, stride, layer in layers:
                if layer is None and _strided_within(model, path):
                    return f"`{path}`, whose stride the blur stands for, was replaced by a layer that has a stride"
                if layer is not None and _jumps(layer, stride):
                    return f"`{path}` has the stride {_stride(layer)} again, which a blur stands for"
        return None


class PlacementGuard:
    """A forward pre-hook of a converted model that raises an error where a blur was lost."""

    def __init__(self, placed: Sequence[Placed]) -> None:
        self.placed = list(placed)

    def __call__(self, module: nn.Module, args: Any) -> None:
        """Check `module`, the converted model."""
        if torch.compiler.is_compiling():
            return
        for one in self.placed:
            problem = one.problem(module)
            if problem is not None:
                raise InputError(
                    f"the model is no longer as antialias() left it: {problem}. Use the tool that replaced it (fusion, "
                    "reparameterisation, LoRA, quantisation) first and antialias() last, or leave this layer out"
                )


def watch_over(model: nn.Module, edits: Sequence[Sequence[Edit]]) -> None:
    """Let `model` check on every call that what the edits placed is still there."""
    placed = [Placed.of(some) for some in edits]
    guard = next((hook for hook in model._forward_pre_hooks.values() if isinstance(hook, PlacementGuard)), None)
    if guard is not None:  # converted before
        guard.placed += placed
        return
    model.__dict__["antialias_guard"] = model.register_forward_pre_hook(PlacementGuard(placed), prepend=True)


def _find(model: nn.Module, path: str) -> nn.Module | None:
    module: nn.Module | None = model
    for name in path.split(".") if path else ():
        module = None if module is None else module._modules.get(name)
    return module


def _blurs(host: nn.Module | None, before: bool) -> bool:
    if isinstance(host, nn.Sequential) and not before:
        return any(name.startswith("antialias_") for name in host._modules) or blur_hook(host, before) is not None
    return host is not None and blur_hook(host, before) is not None


def _moved(model: nn.Module, path: str) -> bool:
    """Whether PyTorch moved the blur of `path` to a module that it fused the host into."""
    hooks = (hook for module in model.modules() for before in (True, False) if (hook := blur_hook(module, before)))
    return any(hook.path == path for hook in hooks)


def _stride(layer: nn.Module) -> Any:
    return getattr(layer, "stride", None)


def _jumps(layer: nn.Module, stride: tuple[int, ...]) -> bool:
    found = _stride(layer)
    steps = (found,) if isinstance(found, int) else found
    return isinstance(steps, tuple) and all(isinstance(one, int) for one in steps) and max(steps) > max(stride)


def _strided_within(model: nn.Module, path: str) -> bool:
    """Whether a convolution with a stride stands in the innermost block that is left of `path`."""
    block: nn.Module | None = None
    while block is None:
        path = path.rpartition(".")[0]
        block = _find(model, path)
    return any(_jumps(module, (1,)) for module in block.modules() if hasattr(module, "weight"))
