"""See on every call of a converted model that each blur is still where it was placed.

Tools that people use afterwards replace layers, and with a layer may go a hook: the model would change in silence.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

import torch
from torch import nn

from dealias.convert.anchor_layers import Anchor, Undo
from dealias.convert.calls import CALLS
from dealias.convert.edits import (
    AnswerCalls,
    AtActivation,
    Blur,
    DoubleRate,
    Edit,
    KeepStride,
    ReplacePool,
    SetStride,
    blur_hook,
)
from dealias.convert.layers import CONVERTED, Converted
from dealias.errors import InputError


class PlacementGuard:
    """A forward pre-hook of a converted model that raises an error where a blur or an anchor was lost.

    A block that was removed entirely is no problem.
    """

    def __init__(self) -> None:
        self.plans: list[Sequence[Edit]] = []
        self.anchors: list[tuple[str, str]] = []  # path and side of their hosts
        self.callers: dict[str, str] = {}  # the classes of modules whose function calls are answered
        self.aliased: set[str] = set()  # layers that had a stride without a blur when the conversion was done

    def __call__(self, module: nn.Module, args: Any) -> None:
        """Check `module`, the converted model."""
        if torch.compiler.is_compiling():
            return
        problems = (*(self._problem(module, edits) for edits in self.plans), self._lost_anchor(module))
        if problem := next(filter(None, problems), None):
            raise InputError(
                f"the model is no longer as antialias() left it: {problem}. Use the tool that replaced it (fusion, "
                "reparameterisation, LoRA, quantisation) first and antialias() last, or leave this layer out"
            )

    def _problem(self, model: nn.Module, edits: Sequence[Edit]) -> str | None:
        for edit in edits:
            module = find_module(model, edit.path)
            if isinstance(edit, KeepStride | ReplacePool) and _is_unconverted(module):
                return f"`{edit.path}` was replaced"
            if isinstance(edit, DoubleRate) and module is not None and not _hosts(module, edit.path):
                return f"`{edit.path}`, which was evaluated at twice the rate, was replaced"
            answers = isinstance(edit, AtActivation | AnswerCalls)
            if answers and module is not None and CALLS not in module._modules:
                same_class = type(module).__qualname__ == self.callers[edit.path]
                if same_class or any(map(_is_aliased, module.modules())):
                    return f"`{edit.path}` was replaced"
        return self._lost_blur(model, edits) or self._lost_stride(model, edits)

    def _lost_blur(self, model: nn.Module, edits: Sequence[Edit]) -> str | None:
        left = any(find_module(model, edit.path) is not None for edit in edits if isinstance(edit, SetStride))
        for edit in edits if left else ():
            host = find_module(model, edit.path)
            moved = isinstance(host, nn.Identity) and _moved(model, edit.path)
            if isinstance(edit, Blur) and not moved and not _blurs(host, edit.before):
                return f"`{edit.path}`, which had a blur, was replaced"
        return None

    def _lost_stride(self, model: nn.Module, edits: Sequence[Edit]) -> str | None:
        for edit in edits:
            if not isinstance(edit, SetStride):
                continue
            layer = find_module(model, edit.path)
            if layer is not None and _jumps(layer, edit.stride):
                return f"`{edit.path}` has the stride {layer.stride} again, which a blur stands for"
            if layer is None and (other := _new_stride(model, edit.path, self.aliased)) is not None:
                return f"`{edit.path}`, whose stride a blur stands for, was replaced by `{other}`, which has a stride"
        return None

    def _lost_anchor(self, model: nn.Module) -> str | None:
        for path, side in self.anchors:
            host = find_module(model, path)
            if host is None:
                continue
            if side == "calls":
                layers = list(getattr(host, CALLS, ()))
            else:
                layers = hook.blurs if (hook := blur_hook(host, side == "before")) else []
            if not any(isinstance(one, Anchor | Undo) for layer in layers for one in layer.modules()):
                return f"`{path}`, which had an anchor, was replaced"
        return None


def watch_over(model: nn.Module, plans: Sequence[Sequence[Edit]] = (), anchors: Sequence[tuple[str, str]] = ()) -> None:
    """Let `model` check on every call that what the edits of `plans` placed, and `anchors`, are still there."""
    guard = next((hook for hook in model._forward_pre_hooks.values() if isinstance(hook, PlacementGuard)), None)
    if guard is None:
        guard = PlacementGuard()
        model.__dict__["antialias_guard"] = model.register_forward_pre_hook(guard, prepend=True)
    guard.plans += plans
    guard.anchors += anchors
    paths = {edit.path for edits in plans for edit in edits if isinstance(edit, AtActivation | AnswerCalls)}
    guard.callers |= {path: type(model.get_submodule(path)).__qualname__ for path in paths}
    guard.aliased = {path for path, module in model.named_modules() if _is_aliased(module)}


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


def _hosts(module: nn.Module, path: str) -> bool:
    """Whether what was hung in front of `module` and behind it, at `path`, still hangs there."""
    hooks = [blur_hook(module, before) for before in (True, False)]
    return all(hook is not None and hook.path == path for hook in hooks)


def _moved(model: nn.Module, path: str) -> bool:
    """Whether PyTorch moved the blur of `path` to a module that it fused the host into."""
    hooks = (hook for module in model.modules() for before in (True, False) if (hook := blur_hook(module, before)))
    return any(hook.path == path for hook in hooks)


def _jumps(layer: nn.Module, stride: tuple[int, ...]) -> bool:
    """Whether `layer` has a larger stride than `stride`."""
    own = getattr(layer, "stride", None)
    steps = (own,) if isinstance(own, int) else own
    return isinstance(steps, tuple) and all(isinstance(one, int) for one in steps) and max(steps) > max(stride)


def _is_unconverted(module: nn.Module | None) -> bool:
    return isinstance(module, tuple(CONVERTED)) and not isinstance(module, Converted)


def _is_aliased(module: nn.Module) -> bool:
    """Whether a layer has a stride and no blur of its own."""
    return _is_unconverted(module) and _jumps(module, (1,))


def _new_stride(model: nn.Module, path: str, aliased: Container[str]) -> str | None:
    """The path of a layer with a stride that stands where `path` was, in the innermost block that is left of it."""
    while find_module(model, path) is None:
        path = path.rpartition(".")[0]
    block = model.get_submodule(path)
    names = (f"{path}.{name}".strip(".") for name, module in block.named_modules() if _is_aliased(module))
    return next((name for name in names if name not in aliased), None)
