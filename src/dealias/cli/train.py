"""`dealias train`: train a network from scratch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from dealias.cli import common
from dealias.cli.common import app, show_progress

if TYPE_CHECKING:
    from dealias.training import Config


@app.command("train")
def train_network(
    model: common.ConfiguredModel,
    recipe: Annotated[str, typer.Option(help="One of `dealias recipes`, or a YAML file.")] = "zhang2019-imagenet",
    data: common.Data = None,
    val_data: common.ValData = None,
    weights: common.Weights = None,
    new_head: common.NewHead = False,
    antialias: Annotated[
        bool | None, typer.Option("--antialias/--no-antialias", help="Train the anti-aliased network.")
    ] = None,
    filter: common.RecipeFilter = None,
    epochs: common.Epochs = None,
    batch_size: common.BatchSize = None,
    learning_rate: common.LearningRate = None,
    shift_augmentation: common.ShiftAugmentation = None,
    overrides: common.Overrides = None,
    limit: common.Limit = None,
    seed: common.Seed = 0,
    device: common.TrainingDevice = "auto",
    workers: common.Workers = None,
    resume: common.Resume = False,
    output: common.Output = Path("runs/train"),
) -> None:
    """Train a network from scratch, with or without anti-aliasing. A run that was stopped goes on with --resume."""
    config = configure(
        model,
        recipe,
        {
            "antialias": antialias,
            "filter": filter,
            "epochs": epochs,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "shift_augmentation": shift_augmentation,
        },
        overrides or [],
        data=data,
        val_data=val_data,
        weights=weights,
        new_head=new_head,
        limit=limit,
        seed=seed,
    )
    train_and_report(config, output, device=device, workers=workers, resume=resume)


def configure(
    model: str,
    recipe: str,
    settings: Mapping[str, Any],
    overrides: Sequence[str],
    *,
    scale_learning_rate: float = 1.0,
    data: str | None,
    weights: Path | None,
    **more: Any,
) -> Config:
    """The run that the options describe.

    Args:
        model: NAME or NAME,KEY=VALUE,...
        recipe: name of the recipe.
        settings: settings with an option of their own; None leaves the recipe's.
        overrides: KEY=VALUE of `--set`.
        scale_learning_rate: as for `load_recipe`.
        data, weights, more: attributes of `Config`.
    """
    from dealias.errors import InputError
    from dealias.models import parse_model
    from dealias.training import Config, load_recipe, parse_overrides, recipe_data

    name, own = parse_model(model)
    given = {key: value for key, value in settings.items() if value is not None}
    chosen = load_recipe(
        recipe,
        model=name,
        overrides=own | given | parse_overrides(overrides),
        scale_learning_rate=scale_learning_rate,
    )
    if "filter" in given and not chosen.antialias:
        raise InputError(f"filter={chosen.filter!r} changes nothing in a network as it is: add --antialias")
    place = None if weights is None else str(weights)
    return Config(name, chosen, recipe, data=data or recipe_data(recipe), weights=place, **more)


def train_and_report(config: Config, output: Path, *, device: str, workers: int | None, resume: bool) -> None:
    """Train, print the outcome, and write the report."""
    from dealias.errors import reason
    from dealias.optional import require
    from dealias.report.training import write_comparison
    from dealias.training import train as run

    for package in ("jinja2", "matplotlib"):
        require(package)  # now, not after the training
    with show_progress() as on_progress:
        found = run(config, output, resume=resume, device=device, workers=workers, on_progress=on_progress)
    if not found["is_main_process"]:
        return
    console = Console(highlight=False)
    console.print(found["description"], markup=False, soft_wrap=True)
    fractions = ", ".join(
        f"{key.replace('_', ' ')} {100 * value:.1f}%"
        for key, value in found.items()
        if key.endswith(("accuracy", "consistency"))
    )
    console.print(f"after {config.settings.epochs} epochs: {fractions}", style="bold", markup=False, soft_wrap=True)
    console.print(output / "checkpoints" / "best.safetensors", soft_wrap=True)
    try:
        console.print(write_comparison([output], output), soft_wrap=True)
    except Exception as error:  # the training is done and its files are written
        warnings.warn(f"the report could not be written: {reason(error)}; try dealias report {output}", stacklevel=2)
