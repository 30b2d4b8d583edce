"""What the fused CPU operations cost beside their rivals: paired ratios, one table, one CSV, one plot.

    python benchmarks/ops.py --output results --markdown docs/performance.md

Every round times, one after the other, the fused operation, the same operation in pure PyTorch (as every library has
it), the aliased `nn.MaxPool2d(3, 2, 1)`, and a copy between two buffers that have been written before (never-written
ones read the zero page and flatter the copy). The copy gives the bandwidth; the bound is the time to move what the
operation must: read the input and write the output once; for the backward also read the output's gradient, for a ReLU
or a maximum the input again, and write the input's gradient. Ratios are taken within a round, then the median over
rounds. On one thread the clock is the thread's CPU time, so that other load does not count.

`--rivals` adds `torch.compile` of the pure PyTorch form and whatever is installed of timm, kornia and the paper's
package (antialiased-cnns), the last two only where they have the same operation.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import io
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dealias import functional, ops
from dealias.files import prepare_output, write_whole
from dealias.filters import FILTERS
from dealias.ops import cpu, reference

TAPS = FILTERS["bin4"]
SIZES = {112: (8, 64), 56: (8, 128), 28: (16, 256), 32: (32, 64)}  # pixels: images and channels
LAYOUTS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
BEGIN, END = "<!-- benchmarks/ops.py: begin -->", "<!-- benchmarks/ops.py: end -->"

Op = Callable[[Tensor], Tensor]


@dataclass
class Contest:
    """One operation, its rivals, and how many elements it must move per element of the input."""

    name: str
    fused: Op
    unfused: Op
    rivals: dict[str, Op] = field(default_factory=dict)
    reads_input_twice: bool = True  # the backward needs it, too

    def traffic(self, backward: bool) -> float:
        """Elements that cross the memory bus, for each element of the input."""
        forward = 1.25
        return forward + (1.25 + self.reads_input_twice) * backward


def _unfused_max(x: Tensor) -> Tensor:
    return reference.max_blur_pool(x, (2, 2), (1, 1), (0, 0), (0, 0), False, TAPS, (2, 2), "reflect")


def _unfused_blur(x: Tensor) -> Tensor:
    return reference.blur_pool(x, TAPS, (2, 2), "reflect")


def _unfused_relu(x: Tensor) -> Tensor:
    return reference.relu_blur_pool(x, TAPS, (2, 2), "reflect")


def contests() -> list[Contest]:
    """The three operations with the filter bin4 at stride 2; the maximum over 2 x 2 windows."""
    return [
        Contest("max_blur_pool2d(2)", lambda x: functional.max_blur_pool2d(x, 2), _unfused_max),
        Contest("blur_pool2d", functional.blur_pool2d, _unfused_blur, reads_input_twice=False),
        Contest("relu_blur_pool2d", functional.relu_blur_pool2d, _unfused_relu),
    ]


def add_rivals(contest: Contest, channels: int) -> dict[str, Op]:
    """`torch.compile` of the unfused form, and what is installed of other libraries."""
    rivals: dict[str, Op] = {"compiled": torch.compile(contest.unfused, dynamic=False)}
    pools = {"max_blur_pool2d(2)": nn.MaxPool2d(2, 1), "blur_pool2d": nn.Identity(), "relu_blur_pool2d": nn.ReLU()}
    if importlib.util.find_spec("timm"):
        from timm.layers import BlurPool2d

        # timm's filter has an odd number of taps: bin5 in place of bin4.
        rivals["timm"] = nn.Sequential(pools[contest.name], BlurPool2d(channels, filt_size=5, stride=2))
    if importlib.util.find_spec("kornia") and contest.name != "relu_blur_pool2d":
        from kornia.filters import BlurPool2D, MaxBlurPool2D

        rivals["kornia"] = MaxBlurPool2D(3, stride=2) if contest.name.startswith("max") else BlurPool2D(4, stride=2)
    if importlib.util.find_spec("antialiased_cnns"):
        from antialiased_cnns import BlurPool

        rivals["antialiased_cnns"] = nn.Sequential(pools[contest.name], BlurPool(channels, filt_size=4, stride=2))
    return rivals


def step(op: Op, x: Tensor, backward: bool) -> Callable[[], object]:
    """The forward, or the forward and the backward for a gradient that exists already."""
    if not backward:
        return lambda: op(x)
    x = x.detach().requires_grad_()
    upstream = torch.randn_like(op(x).detach())
    return lambda: torch.autograd.grad(op(x), x, upstream)


def saved_beyond_input(op: Op, x: Tensor) -> float:
    """Bytes that the backward keeps beside the input itself, in units of the input."""
    x = x.detach().requires_grad_()
    kept: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        op(x)
    kept.pop(x.untyped_storage().data_ptr(), None)
    small = x.numel() * x.element_size() / 1000  # the filter does not count
    return sum(size for size in kept.values() if size > small) / (x.numel() * x.element_size())


def race(steps: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each step, one after the other in every round."""
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(2):
        for run in steps.values():
            run()
    for _ in range(rounds):
        for name, run in steps.items():
            start = clock()
            run()
            times[name].append(clock() - start)
    return times


