"""A training run from start to end, and its walk through the epochs."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dealias.progress import OnProgress
from dealias.runtime import reach_processes
from dealias.training.batches import Batches
from dealias.training.config import Config
from dealias.training.data import open_data
from dealias.training.processes import make_accelerator, process_part, share_state
from dealias.training.recorder import Recorder
from dealias.training.run_folder import RunFolder
from dealias.training.signals import StopSignals
from dealias.training.trainer import Trainer


def train(
    config: Config,
    output: str | Path,
    *,
    resume: bool = False,
    device: str = "auto",
    workers: int | None = None,
    on_progress: OnProgress = lambda stage, done: None,
) -> dict[str, Any]:
    """Train a network; see `dealias.training.run_folder` for the files that it writes.

    A run that is stopped at any moment and resumed computes what an unbroken run does, on the CPU bit for bit. Run in
    each process that torchrun started, the processes share every batch.

    Args:
        config: of the run.
        output: its folder.
        resume: continue the run in that folder; start afresh where there is none.
        device: auto, cpu, cuda or mps.
        workers: processes that read images, for each process that trains; the cores but one by default, none for
            images in memory.
        on_progress: called with the stage and the fraction of the work done.

    Returns:
        The last epoch's counts and fractions, `best_accuracy`, `steps`, `description` (of the images) and
        `is_main_process`.

    Raises:
        InputError, MissingExtraError: bad input, before any work is done; or another process of torchrun was killed.
        FloatingPointError: the loss or the weights are not finite; the message names the step.
        OSError: the disk is full; the states saved before are whole.
        KeyboardInterrupt, SystemExit: after Ctrl-C or SIGTERM, once the state is saved.
    """
    with reach_processes(), StopSignals() as signals, ExitStack() as stack:
        accelerator = make_accelerator(device, config.settings.precision)
        part = process_part(accelerator, workers, in_memory=config.data == "digits")
        folder: RunFolder | None = None
        if accelerator.is_main_process:
            folder = stack.enter_context(RunFolder(output, config, resume=resume))
        data = open_data(config, part)
        trainer = Trainer(config, data, accelerator)
        state = share_state(None if folder is None else folder.load_state(), accelerator)
        if state is not None:
            trainer.load(state)
        recorder = Recorder(config, data.batches.steps, folder, accelerator, signals)
        recorder.begin(state)
        _Walk(trainer, recorder, data.batches, config.settings.epochs, on_progress).walk()
    progress = recorder.progress
    about = {"description": data.description, "is_main_process": folder is not None}
    return {**progress.found, "best_accuracy": progress.best, "steps": progress.step, **about}


@dataclass(frozen=True)
class _Walk:
    """Leads the trainer through the epochs that are left, and hands what it did to the recorder."""

    trainer: Trainer
    recorder: Recorder
    batches: Batches
    epochs: int
    on_progress: OnProgress

    def walk(self) -> None:
        if self.recorder.progress.step == 0:
            self._save()
        while self.recorder.progress.epoch < self.epochs:
            self._learn_epoch()
            started = time.perf_counter()
            found = self.trainer.measure(self._heed_signal)
            is_best = self.recorder.after_epoch(found, time.perf_counter() - started)
            self._save(is_best=is_best)
            self.recorder.log_timing()

    def _learn_epoch(self) -> None:
        """The steps of the current epoch that are left."""
        recorder, progress = self.recorder, self.recorder.progress
        stage, total = f"epoch {progress.epoch + 1} of {self.epochs}", self.epochs * self.batches.steps
        for batch in recorder.timed(self.batches.of(progress.epoch, recorder.steps_in_epoch)):
            request = recorder.after_step(*self.trainer.learn(batch, progress.step))
            if request.signal:
                self._save_and_leave(request.signal)
            elif request.save:
                self._save()
            self.on_progress(stage, progress.step / total)

    def _heed_signal(self) -> None:
        if signal := self.recorder.signal_during_evaluation():
            self._save_and_leave(signal)

    def _save_and_leave(self, signal: int) -> None:
        self._save()
        self.recorder.leave(signal)

    def _save(self, *, is_best: bool = False) -> None:
        self.recorder.save(self.trainer.state(), self.trainer.weights(), is_best=is_best)
