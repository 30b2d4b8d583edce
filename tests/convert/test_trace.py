"""What a recorded pass is made of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from dealias.convert.recording import record
from dealias.convert.trace import is_blur_layer


def test_blur_layers_of_others_are_known_by_name():
    class BlurPool2D(nn.Module):
        def forward(self, x):
            return F.avg_pool2d(x, 2)

    assert is_blur_layer(BlurPool2D())
    (node,) = record(BlurPool2D(), torch.randn(1, 3, 8, 8)).nodes
    assert node.op == "blur"
    assert not is_blur_layer(nn.AvgPool2d(2))
