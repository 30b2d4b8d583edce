"""dealias beside kornia, timm, composer and antialiased-cnns: the same blur, timed side by side: docs/peers.md.

    make peers

A library that is not installed is left out. Every round runs all of them on the same map, one after the other. A ratio
is the median over the rounds of its time, within a round, to that of dealias. The clock is the thread's CPU time.
"""

from __future__ import annotations

import argparse
import importlib.util
import runpy
import statistics
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from operators import import_torchvision
from tables import add_markdown, as_markdown, replace_section
from torch import Tensor, nn

import dealias
from dealias.benchmark import Row, clock, processor

import_torchvision()

Build = Callable[[int], nn.Module]
MAPS = {"64 x 56 x 56": (8, 64, 56, 56), "256 x 14 x 14": (8, 256, 14, 14)}


def composer_blur(channels: int) -> nn.Module:
    """Composer's layer, from its file alone: the package as a whole needs dozens of others."""
    package = importlib.util.find_spec("composer")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("composer")
    file = Path(package.origin).parent / "algorithms" / "blurpool" / "blurpool_layers.py"
    layer: nn.Module = runpy.run_path(str(file))["BlurPool2d"](channels)
    return layer


def _of(module: str, name: str) -> Callable[..., nn.Module]:
    return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]


BLURS: dict[str, tuple[str, Build]] = {
    "dealias": ("dealias", lambda channels: dealias.BlurPool2d("tri3", 2)),
    "kornia": ("kornia", lambda channels: _of("kornia.filters", "BlurPool2D")(3, 2)),
    "timm": ("timm", lambda channels: _of("timm.layers", "BlurPool2d")(channels, 3, 2)),
    "composer": ("mosaicml", composer_blur),
    "antialiased-cnns": (
        "antialiased-cnns",
        lambda channels: _of("antialiased_cnns", "BlurPool")(channels, filt_size=3, stride=2),
    ),
}
"""[1 2 1] on both axes at stride 2, which all of them have: the package, and the layer for so many channels."""


def installed() -> dict[str, Build]:
    """The libraries that can be imported."""
    found = {}
    for name, (_, build) in BLURS.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                build(4)
            except Exception as error:
                print(f"{name}: {type(error).__name__}: {error}")
                continue
        found[name] = build
    return found


def seconds(layer: nn.Module, x: Tensor, backward: bool) -> float:
    """The time of five calls."""
    start = clock()
    for _ in range(5):
        y = layer(x)
        if backward:
            x.grad = None
            y.sum().backward()
    return clock() - start


def compared(libraries: dict[str, Build], shape: tuple[int, ...], backward: bool, rounds: int) -> dict[str, float]:
    """How many times as long as dealias each library takes."""
    layers = {name: build(shape[1]) for name, build in libraries.items()}
    x = torch.rand(shape, requires_grad=backward)
    for layer in layers.values():
        seconds(layer, x, backward)
    times = [{name: seconds(layer, x, backward) for name, layer in layers.items()} for _ in range(rounds)]
    return {name: statistics.median(one[name] / one["dealias"] for one in times) for name in layers}


def equal(libraries: dict[str, Build]) -> dict[str, str]:
    """Whether a layer returns the map that dealias does, inside and at the borders."""
    x = torch.rand(2, 4, 12, 12)
    ours = libraries["dealias"](4)(x)
    words = {}
    for name, build in libraries.items():
        theirs = build(4)(x)
        if theirs.shape != ours.shape:
            words[name] = "another size"
        elif torch.allclose(theirs, ours, atol=1e-5):
            words[name] = "the same"
        else:
            inside = torch.allclose(theirs[..., 1:-1, 1:-1], ours[..., 1:-1, 1:-1], atol=1e-5)
            words[name] = "the same inside, another border" if inside else "other values"
    return words


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    add_markdown(parser)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    libraries = installed()
    values = equal(libraries)
    rows: list[Row] = [
        {
            "library": name,
            "version": dealias.__version__ if name == "dealias" else version(BLURS[name][0]),
            "values": values[name],
        }
        for name in libraries
    ]
    for words, shape in MAPS.items():
        for backward in (False, True):
            found = compared(libraries, shape, backward, asked.rounds)
            for row in rows:
                passes = "forward + backward" if backward else "forward"
                row[f"{words}, {passes}"] = f"{found[str(row['library'])]:.1f}"
    columns = [name for name in rows[0] if name not in ("library", "version", "values")]
    text = (
        f"{processor()}, one thread, torch {torch.__version__}, float32, 8 images; times relative to dealias,\n"
        f"medians of {asked.rounds} rounds.\n\n{as_markdown(rows, columns)}"
    )
    print(text)
    if asked.markdown is not None:
        replace_section(asked.markdown, "peers.py", text)


if __name__ == "__main__":
    main()
