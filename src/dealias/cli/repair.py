"""`dealias repair`: teach an anti-aliased network, with unlabelled images, to agree with its original."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dealias.cli import common
from dealias.cli.common import app, say, show_progress, show_table
from dealias.filters import parse_filter

if TYPE_CHECKING:
    from dealias.repair import RepairResult


_KeepNorms = Annotated[bool, typer.Option("--keep-norms", help="Leave the batch norms' statistics as the original's.")]


@app.command("repair")
def repair_network(
    model: common.ConfiguredModel,
    weights: Annotated[Path, typer.Option(help="The original's checkpoint: safetensors or .pth.")],
    images: Annotated[
        str, typer.Option(help="Folder of images, class folders (labels add the accuracy alone), or a video.")
    ],
    new_head: common.NewHead = False,
    task: Annotated[
        str, typer.Option(help="What the network returns: classes, detection, segmentation, keypoints, ...; or auto.")
    ] = "auto",
    epochs: Annotated[int, typer.Option(help="Passes over the images that are not held out.", min=1)] = 5,
    min_agreement: Annotated[
        float, typer.Option(help="Fraction of the held-out images whose predictions must be the original's.")
    ] = 0.98,
    min_consistency: Annotated[
        float | None, typer.Option(help="Shift consistency on the held-out images to reach; default: the original's.")
    ] = None,
    held_out: Annotated[
        float, typer.Option(help="Fraction of the images that is never trained on; all figures are measured there.")
    ] = 0.2,
    keep_norms: _KeepNorms = False,
    average_shifts: Annotated[
        bool, typer.Option("--average-shifts", help="Learn from the original's mean over shifts of an image.")
    ] = False,
    filter: common.FilterText = "bin4",
    learning_rate: Annotated[float, typer.Option(help="Peak of the one-cycle schedule.")] = 0.01,
    batch_size: Annotated[int, typer.Option(help="Images in a step.", min=2)] = 64,
    pan: Annotated[int, typer.Option(help="Frames of a pan over each image, by 1.25 pixels a frame.", min=1)] = 1,
    part: Annotated[
        list[str] | None,
        typer.Option(help="PATH=SIDE: a network inside, to repair on the images it is given, such as pnet=48; repeat."),
    ] = None,
    limit: common.Limit = None,
    image_size: common.ImageSize = None,
    crop_size: common.CropSize = None,
    device: common.Device = "auto",
    seed: common.Seed = 0,
    output: common.Output = Path("runs/repair"),
    resume: common.Resume = False,
) -> None:
    """Anti-alias a trained network and repair it with unlabelled images; fails where it agrees too little."""
    asked = {**locals(), "filter": parse_filter(filter), "parts": dict(map(_part, part or []))}
    from dealias.models import ModelSpec, parse_model
    from dealias.repair import RepairOptions
    from dealias.repair.from_folder import repair_from_folder
    from dealias.repair.images import ImageChoice

    name, own = parse_model(model)
    options = RepairOptions(**{key: value for key, value in asked.items() if key in RepairOptions.model_fields})
    with show_progress() as on_progress:
        outcome = repair_from_folder(
            ModelSpec(name, weights=str(weights), new_head=new_head, **own),
            ImageChoice(images, limit, image_size, crop_size, pan),
            output,
            options,
            device=device,
            resume=resume,
            on_progress=on_progress,
        )
    if outcome.is_main_process:
        _print(outcome, output)


def _part(text: str) -> tuple[str, int]:
    """A part of a pipeline: its path, and the side of its images."""
    from dealias.errors import InputError

    path, equals, side = text.rpartition("=")
    if not equals or not side.isdecimal():
        raise InputError(f"part={text!r} must be PATH=SIDE, such as pnet=48")
    return path, int(side)


def _print(outcome: RepairResult, output: Path) -> None:
    """Print the figures and the verdict; a failed repair ends the command with exit code 1."""
    from dealias.repair.held_out import FIGURES

    results = outcome.results
    figure = FIGURES[results["task"]]
    rows = []
    for name in ("original", "converted", "reestimated", "repaired"):
        if name not in results:
            continue
        row = results[name]
        cells = (
            f"{figure.text(row[key])} [{', '.join(map(figure.text, row[f'{key}_interval']))}]" if key in row else ""
            for key in ("agreement", "consistency", "accuracy")
        )
        rows.append((name, *cells))
    show_table(("held-out images", "agreement", f"consistency ({results['consistency_mode']})", "accuracy"), rows)
    if skipped := results["settings"]["images"]["skipped"]:
        say(f"{len(skipped)} files cannot be read as images: see results.json")
    if not outcome.succeeded:
        failure = (
            f"error: the repair failed: {'; '.join(results['reasons'])}. No weights were written; --resume goes on"
        )
        say(failure, style="red", error=True)
        say(output / "results.json")
        raise typer.Exit(1)
    agreement, consistency = (figure.text(results["repaired"][key]) for key in ("agreement", "consistency"))
    held_out = results["images"]["held_out"]
    say(f"repaired: agreement {agreement}, consistency {consistency} on {held_out} held-out images", style="bold")
    say(output / "model.safetensors")
    say(output / "results.json")
