"""The paper's experiment on Fashion-MNIST: filters, padding and shift augmentation against accuracy and consistency.

    python experiments/fashion.py                    # every cell without a record, the most telling first
    python experiments/fashion.py --quick            # the digits: minutes
    python experiments/fashion.py --network vgg13_bn_cifar --seeds 3 --epochs 30 --device cuda
    python experiments/fashion.py --table            # docs/experiments.md and its figure, from the records

The records of all cells are in experiments/results.jsonl. A run that was stopped goes on where it was, and several may
run at the same time.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cells import COMPARED, EXTENT, FILTERS, METHODS, Cell, Laboratory, Settings
from images import load
from pages import write_page

from dealias.errors import InputError, MissingExtraError

RESULTS = Path(__file__).parent / "results.jsonl"
DOCS = Path(__file__).parents[1] / "docs"
WORK = Path("runs/experiments")
FIRST_FILTERS = ("none", COMPARED, "rect2")


def grid(data: str, network: str, epochs: int, seeds: range, filters: tuple[str, ...]) -> list[Cell]:
    """All cells: first those that test the paper's claim, last those of the seeds after the third."""
    ordered = sorted(filters, key=lambda name: FIRST_FILTERS.index(name) if name in FIRST_FILTERS else len(filters))
    first = [name for name in ordered if name in FIRST_FILTERS]
    rest = [name for name in ordered if name not in FIRST_FILTERS]
    cells = []
    for group in (seeds[:3], seeds[3:]):
        for padding, augment in EXTENT[data][1]:
            cells += [
                Cell(data, network, padding, augment, name, "scratch", epochs, seed) for seed in group for name in first
            ]
            if (padding, augment) == ("circular", False):
                cells += [
                    Cell(data, network, padding, augment, COMPARED, method, epochs, seed)
                    for seed in group
                    for method in METHODS[1:]
                ]
            cells += [
                Cell(data, network, padding, augment, name, "scratch", epochs, seed) for name in rest for seed in group
            ]
    return cells


def main() -> None:
    """Run the cells that are asked for and not done, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the digits: circular padding, three filters, two seeds")
    parser.add_argument("--table", action="store_true", help="write docs/experiments.md from the records, run nothing")
    parser.add_argument("--list", action="store_true", help="name the cells and whether they are done, run nothing")
    parser.add_argument("--network", choices=("vgg_small", "vgg13_bn_cifar"), default="vgg_small")
    parser.add_argument(
        "--data", type=Path, help="folder of Fashion-MNIST's IDX files; default: Debian's or downloaded"
    )
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, help="number of seeds; default 5, 3 for vgg13_bn_cifar, 2 if quick")
    parser.add_argument("--filters", nargs="+", choices=FILTERS)
    parser.add_argument("--only", nargs="+", default=[], help="run the cells whose name has all of these in it")
    parser.add_argument("--limit", type=int, help="run at most so many cells")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of the page")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of the records")
    parser.add_argument("--work", type=Path, default=WORK, help="folder of weights and perturbed images")
    for name, value in vars(Settings()).items():
        choices = ("bf16", "float32") if name == "precision" else None
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value, choices=choices)
    asked = parser.parse_args()
    if asked.table:
        print(write_page(asked.results, asked.docs))
        return
    data = "digits" if asked.quick else "fashion"
    seeds = range(asked.seeds or (2 if asked.quick else 3 if asked.network == "vgg13_bn_cifar" else 5))
    filters = tuple(asked.filters or EXTENT[data][0])
    settings = Settings(**{name: getattr(asked, name) for name in vars(Settings())})
    cells = grid(data, asked.network, asked.epochs, seeds, filters)
    cells = [cell for cell in cells if all(part in cell.name for part in asked.only)]
    if not cells:
        raise InputError(
            f"only={' '.join(asked.only)!r} is not in the name of any cell: --list without --only lists the names"
        )
    laboratory = Laboratory(
        load(data, asked.data, asked.work),
        settings,
        asked.results,
        asked.work,
        asked.device,
        lambda text: print(text, flush=True),
    )
    if asked.list:
        for cell in cells:
            print("done   " if laboratory.is_done(cell) else "missing", cell.name)
        return
    missing = [cell for cell in cells if not laboratory.is_done(cell)]
    print(f"{len(cells) - len(missing)} of {len(cells)} cells are done", flush=True)
    for cell in missing[: asked.limit]:
        laboratory.run(cell)


if __name__ == "__main__":
    try:
        main()
    except (InputError, MissingExtraError, FloatingPointError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("interrupted: the cells that are done stay", file=sys.stderr)
        sys.exit(130)
