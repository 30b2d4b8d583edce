"""Compare dealias with the paper's authors' networks: the same weights have to give the same logits.

    pip install --no-deps --target build/antialiased-cnns antialiased-cnns==0.3
    PYTHONPATH=build/antialiased-cnns python benchmarks/zhang_parity.py --output docs/zhang-parity.md

For each network of the released zoo and each filter: build the authors' network with random weights and random batch
statistics, save its state dict as the released files hold it, load that with `dealias.models.load_zhang_checkpoint`
into dealias's network, and run both on one random image of each size. The table is written anew after each network.

`antialiased-cnns` is licensed CC BY-NC-SA: it is run here to compare with, and is no dependency of dealias.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from tables import as_markdown
from torch import Tensor, nn

from dealias.convert import antialias
from dealias.files import write_whole
from dealias.models import create_model, load_zhang_checkpoint

NETWORKS = (
    "alexnet",
    *(f"vgg{depth}{norm}" for norm in ("", "_bn") for depth in (11, 13, 16, 19)),
    *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
    "resnext50_32x4d",
    "resnext101_32x8d",
    "wide_resnet50_2",
    "wide_resnet101_2",
    *(f"densenet{depth}" for depth in (121, 161, 169, 201)),
    "mobilenet_v2",
)
TOLERANCE = 1e-4
CONTROL = "3 taps in place of 4"
Results = dict[str, dict[str, list[float]]]
"""By network and column of the table, the differences at each input size."""


def randomize(network: nn.Module) -> nn.Module:
    """Give every parameter and batch statistic a random value under which all layers matter."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, std=0.1)
            module.num_batches_tracked.fill_(7)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.1)
    return network.eval()


def save_as_released(network: nn.Module, path: Path, *, parallel: bool) -> None:
    """Write the state dict as training wrote it, the prefix being DataParallel's."""
    prefix = "module." if parallel else ""
    torch.save({"epoch": 1, "state_dict": {prefix + key: value for key, value in network.state_dict().items()}}, path)


def draw_image(size: int) -> Tensor:
    """Smooth shapes and some noise: on noise alone, which averages out, all images have nearly the same logits."""
    shapes = F.interpolate(torch.randn(1, 3, 7, 7), (size, size), mode="bicubic")
    return 2 * shapes + 0.5 * torch.randn(1, 3, size, size)


def differ(one: nn.Module, other: nn.Module, size: int) -> float:
    """The largest difference of the logits of one image, divided by their standard deviation."""
    image = draw_image(size)
    expected, got = one(image), other(image)
    return float((expected - got).abs().max() / expected.std())


@contextmanager
def no_initial_weights() -> Iterator[None]:
    """Skip the initial weights of new networks, which others replace: drawing them takes longest."""
    names = ("kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "normal_", "uniform_", "trunc_normal_")
    with patch.multiple(nn.init, **{name: lambda tensor, *_, **__: tensor for name in names}):
        yield


@torch.inference_mode()
def compare(authors: Any, name: str, filters: list[int], sizes: list[int], folder: Path) -> dict[str, list[float]]:
    """The differences of the logits at each input size, by filter."""
    path = folder / f"{name}.pth"
    results: dict[str, list[float]] = {}
    for taps in filters:
        torch.manual_seed(taps)
        with no_initial_weights():
            theirs = getattr(authors, name)(pretrained=False, filter_size=taps)
            ours = create_model(f"torchvision:{name}", antialias=True, filter=taps, recipe="zhang2019").eval()
        save_as_released(randomize(theirs), path, parallel=taps % 2 == 1)
        load_zhang_checkpoint(ours, path)
        results[f"{taps} taps"] = [differ(theirs, ours, size) for size in sizes]
    with no_initial_weights():
        theirs = getattr(authors, name)(pretrained=False, filter_size=4)
        plain = create_model(f"torchvision:{name}")
    save_as_released(randomize(theirs), path, parallel=False)
    load_zhang_checkpoint(plain, path)
    other = antialias(plain, torch.zeros(1, 3, 224, 224), filter=3, recipe="zhang2019", inplace=True).eval()
    return results | {CONTROL: [differ(theirs, other, size) for size in sizes]}


def cell(differences: list[float]) -> str:
    """The differences at all sizes."""
    return " / ".join(f"{difference:.1e}" for difference in differences)


def table(results: Results, sizes: list[int]) -> str:
    """The results as a Markdown page."""
    columns = list(next(iter(results.values())))
    differences = [
        value for row in results.values() for column in columns if column != CONTROL for value in row[column]
    ]
    lines = [
        "# Parity with the paper's networks",
        "",
        "The networks of `antialiased-cnns` 0.3, by the paper's authors, with random weights and batch statistics,",
        'against `create_model("torchvision:NAME", antialias=True, filter=K, recipe="zhang2019")` with the same',
        "weights, loaded by `load_zhang_checkpoint`. Each figure is the largest difference of the 1,000 logits of one",
        "random image, divided by their standard deviation (float32 on the CPU, "
        f"PyTorch {torch.__version__.partition('+')[0]}), at inputs of",
        f"{' / '.join(map(str, sizes))} pixels. The last column is a control: there the filters differ on purpose.",
        "",
        f"{len(differences)} comparisons of {len(results)} networks; the largest difference is {max(differences):.1e}; "
        f"{sum(not value <= TOLERANCE for value in differences)} are above {TOLERANCE:.0e}. "
        "Made by `benchmarks/zhang_parity.py`.",
        "",
        as_markdown(
            [{"network": name} | {column: cell(row[column]) for column in columns} for name, row in results.items()],
            columns,
        ),
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Compare, print each figure and write the table; 1 if a difference is too large, or a control too small."""
    parser = argparse.ArgumentParser(description="Compare the logits of dealias's networks with the paper's authors'.")
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS, metavar="NAME")
    parser.add_argument("--filters", nargs="+", type=int, default=[2, 3, 4, 5], metavar="TAPS")
    parser.add_argument("--sizes", nargs="+", type=int, default=[224, 256], metavar="PIXELS")
    parser.add_argument("--output", type=Path, help="Markdown file to write the table into")
    arguments = parser.parse_args()
    try:
        authors = import_module("antialiased_cnns")
    except ModuleNotFoundError:
        parser.error("antialiased-cnns is not importable: see the head of this file")
    results: Results = {}
    for name in arguments.networks:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            results[name] = compare(authors, name, arguments.filters, arguments.sizes, Path(folder))
        figures = "; ".join(f"{column}: {cell(values)}" for column, values in results[name].items())
        print(f"{name}: {figures} ({time.perf_counter() - start:.0f} s)", flush=True)
        if arguments.output is not None:
            write_whole(arguments.output, table(results, arguments.sizes))
    failed = [
        f"{name} ({column})"
        for name, row in results.items()
        for column, values in row.items()
        if any(math.isnan(value) or (value <= TOLERANCE) == (column == CONTROL) for value in values)
    ]
    if failed:
        print(f"not as expected: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
