"""`dealias profile`: rank the downsampling sites by the shift-variance that each adds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from dealias.cli.common import Device, Models, Output, Seed, app, say, show_progress


@app.command("profile")
def rank_sites(
    models: Models,
    images: Annotated[
        str | None, typer.Option(help="As for evaluate; default: photographs or digits from installed packages.")
    ] = None,
    count: Annotated[int, typer.Option(help="Number of images.", min=1)] = 4,
    reach: Annotated[
        int | None,
        typer.Option(
            help="Measure every shift below this many pixels; default: all for images up to 32 x 32, else a sample.",
            min=1,
        ),
    ] = None,
    device: Device = "auto",
    batch_size: Annotated[int, typer.Option(help="Images in a forward pass.", min=1)] = 32,
    output: Output = Path("runs/profile"),
    seed: Seed = 0,
) -> None:
    """Rank a network's downsampling sites by the shift-variance that they add. Start here when a network flickers."""
    options = {**locals()}  # the arguments of `run_profile`
    from dealias.evaluation.profiles import run_profile
    from dealias.report.profiles import SITE_COLUMNS, site_rows

    with show_progress() as on_progress:
        profiles = run_profile(**options, on_progress=on_progress)
    console = Console()
    shown = [column for column in SITE_COLUMNS if column != "maximum"]  # it fits a terminal without it
    for label, profile in profiles.items():
        table = Table(*shown, title=label)
        for row in site_rows(profile):
            table.add_row(*(cell for column, cell in zip(SITE_COLUMNS, row, strict=True) if column in shown))
        console.print(table)
    say(output / "report.html")
