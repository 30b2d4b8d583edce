"""`dealias repair`: an anti-aliased network learns from unlabelled images to agree with its original."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from dealias.cli.common import (
    ConfiguredModel,
    CropSize,
    Device,
    FilterText,
    ImageSize,
    Limit,
    NewHead,
    Output,
    Resume,
    Seed,
    app,
    show_progress,
)
from dealias.filters import parse_filter


@app.command()
def repair(
    model: ConfiguredModel,
    weights: Annotated[Path, typer.Option(help="The original's checkpoint: safetensors or .pth.")],
    images: Annotated[str, typer.Option(help="Folder of images, or class folders: labels only add the accuracy.")],
    new_head: NewHead = False,
    epochs: Annotated[int, typer.Option(help="Passes over the images that are not held out.", min=1)] = 5,
    min_agreement: Annotated[
        float, typer.Option(help="Share of the held-out images on which original and repaired must agree.")
    ] = 0.98,
    held_out: Annotated[float, typer.Option(help="Share of the images never trained on, for all figures.")] = 0.2,
    average_shifts: Annotated[
        bool, typer.Option("--average-shifts", help="Learn from the original's mean over shifts of an image.")
    ] = False,
    filter: FilterText = "bin4",
    learning_rate: Annotated[float, typer.Option(help="Peak of the one-cycle schedule.")] = 0.01,
    batch_size: Annotated[int, typer.Option(help="Images in a step.", min=2)] = 64,
    limit: Limit = None,
    image_size: ImageSize = None,
    crop_size: CropSize = None,
    device: Device = "auto",
    seed: Seed = 0,
    output: Output = Path("runs/repair"),
    resume: Resume = False,
) -> None:
    """Anti-alias a trained network and repair it with unlabelled images; fails where it agrees too little."""
    from dealias.report.metric_text import format_share
    from dealias.training.repair_folder import repair_from_folder

    with show_progress() as on_progress:
        outcome = repair_from_folder(
            model,
            weights,
            images,
            output,
            new_head=new_head,
            filter=parse_filter(filter),
            device=device,
            limit=limit,
            image_size=image_size,
            crop_size=crop_size,
            on_progress=on_progress,
            epochs=epochs,
            min_agreement=min_agreement,
            held_out=held_out,
            average_shifts=average_shifts,
            learning_rate=learning_rate,
            batch_size=batch_size,
            seed=seed,
            resume=resume,
        )
    results = outcome.results
    console = Console(highlight=False)
    table = Table("held-out images", "agreement", f"consistency ({results['consistency_mode']})", "accuracy")
    for name in ("original", "converted", "reestimated", "repaired"):
        row = results[name]
        cells = [
            f"{format_share(row[key])} [{', '.join(map(format_share, row[f'{key}_interval']))}]" if key in row else ""
            for key in ("agreement", "consistency", "accuracy")
        ]
        table.add_row(name, *cells)
    console.print(table)
    if skipped := results["settings"]["images"]["skipped"]:
        console.print(f"{len(skipped)} files are no readable images: see results.json", markup=False, soft_wrap=True)
    agreement = f"it agrees with the original on {format_share(results['repaired']['agreement'])} of "
    agreement += f"{results['images']['held_out']} held-out images, min_agreement is {format_share(min_agreement)}"
    if not outcome.succeeded:
        Console(stderr=True, highlight=False).print(
            f"error: the repair failed: {agreement}; more images or epochs may do. No weights were written.",
            style="red",
            markup=False,
            soft_wrap=True,
        )
        console.print(output / "results.json", soft_wrap=True)
        raise typer.Exit(1)
    console.print(f"repaired: {agreement}", style="bold", markup=False, soft_wrap=True)
    console.print(output / "model.safetensors", soft_wrap=True)
    console.print(output / "results.json", soft_wrap=True)
