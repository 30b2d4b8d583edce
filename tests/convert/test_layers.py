"""The blur in place of average pooling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from dealias.convert.layers import AvgBlurPool1d, AvgBlurPool2d, AvgBlurPool3d


@pytest.mark.parametrize(("layer", "spatial"), [(AvgBlurPool1d, 1), (AvgBlurPool2d, 2), (AvgBlurPool3d, 3)])
@pytest.mark.parametrize("stride", [2, 3])
def test_output_sizes_are_those_of_average_pooling(layer, spatial, stride):
    average = getattr(nn, f"AvgPool{spatial}d")(stride)
    for size in range(stride, 14):
        x = torch.rand(2, 3, *range(size, size + spatial))
        assert layer("bin5", stride)(x).shape == average(x).shape


def test_the_values_are_those_of_numpy():
    x = torch.rand(1, 1, 9, dtype=torch.float64)
    padded = np.pad(x[0, 0, :8].numpy(), (1, 2), mode="reflect")
    expected = np.convolve(padded, np.array([1, 3, 3, 1]) / 8, mode="valid")[::2]
    np.testing.assert_allclose(AvgBlurPool1d("bin4", 2)(x)[0, 0], expected, atol=1e-12)
