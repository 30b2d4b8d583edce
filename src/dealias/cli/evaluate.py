"""`dealias evaluate`: measure networks side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dealias.cli import common
from dealias.cli.common import app, say, show_progress, show_table

Images = Annotated[str, typer.Option(help="Class folders, WebDataset shards or a Hugging Face dataset on disk.")]


@app.command("evaluate")
def compare_networks(
    models: common.Models,
    images: Images,
    task: common.Task = "classes",
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Separated by commas, or all: see docs/evaluation.md. Default: accuracy,consistency,diagonal,"
            "equivariance; stability,equivariance for networks that are no classifiers."
        ),
    ] = None,
    limit: common.Limit = None,
    workers: common.Workers = None,
    device: common.Device = "auto",
    batch_size: Annotated[str, typer.Option(help="Images in a forward pass, or auto.")] = "auto",
    resume: common.Resume = False,
    output: common.Output = Path("runs/evaluate"),
    seed: common.Seed = 0,
    image_size: common.ImageSize = None,
    crop_size: common.CropSize = None,
    difficulty: Annotated[int, typer.Option(help="Of ImageNet-P: 1, 2 or 3.")] = 1,
    imagenet_c: Annotated[Path | None, typer.Option(help="Folder of the released ImageNet-C, read as it is.")] = None,
    imagenet_p: Annotated[Path | None, typer.Option(help="Folder of the released ImageNet-P, read as it is.")] = None,
    imagenet_p_rates: Annotated[
        Path | None, typer.Option(help="CSV of the flip rates and T5Ds that mFR and mT5D divide by.")
    ] = None,
) -> None:
    """Measure networks side by side: accuracy, shift consistency, ImageNet-C, ImageNet-P, and where aliasing enters."""
    options = {**locals(), "metrics": None if metrics is None else metrics.split(",")}  # the arguments of `evaluate`
    from dealias.errors import InputError
    from dealias.evaluation import evaluate

    if batch_size != "auto" and not batch_size.isdecimal():
        raise InputError(f"batch_size={batch_size!r} is not a number: use auto or a number of images")
    options["batch_size"] = None if batch_size == "auto" else int(batch_size)
    with show_progress() as on_progress:
        results = evaluate(**options, on_progress=on_progress)
    if results:  # torchrun's first process tells
        show_evaluation(output)


def show_evaluation(folder: Path) -> None:
    """Write the report; print the finding, the table of the networks and the path of the report."""
    from dealias.evaluation.results import read_results
    from dealias.report.evaluation import evaluation_columns, evaluation_finding, evaluation_rows, write_report

    page = write_report(folder)
    results, _ = read_results(folder)
    say(evaluation_finding(results), style="bold")
    show_table(evaluation_columns(results), evaluation_rows(results))
    if skipped := results.images.skipped:
        say(f"{len(skipped)} files were skipped: see the report")
    say(page)
