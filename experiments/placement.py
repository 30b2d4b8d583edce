"""The blur behind the non-linearity, in front of a strided convolution, and none: the table of docs/conversion.md.

    PYTHONPATH=benchmarks python experiments/placement.py --seeds 3 --markdown docs/conversion.md

A small network with four strided convolutions, trained on Fashion-MNIST without shift augmentation. All networks of a
seed have the same first weights and the same order of images.
"""

from __future__ import annotations

import time
from pathlib import Path
from statistics import mean, median

import torch
from images import as_input, load
from tables import as_markdown, replace_section, script_parser
from torch import Tensor, nn

from dealias import antialias
from dealias.metrics import measure_consistencies
from dealias.training import fit

PLACEMENTS = {"none": "none", "before": "before", "after": "after (the default)"}
WIDTHS = (16, 32, 64, 64)
MODES = {"circular": {"max_shift": 16}, "zero_fill": {"max_shift": 3}}
COLUMNS = ("accuracy", "circular consistency", "zero-fill consistency", "training time / none")


def strided_network() -> nn.Sequential:
    """A stem, and for each width a strided convolution and a dense one; 32 pixels become 2. Circular padding."""
    layers: list[nn.Module] = _block(1, WIDTHS[0], 1)
    for before, width in zip((WIDTHS[0], *WIDTHS), WIDTHS, strict=False):
        layers += [*_block(before, width, 2), *_block(width, width, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTHS[-1], 10))


def _block(before: int, width: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(before, width, 3, stride, 1, bias=False, padding_mode="circular")
    return [convolution, nn.BatchNorm2d(width), nn.ReLU()]


def trained(placement: str, seed: int, images: Tensor, labels: Tensor, epochs: int) -> tuple[nn.Module, float]:
    """A network and the CPU seconds of its training."""
    torch.manual_seed(seed)
    network: nn.Module = strided_network()
    if placement != "none":
        network = antialias(network, images[:1], placement=placement, strict=True)
    started = time.process_time()
    fit(network, images, labels, epochs=epochs, learning_rate=0.1, seed=seed)
    return network, time.process_time() - started


def measured(network: nn.Module, images: Tensor, labels: Tensor) -> list[float]:
    """Accuracy and both consistencies, in percent."""
    with torch.no_grad():
        right = torch.cat([network(part).argmax(1) for part in images.split(500)]) == labels
    found = measure_consistencies(network, images[:500], {mode: {**reach, "seed": 0} for mode, reach in MODES.items()})
    return [100 * float(right.float().mean()), *(100 * found[mode].consistency for mode in MODES)]


def main() -> None:
    """Train all networks and write the table."""
    parser = script_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--images", type=int, default=6_000)
    asked = parser.parse_args()
    data = load("fashion", None, Path("build/fashion"))
    train, labels = as_input(data.train[: asked.images]), data.train_labels[: asked.images]
    test, test_labels = as_input(data.test[:5000]), data.test_labels[:5000]
    found: dict[str, list[list[float]]] = {placement: [] for placement in PLACEMENTS}
    for seed in range(asked.seeds):
        seconds = {}
        for placement in PLACEMENTS:
            network, seconds[placement] = trained(placement, seed, train, labels, asked.epochs)
            figures = [*measured(network, test, test_labels), seconds[placement] / seconds["none"]]
            found[placement].append(figures)
            print(placement, seed, *(f"{figure:.2f}" for figure in figures), flush=True)
    rows = [{"placement": title, **_cells(found[placement])} for placement, title in PLACEMENTS.items()]
    how = f"{len(train):,} images, {asked.epochs} epochs; means of {asked.seeds} seeds, in brackets the least and the"
    text = f"{how} largest; times are medians of the ratios within a seed.\n\n{as_markdown(rows, COLUMNS)}"
    print(text)
    if asked.markdown is not None:
        replace_section(asked.markdown, "placement.py", text)


def _cells(figures: list[list[float]]) -> dict[str, str]:
    *shares, times = zip(*figures, strict=True)
    cells = [f"{mean(one):.1f} [{min(one):.1f}, {max(one):.1f}]" for one in shares]
    return dict(zip(COLUMNS, [*cells, f"{median(times):.2f}"], strict=True))


if __name__ == "__main__":
    main()
