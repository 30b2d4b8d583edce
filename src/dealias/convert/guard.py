"""See on every call of a converted model that each blur is still where it was placed.

Tools that people use afterwards replace layers, and with a layer may go a hook. Without this check the model would then
compute another function in silence.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dealias.convert.calls import CALLS
from dealias.convert.edits import (
    AnswerActivation,
    AnswerCalls,
    Blur,
    Edit,
    KeepStride,
    ReplacePool,
    SetStride,
    blur_hook,
)
from dealias.convert.layers import CONVERTED, Converted
from dealias.errors import InputError


@dataclass(frozen=True)
class Placed:
    """What one conversion changed at the sites of one plan, by path.

    Args:
        hosts: path of a module with a blur, whether the blur stands in front of it.
        dense: path and stride of the convolutions and poolings that the blur belongs to.
        converted: paths of layers in their anti-aliased form, or that convolve at another stride than their attribute.
        callers: path and class of the modules whose function calls are answered.
    """

    hosts: tuple[tuple[str, bool], ...]
    dense: tuple[tuple[str, tuple[int, ...]], ...]
    converted: tuple[str, ...]
    callers: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, edits: Sequence[Edit], model: nn.Module) -> Placed:
        """What `edits` left behind in `model`."""
        return cls(
            tuple((edit.path, edit.before) for edit in edits if isinstance(edit, Blur)),
            tuple((edit.path, edit.stride) for edit in edits if isinstance(edit, SetStride)),
            tuple(edit.path for edit in edits if isinstance(edit, KeepStride | ReplacePool)),
            tuple(
                (edit.path, type(model.get_submodule(edit.path)).__qualname__)
                for edit in edits
                if isinstance(edit, AnswerActivation | AnswerCalls)
            ),
        )

    def problem(self, model: nn.Module, aliased: Container[str]) -> str | None:
        """What is wrong in `model`, if anything. A block that was removed entirely is no problem.

        `aliased` are the paths of the layers that had a stride without a blur when the conversion was done.
        """
        for path, name in self.callers:
            module = find_module(model, path)
            if module is None or CALLS in module._modules:
                continue
            if type(module).__qualname__ == name or any(map(_is_aliased, module.modules())):
                return f"`{path}` was replaced"
        for path in self.converted:
            if isinstance(find_module(model, path), tuple(CONVERTED)) and not isinstance(
                find_module(model, path), Converted
            ):
                return f"`{path}` was replaced"
        return self._lost_blur(model) or self._lost_stride(model, aliased)

    def _lost_blur(self, model: nn.Module) -> str | None:
        left = any(find_module(model, path) is not None for path, _ in self.dense)
        for path, before in self.hosts:
            host = find_module(model, path)
            if not _blurs(host, before) and left and not (isinstance(host, nn.Identity) and _moved(model, path)):
                return f"`{path}`, which had a blur, was replaced"
        return None

    def _lost_stride(self, model: nn.Module, aliased: Container[str]) -> str | None:
        for path, stride in self.dense:
            layer = find_module(model, path)
            if layer is not None and _jumps(layer, stride):
                return f"`{path}` has the stride {layer.stride} again, which a blur stands for"
            if layer is None and (other := _new_stride(model, path, aliased)) is not None:
                return f"`{path}`, whose stride a blur stands for, was replaced by `{other}`, which has a stride"
        return None


class PlacementGuard:
    """A forward pre-hook of a converted model that raises an error where a blur was lost."""

    def __init__(self, placed: Sequence[Placed], aliased: Iterable[str]) -> None:
        self.placed, self.aliased = list(placed), set(aliased)

    def __call__(self, module: nn.Module, args: Any) -> None:
        """Check `module`, the converted model."""
        if torch.compiler.is_compiling():
            return
        for one in self.placed:
            problem = one.problem(module, self.aliased)
            if problem is not None:
                raise InputError(
                    f"the model is no longer as antialias() left it: {problem}. Use the tool that replaced it (fusion, "
                    "reparameterisation, LoRA, quantisation) first and antialias() last, or leave this layer out"
                )


def watch_over(model: nn.Module, edits: Sequence[Sequence[Edit]]) -> None:
    """Let `model` check on every call that what the edits placed is still there."""
    placed = [Placed.of(some, model) for some in edits]
    aliased = {path for path, module in model.named_modules() if _is_aliased(module)}
    guard = next((hook for hook in model._forward_pre_hooks.values() if isinstance(hook, PlacementGuard)), None)
    if guard is not None:  # converted before
        guard.placed += placed
        guard.aliased = aliased
        return
    model.__dict__["antialias_guard"] = model.register_forward_pre_hook(PlacementGuard(placed, aliased), prepend=True)


def find_module(model: nn.Module, path: str) -> nn.Module | None:
    """The module at `path`, if there is one."""
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


def _jumps(layer: nn.Module, stride: tuple[int, ...]) -> bool:
    """Whether `layer` has a larger stride than `stride`."""
    own = getattr(layer, "stride", None)
    steps = (own,) if isinstance(own, int) else own
    return isinstance(steps, tuple) and all(isinstance(one, int) for one in steps) and max(steps) > max(stride)


def _is_aliased(module: nn.Module) -> bool:
    """Whether a layer has a stride and no blur of its own."""
    return isinstance(module, tuple(CONVERTED)) and not isinstance(module, Converted) and _jumps(module, (1,))


def _new_stride(model: nn.Module, path: str, aliased: Container[str]) -> str | None:
    """The path of a layer with a stride that stands where `path` was, in the innermost block that is left of it."""
    while find_module(model, path) is None:
        path = path.rpartition(".")[0]
    block = model.get_submodule(path)
    names = (f"{path}.{name}".strip(".") for name, module in block.named_modules() if _is_aliased(module))
    return next((name for name in names if name not in aliased), None)
