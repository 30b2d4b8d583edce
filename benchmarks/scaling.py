"""What ImageNet with a ResNet-50 takes: images read and trained on per second here, and hours by arithmetic from that.

    python benchmarks/scaling.py                       # on the CPU, one thread
    python benchmarks/scaling.py --device cuda         # with this GPU's images per second in the table of hours
    python benchmarks/scaling.py --markdown docs/scaling.md

Reading: photographs as JPEG of 500 x 375 in class folders, through the training's own pipeline (random resized crop,
flip, normalisation) in one process. Training: whole steps of cross entropy and SGD on images that are there already.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from tables import add_outputs, as_markdown, replace_section, write_csv

from dealias.benchmark import Row, processor
from dealias.data import photos
from dealias.models import create_model
from dealias.training import Config, load_recipe
from dealias.training.data import open_data
from dealias.training.processes import ProcessPart

TRAIN_IMAGES, TEST_IMAGES, VIEWS = 1_281_167, 50_000, 3
EPOCHS = {"from scratch": 90, "fine-tuning": 60}
# GPUs, and the share of their speed that is assumed to be left when they work together
FLEETS = {1: 1.0, 8: 0.95, 64: 0.9}
ASSUMED = (500, 1000, 2000)  # images per second of one GPU
MODEL = "torchvision:resnet50"


def read_rates(images: int, rounds: int) -> tuple[list[float], float]:
    """Images per second that one process reads, for each round, and the mean size of a file in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        pictures = [
            Image.fromarray((photo.permute(1, 2, 0) * 255).round().byte().numpy()).resize((500, 375))
            for photo in photos().values()
        ]
        for number in range(images):
            path = Path(folder) / str(number % 2) / f"{number}.jpg"
            path.parent.mkdir(exist_ok=True)
            pictures[number % len(pictures)].save(path, quality=90)
        size = statistics.mean(path.stat().st_size for path in Path(folder).glob("*/*.jpg"))
        settings = load_recipe("zhang2019-imagenet", model=MODEL, overrides={"batch_size": 32})
        data = open_data(Config(MODEL, settings, data=folder), ProcessPart(0, 1, 0, pin_memory=False))
        rates = []
        for epoch in range(rounds):
            start = time.perf_counter()
            count = sum(len(labels) for _, labels, _ in data.batches.of(epoch, 0))
            rates.append(count / (time.perf_counter() - start))
    return rates, size


def step_rates(device: str, batch: int, rounds: int) -> dict[bool, list[float]]:
    """Images per second of training steps, for each round: plain and anti-aliased in turn."""
    on_gpu = device != "cpu"
    layout = torch.channels_last if on_gpu else torch.contiguous_format
    images = torch.randn(batch, 3, 224, 224, device=device).contiguous(memory_format=layout)
    labels = torch.randint(1000, (batch,), device=device)
    steps = {antialias: train_steps(antialias, images, labels, on_gpu) for antialias in (False, True)}
    rates: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(rounds):
        for antialias, seconds in steps.items():
            rates[antialias].append(batch / next(seconds))
    return rates


def train_steps(antialias: bool, images: torch.Tensor, labels: torch.Tensor, on_gpu: bool) -> Iterator[float]:
    """Seconds of a step, for ever; the first ones warm up."""
    model = create_model(MODEL, antialias=antialias, recipe="zhang2019").train()
    model = model.to(images.device, memory_format=torch.channels_last if on_gpu else torch.contiguous_format)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
    calls = 20 if on_gpu else 1  # in a row, so that the GPU does not wait for Python
    for turn in itertools.count():
        start = time.perf_counter()
        for _ in range(calls):
            with torch.autocast(images.device.type, torch.bfloat16, enabled=on_gpu):
                loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if on_gpu:
            torch.cuda.synchronize()
        if turn:
            yield (time.perf_counter() - start) / calls


def hours(rate: float, gpus: int, epochs: int) -> float:
    """Of training on ImageNet at `rate` images per second and GPU."""
    return TRAIN_IMAGES * epochs / (gpus * rate * FLEETS[gpus] * 3600)


def main() -> None:
    """Measure, calculate, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--batch", type=int, help="images in a step; default: 4, on a GPU 256")
    parser.add_argument("--images", type=int, default=500, help="images read in a round")
    parser.add_argument("--rounds", type=int, default=5)
    add_outputs(parser)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    batch = asked.batch or (4 if asked.device == "cpu" else 256)
    rates, size = read_rates(asked.images, asked.rounds)
    read = statistics.median(rates)
    found = {form: statistics.median(each) for form, each in step_rates(asked.device, batch, asked.rounds).items()}
    where = torch.cuda.get_device_name() if asked.device == "cuda" else f"one core, {processor()}"
    how = f"batch {batch}, {'bf16, channels_last' if asked.device == 'cuda' else 'float32'}, {where}"
    speeds: list[Row] = [
        {
            "figure": f"JPEGs of 500 x 375 ({size / 1000:.0f} kB) read by one core",
            "images/s": f"{read:,.0f}",
            "kind": "measured",
        },
        {"figure": f"ResNet-50, {how}", "images/s": f"{found[False]:,.1f}", "kind": "measured"},
        {"figure": "the same, anti-aliased (`zhang2019`)", "images/s": f"{found[True]:,.1f}", "kind": "measured"},
    ]
    cores: list[Row] = [
        {"images/s to read": f"{rate:,}", "cores": -(-rate // round(read)), "kind": f"arithmetic: / {read:,.0f}"}
        for rate in (1000, 8 * 1000, 8 * 2000)
    ]
    gpus = [(f"{rate:,} (assumed)", float(rate)) for rate in ASSUMED]
    if asked.device == "cuda":
        gpus.append((f"{found[True]:,.0f} (measured: {where}, anti-aliased)", found[True]))
    times: list[Row] = [
        {
            "images/s of one GPU": name,
            **{
                f"{count} GPU{'s' * (count > 1)}, {epochs} epochs ({what})": f"{hours(rate, count, epochs):.1f} h"
                for what, epochs in EPOCHS.items()
                for count in FLEETS
            },
        }
        for name, rate in gpus
    ]
    evaluation = VIEWS * TEST_IMAGES / (3 * TRAIN_IMAGES)
    tables = {"speeds": speeds, "cores": cores, "hours": times}
    body = "\n\n".join(
        [
            as_markdown(speeds),
            as_markdown(cores),
            "Hours are arithmetic: images / (GPUs x images per second x efficiency x 3600), with an assumed efficiency "
            "of "
            + ", ".join(f"{share:g} on {count}" for count, share in FLEETS.items())
            + f" GPUs. Validation is left out: {TEST_IMAGES:,} images on {VIEWS} views each, with a forward pass at a "
            f"third of a step, take {100 * evaluation:.0f}% more.",
            as_markdown(times),
        ]
    )
    print(body)
    if asked.output is not None:
        for name, rows in tables.items():
            write_csv(asked.output, f"scaling-{name}.csv", rows)
    if asked.markdown is not None:
        replace_section(asked.markdown, "benchmarks/scaling.py", body)


if __name__ == "__main__":
    main()
