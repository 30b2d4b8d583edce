"""Segmentation: how consistent the classes of pixels are between two shifts of an image.

>>> metric = SegmentationConsistency()
>>> a = torch.tensor([[[0, 0, 1, 1], [0, 0, 1, 1]]])
>>> b = torch.tensor([[[0, 0, 0, 1], [0, 0, 0, 0]]])
>>> metric.update(a, b, shift=(0, 1))
>>> {name: round(value.item(), 3) for name, value in metric.compute().items()}
{'pixels': 0.833, 'iou': 0.65}
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from dealias.errors import InputTypeError
from dealias.metrics._overlap import Shift, as_shifts, check_same_shape, shared_parts
from dealias.metrics._rows import Ratio, RatioMetric
from dealias.metrics.predictions import top1


class SegmentationConsistency(RatioMetric):
    """How well the class maps of two shifts of an image agree, once the shift is undone, where both views overlap.

    `compute` returns float32 scalars:
        pixels: share of the pixels with the same class (mASSC).
        iou: the IoU of one map against the other, the mean over the classes that occur in either, and over the pairs.

    A pixel with NaN among its class scores has no class and agrees with none; `counts` tells how many there are.

    Raises:
        InputError: as `update`; or `compute`, `intervals` or `counts` is called before any `update`.

    Source: mASSC is that of Rojas-Gomez et al., Learnable Polyphase Sampling for Shift Invariant and Equivariant
    Convolutional Networks, NeurIPS 2022.
    """

    higher_is_better = True
    plot_upper_bound = 1.0
    columns = ("pairs", "pixels", "equal", "iou", "classified", "invalid")
    ratios: ClassVar = {
        "pixels": Ratio("equal", "pixels", is_share=True),
        "iou": Ratio("iou", "classified", largest=1.0),
    }
    counted = ("pairs", "invalid")

    def update(self, a: Tensor, b: Tensor, shift: Shift, image: Any = None) -> None:
        """Add pairs of views.

        Args:
            a, b: class scores, float (N, C, H, W), or classes, integer or bool (N, H, W), as large as the views.
            shift, image: as for `DetectionConsistency.update`. A fraction is undone in the class scores of `b`, which
                are interpolated (`dealias.perturb.pans`, Lanczos), five pixels beside the border left out; classes
                take whole pixels.

        Raises:
            InputError: another shape, or the views have nothing in common.
            InputTypeError: an argument is of the wrong type.
        """
        check_same_shape(a, b, "class scores (N, C, H, W) or classes (N, H, W)", (3, 4))
        rows = []
        for pair in zip(a, b, as_shifts(shift, len(a)), strict=True):
            one, other = shared_parts(*pair)
            rows.append(_row(class_map("a", one[None])[0], class_map("b", other[None])[0]))
        self._add(rows, image)


def segmentation_consistency(a: Tensor, b: Tensor, shift: Shift) -> dict[str, Tensor]:
    """The values of `SegmentationConsistency` for pairs of views; arguments and errors as for its `update`."""
    metric = SegmentationConsistency()
    metric.update(a, b, shift)
    return metric.compute()


def class_map(name: str, scores: Tensor) -> Tensor:
    """The classes (N, H, W) of class scores (N, C, H, W), or classes as they are; -1 where a score is NaN.

    Raises:
        InputTypeError: scores are not float, or classes not integer.
    """
    if scores.is_complex() or scores.is_floating_point() != (scores.ndim == 4):
        raise InputTypeError(
            f"{name} is {scores.dtype} of shape {tuple(scores.shape)}: use float class scores (N, C, H, W) "
            "or integer classes (N, H, W)"
        )
    return top1(scores.movedim(1, -1)) if scores.ndim == 4 else scores.long()


def _row(a: Tensor, b: Tensor) -> list[float]:
    """The row of two maps (h, w) that show the same."""
    equal = (a == b) & (a >= 0)
    classes = a[a >= 0].unique().tolist(), b[b >= 0].unique().tolist()
    ious = []
    for each in sorted({*classes[0], *classes[1]}):
        shared = int((equal & (a == each)).sum())
        ious.append(shared / (int((a == each).sum()) + int((b == each).sum()) - shared))
    invalid = int((a < 0).sum()) + int((b < 0).sum())
    return [1, a.numel(), int(equal.sum()), sum(ious) / len(ious) if ious else 0.0, bool(ious), invalid]
