"""The fused CPU operations beside their rivals, the long form of `dealias bench`: one table, one CSV, one plot.

    python benchmarks/ops.py --rivals --output results --markdown docs/performance.md --image docs/images/ops.svg

What is measured, and how, `dealias.benchmark` says. `--rivals` adds `torch.compile` of the pure PyTorch path, and what
is installed of timm, kornia and the paper's package, antialiased-cnns: pip install kornia antialiased-cnns, in another
environment or with --target and PYTHONPATH. What is missing is said, and its column left out. Each rival takes part
with its nearest form: timm's blur has an odd number of taps (bin5), kornia pads with zeros.

`--isa avx2` measures the kernels for another instruction set than the machine's best, `--inputs 4` takes four inputs in
turn, so that all data come from memory where a cache holds those of one: each into a section of its own.

What an anchor costs beside a copy of its map, benchmarks/anchors.py tells.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from tables import add_outputs, as_markdown, replace_section, write_csv
from torch import Tensor, nn

from dealias import ops
from dealias.benchmark import DTYPES, LAYOUTS, SIZES, Contest, Op, Row, columns_of, contests, measure, processor
from dealias.ops import cpu
from dealias.optional import require

PACKAGES = {"timm": "timm", "kornia": "kornia", "antialiased-cnns": "antialiased_cnns"}


def missing_rivals() -> list[str]:
    """The packages that cannot be imported."""
    return [name for name, module in PACKAGES.items() if importlib.util.find_spec(module) is None]


def rivals(contest: Contest, x: Tensor) -> Mapping[str, Op]:
    """`torch.compile` of the unfused form, and the same operation in the installed ones of `PACKAGES`."""
    torch.compiler.reset()
    channels, missing = x.shape[1], missing_rivals()
    found: dict[str, Op] = {"compiled": torch.compile(contest.unfused, dynamic=False)}
    modules: dict[str, nn.Module] = {}
    if "timm" not in missing:
        blur = require("timm.layers").BlurPool2d
        modules["timm"] = nn.Sequential(contest.before_blur, blur(channels, filt_size=5, stride=2))
    if "kornia" not in missing:
        from kornia.filters import BlurPool2D, MaxBlurPool2D

        if isinstance(contest.before_blur, nn.MaxPool2d):
            modules["kornia"] = MaxBlurPool2D(4, stride=2, max_pool_size=2)
        else:
            modules["kornia"] = nn.Sequential(contest.before_blur, BlurPool2D(4, stride=2))
    if "antialiased-cnns" not in missing:
        from antialiased_cnns import BlurPool

        modules["antialiased-cnns"] = nn.Sequential(contest.before_blur, BlurPool(channels, filt_size=4, stride=2))
    return found | {name: module.to(x.dtype) for name, module in modules.items()}


def keep_freed_memory() -> None:
    """Let glibc keep large blocks that are freed.

    Else it gives some back to the system, whose new pages then cost as much as the operation that writes into them.
    Which operation that is depends on the order of the blocks.
    """
    trim_threshold, mmap_threshold = -1, -3  # as in malloc.h; both get the largest value that glibc takes
    allocator = ctypes.CDLL(None)
    if hasattr(allocator, "mallopt"):
        allocator.mallopt(trim_threshold, 2**31 - 1)
        allocator.mallopt(mmap_threshold, 2**25)


def plot(rows: Sequence[Row], path: Path) -> None:
    """How many times as long as the fused form the others take: one panel for each operation and pass."""
    import matplotlib.pyplot as plt

    panels = list(dict.fromkeys((str(row["op"]), str(row["pass"])) for row in rows))
    forms = [name for name in columns_of(rows) if name.endswith(" / fused")]
    lines = (len(panels) + 1) // 2
    size = (12, 1.0 + lines * (0.6 + 0.55 * len(rows) / len(panels)))
    figure, grid = plt.subplots(lines, 2, figsize=size, squeeze=False, sharex=True, layout="constrained")
    for axis, (op, which) in zip(grid.flat, panels, strict=False):
        chosen = [row for row in rows if (row["op"], row["pass"]) == (op, which)]
        height = 0.8 / len(forms)
        for index, form in enumerate(forms):
            bars = [(line + index * height, float(str(row[form]))) for line, row in enumerate(chosen) if form in row]
            label = form.removesuffix(" / fused")
            if bars:
                places, ratios = zip(*bars, strict=True)
                axis.barh(places, ratios, height, label=label, align="edge", color=f"C{index}")
        labels = [f"{row['layout']} {row['dtype']} {row['pixels']} px" for row in chosen]
        axis.set(title=f"{op}, {which}", xscale="log", yticks=[line + 0.4 for line in range(len(chosen))])
        axis.set_yticklabels(labels, fontsize=7)
        axis.axvline(1, color="black", linewidth=0.8)
        axis.invert_yaxis()
    handles, names = max((axis.get_legend_handles_labels() for axis in grid.flat), key=lambda legend: len(legend[1]))
    figure.legend(handles, names, loc="outside upper center", ncols=len(names))
    for axis in grid[-1]:
        axis.set_xlabel("time / fused operation's time")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    names = [contest.name for contest in contests()]
    parser.add_argument("--ops", nargs="+", default=names, choices=names)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--dtypes", nargs="+", default=["float32"], choices=list(DTYPES))
    parser.add_argument("--layouts", nargs="+", default=list(LAYOUTS), choices=list(LAYOUTS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--inputs", type=int, default=1, help="inputs that are taken in turn")
    parser.add_argument("--isa", choices=cpu.INSTRUCTION_SETS, help="run with this instruction set")
    parser.add_argument("--rivals", action="store_true", help="torch.compile, timm, kornia, antialiased-cnns")
    parser.add_argument("--image", type=Path, help="file for the plot, PNG or SVG")
    add_outputs(parser)
    options = parser.parse_args()
    if options.inputs < 1:
        parser.error(f"argument --inputs: {options.inputs} is not a positive number")
    if ops.backends()["cpu"] != "active":
        raise SystemExit(f"the native kernels do not run: {ops.backends()['cpu']}")
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    rows: list[Row] = []
    with cpu.use_instruction_set(options.isa or cpu.instruction_set()):
        used, best = cpu.instruction_set(), cpu.instruction_sets()[-1]
        kernels = used if used == best else f"{used} (by choice: the machine has {best})"
        head = (
            f"{processor()}, {options.threads} thread{'s' * (options.threads > 1)}, {kernels}, "
            f"torch {torch.__version__}; medians of paired ratios over {options.rounds} rounds"
            + f", {options.inputs} inputs in turn" * (options.inputs > 1)
            + "."
        )
        if options.rivals and missing_rivals():
            head += f" Not installed, so left out: {', '.join(missing_rivals())}."
        print(head)
        more = {"rivals": rivals} if options.rivals else {}
        for contest in contests():
            for layout in options.layouts if contest.name in options.ops else ():
                for dtype in options.dtypes:
                    for pixels in options.sizes:
                        for row in measure(
                            contest, layout, dtype, pixels, rounds=options.rounds, inputs=options.inputs, **more
                        ):
                            rows.append(row)
                            print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    if options.output is not None:
        write_csv(options.output, "ops.csv", rows)
    if options.image is not None:
        options.image.parent.mkdir(parents=True, exist_ok=True)
        plot(rows, options.image)
        print(options.image)
    if options.markdown is not None:
        shapes = ", ".join(f"{n} x {c} at {pixels} px" for pixels, (n, c) in SIZES.items() if pixels in options.sizes)
        body = (
            f'{head}\n\nImages x channels: {shapes}. "x bound" is the time over the time to move the bytes, '
            '"X / fused" how many times as long X takes, "saved" what the backward keeps beside the input, in units '
            f"of the input.\n\n{as_markdown(rows)}"
        )
        command = "benchmarks/ops.py" + f" --isa {options.isa}" * bool(options.isa)
        replace_section(options.markdown, command + f" --inputs {options.inputs}" * (options.inputs > 1), body)


if __name__ == "__main__":
    main()
