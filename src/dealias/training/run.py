"""A training run from start to end, and its walk through the epochs."""

from __future__ import annotations

import time
from contextlib import ExitStack
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
    with StopSignals() as signals, reach_processes(), ExitStack() as stack:
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
        _walk(trainer, recorder, data.batches, config.settings.epochs, on_progress)
    progress = recorder.progress
    about = {"description": data.description, "is_main_process": folder is not None}
    return {**progress.found, "best_accuracy": progress.best, "steps": progress.step, **about}


def _walk(trainer: Trainer, recorder: Recorder, batches: Batches, epochs: int, on_progress: OnProgress) -> None:
    """Lead the trainer through the steps and epochs that are left, and hand what it did to the recorder."""
    progress = recorder.progress

    def save(*, is_best: bool = False, signal: int = 0) -> None:
        recorder.save(trainer.state(), trainer.weights(), is_best=is_best)
        if signal:
            recorder.leave(signal)

    def heed_signal() -> None:
        if signal := recorder.signal_during_evaluation():
            save(signal=signal)

    if progress.step == 0:
        save()
    while progress.epoch < epochs:
        stage = f"epoch {progress.epoch + 1} of {epochs}"
        for batch in recorder.timed(batches.of(progress.epoch, recorder.steps_in_epoch)):
            request = recorder.after_step(*trainer.learn(batch, progress.step))
            if request.save or request.signal:
                save(signal=request.signal)
            on_progress(stage, progress.step / (epochs * batches.steps))
        started = time.perf_counter()
        found = trainer.measure(heed_signal)
        save(is_best=recorder.after_epoch(found, time.perf_counter() - started))
        recorder.log_timing()
