"""Optimizer, schedule, average of the weights, mixing of images, and loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn, zeros_like
from torch.optim import Optimizer, lr_scheduler

from dealias.errors import InputError
from dealias.optional import require
from dealias.training.settings import Settings


def make_optimizer(model: nn.Module, settings: Settings) -> Optimizer:
    """The optimizer of timm that the settings name; `InputError` if timm has no optimizer of that name."""
    factory = require("timm.optim")
    if settings.optimizer not in factory.list_optimizers():
        raise InputError(f"optimizer={settings.optimizer!r} is unknown to timm: use momentum, sgd, adamw, ...")
    optimizer: Optimizer = factory.create_optimizer_v2(
        model,
        opt=settings.optimizer,
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        momentum=settings.momentum,
        filter_bias_and_bn=not settings.decay_all,
    )
    return optimizer


def make_schedule(optimizer: Optimizer, settings: Settings, steps: int) -> lr_scheduler.LRScheduler:
    """PyTorch's schedule, step by step; `steps` make an epoch."""
    total, warm = settings.epochs * steps, round(settings.warmup_epochs * steps)
    if warm >= total:
        raise InputError(f"warmup_epochs={settings.warmup_epochs} must be fewer than epochs={settings.epochs}")
    if settings.schedule == "one-cycle":
        return lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, total_steps=total)
    schedule: lr_scheduler.LRScheduler
    if settings.schedule == "step":
        decay = settings.decay_epochs
        ends = decay if isinstance(decay, list) else list(range(decay, settings.epochs, decay))
        milestones = [end * steps - warm for end in ends]
        schedule = lr_scheduler.MultiStepLR(optimizer, milestones, gamma=settings.decay_rate)
    elif settings.schedule == "cosine":
        schedule = lr_scheduler.CosineAnnealingLR(optimizer, T_max=total - warm)
    else:
        schedule = lr_scheduler.ConstantLR(optimizer, factor=1.0)
    if not warm:
        return schedule
    warmup = lr_scheduler.LinearLR(optimizer, start_factor=1 / warm, total_iters=warm)
    return lr_scheduler.SequentialLR(optimizer, [warmup, schedule], milestones=[warm])


def make_average(model: nn.Module, settings: Settings) -> Any | None:
    """timm's exponential moving average of the weights; None without `ema_decay`."""
    if settings.ema_decay is None:
        return None
    return require("timm.utils").ModelEmaV3(model, decay=settings.ema_decay)


def make_mixing(settings: Settings, classes: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
    """torchvision's MixUp or CutMix, or one of both at random; None without `mixup` and `cutmix`."""
    transforms = require("torchvision.transforms.v2")
    kinds = ((transforms.MixUp, settings.mixup), (transforms.CutMix, settings.cutmix))
    chosen = [kind(num_classes=classes, alpha=alpha) for kind, alpha in kinds if alpha]
    return transforms.RandomChoice(chosen) if chosen else None


def summed_loss(outputs: Any, target: Tensor, label_smoothing: float) -> Tensor:
    """Cross entropy, summed over a batch's images; auxiliary heads (GoogLeNet, Inception) count 0.3, as published."""
    heads = [outputs] if isinstance(outputs, Tensor) else [head for head in outputs if head is not None]
    losses = [F.cross_entropy(head, target, reduction="sum", label_smoothing=label_smoothing) for head in heads]
    # torchvision puts the main head first
    return losses[0] + 0.3 * sum(losses[1:], zeros_like(losses[0])) if len(losses) > 1 else losses[0]
