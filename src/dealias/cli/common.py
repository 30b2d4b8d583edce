"""The app, the options that several commands have, and the progress bar."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from dealias.progress import OnProgress

app = typer.Typer(
    name="dealias",
    help="Make convolutional networks stable under small shifts: measure, fix, train, see.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfiguredModel = Annotated[
    str,
    typer.Argument(
        help="torchvision:NAME, timm:NAME, dealias:NAME or package.module:factory; or NAME,KEY=VALUE,... with "
        "num_classes, in_chans, padding_mode."
    ),
]
Weights = Annotated[Path | None, typer.Option(help="Checkpoint: safetensors or .pth.")]
NewHead = Annotated[
    bool, typer.Option("--new-head", help="Load all but the head of weights with another number of classes.")
]
Output = Annotated[Path, typer.Option(help="Folder to write into.")]
Limit = Annotated[int | None, typer.Option(help="Use at most this many images.", min=1)]
Seed = Annotated[int, typer.Option(help="Seed of every random draw.", min=0)]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps or auto.")]
Workers = Annotated[int | None, typer.Option(help="Processes that read images; default: the cores but one.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run in the output folder.")]
ImageSize = Annotated[int | None, typer.Option(help="Resize the short side to it; default: the model's own.")]
CropSize = Annotated[int | None, typer.Option(help="What the network sees; default: the model's own.")]
FilterText = Annotated[str, typer.Option("--filter", help="Filter of the anti-aliased copy: name, length or taps.")]

# Options of `train` and `finetune`. Those that are None leave the recipe's setting.
Data = Annotated[
    str | None,
    typer.Option(
        help="Class folders, WebDataset shards, a Hugging Face dataset on disk, or hf:NAME for a stream; with the "
        "subfolders train and val, or beside --val-data."
    ),
]
ValData = Annotated[
    str | None, typer.Option(help="Images to measure on; default: DATA/val, else a tenth of the images.")
]
RecipeFilter = Annotated[str | None, typer.Option("--filter", help="Of the anti-aliasing; default: bin4.")]
Epochs = Annotated[int | None, typer.Option(help="Passes over the images; default: the recipe's.", min=1)]
BatchSize = Annotated[
    int | None, typer.Option(help="Images in a step, over all processes; default: the recipe's.", min=1)
]
LearningRate = Annotated[float | None, typer.Option(help="Highest of the schedule; default: the recipe's.")]
ShiftAugmentation = Annotated[
    bool | None,
    typer.Option("--shift-augmentation/--no-shift-augmentation", help="Random crops or none; default: the recipe's."),
]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE, any setting of the recipe; repeatable.")]
TrainingDevice = Annotated[str, typer.Option("--device", help="cpu, cuda, mps or auto.")]


@contextmanager
def show_progress() -> Iterator[OnProgress]:
    """A progress bar on a terminal, nothing elsewhere."""
    columns = (TextColumn("{task.description:<30}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("starting", total=1.0)
        yield lambda stage, done: progress.update(task, description=stage, completed=done)
