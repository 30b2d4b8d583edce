"""Blurs and anchors beside each other: accuracy, and consistency under each kind of shift.

    python experiments/methods.py --data digits           # 3 seeds of vgg_small: each cell without a record
    python experiments/methods.py --data fashion          # 5 seeds of two networks, with and without augmentation
    python experiments/methods.py --cost                  # time and memory of a step of training
    python experiments/methods.py --table                 # the tables of docs/invariance.md, from the records

Networks pad circularly. A cell is one network, trained in one way from one seed. Its record is written to
experiments/methods.jsonl when it is finished: a run that was stopped goes on where it was, and several may run at the
same time.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from images import as_input, load
from method_costs import cost
from method_networks import METHODS, NETWORKS, build
from method_pages import write_page
from records import Record, Records
from torch import Tensor, nn

from dealias.errors import InputError
from dealias.perturb import circular_shift, crop, fourier_shift, resize_and_crop, zero_fill_shift
from dealias.training import fit

RESULTS = Path(__file__).parent / "methods.jsonl"
REACH = 3  # pixels of zero-fill shifts
WIDE = 36  # pixels of the images in which windows of 32 slide
FEW = 64  # circular shifts, but for the network with anchors on the digits, which is measured under all


@dataclass(frozen=True)
class Extent:
    """What is run on some data.

    Attributes:
        seeds, networks: of the cells.
        augment: with shift augmentation or without it.
        epochs, train: how often the networks see how many training images.
        test: images that accuracy is measured on.
        shifted: of these, the images that are shifted.
    """

    seeds: range
    networks: tuple[str, ...]
    augment: tuple[bool, ...]
    epochs: int
    train: int
    test: int
    shifted: int


EXTENT = {
    "digits": Extent(range(3), ("vgg_small",), (False,), 8, 4000, 1000, 1000),
    "fashion": Extent(range(5), tuple(NETWORKS), (False, True), 4, 4000, 2000, 500),
}


@dataclass(frozen=True)
class Cell:
    """A network and its training: `augment` rolls each training image by a random shift."""

    data: str
    network: str
    method: str
    augment: bool
    seed: int

    @property
    def name(self) -> str:
        """The name of the cell's record."""
        return "-".join(
            map(str, (self.data, self.network, self.method, "shifted" if self.augment else "plain", self.seed))
        )


class Rolled(nn.Module):
    """The network during training, which rolls each image by a random circular shift."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Logits of rolled images (N, C, H, W)."""
        dy, dx = torch.randint(0, images.shape[-1], (2, len(images)))
        logits: Tensor = self.network(circular_shift(images, dy, dx))
        return logits


@torch.no_grad()
def classes(network: nn.Module, images: Tensor) -> Tensor:
    """The top class of each image."""
    return torch.cat([network(part).argmax(1) for part in images.split(250)])


def views(images: Tensor, every: bool) -> dict[str, Iterator[Tensor]]:
    """By kind of shift: the images under each shift of the kind; of the circular ones under `FEW`, unless `every`.

    Args:
        images: (N, C, 32, 32).
    """
    whole = list(itertools.product(range(images.shape[-1]), repeat=2))
    if not every:
        order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(0))
        whole = [whole[index] for index in order[:FEW].tolist()]
    small = itertools.product(range(-REACH, REACH + 1, 2), repeat=2)
    wide, side = resize_and_crop(images, WIDE), images.shape[-1]
    windows = itertools.product(range(0, WIDE - side + 1, 2), repeat=2)
    return {
        "circular": (images.roll(shift, (2, 3)) for shift in whole),
        "half": (fourier_shift(images, *shift) for shift in parts_of_a_pixel(2)),
        "third": (fourier_shift(images, *shift) for shift in parts_of_a_pixel(3)),
        "zero-fill": (zero_fill_shift(images, *shift) for shift in small),
        "crop": (crop(wide, *window, side) for window in windows),
    }


def parts_of_a_pixel(count: int) -> list[tuple[float, float]]:
    """The shifts by whole numbers of 1 / count of a pixel below one, on both axes, but for none at all."""
    return [(dy / count, dx / count) for dy, dx in itertools.product(range(count), repeat=2) if dy or dx]


def measure(network: nn.Module, images: Tensor, labels: Tensor, shifted: int, every: bool) -> Record:
    """Accuracy; by kind of shift of the first `shifted` images, what `agreement` finds."""
    still = classes(network, images)
    record: Record = {"accuracy": int((still == labels).sum()) / len(images), "images": len(images), "shifted": shifted}
    for kind, moved in views(images[:shifted], every).items():
        found = torch.stack([classes(network, view) for view in moved])
        record[kind] = agreement(found if kind == "crop" else torch.cat([still[None, :shifted], found]), labels)
    return record


def agreement(found: Tensor, labels: Tensor) -> Record:
    """The shares of views with the class of the first, of images with one class in all, and of those that are right.

    Args:
        found: the classes of the views of some images, (views, images).
        labels: the right classes of the images, and of others behind them.
    """
    same = found[1:] == found[0]
    constant = same.all(0)
    right = constant & (found[0] == labels[: found.shape[1]])
    return {
        "consistency": int(same.sum()) / same.numel(),
        "constant": int(constant.sum()) / len(constant),
        "adversarial_accuracy": int(right.sum()) / len(constant),
        "views": len(found),
    }


def run(cell: Cell, work: Path) -> Record:
    """Train and measure the network of `cell`."""
    images, extent = load(cell.data, None, work), EXTENT[cell.data]
    train = as_input(images.train[: extent.train])
    network = build(cell.network, cell.method, cell.seed)
    learner = Rolled(network) if cell.augment else network
    torch.manual_seed(cell.seed)
    fit(learner, train, images.train_labels[: extent.train], epochs=extent.epochs, learning_rate=0.1, seed=cell.seed)
    network.eval().to(memory_format=torch.channels_last)
    every = cell.data == "digits" and cell.method == "polyphase-none"
    test = as_input(images.test[: extent.test]).contiguous(memory_format=torch.channels_last)
    found = measure(network, test, images.test_labels[: extent.test], extent.shifted, every)
    return {**asdict(cell), **found}


def main() -> None:
    """Run the cells that are not done, measure costs, or write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=tuple(EXTENT), default="digits")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--networks", nargs="+", choices=tuple(NETWORKS), help="those of the data unless given")
    parser.add_argument("--seeds", type=int, nargs="+", help="those that are reported unless given")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--work", type=Path, default=Path("runs/experiments"), help="folder of downloads")
    parser.add_argument("--cost", action="store_true", help="measure what steps of training cost, train nothing")
    parser.add_argument("--table", action="store_true", help="write the tables of docs/invariance.md, run nothing")
    asked = parser.parse_args()
    records = Records(asked.results)
    if asked.table:
        write_page(records.read())
        return
    if asked.cost:
        for network in asked.networks or NETWORKS:
            records.add(f"cost-{network}", cost(network, asked.methods))
        return
    extent = EXTENT[asked.data]
    for seed, network, augment, method in itertools.product(
        asked.seeds or extent.seeds, asked.networks or extent.networks, extent.augment, asked.methods
    ):
        cell = Cell(asked.data, network, method, augment, seed)
        if cell.name not in records.read():
            print(cell.name, flush=True)
            records.add(cell.name, run(cell, asked.work))


if __name__ == "__main__":
    try:
        main()
    except (InputError, FloatingPointError, OSError) as error:
        sys.exit(f"error: {error}")
