"""`dealias profile`: rank the downsampling sites by the shift-variance that each adds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from dealias.cli.common import Device, Models, Output, Seed, app, show_progress


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
    from dealias.evaluation.profiles import run_profile

    with show_progress() as on_progress:
        profiles = run_profile(
            models,
            images,
            output,
            count=count,
            reach=reach,
            device=device,
            batch_size=batch_size,
            seed=seed,
            on_progress=on_progress,
        )
    console = Console()
    for label, profile in profiles.items():
        table = Table("site", "kind", "grid", "distance before", "after", "added", "periodicity", title=label)
        for site in profile.ranked():
            table.add_row(
                site.path,
                site.kind.replace("_", " "),
                f"{site.grid[0]} px",
                *(f"{value:.4f}" for value in (site.before, site.after, site.added)),
                "-" if site.periodicity is None else f"{site.periodicity:.2f}",
            )
        console.print(table)
    console.print(output / "report.html", soft_wrap=True, highlight=False)
