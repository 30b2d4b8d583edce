"""`dealias bench`: time the operations on this CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column

from dealias.cli.common import app, say, show_progress, show_table

PIXELS = 56


@app.command("bench")
def time_operations(
    threads: Annotated[int, typer.Option(help="Threads that PyTorch and the operations use.", min=1)] = 1,
    rounds: Annotated[int, typer.Option(help="Paired measurements of each form.", min=1)] = 7,
    output: Annotated[Path | None, typer.Option(help="Folder for the table as CSV: bench.csv.")] = None,
) -> None:
    """Compare the operations on this CPU with pure PyTorch and with PyTorch's own pooling, in half a minute."""
    import torch

    from dealias import ops
    from dealias.benchmark import LAYOUTS, SIZES, as_csv, contests, measure, processor
    from dealias.files import OutputFolder
    from dealias.ops import cpu

    folder = None if output is None else OutputFolder(output, "bench", writes=["bench.csv"])
    torch.set_num_threads(threads)
    rows = []
    with show_progress() as on_progress:
        turns = [(contest, layout) for contest in contests() for layout in LAYOUTS]
        for done, (contest, layout) in enumerate(turns):
            on_progress(f"{contest.name} {layout}", done / len(turns))
            rows += measure(contest, layout, pixels=PIXELS, rounds=rounds)
    # short headings, so that the table fits a terminal of 80 columns
    headings = {
        "op": "op",
        "layout": "",
        "pass": "",
        "ms": "ms",
        "x bound": "bound",
        "unfused / fused": "unfused",
        "MaxPool2d(3,2,1) / fused": "MaxPool",
        "AvgPool2d(2) / fused": "AvgPool",
    }
    images, channels = SIZES[PIXELS]
    kernels = cpu.instruction_set() if ops.backends()["cpu"] == "active" else "pure PyTorch"
    title = (
        f"{processor()}, {kernels}, {threads} thread{'s' * (threads > 1)}, float32, "
        f"{images} x {channels} maps of {PIXELS} px"
    )
    columns = (Column(heading, no_wrap=True) for heading in headings.values())
    lines = []
    for row in rows:
        cells = (row.get(name, "") for name in headings)
        texts = (f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in cells)
        lines.append([text.replace("forward + ", "+ ") for text in texts])
    show_table(columns, lines, title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    Console(highlight=False).print(
        "ms: time of the operation. bound: this time divided by the time to move its bytes. unfused (pure PyTorch), "
        "MaxPool, AvgPool: their times divided by this time."
    )
    say(f"native kernels: {ops.backends()['cpu']}")
    if folder is not None:
        with folder:
            say(folder.write("bench.csv", as_csv(rows)))
