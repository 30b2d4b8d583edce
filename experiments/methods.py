"""Blurs and anchors beside each other: accuracy, consistency under each kind of shift, and the cost of training.

    python experiments/methods.py                       # digits, 3 seeds: each cell without a record
    python experiments/methods.py --data fashion --seeds 0 1 2 3 4 --augment
    python experiments/methods.py --table               # the table of docs/invariance.md, from the records

Networks pad circularly. A cell is one network, trained in one way from one seed. Its record is written to
experiments/methods.jsonl when it is finished: a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

import torch
from images import as_input, load
from records import Record, Records
from torch import Tensor, nn

from dealias import antialias
from dealias.errors import InputError
from dealias.files import write_whole
from dealias.metrics import wilson_interval
from dealias.models import create_model
from dealias.perturb import circular_shift, fourier_shift, zero_fill_shift
from dealias.training import fit

RESULTS = Path(__file__).parent / "methods.jsonl"
PAGE = Path(__file__).parents[1] / "docs" / "invariance.md"
METHODS = {
    "none": "plain",
    "bin4": "blur, bin4",
    "polyphase-none": "anchors",
    "polyphase-bin4": "anchors and bin4",
}
REACH = 3  # pixels of zero-fill shifts
FEW = 64  # circular shifts of the networks without anchors; those with anchors are measured under all


@dataclass(frozen=True)
class Cell:
    """A network and its training: `augment` rolls each training image by a random shift."""

    data: str
    method: str
    augment: bool
    epochs: int
    seed: int

    @property
    def name(self) -> str:
        """The name of the cell's record."""
        return "-".join(
            map(str, (self.data, self.method, "shifted" if self.augment else "plain", self.epochs, self.seed))
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


def build(method: str, seed: int) -> nn.Module:
    """vgg_small with the weights of `seed`, treated by `method`."""
    torch.manual_seed(seed)
    network = create_model("dealias:vgg_small", padding_mode="circular")
    kind, _, filter = method.rpartition("-")
    if method == "none":
        return network
    return antialias(network, torch.zeros(1, 1, 32, 32), method=kind or "blur", filter=filter)


@torch.no_grad()
def classes(network: nn.Module, images: Tensor) -> Tensor:
    """The top class of each image."""
    return torch.cat([network(part).argmax(1) for part in images.split(250)])


def views(images: Tensor, every: bool) -> dict[str, Iterator[Tensor]]:
    """By kind of shift: the images under each shift of the kind; of the circular ones under `FEW`, unless `every`."""
    whole = list(itertools.product(range(images.shape[-1]), repeat=2))
    if not every:
        order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(0))
        whole = [whole[index] for index in order[:FEW].tolist()]
    thirds = [(a, b) for a, b in itertools.product((0.0, 1 / 3, 0.5, 2 / 3), repeat=2) if a or b]
    small = list(itertools.product(range(-REACH, REACH + 1), repeat=2))
    return {
        "circular": (images.roll(shift, (2, 3)) for shift in whole),
        "fractional": (fourier_shift(images, *shift) for shift in thirds),
        "zero-fill": (zero_fill_shift(images, *shift) for shift in small),
    }


def measure(network: nn.Module, images: Tensor, labels: Tensor, every: bool) -> Record:
    """Accuracy; by kind of shift, the shares of equal classes, of images with one class, and of those always right."""
    still = classes(network, images)
    record: Record = {"accuracy": float((still == labels).float().mean()), "images": len(images)}
    for kind, shifted in views(images, every).items():
        equal, always, right, count = 0, torch.ones(len(images), dtype=torch.bool), still == labels, 0
        for view in shifted:
            same = classes(network, view) == still
            equal, count = equal + int(same.sum()), count + len(images)
            always &= same
        record[kind] = {
            "consistency": equal / count,
            "constant": float(always.float().mean()),
            "adversarial_accuracy": float((always & right).float().mean()),
            "views": count // len(images),
        }
    return record


def run(cell: Cell, work: Path) -> Record:
    """Train and measure the network of `cell`."""
    images = load(cell.data, None, work)
    train = as_input(images.train[:12000])
    network = build(cell.method, cell.seed)
    started = time.perf_counter()
    learner = Rolled(network) if cell.augment else network
    torch.manual_seed(cell.seed)
    fit(learner, train, images.train_labels[:12000], epochs=cell.epochs, learning_rate=0.1, seed=cell.seed)
    seconds = time.perf_counter() - started
    network.eval()
    found = measure(
        network, as_input(images.test[:1000]), images.test_labels[:1000], cell.method.startswith("polyphase")
    )
    steps = cell.epochs * (len(train) // 64)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {**asdict(cell), **found, "ms_per_step": 1000 * seconds / steps, "peak_mib": peak}


def table(records: dict[str, Record]) -> str:
    """The records in Markdown: means over seeds in percent, accuracy with its interval over all images."""
    lines = [
        "| data | images | network | accuracy | circular | always right | fractional | zero-fill | ms a step | seeds |",
        "| --- " * 10 + "|",
    ]
    groups: dict[tuple[str, bool, str], list[Record]] = {}
    for record in records.values():
        groups.setdefault((record["data"], record["augment"], record["method"]), []).append(record)
    order = list(METHODS)
    for (data, augment, method), found in sorted(
        groups.items(), key=lambda item: (*item[0][:2], order.index(item[0][2]))
    ):
        total = sum(one["images"] for one in found)
        low, high = wilson_interval(round(sum(one["accuracy"] * one["images"] for one in found)), total)
        kinds = [
            100 * mean(one[kind]["consistency"] for one in found) for kind in ("circular", "fractional", "zero-fill")
        ]
        always = 100 * mean(one["circular"]["adversarial_accuracy"] for one in found)
        accuracy = 100 * mean(one["accuracy"] for one in found)
        cells = [
            data,
            "shifted" if augment else "as it is",
            METHODS[method],
            f"{accuracy:.1f} ({100 * low:.1f}-{100 * high:.1f})",
            f"{kinds[0]:.2f}",
            f"{always:.1f}",
            f"{kinds[1]:.1f}",
            f"{kinds[2]:.1f}",
            f"{mean(one['ms_per_step'] for one in found):.0f}",
            str(len(found)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run the cells that are not done, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=("digits", "fashion"), default="digits")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--augment", action="store_true", help="roll the training images at random")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--work", type=Path, default=Path("runs/experiments"), help="folder of downloads")
    parser.add_argument("--table", action="store_true", help="write the table into docs/invariance.md, run nothing")
    asked = parser.parse_args()
    records = Records(asked.results)
    if asked.table:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition("<!-- methods -->\n")
        _, _, after = rest.partition("<!-- end of methods -->")
        text = f"{before}<!-- methods -->\n{table(records.read())}\n<!-- end of methods -->{after}"
        write_whole(PAGE, text)
        return
    for seed in asked.seeds:
        for method in asked.methods:
            cell = Cell(asked.data, method, asked.augment, asked.epochs, seed)
            if cell.name not in records.read():
                print(cell.name, flush=True)
                records.add(cell.name, run(cell, asked.work))


if __name__ == "__main__":
    try:
        main()
    except (InputError, FloatingPointError, OSError) as error:
        sys.exit(f"error: {error}")
