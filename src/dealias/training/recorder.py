"""Recorder: counts a run's steps, and logs and saves them so that nothing is left half done.

About once a second all processes agree at the same step: they log the losses since, and decide whether to save or to
leave. The first process's clock asks to save, a signal to any process asks to leave.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from signal import Signals
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dealias.training.batches import Batch
from dealias.training.config import Config
from dealias.training.run_folder import RunFolder
from dealias.training.signals import StopSignals, leave

AGREE_EVERY = 1.0  # seconds


@dataclass
class Progress:
    """The progress of a run: the steps and epochs done, the highest accuracy and the last measurement.

    `window` holds the losses since the last record of the log.
    """

    step: int = 0
    epoch: int = 0
    best: float = -1.0
    window: list[float] = field(default_factory=list)
    found: dict[str, Any] = field(default_factory=dict)


class Request(NamedTuple):
    """A common decision of the processes: save, and leave because of a signal (0 for none)."""

    save: bool = False
    signal: int = 0


class Recorder:
    """Owns the progress of a run; logs it and saves it. The first process alone writes: the others have no folder."""

    def __init__(
        self, config: Config, steps_per_epoch: int, folder: RunFolder | None, accelerator: Any, signals: StopSignals
    ) -> None:
        self.progress = Progress()
        self._settings, self._seed, self._steps_per_epoch = config.settings, config.seed, steps_per_epoch
        self._folder, self._accelerator, self._signals = folder, accelerator, signals
        self._pending: list[tuple[Tensor, float]] = []
        self._saved = self._agreed = time.monotonic()
        self._agree_in = 1
        self._seconds = dict.fromkeys(("training", "waiting for images", "saving", "evaluating"), 0.0)
        self._images = 0

    @property
    def steps_in_epoch(self) -> int:
        """Number of steps done in the current epoch."""
        return self.progress.step - self.progress.epoch * self._steps_per_epoch

    def begin(self, state: Mapping[str, Any] | None) -> None:
        """Open the log, and go on from a saved state if there is one."""
        if state is not None:
            self.progress = Progress(**{each.name: state[each.name] for each in fields(Progress)})
        if self._folder is not None:
            self._folder.begin(0 if state is None else state["log_bytes"], self.progress.epoch)

    def timed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches; the time until the first one and between two is noted."""
        started = time.perf_counter()
        for batch in batches:
            fetched = time.perf_counter()
            self._seconds["waiting for images"] += fetched - started
            yield batch
            self._images += batch[2]
            started = time.perf_counter()
            self._seconds["training"] += started - fetched

    def after_step(self, loss: Tensor, learning_rate: float) -> Request:
        """Count a step with this process's summand of its loss; returns the decision, if it was time for one."""
        self.progress.step += 1
        self._pending.append((loss, learning_rate))
        if len(self._pending) < self._agree_in and self.steps_in_epoch < self._steps_per_epoch:
            return Request()
        self._log_losses()
        return self._agree()

    def _agree(self) -> Request:
        now = time.monotonic()
        seconds_a_step = (now - self._agreed) / len(self._pending)
        self._pending.clear()
        self._agreed = now
        mine = [
            self._signals.caught,
            now - self._saved >= self._settings.save_every - AGREE_EVERY,
            max(int(AGREE_EVERY / seconds_a_step), 1),
        ]
        asked = self._accelerator.gather(torch.tensor([mine], dtype=torch.int64, device=self._accelerator.device))
        signal, (_, save, self._agree_in) = int(asked[:, 0].max()), asked[0].tolist()
        return Request(bool(save), signal)

    def _log_losses(self) -> None:
        progress = self.progress
        losses = self._accelerator.reduce(torch.stack([loss for loss, _ in self._pending]), "sum").tolist()
        first = progress.step - len(losses) + 1
        for step, loss, (_, rate) in zip(range(first, progress.step + 1), losses, self._pending, strict=True):
            if not math.isfinite(loss):
                self._stop(f"the loss is {loss} at step {step} (epoch {progress.epoch})")
            progress.window.append(loss)
            if step % self._settings.log_every == 0 or step == (progress.epoch + 1) * self._steps_per_epoch:
                mean = math.fsum(progress.window) / len(progress.window)
                progress.window.clear()
                self._log(step=step, loss=mean, learning_rate=rate)

    def _stop(self, problem: str) -> None:
        last = self._folder.last_saved() if self._folder is not None else "the one before"
        raise FloatingPointError(
            f"{problem}: stopped. The last good state is {last}; go on from the weights beside it, "
            "checkpoints/last.safetensors, in another folder with a lower learning_rate"
        )

    def _log(self, **record: Any) -> None:
        if self._folder is not None:
            self._folder.log({"step": self.progress.step, "epoch": self.progress.epoch} | record)

    def after_epoch(self, found: Mapping[str, Any], seconds: float) -> bool:
        """Count an epoch with its measurement and the seconds that this took; returns whether it is the best."""
        progress = self.progress
        self._seconds["evaluating"] += seconds
        is_best = bool(found["accuracy"] > progress.best)
        progress.best = max(found["accuracy"], progress.best)
        self._log(**found, best=is_best)
        progress.epoch, progress.found = progress.epoch + 1, dict(found)
        return is_best

    def log_timing(self) -> None:
        """Log how long the epoch took, and start to measure the next one."""
        busy = self._seconds["training"] + self._seconds["waiting for images"]
        if self._folder is not None and self._images:
            timing = {key.replace(" ", "_") + "_seconds": round(value, 3) for key, value in self._seconds.items()}
            speed = round(self._images / busy, 1)
            record = {"epoch": self.progress.epoch - 1, "images_per_second": speed, **timing}
            self._folder.log_timing(record, self.progress.step)
        self._seconds = dict.fromkeys(self._seconds, 0.0)
        self._images = 0
        self._agreed = time.monotonic()

    def save(self, trainer_state: Mapping[str, Any], weights: Mapping[str, Tensor], *, is_best: bool = False) -> None:
        """Save the progress, the trainer's state and the weights now.

        Raises:
            FloatingPointError: the weights hold infinities or NaN; the earlier states are left.
            OSError: the state cannot be written; the earlier states are left.
        """
        started = time.perf_counter()
        if not all_finite(weights.values()):
            self._stop(f"the weights are not finite after step {self.progress.step}")
        if self._folder is not None:
            # Steps and images draw their random numbers by the seed and their place: these are the whole random state.
            step, epoch = self.progress.step, self.progress.epoch
            places = {
                "data": {"epoch": epoch, "batch": self.steps_in_epoch},
                "random": {"seed": self._seed, "step": step},
            }
            self._folder.save({**asdict(self.progress), **places, **trainer_state}, weights, is_best=is_best)
        self._saved = time.monotonic()
        self._seconds["saving"] += time.perf_counter() - started

    def signal_during_evaluation(self) -> int:
        """The signal that asks to leave at once, or 0. Several processes finish the evaluation first."""
        return self._signals.caught if self._accelerator.num_processes == 1 else 0

    def leave(self, signal: int) -> None:
        """Tell where the run goes on, and end the program as the signal would."""
        if self._folder is not None:
            name = Signals(signal).name
            warnings.warn(f"{name}: saved at step {self.progress.step}; --resume goes on from there", stacklevel=2)
        leave(signal)


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no tensor holds an infinity or NaN."""
    floating = [tensor for tensor in tensors if tensor.is_floating_point()]
    norms = torch._foreach_norm(floating, ord=1.0) if floating else []
    return not norms or bool(torch.stack([norm.float() for norm in norms]).isfinite().all())
