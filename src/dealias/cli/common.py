"""What the commands share: the app, options that mean the same everywhere, progress and tables."""

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


@contextmanager
def show_progress() -> Iterator[OnProgress]:
    """A progress bar on a terminal, nothing elsewhere."""
    columns = (TextColumn("{task.description:<30}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("starting", total=1.0)
        yield lambda stage, done: progress.update(task, description=stage, completed=done)
