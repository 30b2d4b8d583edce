"""The paper's experiment on real data that anyone can have: Fashion-MNIST, filters against no filter.

    python experiments/fashion.py run --network dealias:vgg13_bn_cifar --seeds 3 --device cuda --workers 4
    python experiments/fashion.py run --network dealias:vgg_small --seeds 5
    python experiments/fashion.py table

`run` trains and measures one network for each cell (filter, shift augmentation, padding, seed) and writes one JSON file
for each to `--output`; cells that are there already are skipped, so it can be stopped and started again. `table` prints
the means with 95% intervals over the seeds.
"""

from __future__ import annotations

import gzip
import itertools
import json
import math
import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

import dealias
from dealias.errors import InputError
from dealias.evaluation import measure_accuracy, measure_shifts
from dealias.files import prepare_output, write_whole
from dealias.models import create_model
from dealias.perturb import circular_shift, zero_fill_shift
from dealias.training import fit

FILTERS = ("none", "rect2", "tri3", "bin4", "bin5", "bin7")
PADDINGS = ("zeros", "circular")
CIRCULAR_SHIFT, ZERO_FILL_SHIFT = 16, 3
IMAGES = Path("/usr/share/datasets/fashion-mnist")  # where Debian's dataset-fashion-mnist puts them

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
Results = Annotated[Path, typer.Option(help="Folder of the cells' JSON files.")]


def read_idx(path: Path) -> Tensor:
    """The array in a gzipped IDX file of unsigned bytes (LeCun's MNIST format)."""
    try:
        data = gzip.decompress(path.read_bytes())
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error}): install Debian's dataset-fashion-mnist or give --data"
        ) from None
    axes = data[3]
    shape = [int.from_bytes(data[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(axes)]
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape).copy())


def fashion_mnist(folder: Path, part: str, device: str) -> tuple[Tensor, Tensor]:
    """Images (N, 1, 32, 32) in [0, 1], zeros around the 28 x 28 pixels, and classes; `part` is "train" or "t10k"."""
    images = read_idx(folder / f"{part}-images-idx3-ubyte.gz").to(device)
    labels = read_idx(folder / f"{part}-labels-idx1-ubyte.gz").to(device)
    return F.pad(images.unsqueeze(1).float() / 255, (2, 2, 2, 2)), labels.long()


def shift_augmentation(padding: str) -> Any:
    """Random shifts like those of the measurement: circular for circular networks, else small ones with zeros."""

    def augment(images: Tensor, generator: torch.Generator) -> Tensor:
        reach = CIRCULAR_SHIFT if padding == "circular" else ZERO_FILL_SHIFT
        drawn = torch.randint(-reach, reach + 1, (2, len(images)), generator=generator).to(images.device)
        move = circular_shift if padding == "circular" else zero_fill_shift
        return move(images, drawn[0], drawn[1])

    return augment


def probability_variation(network: torch.nn.Module, images: Tensor, labels: Tensor) -> float:
    """Mean |change| of P(correct) from one diagonal zero-fill shift in [-3, 3] to the next."""
    with torch.no_grad():
        curves = [
            torch.cat(
                [
                    network(zero_fill_shift(x, shift, shift)).softmax(1).gather(1, y[:, None])
                    for x, y in zip(images.split(1000), labels.split(1000), strict=True)
                ]
            )
            for shift in range(-ZERO_FILL_SHIFT, ZERO_FILL_SHIFT + 1)
        ]
    return float(torch.cat(curves, 1).diff(dim=1).abs().mean())


