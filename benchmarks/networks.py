"""What anti-aliasing costs in whole networks on the CPU: where a training step's time goes, and a demo's epoch.

    python benchmarks/networks.py --output results --markdown docs/performance.md

ResNet-50: training steps (SGD with momentum) of the plain and of the anti-aliased network (same-size recipe), the
latter with the fused operations and with the pure PyTorch path, one after the other in every round, from the same
weights. A dispatch mode times every operation that reaches PyTorch's dispatcher below autograd, forward and backward,
and adds up the times by kind. The pure PyTorch path's blurs are convolutions, told from the others by their weight of
shape (C, 1, k, k), which no convolution of ResNet-50 has; its padding and maxima count as pooling. What is left of the
step is Python, autograd and the mode itself.

Demo: epochs of vgg_small on the demo's digits, trained as `dealias demo` does it, one network after the other in every
round.

On one thread the clock is the thread's CPU time, so that other load on the machine does not count.
"""

from __future__ import annotations

import argparse
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from tables import add_outputs, as_markdown, replace_section, write_csv
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dealias import antialias, ops
from dealias.benchmark import LAYOUTS, Row, clock, median_ratio, processor
from dealias.data import digits_split
from dealias.models import create_model
from dealias.training import fit

CONVOLUTION, NORM, POOLING, OTHER = "convolutions", "norms", "pooling, activation, blur", "other operations"
OPTIMIZER, REST = "optimizer", "Python and autograd"
KINDS = (CONVOLUTION, NORM, POOLING, OTHER, OPTIMIZER, REST)
POOLING_WORDS = ("pool", "relu", "threshold", "pad", "maximum", "blur")
BASELINE, FUSED, UNFUSED = "plain", "anti-aliased, fused", "anti-aliased, pure PyTorch"

Step = Callable[[], object]


class Stopwatch(TorchDispatchMode):
    """Adds up the seconds of every operation by kind."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the operation and note its time."""
        start = clock()
        result = func(*args, **(kwargs or {}))
        self.seconds[kind_of(func.name(), args)] += clock() - start
        return result


def kind_of(name: str, args: Sequence[Any]) -> str:
    """Which of `KINDS` an operation is."""
    if "convolution" in name:
        weight = next(t for t in reversed(args[:3]) if isinstance(t, Tensor))
        return POOLING if weight.shape[0] > 1 and weight.shape[1] == 1 else CONVOLUTION
    if "batch_norm" in name:
        return NORM
    return POOLING if any(word in name for word in POOLING_WORDS) else OTHER


