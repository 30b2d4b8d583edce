"""How far the fused GPU kernels are from the speed of memory: one command, one table, one CSV.

    python benchmarks/gpu.py --output results --markdown docs/performance.md

Every operation at the shapes of ResNet-50 and of CIFAR networks, forward and forward + backward, against: a copy of the
same bytes measured in the same run (input and output, once each; the backward also reads the output's gradient and
writes the input's, and for a ReLU or a maximum reads the input again); the unfused form (`F.pad` and a grouped
convolution) eager and under `torch.compile`; `nn.MaxPool2d`. Then training steps of whole networks: plain,
anti-aliased, and "sliced", the anti-aliased network with each blur replaced by strided slicing, which has the same
convolutions; and the time that the first use of the kernels takes with an empty cache.

Times are medians over repeats; buffers rotate, so that no input is in the cache when its turn comes. The operations are
replayed from CUDA graphs, so that the times are the device's; the "called" column has the fused ones' as Python calls
them, one after the other, which on small maps is Python's time. The last table says for each target whether it holds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from tables import add_outputs, as_markdown, replace_section, write_csv
from torch import Tensor, nn

from dealias import functional, ops
from dealias import nn as layers
from dealias.filters import FILTERS
from dealias.models import create_model
from dealias.ops.arguments import Blur, Pool

TAPS = (FILTERS["bin4"],) * 2
# (operation, pool kernel, pool padding, channels, pixels): where they stand in ResNet-50, VGG16 and CIFAR networks
SHAPES = [
    ("blur", 0, 0, 256, 56),
    ("blur", 0, 0, 512, 28),
    ("blur", 0, 0, 1024, 14),
    ("blur", 0, 0, 64, 32),
    ("relu_blur", 0, 0, 128, 56),
    ("relu_blur", 0, 0, 256, 28),
    ("relu_blur", 0, 0, 512, 14),
    ("relu_blur", 0, 0, 64, 32),
    ("max_blur", 3, 1, 64, 112),
    ("max_blur", 2, 0, 128, 112),
    ("max_blur", 2, 0, 256, 56),
    ("max_blur", 2, 0, 512, 28),
    ("max_blur", 2, 0, 64, 32),
    ("max_blur", 2, 0, 128, 16),
    ("max_blur", 2, 0, 256, 8),
]
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
OVERHEAD, PEAK = "anti-aliasing ops, % of the sliced step", "peak over sliced, %"

Row = dict[str, Any]


def clock(device: str, calls: list[Callable[[], object]], repeats: int) -> float:
    """Median seconds of one call; the calls of a repeat follow each other without a pause."""
    for call in calls[:3]:
        call()
    seconds = []
    for _ in range(repeats):
        if device == "cuda":
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            torch.cuda.synchronize()
            start.record()
            for call in calls:
                call()
            end.record()
            torch.cuda.synchronize()
            seconds.append(start.elapsed_time(end) / 1e3 / len(calls))
        else:
            begin = time.perf_counter()
            for call in calls:
                call()
            seconds.append((time.perf_counter() - begin) / len(calls))
    return statistics.median(seconds)


def replayed(device: str, calls: list[Callable[[], object]]) -> Callable[[], object]:
    """One call that repeats all of them, on a GPU without Python between them: a CUDA graph."""
    if device != "cuda":
        return lambda: [call() for call in calls]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # compiles and loads all kernels before the capture
        for call in calls:
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    return graph.replay


def unfused(op: str, kernel: int, padding: int) -> Callable[[Tensor], Tensor]:
    """The operation as other libraries have it."""
    line = torch.tensor(TAPS[0])

    def run(x: Tensor) -> Tensor:
        if op == "relu_blur":
            x = F.relu(x)
        elif op == "max_blur":
            x = F.max_pool2d(x, kernel, 1, padding)
        channels = x.shape[1]
        weight = (line[:, None] * line).to(x).expand(channels, 1, 4, 4)
        return F.conv2d(F.pad(x, (1, 2, 1, 2), mode="reflect"), weight, stride=2, groups=channels)

    return run


def fused(op: str, kernel: int, padding: int) -> Callable[[Tensor], Tensor]:
    """The operation of this package."""
    if op == "max_blur":
        return lambda x: functional.max_blur_pool2d(x, kernel, 2, padding)
    return functional.relu_blur_pool2d if op == "relu_blur" else functional.blur_pool2d


def with_backward(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Forward and backward."""
    return lambda x, grad: torch.autograd.grad(function(x), x, grad)[0]


