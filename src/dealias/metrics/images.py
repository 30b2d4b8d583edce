"""Networks that return images: how equivariant they are to shifts, as a signal-to-noise ratio.

>>> metric = EquivariancePSNR(data_range=1.0)
>>> a = torch.zeros(1, 1, 4, 4)
>>> metric.update(a, a + 0.1, shift=(1, 0))
>>> round(metric.compute().item(), 3)
20.0
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from dealias.errors import InputError, check_kind, shown
from dealias.metrics._overlap import Shift, as_shifts, check_finite, check_same_shape, shared_parts
from dealias.metrics._rows import Ratio, RowMetric


class EquivariancePSNR(RowMetric):
    """The peak signal-to-noise ratio, in dB, between the outputs for two shifts of an image, once the shift is undone.

    20 log10(range) - 10 log10(mean squared error), where the error is the mean over all samples, channels and pixels
    that both views show; infinite for an exactly equivariant network. `compute` returns a float32 scalar.

    Args:
        data_range: the largest value less the smallest: 2 for images from -1 to 1.

    Raises:
        InputError: `data_range` is not positive, as `update`, or `compute` is called before any `update`.

    Source: EQ-T of Karras et al., Alias-Free Generative Adversarial Networks, NeurIPS 2021, appendix E.
    """

    higher_is_better = True
    columns = ("pairs", "pixels", "error")
    ratios: ClassVar = {"error": Ratio("error", "pixels")}

    def __init__(self, data_range: float = 2.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_kind("data_range", data_range, (int, float), "a positive number")
        if not 0 < data_range < math.inf:
            raise InputError(f"data_range={shown(data_range)} must be a positive number")
        self.data_range = float(data_range)

    def update(self, a: Tensor, b: Tensor, shift: Shift, image: Any = None) -> None:
        """Add pairs of views.

        Args:
            a, b: images, float (N, C, H, W).
            shift, image: as for `DetectionConsistency.update`. A fraction is undone in `b`, which is interpolated
                (`dealias.perturb.pans`, Lanczos), five pixels beside the border left out.

        Raises:
            InputError: another shape, the views have nothing in common, or a pixel is NaN or infinite.
            InputTypeError: an argument is of the wrong type.
        """
        check_same_shape(a, b, valid := "float images (N, C, H, W)", (4,))
        check_finite(a, b, valid)
        rows = []
        for pair in zip(a, b, as_shifts(shift, len(a)), strict=True):
            one, other = (part.double() for part in shared_parts(*pair))
            rows.append([1, one.numel(), float(((one - other) ** 2).sum())])
        self._add(rows, image)

    def compute(self) -> Tensor:
        """The ratio in dB, a float32 scalar."""
        return torch.tensor(self._decibels(self.ratio("error")), device=self.device)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The interval of the ratio: that of the mean squared error (`ratio_interval`), in dB."""
        low, high = self.intervals(level)["error"]
        return self._decibels(high), self._decibels(low)

    def _decibels(self, error: float) -> float:
        if not error:
            return math.inf
        return 20 * math.log10(self.data_range) - 10 * math.log10(error) if error < math.inf else -math.inf


def equivariance_psnr(a: Tensor, b: Tensor, shift: Shift, data_range: float = 2.0) -> Tensor:
    """The value of `EquivariancePSNR` for pairs of views; arguments and errors as for its `update`."""
    metric = EquivariancePSNR(data_range)
    metric.update(a, b, shift)
    return metric.compute()