def seconds_by_kind(loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """The seconds of one training step, by kind."""
    start = clock()
    with Stopwatch() as watch:
        loss().backward()
    middle = clock()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    end = clock()
    seconds = {kind: watch.seconds[kind] for kind in KINDS}
    return seconds | {OPTIMIZER: end - middle, REST: middle - start - watch.seconds.total()}


def resnet_steps(layout: str, batch: int, pixels: int, rounds: int) -> list[Row]:
    """One row for each form of ResNet-50: milliseconds of a step by kind, and the shares that matter."""
    plain = create_model("torchvision:resnet50").train()
    images = torch.randn(batch, 3, pixels, pixels).contiguous(memory_format=LAYOUTS[layout])
    labels = torch.randint(1000, (batch,))
    forms: dict[str, tuple[nn.Module, Callable[[], AbstractContextManager[None]]]] = {
        BASELINE: (plain, nullcontext),
        FUSED: (antialias(plain, images[:1]), nullcontext),
        UNFUSED: (antialias(plain, images[:1]), partial(ops.use_backend, "reference")),
    }
    optimizers = {}
    for name, (model, _) in forms.items():
        model.to(memory_format=LAYOUTS[layout])
        optimizers[name] = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
    times: dict[str, list[dict[str, float]]] = {name: [] for name in forms}
    for turn in range(rounds + 1):  # the first does not count
        for name, (model, path) in forms.items():
            with path():
                seconds = seconds_by_kind(lambda m=model: F.cross_entropy(m(images), labels), optimizers[name])
            if turn:
                times[name].append(seconds)
    rows: list[Row] = []
    for name in forms:
        row: Row = {"ResNet-50": name, "layout": layout}
        totals = [sum(seconds.values()) for seconds in times[name]]
        row["step, ms"] = round(1e3 * statistics.median(totals))
        row |= {f"{kind}, ms": round(1e3 * statistics.median(s[kind] for s in times[name]), 1) for kind in KINDS}
        outside = {form: [sum_outside(seconds) for seconds in times[form]] for form in (name, BASELINE)}
        pooling = {form: [seconds[POOLING] for seconds in times[form]] for form in (name, BASELINE)}
        row["outside convolutions and norms, % of the step"] = round(100 * median_ratio(outside[name], totals), 1)
        row["the same / the plain network's"] = round(median_ratio(outside[name], outside[BASELINE]), 3)
        row["pooling, activation, blur / the plain network's"] = round(
            median_ratio(pooling[name], pooling[BASELINE]), 3
        )
        rows.append(row)
    return rows


def sum_outside(seconds: Mapping[str, float]) -> float:
    """The time of a step that is not spent in convolutions and norms."""
    return sum(seconds.values()) - seconds[CONVOLUTION] - seconds[NORM]


def demo_epochs(images: int, rounds: int) -> list[Row]:
    """One row for each form of the demo's network: seconds of an epoch, and the ratio to the baseline's."""
    (inputs, labels), _ = digits_split(0)
    inputs, labels = inputs[:images], labels[:images]
    times: dict[str, list[float]] = {name: [] for name in (BASELINE, FUSED, UNFUSED)}
    for turn in range(rounds + 1):  # the first does not count
        for name, epochs in times.items():
            torch.manual_seed(0)
            network = create_model("dealias:vgg_small", padding_mode="circular")
            if name != BASELINE:
                network = antialias(network, inputs[:1])
            with ops.use_backend("reference") if name == UNFUSED else nullcontext():
                start = clock()
                fit(network, inputs, labels, epochs=1, batch_size=64, learning_rate=0.1)
            if turn:
                epochs.append(clock() - start)
    return [
        {
            "demo's network": name,
            "epoch, s": round(statistics.median(epochs), 3),
            "epoch / baseline's": round(median_ratio(epochs, times[BASELINE]), 3),
        }
        for name, epochs in times.items()
    ]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--networks", nargs="+", default=["resnet50", "demo"], choices=["resnet50", "demo"])
    parser.add_argument("--layouts", nargs="+", default=list(LAYOUTS), choices=list(LAYOUTS))
    parser.add_argument("--batch", type=int, default=8, help="images in a step of ResNet-50")
    parser.add_argument("--pixels", type=int, default=224, help="size of ResNet-50's images")
    parser.add_argument("--images", type=int, default=4000, help="images in an epoch of the demo's network")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    add_outputs(parser)
    options = parser.parse_args()
    if ops.backends()["cpu"] != "active":
        raise SystemExit(f"the native kernels do not run: {ops.backends()['cpu']}")
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    tables: dict[str, list[Row]] = {}
    if "demo" in options.networks:
        tables["demo"] = demo_epochs(options.images, options.rounds)
        print(as_markdown(tables["demo"]), flush=True)
    if "resnet50" in options.networks:
        tables["resnet50"] = []
        for layout in options.layouts:
            tables["resnet50"] += resnet_steps(layout, options.batch, options.pixels, options.rounds)
        print(as_markdown(tables["resnet50"]), flush=True)
    if options.output is not None:
        for name, rows in tables.items():
            write_csv(options.output, f"networks-{name}.csv", rows)
    if options.markdown is not None:
        head = (
            f"{processor()}, {options.threads} thread{'s' * (options.threads > 1)}, torch {torch.__version__}; medians "
            f"over {options.rounds} rounds, ratios within a round. ResNet-50: batch {options.batch}, {options.pixels} "
            f"pixels; demo: {options.images} digits an epoch. Measured by `python benchmarks/networks.py`; how, its "
            "first lines say."
        )
        replace_section(
            options.markdown, "benchmarks/networks.py", "\n\n".join([head, *map(as_markdown, tables.values())])
        )


if __name__ == "__main__":
    main()
