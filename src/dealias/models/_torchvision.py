"""torchvision where its compiled operators do not load, as its CUDA wheel beside a CPU build of PyTorch."""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib import import_module
from types import ModuleType
from typing import Any

import torch

from dealias.errors import MissingExtraError, require

# Kept alive: a Library takes its definitions back when it is collected.
_fragments: list[Any] = []


def import_torchvision() -> ModuleType:
    """`import torchvision`, also where its compiled operators are missing.

    timm, and torchmetrics wherever torchvision is installed, import torchvision too: call this before them. A healthy
    torchvision is imported as it is. Without its compiled operators, models, transforms and ImageFolder work;
    `read_image` and `torchvision.ops` do not.

    Raises:
        MissingExtraError: torchvision is not installed.
    """
    try:
        return require("torchvision", "zoo")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    if not _fragments:
        library: Any = torch.library  # untyped
        fragment = library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            fragment.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _fragments.append(fragment)
    return import_module("torchvision")


def import_beside_torchvision(module: str, extra: str) -> ModuleType:
    """Import `module`, which itself imports torchvision if that is installed; see `import_torchvision`.

    Raises:
        MissingExtraError: `module` is not installed; the message names the `extra` that brings it.
    """
    with suppress(MissingExtraError):  # `module` says itself whether it can do without
        import_torchvision()
    return require(module, extra)
