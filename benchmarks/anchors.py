"""What an anchor costs beside a copy of its map, on one core.

    python benchmarks/anchors.py --markdown docs/invariance.md

The time of an anchor of stride 2 over that of `x.clone()`, which returns new memory too: medians of the ratios within
15 rounds, by CPU time, so that other load on the machine does not count.
"""

from __future__ import annotations

import argparse

import torch
from tables import add_outputs, as_markdown, replace_section, write_csv

from dealias.benchmark import DTYPES, LAYOUTS, SIZES, Row, median_ratio, processor, race, step
from dealias.ops import cpu
from dealias.ops.anchor import anchored


def measure(layout: str, dtype: str, pixels: int, rounds: int) -> Row:
    """A row for one map: the ratios of the forward, and of forward and backward, to one copy."""
    images, channels = SIZES[pixels]
    x = torch.randn(images, channels, pixels, pixels).to(DTYPES[dtype]).contiguous(memory_format=LAYOUTS[layout])
    forms = {"forward": False, "forward + backward": True}
    steps = {name: step(lambda x: anchored(x, (2, 2))[0], x, backward) for name, backward in forms.items()}
    times = race({**steps, "copy": x.clone}, rounds, least=0.05)
    ratios = {name: round(median_ratio(times[name], times["copy"]), 2) for name in forms}
    return {"layout": layout, "dtype": dtype, "pixels": pixels, "images x channels": f"{images} x {channels}", **ratios}


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--isa", choices=cpu.INSTRUCTION_SETS, help="run with this instruction set")
    add_outputs(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with cpu.use_instruction_set(options.isa or cpu.instruction_set()):
        machine = f"{processor()}, 1 thread, {cpu.instruction_set()}, torch {torch.__version__}"
        for layout in LAYOUTS:
            for dtype in DTYPES:
                for pixels in SIZES:
                    rows.append(measure(layout, dtype, pixels, options.rounds))
                    print(rows[-1], flush=True)
    if options.output is not None:
        write_csv(options.output, "anchors.csv", rows)
    if options.markdown is not None:
        body = f"{machine}: time over that of a copy.\n\n{as_markdown(rows)}"
        replace_section(options.markdown, "benchmarks/anchors.py", body)


if __name__ == "__main__":
    main()