@dataclass
class Bench:
    """What the measurements share."""

    device: str
    repeats: int
    rotate_bytes: int
    """The inputs that take turns hold at least so many bytes together: several times the cache."""
    graphs: bool = True

    def seconds(self, calls: list[Callable[[], object]]) -> float:
        """Median seconds of one call on the device."""
        run = replayed(self.device, calls) if self.graphs else lambda: [call() for call in calls]
        return clock(self.device, [run], self.repeats) / len(calls)

    def copy(self, size: int) -> float:
        """Seconds to copy so many bytes, counting those read and those written."""
        elements = max(1, size // 2)
        pairs = [
            (
                torch.ones(elements, dtype=torch.uint8, device=self.device),
                torch.ones(elements, dtype=torch.uint8, device=self.device),
            )
            for _ in range(self.rotations(size))
        ]
        return self.seconds([lambda a=a, b=b: a.copy_(b) for a, b in pairs])

    def rotations(self, size: int) -> int:
        """How many buffers of `size` bytes take turns."""
        return max(2, min(64, -(-self.rotate_bytes // size)))

    def operation(self, shape: tuple[str, int, int, int, int], batch: int, dtype: str, layout: str) -> Iterator[Row]:
        """Two rows: forward, and forward + backward."""
        op, kernel, padding, channels, pixels = shape
        size = (batch, channels, pixels, pixels)
        count = self.rotations(batch * channels * pixels**2 * DTYPES[dtype].itemsize)
        inputs = [
            torch.randn(size, device=self.device, dtype=DTYPES[dtype]).contiguous(memory_format=LAYOUTS[layout])
            for _ in range(count)
        ]
        forms: dict[str, Callable[[Tensor], Tensor]] = {
            "fused": fused(op, kernel, padding),
            "eager": unfused(op, kernel, padding),
            "compiled": torch.compile(unfused(op, kernel, padding), fullgraph=True, dynamic=False),
        }
        if op == "max_blur":
            forms["MaxPool2d"] = nn.MaxPool2d(kernel, 2, padding)
        y = forms["fused"](inputs[0])
        blur, pool = Blur(TAPS, (2, 2), "reflect"), Pool((kernel,) * 2, (1, 1), (padding,) * 2, (padding,) * 2, False)
        if ops.backend_for(inputs[0], blur, pool if kernel else None) != self.device:
            raise SystemExit("the fused kernels do not run here: " + str(ops.backends()))
        input_bytes, output_bytes = (t.numel() * t.element_size() for t in (inputs[0], y))
        forward = input_bytes + output_bytes
        both = 2 * forward + (input_bytes if op != "blur" else 0)
        grads = [torch.randn_like(y) for _ in range(count)]
        name = {"operation": f"{op}{f'({kernel})' if kernel else ''}", "shape": f"{batch}x{channels}x{pixels}x{pixels}"}
        name |= {"dtype": dtype, "layout": layout}
        with torch.no_grad():
            calls = {form: [lambda x=x, run=run: run(x) for x in inputs] for form, run in forms.items()}
            yield name | {"pass": "forward"} | self.ratios(forward, calls)
        for x in inputs:
            x.requires_grad_()
        pairs = list(zip(inputs, grads, strict=True))
        both_ways = {form: with_backward(run) for form, run in forms.items()}
        calls = {form: [lambda x=x, g=g, run=run: run(x, g) for x, g in pairs] for form, run in both_ways.items()}
        yield name | {"pass": "forward + backward"} | self.ratios(both, calls)
        torch.compiler.reset()

    def ratios(self, size: int, calls: dict[str, list[Callable[[], object]]]) -> Row:
        """The share of the copy's speed, and the other forms' times over the fused one's."""
        called = clock(self.device, calls["fused"], self.repeats)
        seconds = {form: self.seconds(repeated) for form, repeated in calls.items()}
        copy = self.copy(size)
        row: Row = {"microseconds": round(seconds["fused"] * 1e6, 1), "called": round(called * 1e6, 1)}
        row |= {"of copy": round(copy / seconds["fused"], 3), "copy GB/s": round(size / copy / 1e9)}
        for form in ("eager", "compiled", "MaxPool2d"):
            row[f"{form} / fused"] = round(seconds[form] / seconds["fused"], 2) if form in seconds else ""
        return row

    def networks(self, batch: int, pixels: int) -> Iterator[Row]:
        """One row for each network, eager and compiled: steps of SGD in bfloat16, channels_last."""
        for architecture in ("resnet50", "vgg16_bn"):
            for compiled in (False, True):
                times: dict[str, float] = {}
                peaks: dict[str, float] = {}
                for form in ("plain", "sliced", "anti-aliased"):
                    times[form], peaks[form] = self.step(architecture, form, compiled, batch, pixels)
                yield {
                    "network": architecture,
                    "mode": "compiled" if compiled else "eager",
                    "batch": batch,
                    **{f"{form} images/s": round(batch / seconds) for form, seconds in times.items()},
                    **{f"{form} peak GB": round(size / 1e9, 2) for form, size in peaks.items()},
                    OVERHEAD: round(100 * (times["anti-aliased"] / times["sliced"] - 1), 1),
                    PEAK: round(100 * (peaks["anti-aliased"] / max(peaks["sliced"], 1) - 1), 1),
                }

    def step(self, architecture: str, form: str, compiled: bool, batch: int, pixels: int) -> tuple[float, float]:
        """Seconds of a training step, and the bytes allocated at its peak."""
        model = create_model(f"torchvision:{architecture}", antialias=form != "plain")
        if form == "sliced":
            slice_blurs(model)
        model = model.to(self.device, torch.bfloat16, memory_format=torch.channels_last).train()
        optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
        images = torch.randn(batch, 3, pixels, pixels, device=self.device, dtype=torch.bfloat16)
        images = images.contiguous(memory_format=torch.channels_last)
        target = torch.randint(1000, (batch,), device=self.device)
        run = torch.compile(model) if compiled else model

        def train() -> None:
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(run(images).float(), target).backward()
            optimizer.step()

        train()
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds = clock(self.device, [train] * 3, self.repeats)
        peak = float(torch.cuda.max_memory_allocated()) if self.device == "cuda" else 0.0
        torch.compiler.reset()
        return seconds, peak


class Sliced(nn.Module):
    """What stands in for a blur: the same maximum or ReLU, then strided slicing."""

    def __init__(self, blur: nn.Module) -> None:
        super().__init__()
        self.stride = blur.stride
        self.first: nn.Module = nn.Identity()
        if isinstance(blur, layers.MaxBlurPool2d):
            self.first = nn.MaxPool2d(blur.kernel_size, 1, blur.padding)
        elif isinstance(blur, layers.ReLUBlurPool2d):
            self.first = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Slice."""
        y = self.first(x)[:, :, :: self.stride[0], :: self.stride[1]]
        return y.contiguous(memory_format=torch.channels_last)


def slice_blurs(model: nn.Module) -> None:
    """Replace every layer of ours by `Sliced`."""
    for path, module in list(model.named_modules()):
        if isinstance(module, layers.BlurPool2d | layers.MaxBlurPool2d):
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, Sliced(module))


FIRST_USE = """
import time, torch
from dealias import functional as f
x = torch.randn(8, 64, 56, 56, device="cuda", requires_grad=True)
torch.cuda.synchronize(); start = time.perf_counter()
y = f.blur_pool2d(x).sum() + f.relu_blur_pool2d(x).sum() + f.max_blur_pool2d(x, 3, 2, 1).sum()
y.backward(); torch.cuda.synchronize(); print(time.perf_counter() - start)
"""


def first_use() -> list[Row]:
    """Seconds that forward and backward of all three operations take in a new process, without and with the cache."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"TRITON_CACHE_DIR": folder}
        rows = []
        for cache in ("empty", "kept from the process before"):
            output = subprocess.run(
                [sys.executable, "-c", FIRST_USE], env=environment, capture_output=True, text=True, check=True
            ).stdout
            rows.append({"first use of all three, cache": cache, "seconds": round(float(output), 2)})
        return rows


def verdicts(tables: Mapping[str, Sequence[Row]]) -> list[Row]:
    """For each target what was measured at worst, and whether it holds; of what was not measured, nothing."""
    operations, networks = tables.get("operations", []), tables.get("networks", [])
    large = [
        row for row in operations if int(row["shape"].split("x")[-1]) >= 56 and int(row["shape"].split("x")[0]) >= 64
    ]
    pooled = [row for row in operations if row["pass"] == "forward + backward" and row["MaxPool2d / fused"] != ""]
    resnets = [row for row in networks if row["network"] == "resnet50"]
    worst = [
        ("share of the copy's speed, 56 px and batch 64 and above", min, 0.8, [row["of copy"] for row in large]),
        ("compiled unfused form / fused, all shapes", min, 1.0, [row["compiled / fused"] for row in operations]),
        ("MaxPool2d / max_blur_pool2d, forward + backward", min, 1.0, [row["MaxPool2d / fused"] for row in pooled]),
        ("ResNet-50: anti-aliasing ops, % of the sliced step", max, 3.0, [row[OVERHEAD] for row in resnets]),
        ("ResNet-50: peak memory over sliced, %", max, 10.0, [row[PEAK] for row in resnets]),
        ("first use of all three, seconds", max, 5.0, [row["seconds"] for row in tables.get("first-use", [])]),
    ]
    return [
        {
            "target": f"{name}: at {'least' if of is min else 'most'} {limit:g}",
            "worst": of(values),
            "holds": "yes" if (of(values) >= limit if of is min else of(values) <= limit) else "no",
        }
        for name, of, limit, values in worst
        if values
    ]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="Measure the fused kernels on a GPU.")
    add_outputs(parser)
    parser.add_argument("--no-graphs", action="store_true", help="time the operations as Python calls them")
    parser.add_argument(
        "--sections", nargs="+", default=["start", "ops", "networks"], choices=["start", "ops", "networks"]
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="cpu only tries the program out")
    parser.add_argument("--quick", action="store_true", help="one shape of each operation, small networks' images")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA device: this measures GPUs (--device cpu only tries the program out)")
    cuda = options.device == "cuda"
    name = torch.cuda.get_device_name() if cuda else "CPU"
    bench = Bench(
        options.device,
        options.repeats,
        4 * torch.cuda.get_device_properties(0).L2_cache_size if cuda else 2**20,
        not options.no_graphs,
    )
    shapes = [SHAPES[3], SHAPES[7], SHAPES[13]] if options.quick else SHAPES
    tables: dict[str, list[Row]] = {}
    if "start" in options.sections and cuda:
        tables["first-use"] = first_use()
    if "ops" in options.sections:
        rows = tables.setdefault("operations", [])
        for shape in shapes:
            for batch in options.batch:
                for dtype in DTYPES:
                    for layout in LAYOUTS:
                        for row in bench.operation(shape, batch, dtype, layout):
                            rows.append(row)
                            print(*row.values(), sep="  ", flush=True)
    if "networks" in options.sections:
        tables["networks"] = list(bench.networks(options.batch[0], 64 if options.quick else 224))
    if any(tables.values()):
        tables["targets"] = verdicts(tables)
    text = f"Device: {name}; torch {torch.__version__}.\n\n" + "\n\n".join(map(as_markdown, tables.values()))
    print("\n" + text)
    if options.output:
        for table, rows in tables.items():
            write_csv(options.output, f"gpu-{table}.csv", [{"device": name, **row} for row in rows])
    if options.markdown:
        replace_section(options.markdown, "benchmarks/gpu.py", text)


if __name__ == "__main__":
    main()
