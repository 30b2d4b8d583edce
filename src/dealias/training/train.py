"""Training: the loop, and what it moves."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import dealias
from dealias.errors import InputError
from dealias.filters import parse_filter
from dealias.metrics._evaluation import evaluating
from dealias.metrics.predictions import check_logits
from dealias.models import create_model, default_input_size, is_listed
from dealias.progress import OnProgress
from dealias.runtime import default_workers
from dealias.training.data import TrainingData, open_data
from dealias.training.engine import (
    count_right,
    make_accelerator,
    make_average,
    make_mixing,
    make_optimizer,
    make_schedule,
    summed_loss,
    synchronise_buffers,
)
from dealias.training.folder import RunFolder
from dealias.training.images import Share, seed_all
from dealias.training.keeper import Keeper
from dealias.training.settings import Settings
from dealias.training.signals import StopSignals


@dataclass(frozen=True)
class Config:
    """What a run is asked for.

    Attributes:
        model: as for `dealias.models.create_model`.
        settings: how it is trained.
        recipe: where the settings come from, for the record.
        data: class folders, WebDataset shards, a Hugging Face dataset on disk (see `dealias.data.open_source`), a
            stream `hf:NAME`, or `digits`. With subfolders `train` and `val` (or `validation`, `test`) they are used so.
        val_data: to measure on; without it and those subfolders a tenth of `data` is held out.
        weights: a checkpoint to start from.
        new_head: load all but the head of weights with another number of classes.
        limit: train on at most so many images, drawn by `seed`.
        seed: of the weights, the order and every other random number.
    """

    model: str
    settings: Settings
    recipe: str = ""
    data: str | None = None
    val_data: str | None = None
    weights: str | None = None
    new_head: bool = False
    limit: int | None = None
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """What `config.yaml` holds."""
        found = asdict(self)
        settings = found.pop("settings")
        return {**found, **settings, "versions": {"dealias": dealias.__version__, "torch": str(torch.__version__)}}


def train(
    config: Config,
    output: str | Path,
    *,
    resume: bool = False,
    device: str = "auto",
    workers: int | None = None,
    on_progress: OnProgress = lambda stage, done: None,
) -> dict[str, Any]:
    """Train a network; see `dealias.training.folder` for what it writes.

    A run that is stopped at any moment and resumed computes what an unbroken one does, on the CPU bit for bit. Run in
    each process that torchrun started, the processes share every batch.

    Args:
        config: of the run.
        output: its folder.
        resume: continue the run that is there; a fresh start where there is none.
        device: auto, cpu, cuda or mps.
        workers: processes that read images, for each process that trains; the cores but one by default, none for
            images in memory.
        on_progress: told the stage and the fraction of the work done.

    Returns:
        The last epoch's counts and shares, `best_accuracy`, `steps`, `description` (of the images) and
        `is_main_process`.

    Raises:
        InputError, MissingExtraError: bad input, before any work is done.
        FloatingPointError: the loss or the weights are not finite; the message names the step.
        OSError: the disk is full; what was saved before is whole.
        KeyboardInterrupt, SystemExit: after Ctrl-C or SIGTERM, once the state is saved.
    """
    settings = config.settings
    with StopSignals() as signals:
        accelerator = make_accelerator(device, settings.precision)
        share = _share(config, accelerator, workers)
        folder = RunFolder(output, config.to_dict(), resume=resume) if accelerator.is_main_process else None
        data = open_data(config, share)
        training = Training(config, data, accelerator)
        log_bytes = training.restore(_shared_state(folder, accelerator))
        keeper = Keeper(
            training,
            folder,
            accelerator,
            signals,
            data.batches,
            log_every=settings.log_every,
            save_every=settings.save_every,
        )
        if folder is not None:
            folder.begin(log_bytes, training.epoch)
        total = settings.epochs * data.batches.steps
        found = training.found
        try:
            if training.step == 0:
                keeper.save()
            for epoch in range(training.epoch, settings.epochs):
                training.network.train()
                for batch in keeper.epoch_batches():
                    keeper.after_step(*training.learn(*batch))
                    on_progress(f"epoch {epoch + 1} of {settings.epochs}", training.step / total)
                started = time.perf_counter()
                found = training.measure(keeper.during_evaluation)
                training.epoch, training.found = epoch + 1, found
                keeper.after_epoch(found, time.perf_counter() - started)
        finally:
            if folder is not None:
                folder.close()
    about = {"description": data.description, "is_main_process": folder is not None}
    return {**found, "best_accuracy": training.best, "steps": training.step, **about}


class Training:
    """The network and what changes it, one step at a time.

    Attributes:
        step, epoch: how many have been done.
        best: the highest accuracy so far.
        window: losses since the log's last record.
        found: what was measured last.
        network: the model as it is trained: in DDP, compiled.
    """

    def __init__(self, config: Config, data: TrainingData, accelerator: Any) -> None:
        self._settings, self._seed, self._data, self._accelerator = config.settings, config.seed, data, accelerator
        self.step = self.epoch = 0
        self.best = -1.0
        self.window: list[float] = []
        self.found: dict[str, Any] = {}
        settings = config.settings
        self._layout = torch.channels_last if settings.channels_last else torch.contiguous_format
        classes = settings.num_classes or data.classes
        model = _build(config, classes, data)
        _check_fit(model, config.model, data)
        self._model = model.to(accelerator.device)
        nn.utils.convert_conv2d_weight_memory_format(self._model, self._layout)
        self._average = make_average(self._model, settings)
        self._mix = make_mixing(settings, classes)
        optimizer = make_optimizer(self._model, settings)
        self._schedule = make_schedule(optimizer, settings, data.batches.steps)
        self._optimizer = optimizer
        # not Accelerate's: in every step its wrappers search the disk for an optional package, which takes 2% of a step
        self._scaler = torch.amp.GradScaler(accelerator.device.type, enabled=settings.precision == "fp16")
        self.network = accelerator.prepare_model(self._model)
        if settings.compile:
            self.network = torch.compile(self.network, dynamic=False)

    def learn(self, images: Tensor, labels: Tensor, total: int) -> tuple[Tensor, float]:
        """One step on this process's images of the `total`; returns its share of the mean loss, and the rate."""
        settings, accelerator = self._settings, self._accelerator
        seed_all(self._seed, self.step, accelerator.process_index, 1)
        images = images.to(accelerator.device, memory_format=self._layout, non_blocking=True)
        labels = labels.to(accelerator.device, non_blocking=True)
        if self._mix is not None:
            images, labels = self._mix(images, labels)
        share = torch.zeros((), device=accelerator.device)
        parts = list(
            zip(images.tensor_split(settings.accumulation), labels.tensor_split(settings.accumulation), strict=True)
        )
        for index, (x, y) in enumerate(parts):
            is_last = index + 1 == len(parts)
            with nullcontext() if is_last else accelerator.no_sync(self.network):
                loss = summed_loss(self.network(x), y, settings.label_smoothing) / total
                self._scaler.scale(loss * accelerator.num_processes).backward()  # DDP takes the mean over processes
            share += loss.detach()
        if settings.clip_grad_norm is not None:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self._model.parameters(), settings.clip_grad_norm)
        rate = float(self._schedule.get_last_lr()[0])
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad()
        self._schedule.step()
        self.step += 1
        if self._average is not None:
            self._average.update(self._model, self.step)
        return share, rate

    def measure(self, between: Callable[[], None]) -> dict[str, Any]:
        """Accuracy and consistency now; `between` is called after each batch."""
        synchronise_buffers([self._model, *([self._average] if self._average is not None else [])], self._accelerator)
        return count_right(self._measured, self._data.validation(), self._data.views, self._accelerator, between)

    @property
    def _measured(self) -> nn.Module:
        model: nn.Module = self._model if self._average is None else self._average.module
        return model

    def weights(self) -> dict[str, Tensor]:
        """The weights that are measured and published."""
        return self._measured.state_dict()

    def state(self) -> dict[str, Any]:
        """All that is needed to go on, as `torch.load(weights_only=True)` reads it.

        The random numbers of a step, and of an image in an epoch, are functions of the seed, the step and the image:
        the position and the seed are the whole random state.
        """
        return {
            "step": self.step,
            "epoch": self.epoch,
            "data": {"epoch": self.epoch, "batch": self.step - self.epoch * self._data.batches.steps},
            "random": {"seed": self._seed, "step": self.step},
            "best": self.best,
            "window": self.window,
            "found": self.found,
            "model": self._model.state_dict(),
            "average": None if self._average is None else self._average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def restore(self, state: Mapping[str, Any] | None) -> int:
        """Take up a state, if there is one; returns how many bytes of the log belong to it."""
        if state is None:
            return 0
        self.step, self.epoch, self.best = state["step"], state["epoch"], state["best"]
        self.window, self.found = list(state["window"]), dict(state["found"])
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        if self._scaler.is_enabled():
            self._scaler.load_state_dict(state["scaler"])
        size: int = state["log_bytes"]
        return size


def _build(config: Config, classes: int, data: TrainingData) -> nn.Module:
    settings, channels = config.settings, data.preprocessing.channels
    named = is_listed(config.model)
    own: dict[str, Any] = {"padding_mode": settings.padding_mode} if settings.padding_mode is not None else {}
    torch.manual_seed(config.seed)
    return create_model(
        config.model,
        antialias=settings.antialias,
        filter=parse_filter(settings.filter),
        recipe=settings.antialias_recipe,
        num_classes=classes if named else settings.num_classes,
        in_chans=channels if named and channels != default_input_size(config.model)[0] else None,
        weights=config.weights,
        new_head=config.new_head,
        **own,
    )


def _check_fit(model: nn.Module, name: str, data: TrainingData) -> None:
    """Run one image through the network: else the first step would fail, in PyTorch's words."""
    size = data.preprocessing.crop_size
    image = torch.zeros(1, data.preprocessing.channels, size, size)
    try:
        with evaluating(model):
            classes = check_logits(model(image)).shape[1]
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:  # timm asserts an image's size
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"model={name!r} cannot take images of shape {tuple(image.shape[1:])}: {reason}") from None
    if classes < data.classes:
        raise InputError(f"model={name!r} has {classes} classes, the images have {data.classes}")


def _share(config: Config, accelerator: Any, workers: int | None) -> Share:
    processes = accelerator.num_processes
    if workers is None:
        workers = 0 if config.data == "digits" else default_workers(processes)
    if workers < 0:
        raise InputError(f"workers={workers!r} must be at least 0")
    return Share(accelerator.process_index, processes, workers, accelerator.device.type == "cuda")


def _shared_state(folder: RunFolder | None, accelerator: Any) -> Mapping[str, Any] | None:
    """The state that the first process finds, in every process: the others need not see its disk."""
    found: list[bytes | None] = [folder.load_state() if folder is not None else None]
    if accelerator.num_processes > 1:
        torch.distributed.broadcast_object_list(found)
    if found[0] is None:
        return None
    state: Mapping[str, Any] = torch.load(io.BytesIO(found[0]), map_location="cpu", weights_only=True)
    return state
