"""Key points: how far they jump between two shifts of an image.

>>> metric = KeypointConsistency()
>>> a = torch.tensor([[[10.0, 20.0], [30.0, 40.0]]])
>>> metric.update(a, a + torch.tensor([5.0, 1.0]), shift=(1, 2))
>>> {name: round(value.item(), 3) for name, value in metric.compute().items() if not value.isnan()}
{'mean': 3.0, 'p95': 3.0, 'largest': 3.0}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from dealias.errors import InputError, InputTypeError
from dealias.metrics._overlap import Shift, as_shifts, as_size, check_same_shape, overlap
from dealias.metrics._rows import Ratio, ValueMetric
from dealias.metrics.boxes import lengths


class KeypointConsistency(ValueMetric):
    """How far key points of two shifts of an image are from one another, once the shift is undone.

    `compute` returns float32 scalars, NaN where there is nothing to compare: `mean`, `p95` (the 95th percentile, linear
    between the values) and `largest`, in pixels; and `mean_relative`, `p95_relative` and `largest_relative`, divided by
    the diagonal of the box around the points where boxes are given.

    A point that is NaN in one view is lost there: it has no distance, and `counts` tells how many points are lost.

    Raises:
        InputError: as `update`; or `compute`, `intervals` or `counts` is called before any `update`.
    """

    higher_is_better = False
    columns = ("pairs", "points", "distance", "sized", "relative", "lost", "outside")
    ratios: ClassVar = {"mean": Ratio("distance", "points"), "mean_relative": Ratio("relative", "sized")}
    counted = ("pairs", "points", "lost", "outside")
    values: ClassVar = ("", "_relative")

    def update(
        self,
        a: Tensor,
        b: Tensor,
        shift: Shift,
        boxes: Tensor | None = None,
        size: Sequence[int] | None = None,
        image: Any = None,
    ) -> None:
        """Add pairs of views.

        Args:
            a, b: points, float (N, K, 2): x, y in pixels; NaN where a point is not found.
            shift, image: as for `DetectionConsistency.update`.
            boxes: (N, 4) x1, y1, x2, y2: the box around the points of each row, in either view.
            size: (height, width) of the views: points outside what both views show are left out, and counted.

        Raises:
            InputError: another shape, or the views have nothing in common.
            InputTypeError: an argument is of the wrong type.
        """
        check_same_shape(a, b, "points (N, K, 2)", (3,))
        if a.shape[2] != 2:
            raise InputError(f"a and b of shape {tuple(a.shape)}: use points (N, K, 2)")
        first = a.detach().double().cpu()
        shifts = torch.tensor(as_shifts(shift, len(a)), dtype=torch.float64)
        second = b.detach().double().cpu() - shifts.flip(1)[:, None]
        found = first.isfinite().all(2) & second.isfinite().all(2)
        lost = first.isfinite().all(2) ^ second.isfinite().all(2)
        inside = torch.ones_like(found)
        if size is not None:
            regions = torch.tensor([overlap((dy, dx), as_size(size)) for dy, dx in shifts.tolist()]).double()
            low, high = regions[:, None, [1, 0]], regions[:, None, [3, 2]]
            # a point that only one view finds is judged by its place there
            inside = ~(((first < low) | (first >= high)).any(2) | ((second < low) | (second >= high)).any(2))
        distances = lengths(first - second)
        relative = distances / _diagonals(boxes, len(a))[:, None]
        rows = []
        for pair in range(len(a)):
            chosen = found[pair] & inside[pair]
            one, other = distances[pair, chosen], relative[pair, chosen & relative[pair].isfinite()]
            left_out = [int((lost[pair] & inside[pair]).sum()), int(((found[pair] | lost[pair]) & ~inside[pair]).sum())]
            rows.append([1, len(one), float(one.sum()), len(other), float(other.sum()), *left_out])
        self._add(rows, image)
        chosen = found & inside
        self._add_values(torch.stack([distances[chosen], relative[chosen]], 1))


def keypoint_consistency(a: Tensor, b: Tensor, shift: Shift, boxes: Tensor | None = None) -> dict[str, Tensor]:
    """The values of `KeypointConsistency` for pairs of views; arguments and errors as for its `update`."""
    metric = KeypointConsistency()
    metric.update(a, b, shift, boxes)
    return metric.compute()


def _diagonals(boxes: Any, count: int) -> Tensor:
    """The diagonals (N,) of the boxes; NaN where there are none, or for a box without extent."""
    if boxes is None:
        return torch.full((count,), torch.nan, dtype=torch.float64)
    if not isinstance(boxes, Tensor):
        raise InputTypeError(f"boxes must be a torch.Tensor (N, 4), got {type(boxes).__name__}")
    if boxes.shape != (count, 4):
        raise InputError(f"boxes of shape {tuple(boxes.shape)}: use ({count}, 4), one for each row of points")
    sides = (boxes[:, 2:] - boxes[:, :2]).detach().double().cpu()
    diagonals = lengths(sides)
    return diagonals.masked_fill((sides < 0).any(1) | (diagonals == 0), torch.nan)
