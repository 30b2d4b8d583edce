"""The training loop for data that fits in memory."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dealias.errors import InputError, as_int


def fit(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    batch_size: int = 64,
    learning_rate: float = 0.05,
    seed: int = 0,
    on_step: Callable[[float], None] | None = None,
) -> nn.Module:
    """Train a classifier in place, with SGD (Nesterov momentum 0.9, weight decay 5e-4, one-cycle learning rate).

    Args:
        model: maps (N, C, H, W) to logits (N, classes); the images are on its device.
        images: (N, C, H, W), float.
        labels: (N,), int64.
        epochs: passes over the images; the last, smaller batch of each pass is dropped.
        batch_size: images in a step.
        learning_rate: the peak of the one-cycle schedule.
        seed: of the order of the images; the same seed gives the same order for every model.
        on_step: called with each step's loss.

    Returns:
        `model`, in eval mode.

    Raises:
        InputError: there are fewer images than `batch_size`.
        FloatingPointError: the loss is not finite; the message names the step.
    """
    epochs, batch_size = as_int("epochs", epochs, bits=31), as_int("batch_size", batch_size, bits=31)
    steps = len(images) // batch_size
    if not steps:
        raise InputError(f"batch_size={batch_size} is too large: there are {len(images)} images")
    optimizer = torch.optim.SGD(model.parameters(), learning_rate, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=epochs * steps)
    generator = torch.Generator().manual_seed(seed)
    model.train()
    for epoch in range(epochs):
        order = torch.randperm(len(images), generator=generator).to(images.device)
        for step in range(steps):
            batch = order[step * batch_size : (step + 1) * batch_size]
            loss = F.cross_entropy(model(images[batch]), labels[batch])
            value = loss.item()
            if not math.isfinite(value):
                raise FloatingPointError(f"the loss is {value} at epoch {epoch}, step {step}: lower learning_rate")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            if on_step is not None:
                on_step(value)
    return model.eval()
