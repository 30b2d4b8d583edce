"""Trainer: the network and everything that changes with it, one step at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from dealias.errors import InputError, users_code
from dealias.metrics._evaluation import evaluating
from dealias.metrics.predictions import check_logits
from dealias.models import ModelSpec, default_input_size, is_listed
from dealias.training.batches import Batch, seed_all
from dealias.training.config import Config
from dealias.training.data import TrainingData
from dealias.training.optimization import make_average, make_mixing, make_optimizer, make_schedule, summed_loss
from dealias.training.processes import synchronise_buffers


class Trainer:
    """Builds the network of a run, trains it step by step, and measures it.

    Raises:
        InputError: the network cannot be built, or does not take the images.
    """

    def __init__(self, config: Config, data: TrainingData, accelerator: Any) -> None:
        settings = config.settings
        self._settings, self._seed, self._data, self._accelerator = settings, config.seed, data, accelerator
        self._layout = torch.channels_last if settings.channels_last else torch.contiguous_format
        classes = settings.num_classes or data.classes
        model = _build(config, classes, data)
        _check_fit(model, config.model, data)
        self._model = model.to(accelerator.device)
        nn.utils.convert_conv2d_weight_memory_format(self._model, self._layout)
        self._average = make_average(self._model, settings)
        self._mix = make_mixing(settings, classes)
        self._optimizer = make_optimizer(self._model, settings)
        self._schedule = make_schedule(self._optimizer, settings, data.batches.steps)
        # not Accelerate's: in every step its wrappers search the disk for an optional package, which takes 2% of a step
        self._scaler = torch.amp.GradScaler(accelerator.device.type, enabled=settings.precision == "fp16")
        self._stateful: dict[str, Any] = {"model": self._model, "optimizer": self._optimizer}
        self._stateful |= {"schedule": self._schedule, "scaler": self._scaler}
        if self._average is not None:
            self._stateful["average"] = self._average
        self._network = accelerator.prepare_model(self._model)
        if settings.compile:
            self._network = torch.compile(self._network, dynamic=False)
        self._network.train()

    def learn(self, batch: Batch, step: int) -> tuple[Tensor, float]:
        """Do the step of this number, which its random numbers depend on, with this process's part of a batch.

        Returns:
            This process's summand of the mean loss, and the learning rate.
        """
        images, labels, total = batch
        seed_all(self._seed, step, self._accelerator.process_index, 1)
        images = images.to(self._accelerator.device, memory_format=self._layout, non_blocking=True)
        labels = labels.to(self._accelerator.device, non_blocking=True)
        if self._mix is not None:
            images, labels = self._mix(images, labels)
        loss = self._accumulate_gradients(images, labels, total)
        if self._settings.clip_grad_norm is not None:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self._model.parameters(), self._settings.clip_grad_norm)
        rate = float(self._schedule.get_last_lr()[0])
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad()
        self._schedule.step()
        if self._average is not None:
            self._average.update(self._model, step + 1)
        return loss, rate

    def _accumulate_gradients(self, images: Tensor, labels: Tensor, total: int) -> Tensor:
        settings, accelerator = self._settings, self._accelerator
        found, count = torch.zeros((), device=accelerator.device), settings.accumulation
        parts = zip(images.tensor_split(count), labels.tensor_split(count), strict=True)
        for number, (x, y) in enumerate(parts, start=1):
            with nullcontext() if number == count else accelerator.no_sync(self._network):
                loss = summed_loss(self._network(x), y, settings.label_smoothing) / total
                self._scaler.scale(loss * accelerator.num_processes).backward()  # DDP takes the mean over processes
            found += loss.detach()
        return found

    def measure(self, after_batch: Callable[[], None]) -> dict[str, Any]:
        """Accuracy and consistency now; `after_batch` is called after each batch."""
        synchronise_buffers([self._model] if self._average is None else [self._model, self._average], self._accelerator)
        return self._data.validation.measure(self._measured, self._accelerator, after_batch)

    @property
    def _measured(self) -> nn.Module:
        model: nn.Module = self._model if self._average is None else self._average.module
        return model

    def weights(self) -> dict[str, Tensor]:
        """The weights that are measured and published."""
        return self._measured.state_dict()

    def state(self) -> dict[str, Any]:
        """The state that `load` goes on from."""
        return {name: part.state_dict() for name, part in self._stateful.items()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        for name, part in self._stateful.items():
            part.load_state_dict(state[name])


def _build(config: Config, classes: int, data: TrainingData) -> nn.Module:
    settings, channels = config.settings, data.preprocessing.channels
    named = is_listed(config.model)
    torch.manual_seed(config.seed)
    return ModelSpec(
        config.model,
        weights=config.weights,
        antialias=settings.filter if settings.antialias else None,
        method=settings.antialias_method,
        recipe=settings.antialias_recipe,
        padding_mode=settings.padding_mode,
        num_classes=classes if named else settings.num_classes,
        in_chans=channels if named and channels != default_input_size(config.model)[0] else None,
        new_head=config.new_head,
    ).build()


def _check_fit(model: nn.Module, name: str, data: TrainingData) -> None:
    """Run one image through the network: else the first step would fail, in PyTorch's words."""
    size = data.preprocessing.crop_size
    image = torch.zeros(1, data.preprocessing.channels, size, size)
    with users_code(f"model={name!r} cannot take images of shape {tuple(image.shape[1:])}"), evaluating(model):
        classes = check_logits(model(image)).shape[1]
    if classes < data.classes:
        raise InputError(f"model={name!r} has {classes} classes, the images have {data.classes}")
