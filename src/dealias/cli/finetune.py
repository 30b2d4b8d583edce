"""`dealias finetune`: train the anti-aliased form of a network on from a baseline's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dealias.cli import common
from dealias.cli.common import app
from dealias.cli.train import run_training

RATE = 0.1
"""Factor of the learning rate of a recipe that is not made for fine-tuning."""


@app.command("finetune")
def finetune_network(
    model: common.ConfiguredModel,
    weights: Annotated[Path, typer.Option(help="The baseline's checkpoint: safetensors or .pth.")],
    recipe: Annotated[
        str,
        typer.Option(
            help="One of `dealias recipes`, or a YAML file. The learning rate of a recipe that is not made for "
            "fine-tuning is divided by ten."
        ),
    ] = "zhang2019-finetune",
    data: common.Data = None,
    val_data: common.ValData = None,
    new_head: common.NewHead = False,
    antialias: Annotated[bool, typer.Option("--antialias/--no-antialias", help="Anti-alias the network.")] = True,
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
    output: common.Output = Path("runs/finetune"),
) -> None:
    """Train the anti-aliased form of a network on from the baseline's weights, at a tenth of the learning rate."""
    run_training(locals(), scale_learning_rate=RATE)
