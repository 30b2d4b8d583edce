"""What surrounds the loop: processes and devices by Accelerate, optimizer and schedule, loss, evaluation."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler

from dealias.errors import InputError
from dealias.metrics._evaluation import evaluating
from dealias.metrics.measure import ViewCounts
from dealias.metrics.predictions import check_logits
from dealias.metrics.views import Mode, ShiftedViews
from dealias.optional import require
from dealias.training.settings import Settings


def make_accelerator(device: str, precision: str) -> Any:
    """Accelerate's `Accelerator` on "cpu", "cuda", "mps" or "auto", in as many processes as torchrun started.

    Raises:
        InputError: there is no such device, or it cannot compute in that precision, or this Python process has trained
            on another device or in another precision: Accelerate keeps the first.
    """
    if device not in ("auto", "cpu", "cuda", "mps"):
        raise InputError(f"device={device!r} is unknown: use auto, cpu, cuda or mps")
    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not has.get(device, True):
        raise InputError(f"device={device!r} cannot be used: PyTorch finds none here")
    on_cpu = device == "cpu" or not any(has.values())
    if precision == "fp16" and on_cpu:
        raise InputError("precision='fp16' needs a GPU: use bf16 or fp32 on the CPU")
    accelerate = require("accelerate")
    try:
        accelerator = accelerate.Accelerator(
            cpu=on_cpu, mixed_precision="no" if precision == "fp32" else precision, step_scheduler_with_optimizer=False
        )
    except ValueError as error:
        raise InputError(f"device={device!r}, precision={precision!r} cannot be used: {error}") from None
    # a process that ends with gloo's threads at work aborts now and then; a script may train again before
    atexit.register(accelerator.end_training)
    if on_cpu != (accelerator.device.type == "cpu"):
        raise InputError(f"device={device!r} cannot be used: this process has trained on {accelerator.device} already")
    return accelerator


def make_optimizer(model: nn.Module, settings: Settings) -> Optimizer:
    """The optimizer of timm that the settings name.

    Raises:
        InputError: timm knows none of that name.
    """
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
    """torchvision's MixUp or CutMix, or one of both at random; None without."""
    transforms = require("torchvision.transforms.v2")
    chosen = []
    if settings.mixup:
        chosen.append(transforms.MixUp(num_classes=classes, alpha=settings.mixup))
    if settings.cutmix:
        chosen.append(transforms.CutMix(num_classes=classes, alpha=settings.cutmix))
    if not chosen:
        return None
    mixing: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = transforms.RandomChoice(chosen)
    return mixing


def summed_loss(outputs: Any, target: Tensor, label_smoothing: float) -> Tensor:
    """Cross entropy over the images of a batch; auxiliary heads (GoogLeNet, Inception) count 0.3, as published."""
    heads = [outputs] if isinstance(outputs, Tensor) else [head for head in outputs if head is not None]
    losses = [F.cross_entropy(head, target, reduction="sum", label_smoothing=label_smoothing) for head in heads]
    # torchvision puts GoogLeNet's main head first, Inception's too
    return losses[0] + 0.3 * sum(losses[1:], torch.zeros_like(losses[0])) if len(losses) > 1 else losses[0]


def count_right(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, dict[Mode, Tensor], Tensor]],
    views: dict[Mode, ShiftedViews],
    accelerator: Any,
    between: Callable[[], None],
) -> dict[str, Any]:
    """Accuracy and consistency on the validation images of all processes, as counts and shares.

    Args:
        model: not wrapped.
        batches: of this process.
        views: which of the views are compared.
        accelerator: adds the counts up.
        between: called after each batch.
    """
    counts = torch.zeros(2 + 2 * len(views), dtype=torch.int64, device=accelerator.device)
    with evaluating(model), accelerator.autocast():
        for images, shifted, labels in batches:
            right = _top1(model, images, accelerator.device) == labels.to(accelerator.device)
            found = [len(labels), int(right.sum())]
            for mode, pixels in shifted.items():
                agreements = ViewCounts.none()
                predictions = _top1(model, pixels, accelerator.device, parts=views[mode].count)
                agreements.add(predictions.view(len(labels), -1), None, views[mode])
                found += [len(labels) * len(views[mode].compared), sum(agreements.agreements)]
            counts += torch.tensor(found, device=counts.device)
            between()
    images_seen, correct, *pairs = accelerator.reduce(counts, "sum").tolist()
    result: dict[str, Any] = {"images": images_seen, "correct": correct, "accuracy": correct / images_seen}
    for mode, total, agreed in zip(views, pairs[::2], pairs[1::2], strict=True):
        result |= {f"{mode}_pairs": total, f"{mode}_agreements": agreed, f"{mode}_consistency": agreed / total}
    return result


def _top1(model: nn.Module, images: Tensor, device: torch.device, parts: int = 1) -> Tensor:
    """The most likely class of each image; -1 where a logit is not finite."""
    logits = torch.cat([check_logits(model(part.to(device))).float() for part in images.chunk(parts)])
    return logits.argmax(1).masked_fill(~logits.isfinite().all(1), -1)


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no tensor holds an infinity or NaN."""
    floating = [tensor for tensor in tensors if tensor.is_floating_point()]
    norms = torch._foreach_norm(floating, ord=1.0) if floating else []
    return not norms or bool(torch.stack([norm.float() for norm in norms]).isfinite().all())


def synchronise_buffers(models: Sequence[nn.Module], accelerator: Any) -> None:
    """Give every process the first one's buffers: batch statistics differ from one to the other."""
    if accelerator.num_processes > 1:
        for model in models:
            for buffer in model.buffers():
                torch.distributed.broadcast(buffer, src=0)