def measure(
    contest: Contest, layout: str, dtype: str, pixels: int, rounds: int, rivals: bool
) -> list[dict[str, object]]:
    """Two rows of the table: forward, and forward + backward."""
    images, channels = SIZES[pixels]
    x = torch.randn(images, channels, pixels, pixels).to(DTYPES[dtype]).contiguous(memory_format=LAYOUTS[layout])
    source, target = torch.randn(x.numel()), torch.randn(x.numel())
    element = x.element_size() / 4
    others = {"unfused": contest.unfused, "MaxPool2d(3,2,1)": lambda x: F.max_pool2d(x, 3, 2, 1)}
    if contest.name == "blur_pool2d":
        others["AvgPool2d(2)"] = lambda x: F.avg_pool2d(x, 2)
    if rivals:
        others |= add_rivals(contest, channels)
    rows = []
    for backward in (False, True):
        steps = {name: step(op, x, backward) for name, op in {"fused": contest.fused, **others}.items()}
        times = race({**steps, "copy": lambda: target.copy_(source)}, rounds)
        bound = [seconds / 2 * element * contest.traffic(backward) for seconds in times["copy"]]
        row: dict[str, object] = {
            "op": contest.name,
            "layout": layout,
            "dtype": dtype,
            "pixels": pixels,
            "pass": "forward + backward" if backward else "forward",
            "milliseconds": round(1e3 * statistics.median(times["fused"]), 3),
            "over bound": round(statistics.median(f / b for f, b in zip(times["fused"], bound, strict=True)), 2),
            "saved": round(saved_beyond_input(contest.fused, x), 3),
            "saved, unfused": round(saved_beyond_input(contest.unfused, x), 3),
        }
        for name in others:
            ratios = [o / f for o, f in zip(times[name], times["fused"], strict=True)]
            row[f"{name} / fused"] = round(statistics.median(ratios), 2)
        rows.append(row)
    return rows


def as_csv(rows: list[dict[str, object]]) -> str:
    """All columns of all rows; a rival that does not apply leaves its field empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_markdown(rows: list[dict[str, object]]) -> str:
    """The table of the documentation."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
    lines += [" | ".join(str(row.get(name, "")) for name in columns) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def processor() -> str:
    """The name that the system gives to the processor."""
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else "unknown processor"


def replace_section(path: Path, body: str) -> None:
    """Put `body` between this script's marks in the file, at its end where there are none yet."""
    text = path.read_text() if path.exists() else "# Performance\n"
    if BEGIN not in text:
        text = f"{text.rstrip()}\n\n## On the CPU\n\n{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    write_whole(path, f"{before}{BEGIN}\n{body}\n{END}{rest.partition(END)[2]}")


def plot(rows: list[dict[str, object]], path: Path) -> None:
    """How many times as fast as the unfused form, as bars."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 0.35 * len(rows) / 2 + 1.5), sharey=True, layout="constrained")
    for axis, which in zip(axes, ("forward", "forward + backward"), strict=True):
        chosen = [row for row in rows if row["pass"] == which]
        labels = [f"{row['op']} {row['layout']} {row['dtype']} {row['pixels']} px" for row in chosen]
        axis.barh(labels, [float(str(row["unfused / fused"])) for row in chosen])
        axis.set(title=which, xlabel="times as fast as pure PyTorch", xscale="log")
        axis.axvline(1, color="black", linewidth=0.8)
    axes[0].invert_yaxis()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--dtypes", nargs="+", default=["float32"], choices=list(DTYPES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--isa", choices=cpu.INSTRUCTION_SETS, help="run with this instruction set")
    parser.add_argument(
        "--rivals", action="store_true", help="torch.compile, timm, kornia, antialiased-cnns, if installed"
    )
    parser.add_argument("--output", type=Path, help="folder for ops.csv and ops.png")
    parser.add_argument("--markdown", type=Path, help="file whose section on the CPU is replaced")
    options = parser.parse_args()
    reason = ops.backends()["cpu"]
    if reason != "active":
        raise SystemExit(f"the native kernels do not run: {reason}")
    output = None if options.output is None else prepare_output(options.output)
    torch.set_num_threads(options.threads)
    rows = []
    with cpu.use_instruction_set(options.isa or cpu.instruction_set()):
        head = (
            f"{processor()}, {options.threads} thread{'s' * (options.threads > 1)}, {cpu.instruction_set()}, "
            f"torch {torch.__version__}; medians of paired ratios over {options.rounds} rounds."
        )
        print(head)
        for contest in contests():
            for layout in LAYOUTS:
                for dtype in options.dtypes:
                    for pixels in options.sizes:
                        for row in measure(contest, layout, dtype, pixels, options.rounds, options.rivals):
                            rows.append(row)
                            print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    if output is not None:
        write_whole(output / "ops.csv", as_csv(rows))
        plot(rows, output / "ops.png")
        print(output / "ops.csv")
    if options.markdown is not None:
        shapes = ", ".join(f"{n} x {c} at {pixels} px" for pixels, (n, c) in SIZES.items() if pixels in options.sizes)
        body = (
            f'{head}\n\nImages x channels: {shapes}. "over bound" is the time over the time to move the bytes, '
            '"X / fused" how many times as long X takes, "saved" what the backward keeps beside the input, in units '
            f"of the input. Measured by `python benchmarks/ops.py`; how, its first lines say.\n\n{as_markdown(rows)}"
        )
        replace_section(options.markdown, body)


if __name__ == "__main__":
    main()
