"""Our training loop against a bare PyTorch loop on the same network, data and order: epochs in turn, paired ratios.

    python benchmarks/training.py [--epochs 9] [--model dealias:vgg_small]

Ours logs, watches for signals and NaN, and saves as in a run; evaluation is not counted. Both in one thread, by the
processor time of the process, so that other programs on the machine disturb neither.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator

import torch
import torch.nn.functional as F

from dealias.data import digits_split
from dealias.models import create_model
from dealias.training import Config, load_recipe
from dealias.training.batches import epoch_batches
from dealias.training.data import open_data
from dealias.training.processes import ProcessPart, make_accelerator
from dealias.training.recorder import Recorder
from dealias.training.run_folder import RunFolder
from dealias.training.signals import StopSignals
from dealias.training.trainer import Trainer

SEED = 0


def our_epochs(config: Config, folder: str) -> Iterator[float]:
    """Seconds of each epoch of our loop."""
    accelerator = make_accelerator("cpu", config.settings.precision)
    data = open_data(config, ProcessPart(0, 1, 0, pin_memory=False))
    trainer = Trainer(config, data, accelerator)
    with StopSignals() as signals, RunFolder(folder, config, resume=False) as run:
        recorder = Recorder(config, data.batches.steps, run, accelerator, signals)
        recorder.begin(None)
        for epoch in range(config.settings.epochs):
            started = time.process_time()
            for batch in recorder.timed(data.batches.of(epoch, 0)):
                request = recorder.after_step(*trainer.learn(batch, recorder.progress.step))
                if request.save:
                    recorder.save(trainer.state(), trainer.weights())
            yield time.process_time() - started
            recorder.after_epoch({"accuracy": 0.0}, 0.0)


def bare_epochs(config: Config) -> Iterator[float]:
    """Seconds of each epoch of a loop as PyTorch's tutorials write it."""
    settings = config.settings
    images, labels = digits_split(0)[0]
    torch.manual_seed(config.seed)
    model = create_model(config.model, antialias=settings.antialias).train()
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=True,
    )
    steps = len(epoch_batches(len(images), settings.batch_size, SEED, 0))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.epochs * steps
    )
    for epoch in range(settings.epochs):
        started = time.process_time()
        for batch in epoch_batches(len(images), settings.batch_size, SEED, epoch):
            loss = F.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            loss.item()
        yield time.process_time() - started


def main() -> None:
    """Print the seconds of each pair of epochs and the median ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--model", default="dealias:vgg_small")
    parser.add_argument("--no-antialias", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    overrides = {"epochs": arguments.epochs + 1, "antialias": not arguments.no_antialias}
    config = Config(arguments.model, load_recipe("digits", overrides=overrides), data="digits", seed=SEED)
    with tempfile.TemporaryDirectory() as folder:
        pairs = list(zip(our_epochs(config, folder), bare_epochs(config), strict=True))[1:]  # the first ones warm up
    print(f"{'ours s':>8}{'bare s':>8}{'ratio':>8}")
    for ours, bare in pairs:
        print(f"{ours:>8.3f}{bare:>8.3f}{ours / bare:>8.3f}")
    ratios = [ours / bare for ours, bare in pairs]
    images = len(digits_split(0)[0].labels) / statistics.median(ours for ours, _ in pairs)
    quartiles = statistics.quantiles(ratios, n=4)
    print(f"median ratio {statistics.median(ratios):.3f}, quartiles {quartiles[0]:.3f} to {quartiles[2]:.3f}")
    print(f"{images:,.0f} images per second in one thread")


if __name__ == "__main__":
    main()
