"""What a training keeps: the log, the states, and the promise to leave none of it half done.

Processes agree about once a second, at the same step: the losses since are looked at and logged; then the first
process's clock and any process's signals decide whether to save or to leave.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator, Mapping
from signal import Signals
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dealias.training.engine import all_finite
from dealias.training.folder import RunFolder
from dealias.training.images import Batch, Batches
from dealias.training.signals import StopSignals, leave

if TYPE_CHECKING:
    from dealias.training.train import Training

AGREE_EVERY = 1.0  # seconds


class Keeper:
    """Logs and saves a training.

    Args:
        training: what is kept.
        folder: of the run; None in all processes but the first.
        accelerator: of Accelerate.
        signals: that ask to leave.
        batches: of the training.
        log_every, save_every: see `Settings`.
    """

    def __init__(
        self,
        training: Training,
        folder: RunFolder | None,
        accelerator: Any,
        signals: StopSignals,
        batches: Batches,
        *,
        log_every: int,
        save_every: float,
    ) -> None:
        self._training, self._folder, self._accelerator, self._signals = training, folder, accelerator, signals
        self._batches, self._log_every, self._save_every = batches, log_every, save_every
        self._pending: list[tuple[Tensor, float]] = []
        self._saved = self._agreed = time.monotonic()
        self._agree_in = 1
        self._seconds = dict.fromkeys(("training", "waiting for images", "saving", "evaluating"), 0.0)
        self._images = 0

    def epoch_batches(self) -> Iterator[Batch]:
        """The rest of the current epoch; the time until the first batch and between two is looked at."""
        epoch, steps = self._training.epoch, self._batches.steps
        started = time.perf_counter()
        for batch in self._batches.of(epoch, self._training.step - epoch * steps):
            fetched = time.perf_counter()
            self._seconds["waiting for images"] += fetched - started
            yield batch
            self._images += batch[2]
            started = time.perf_counter()
            self._seconds["training"] += started - fetched
        if self._pending:
            self._agree()

    def after_step(self, loss: Tensor, learning_rate: float) -> None:
        """Take note of a step: this process's share of the loss."""
        self._pending.append((loss, learning_rate))
        if len(self._pending) >= self._agree_in:
            self._agree()

    def _agree(self) -> None:
        self._log_losses()
        now = time.monotonic()
        seconds_a_step = (now - self._agreed) / len(self._pending)
        self._pending.clear()
        self._agreed = now
        mine = [
            self._signals.caught,
            now - self._saved >= self._save_every - AGREE_EVERY,
            max(int(AGREE_EVERY / seconds_a_step), 1),
        ]
        asked = self._accelerator.gather(torch.tensor([mine], dtype=torch.int64, device=self._accelerator.device))
        signal, (_, save, self._agree_in) = int(asked[:, 0].max()), asked[0].tolist()
        if signal or save:
            self.save()
        if signal:
            self._leave(signal)

    def _log_losses(self) -> None:
        training = self._training
        losses = self._accelerator.reduce(torch.stack([loss for loss, _ in self._pending]), "sum").tolist()
        first = training.step - len(losses) + 1
        for step, loss, (_, rate) in zip(range(first, training.step + 1), losses, self._pending, strict=True):
            if not math.isfinite(loss):
                self._stop(f"the loss is {loss} at step {step} (epoch {training.epoch})")
            training.window.append(loss)
            if step % self._log_every == 0 or step == (training.epoch + 1) * self._batches.steps:
                mean = math.fsum(training.window) / len(training.window)
                training.window.clear()
                self._log({"step": step, "epoch": training.epoch, "loss": mean, "learning_rate": rate})

    def _stop(self, problem: str) -> None:
        last = self._folder.last_saved() if self._folder is not None else "the one before"
        raise FloatingPointError(
            f"{problem}: stopped. The last good state is {last}; go on from the weights beside it, "
            "checkpoints/last.safetensors, in another folder with a lower learning_rate"
        )

    def _log(self, record: Mapping[str, Any]) -> None:
        if self._folder is not None:
            self._folder.log(record)

    def save(self, *, is_best: bool = False) -> None:
        """Save the state now.

        Raises:
            FloatingPointError: the weights hold infinities or NaN; the states before are left.
            OSError: the state cannot be written; as before.
        """
        started = time.perf_counter()
        weights = self._training.weights()
        if not all_finite(weights.values()):
            self._stop(f"the weights are not finite after step {self._training.step}")
        if self._folder is not None:
            self._folder.save(self._training.state(), weights, is_best=is_best)
        self._saved = time.monotonic()
        self._seconds["saving"] += time.perf_counter() - started

    def during_evaluation(self) -> None:
        """Save and leave if a signal asks for it: several processes finish the evaluation first."""
        if self._signals.caught and self._accelerator.num_processes == 1:
            self.save()
            self._leave(self._signals.caught)

    def after_epoch(self, found: Mapping[str, Any], seconds: float) -> None:
        """Take note of what was measured, after `training.epoch` has moved on."""
        training = self._training
        self._seconds["evaluating"] += seconds
        is_best = found["accuracy"] > training.best
        training.best = max(found["accuracy"], training.best)
        self._log({"step": training.step, "epoch": training.epoch - 1, **found, "best": is_best})
        self.save(is_best=is_best)
        busy = self._seconds["training"] + self._seconds["waiting for images"]
        if self._folder is not None and self._images:
            timing = {key.replace(" ", "_") + "_seconds": round(value, 3) for key, value in self._seconds.items()}
            record = {"epoch": training.epoch - 1, "images_per_second": round(self._images / busy, 1), **timing}
            self._folder.log_timing(record, training.step)
        self._seconds = dict.fromkeys(self._seconds, 0.0)
        self._images = 0
        self._agreed = time.monotonic()

    def _leave(self, signal: int) -> None:
        if self._folder is not None:
            name = Signals(signal).name
            warnings.warn(f"{name}: saved at step {self._training.step}; --resume goes on from there", stacklevel=2)
        leave(signal)
