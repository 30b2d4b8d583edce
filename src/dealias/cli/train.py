"""`dealias train`, `finetune` and `recipes`: networks trained from scratch or from a baseline's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from dealias.cli.common import (
    ConfiguredModel,
    Limit,
    NewHead,
    Output,
    Resume,
    Seed,
    Weights,
    Workers,
    app,
    show_progress,
)

Data = Annotated[
    str | None,
    typer.Option(
        help="Class folders, WebDataset shards, a Hugging Face dataset on disk, or hf:NAME for a stream; with the "
        "subfolders train and val, or beside --val-data."
    ),
]
ValData = Annotated[str | None, typer.Option(help="To measure on; default: DATA/val, else a tenth of the data.")]
FilterText = Annotated[str | None, typer.Option("--filter", help="Of the anti-aliasing; default: bin4.")]
Epochs = Annotated[int | None, typer.Option(help="In place of the recipe's.", min=1)]
BatchSize = Annotated[int | None, typer.Option(help="Images in a step, over all processes.", min=1)]
LearningRate = Annotated[float | None, typer.Option(help="In place of the recipe's.")]
ShiftAugmentation = Annotated[
    bool | None,
    typer.Option("--shift-augmentation/--no-shift-augmentation", help="Random crops or none; default: the recipe's."),
]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE, any setting of the recipe; repeatable.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")]


@app.command()
def train(
    model: ConfiguredModel,
    recipe: Annotated[str, typer.Option(help="One of `dealias recipes`, or a YAML file.")] = "zhang2019-imagenet",
    data: Data = None,
    val_data: ValData = None,
    weights: Weights = None,
    new_head: NewHead = False,
    antialias: Annotated[
        bool | None, typer.Option("--antialias/--no-antialias", help="Train the anti-aliased network.")
    ] = None,
    filter: FilterText = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    shift_augmentation: ShiftAugmentation = None,
    overrides: Overrides = None,
    limit: Limit = None,
    seed: Seed = 0,
    device: Device = "auto",
    workers: Workers = None,
    resume: Resume = False,
    output: Output = Path("runs/train"),
) -> None:
    """Train a network from scratch, with or without anti-aliasing; stop and --resume it as you like."""
    _run(**locals())


@app.command()
def finetune(
    model: ConfiguredModel,
    weights: Annotated[Path, typer.Option(help="The baseline's checkpoint: safetensors or .pth.")],
    recipe: Annotated[
        str,
        typer.Option(help="One of `dealias recipes`, or a YAML file; others than *-finetune at a tenth of the rate."),
    ] = "zhang2019-finetune",
    data: Data = None,
    val_data: ValData = None,
    new_head: NewHead = False,
    antialias: Annotated[bool, typer.Option("--antialias/--no-antialias", help="Anti-alias the network.")] = True,
    filter: FilterText = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    shift_augmentation: ShiftAugmentation = None,
    overrides: Overrides = None,
    limit: Limit = None,
    seed: Seed = 0,
    device: Device = "auto",
    workers: Workers = None,
    resume: Resume = False,
    output: Output = Path("runs/finetune"),
) -> None:
    """Train the anti-aliased form of a network on from the baseline's weights, at a tenth of the learning rate."""
    _run(**locals(), scale_learning_rate=0.1)


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this one, as it is written.")] = None,
) -> None:
    """List the recipes, or print one; --set KEY=VALUE overrides any of its settings."""
    from dealias.training.settings import recipe_names, recipe_text

    if name is not None:
        print(recipe_text(name), end="")
        return
    table = Table("recipe", "", box=None)
    for each in recipe_names():
        table.add_row(each, recipe_text(each).splitlines()[0].removeprefix("# "))
    Console().print(table)


def _run(
    *,
    model: str,
    recipe: str,
    data: str | None,
    val_data: str | None,
    weights: Path | None,
    new_head: bool,
    overrides: list[str] | None,
    limit: int | None,
    seed: int,
    device: str,
    workers: int | None,
    resume: bool,
    output: Path,
    scale_learning_rate: float = 1.0,
    **options: Any,
) -> None:
    """Train and show the outcome; `options` are the settings that have options of their own."""
    from dealias.errors import InputError
    from dealias.models import parse_model
    from dealias.optional import require
    from dealias.report.training import write_comparison
    from dealias.training import Config, load_recipe, parse_overrides, recipe_data
    from dealias.training import train as run

    for package in ("jinja2", "matplotlib"):
        require(package)  # now, not after the training
    name, own = parse_model(model)
    given = {key: value for key, value in options.items() if value is not None}
    settings = load_recipe(
        recipe,
        model=name,
        overrides=own | given | parse_overrides(overrides or []),
        scale_learning_rate=scale_learning_rate,
    )
    if "filter" in given and not settings.antialias:
        raise InputError(f"filter={settings.filter!r} changes nothing in a network as it is: add --antialias")
    config = Config(
        model=name,
        settings=settings,
        recipe=recipe,
        data=data or recipe_data(recipe),
        val_data=val_data,
        weights=None if weights is None else str(weights),
        new_head=new_head,
        limit=limit,
        seed=seed,
    )
    with show_progress() as on_progress:
        found = run(config, output, resume=resume, device=device, workers=workers, on_progress=on_progress)
    if not found["is_main_process"]:
        return
    console = Console(highlight=False)
    console.print(found["description"], markup=False, soft_wrap=True)
    shares = ", ".join(
        f"{key.replace('_', ' ')} {100 * value:.1f}%"
        for key, value in found.items()
        if key.endswith(("accuracy", "consistency"))
    )
    console.print(f"after {settings.epochs} epochs: {shares}", style="bold", markup=False, soft_wrap=True)
    console.print(output / "checkpoints" / "best.safetensors", soft_wrap=True)
    console.print(write_comparison([output], output), soft_wrap=True)
