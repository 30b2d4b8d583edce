"""torchvision's compiled operators in plain PyTorch, for where they do not load: detectors then work.

Call `import_torchvision()` before anything else imports torchvision.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from dealias import optional

_kept: list[Any] = []  # a Library takes its definitions back when it is collected


def import_torchvision() -> ModuleType:
    """`import torchvision`, with an `nms` and a `roi_align` that work."""
    torchvision = optional.import_torchvision()
    if _kept or torchvision.extension._has_ops():
        return torchvision
    align: Any = sys.modules["torchvision.ops.roi_align"]  # the function of this name hides it
    library: Any = torch.library
    fragment = library.Library("torchvision", "FRAGMENT")
    fragment.define(
        "roi_align(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width, "
        "int sampling_ratio, bool aligned) -> Tensor"
    )
    fragment.impl("nms", suppress, "CPU")
    fragment.impl("roi_align", align._roi_align.__wrapped__, "CPU")  # which torchvision compiles, for half a minute
    _kept.append(fragment)
    for module in (torchvision.extension, sys.modules["torchvision.ops.boxes"], align):
        module._has_ops = lambda: True
        module._assert_has_ops = lambda: None
    return torchvision


def suppress(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Non-maximum suppression: the boxes (N, 4) that stay, by falling score, as int64 (K,)."""
    order = scores.argsort(descending=True, stable=True)
    corners = boxes[order]
    areas = (corners[:, 2:] - corners[:, :2]).prod(1)
    alive = torch.ones(len(order), dtype=torch.bool)
    for index in range(len(order)):
        if not alive[index]:
            continue
        low = torch.maximum(corners[index, :2], corners[index + 1 :, :2])
        high = torch.minimum(corners[index, 2:], corners[index + 1 :, 2:])
        shared = (high - low).clamp(min=0).prod(1)
        alive[index + 1 :] &= shared <= iou_threshold * (areas[index] + areas[index + 1 :] - shared)
    return order[alive]
