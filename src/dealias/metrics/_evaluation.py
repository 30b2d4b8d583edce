"""Helpers of the functions that run networks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn

from dealias.errors import InputError, InputTypeError


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; then every module's own mode again."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def placed_like(images: Tensor, model: nn.Module) -> Tensor:
    """Images (N, C, H, W) on the device and in the floating dtype of the model's first tensor."""
    if not isinstance(images, Tensor):
        raise InputTypeError(f"images must be tensors (N, C, H, W), got {type(images).__name__}")
    if not images.is_floating_point():
        raise InputTypeError(f"images have dtype {images.dtype}: give the float images that the model expects")
    if images.ndim != 4 or 0 in images.shape:
        raise InputError(f"images of shape {tuple(images.shape)}: use (N, C, H, W), none of them 0")
    tensors = (tensor for tensor in chain(model.parameters(), model.buffers()) if tensor.is_floating_point())
    first = next(tensors, images)
    return images.to(first.device, first.dtype)
