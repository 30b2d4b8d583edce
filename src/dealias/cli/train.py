"""`dealias train`: train a network from scratch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dealias.cli import common
from dealias.cli.common import app, say, show_progress

if TYPE_CHECKING:
    from dealias.training import Config

_SETTINGS = ("antialias", "filter", "epochs", "batch_size", "learning_rate", "shift_augmentation")
"""The options that replace a setting of the recipe, unless they are None."""


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
    run_training(locals())


def run_training(options: Mapping[str, Any], *, scale_learning_rate: float = 1.0) -> None:
    """Train as the options of `train` or `finetune` say, print the outcome, and write the report."""
    from dealias.errors import reason
    from dealias.optional import require
    from dealias.report.training import write_comparison
    from dealias.training import train

    config = _configure(options, scale_learning_rate)
    output: Path = options["output"]
    for package in ("jinja2", "matplotlib"):
        require(package)  # now, not after the training
    how = {key: options[key] for key in ("device", "workers", "resume")}
    with show_progress() as on_progress:
        found = train(config, output, **how, on_progress=on_progress)
    if not found["is_main_process"]:
        return
    say(found["description"])
    fractions = ", ".join(
        f"{key.replace('_', ' ')} {100 * value:.1f}%"
        for key, value in found.items()
        if key.endswith(("accuracy", "consistency"))
    )
    say(f"after {config.settings.epochs} epochs: {fractions}", style="bold")
    say(output / "checkpoints" / "best.safetensors")
    try:
        say(write_comparison([output], output))
    except Exception as error:  # the training is done and its files are written
        warnings.warn(f"the report could not be written: {reason(error)}; try dealias report {output}", stacklevel=2)


def _configure(options: Mapping[str, Any], scale_learning_rate: float) -> Config:
    from dealias.errors import InputError
    from dealias.models import parse_model
    from dealias.training import Config, load_recipe, parse_overrides, recipe_data

    (name, own), recipe, weights = parse_model(options["model"]), options["recipe"], options["weights"]
    given = {key: options[key] for key in _SETTINGS if options[key] is not None}
    overrides = own | given | parse_overrides(options["overrides"] or [])
    settings = load_recipe(recipe, model=name, overrides=overrides, scale_learning_rate=scale_learning_rate)
    if "filter" in given and not settings.antialias:
        raise InputError(f"filter={settings.filter!r} changes nothing in a network as it is: add --antialias")
    return Config(
        name,
        settings,
        recipe,
        data=options["data"] or recipe_data(recipe),
        weights=None if weights is None else str(weights),
        **{key: options[key] for key in ("val_data", "new_head", "limit", "seed")},
    )