def run_cell(cell: dict[str, Any], data: Path, device: str, epochs: int, limit: int | None) -> dict[str, Any]:
    """Train and measure one network."""
    started = time.monotonic()
    train_images, train_labels = fashion_mnist(data, "train", device)
    test_images, test_labels = fashion_mnist(data, "t10k", device)
    torch.manual_seed(cell["seed"])
    network = create_model(cell["network"], in_chans=1, padding_mode=cell["padding"]).to(device)
    if cell["filter"] != "none":
        network = dealias.antialias(network, test_images[:1], filter=cell["filter"])
    network = fit(
        network,
        train_images[:limit],
        train_labels[:limit],
        epochs=epochs,
        batch_size=128,
        learning_rate=0.1,
        seed=cell["seed"],
        augment=shift_augmentation(cell["padding"]) if cell["augmented"] else None,
    )
    trained = time.monotonic() - started
    result = cell | {"epochs": epochs, "training_images": len(train_images[:limit])}
    result |= measure_accuracy(network, test_images, test_labels, batch_size=1000)
    modes = {"zero_fill": {"max_shift": ZERO_FILL_SHIFT, "batch_size": 1000}}
    if cell["padding"] == "circular":  # circular shifts mean nothing to a network that pads with zeros
        modes["circular"] = {"max_shift": CIRCULAR_SHIFT, "batch_size": 1000}
    result |= measure_shifts(network, test_images, modes, seed=cell["seed"])
    result["probability_variation"] = probability_variation(network, test_images, test_labels)
    result |= {"torch": torch.__version__, "device": device_name(device)}
    return result | {"training_seconds": round(trained, 1), "seconds": round(time.monotonic() - started, 1)}


def device_name(device: str) -> str:
    """What the figures were measured on."""
    return torch.cuda.get_device_name() if device.startswith("cuda") else "CPU"


def cell_path(output: Path, cell: dict[str, Any]) -> Path:
    """One file for each cell."""
    shifts = "augmented" if cell["augmented"] else "plain"
    name = cell["network"].partition(":")[2]
    return output / f"{name}-{cell['padding']}-{shifts}-{cell['filter']}-{cell['seed']}.json"


def _work(task: tuple[dict[str, Any], Path, str, int, int | None, Path]) -> None:
    cell, data, device, epochs, limit, output = task
    torch.set_num_threads(1)
    write_whole(cell_path(output, cell), json.dumps(run_cell(cell, data, device, epochs, limit), indent=1) + "\n")


@app.command()
def run(
    network: str = "dealias:vgg_small",
    seeds: int = 5,
    epochs: int = 6,
    limit: int | None = None,
    device: str = "cpu",
    workers: int = 1,
    data: Path = IMAGES,
    output: Results = Path("runs/fashion"),
) -> None:
    """Train and measure every cell that is not there yet."""
    prepare_output(output)
    read_idx(data / "t10k-labels-idx1-ubyte.gz")  # a wrong folder shows before any work
    # seeds outermost: stopped early, the finished seeds are whole
    cells = [
        {"network": network, "seed": seed, "filter": filter, "padding": padding, "augmented": augmented}
        for seed, augmented, padding, filter in itertools.product(range(seeds), (False, True), PADDINGS, FILTERS)
    ]
    tasks = [(cell, data, device, epochs, limit, output) for cell in cells if not cell_path(output, cell).exists()]
    with torch.multiprocessing.get_context("spawn").Pool(workers) as pool:
        for _ in track(pool.imap_unordered(_work, tasks), total=len(tasks), description=network):
            pass


@app.command()
def table(output: Results = Path("runs/fashion")) -> None:
    """Print mean and 95% interval over the seeds (Student's t) for every group of cells."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for path in sorted(output.glob("*.json")):
        cell = json.loads(path.read_text())
        key = (cell["network"], cell["padding"], cell["augmented"], FILTERS.index(cell["filter"]))
        groups.setdefault(key, []).append(cell)
    shown = Table(title="Fashion-MNIST, %")
    for column in ("network", "padding", "shifts in training", "filter", "seeds", "accuracy", "circular", "zero-fill"):
        shown.add_column(column)
    for key, members in sorted(groups.items()):
        values = [
            _mean_with_interval([100 * member[name] for member in members if name in member])
            for name in ("accuracy", "circular_consistency", "zero_fill_consistency")
        ]
        shown.add_row(key[0], key[1], "yes" if key[2] else "no", FILTERS[key[3]], str(len(members)), *values)
    Console(width=140).print(shown)


def _mean_with_interval(values: list[float]) -> str:
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:.2f}"
    student = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}[len(values)]
    return f"{statistics.mean(values):.2f} ± {student * statistics.stdev(values) / math.sqrt(len(values)):.2f}"


if __name__ == "__main__":
    app()
