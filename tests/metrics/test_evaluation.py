"""Helpers of the functions that run networks: modes, dtypes and checks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from dealias.errors import InputError, InputTypeError
from dealias.metrics._evaluation import evaluating, placed_like


@pytest.mark.parametrize("fails", [False, True])
def test_each_module_gets_its_own_mode_back(fails: bool) -> None:
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm2d(2), nn.Dropout())).train()
    model[1][0].eval()
    before = [module.training for module in model.modules()]
    assert {*before} == {True, False}
    try:
        with evaluating(model):
            assert not any(module.training for module in model.modules())
            assert not model(torch.ones(1, 2, 3, 3)).requires_grad
            model[0].train()
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert [module.training for module in model.modules()] == before
    assert torch.is_grad_enabled()


class Counted(nn.Module):
    """A network without parameters: an integer buffer, then perhaps one of halves."""

    def __init__(self, half: bool) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros(1, dtype=torch.long))
        if half:
            self.register_buffer("mean", torch.zeros(1, dtype=torch.float16))


@pytest.mark.parametrize(
    ("model", "dtype"),
    [
        (nn.Conv2d(1, 1, 1).double(), torch.float64),
        (nn.Sequential(nn.Conv2d(1, 1, 1).bfloat16(), nn.BatchNorm2d(1)), torch.bfloat16),
        (Counted(half=True), torch.float16),
        (Counted(half=False), torch.float32),
    ],
)
def test_images_take_the_dtype_of_the_first_floating_tensor(model: nn.Module, dtype: torch.dtype) -> None:
    images = torch.tensor([0.5, 0.25]).view(2, 1, 1, 1)
    placed = placed_like(images, model)
    assert placed.dtype == dtype
    assert torch.equal(placed.float(), images)
    assert placed_like(images, model.to("meta")).device.type == ("cpu" if dtype == torch.float32 else "meta")


@pytest.mark.parametrize(
    ("images", "kind", "message"),
    [
        ([1], InputTypeError, r"images must be tensors \(N, C, H, W\), got list"),
        (torch.zeros(1, 1, 2, 2, dtype=torch.uint8), InputTypeError, r"images have dtype torch\.uint8"),
        (torch.zeros(1, 2, 2), InputError, r"images of shape \(1, 2, 2\)"),
        (torch.zeros(0, 1, 2, 2), InputError, "none of them 0"),
    ],
)
def test_bad_images(images: Any, kind: type[InputError], message: str) -> None:
    with pytest.raises(kind, match=message):
        placed_like(images, nn.Identity())
