"""`dealias profile`: rank the downsampling sites by the shift-variance that each adds."""

from __future__ import annotations

from itertools import compress
from pathlib import Path
from typing import Annotated

import typer

from dealias.cli.common import Device, Models, Output, Seed, app, say, show_progress, show_table


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
    from dealias.evaluation.profiles import PROFILES, TABLE, profile_networks, write_profiles
    from dealias.files import OutputFolder
    from dealias.models.spec import inputs_of, label_models
    from dealias.report.profiles import SITE_COLUMNS, render_profiles, site_rows

    specs = label_models(models)
    files = [PROFILES, TABLE, "report.html"]
    with OutputFolder(output, "profile", writes=files, inputs=inputs_of(specs)) as folder:
        with show_progress() as on_progress:
            stored = profile_networks(
                specs,
                images,
                count=count,
                reach=reach,
                device=device,
                batch_size=batch_size,
                seed=seed,
                on_progress=on_progress,
            )
        write_profiles(folder, stored)
        page = folder.write("report.html", render_profiles(stored))
    fits = [column != "maximum" for column in SITE_COLUMNS]  # a terminal is too narrow for it
    for label, profile in stored.profiles.items():
        show_table(compress(SITE_COLUMNS, fits), (compress(row, fits) for row in site_rows(profile)), title=label)
    say(page)
